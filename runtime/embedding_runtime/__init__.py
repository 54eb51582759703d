"""A text embedding server with dynamic batching and the NIM embedding API."""

__version__ = "0.1.0"
