"""Fixtures that every suite may use."""

from tests.cluster_fixture import cluster, namespace

__all__ = ["cluster", "namespace"]
