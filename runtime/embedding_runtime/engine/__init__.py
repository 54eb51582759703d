"""Queueing, batching and running a model. Knows no HTTP, no torch and no transformers."""
