"""A text embedding server with dynamic batching and the NIM embedding API."""
