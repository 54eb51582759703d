"""The control plane: addresses, certificates, command lines, processes."""
