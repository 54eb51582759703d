"""`python -m embedding_runtime`."""

from embedding_runtime.cli import main

main()
