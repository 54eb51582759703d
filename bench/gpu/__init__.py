"""`python -m bench.gpu`: tokens/s of the usual model sizes on one GPU host, unattended and without a network."""
