"""The node agent: plays kubelet and container runtime with processes of this machine."""
