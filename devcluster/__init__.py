"""A real Kubernetes control plane with a process-based node, on one machine, without containers."""
