"""What the cluster holds: children, Pods and the runtime's own answers, read into one frozen `Snapshot`."""
