"""Benchmarks: what the claims in docs/performance.md rest on."""
