"""A real Kubernetes control plane with a process-based node, on one machine, without containers."""

from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError
from devcluster.settings import ClusterSettings, Image, default_images

__all__ = ["Cluster", "ClusterSettings", "DevclusterError", "Image", "default_images"]
