"""From a model directory or hub repository to vectors: resolve, read, tokenise, forward, pool. Knows no HTTP."""
