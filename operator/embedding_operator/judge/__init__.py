"""What the cluster's state means: a `Snapshot` becomes problems, identity, load, conditions and a status. Pure."""
