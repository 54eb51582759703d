"""What the cluster holds: children, Pods, claims and the runtime's own answers, read into one frozen `Snapshot`."""
