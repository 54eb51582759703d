"""`python -m bench.scale`."""

from bench.scale.cli import main

main()
