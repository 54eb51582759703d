"""Benchmarks: our server beside others on the same machine, in one interleaved run, with honest figures.

`python -m bench` compares servers, `python -m bench.gpu` measures one GPU host, `python -m bench.scale` the operator.
"""
