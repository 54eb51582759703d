"""A Kubernetes operator that turns EmbeddingService resources into running embedding endpoints."""
