"""What stands for kube-proxy, the EndpointSlice controller and cluster DNS."""
