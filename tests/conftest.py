"""Fixtures that every suite may use, and what is judged over a whole run."""

from tests.cluster.replay import pytest_configure
from tests.cluster_fixture import cluster, namespace

__all__ = ["cluster", "namespace", "pytest_configure"]
