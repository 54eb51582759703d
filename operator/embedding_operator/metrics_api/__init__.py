"""Serves `custom.metrics.k8s.io` from what the Pods answer, so that autoscaling needs no other software."""
