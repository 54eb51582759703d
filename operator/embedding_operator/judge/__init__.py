"""What the cluster's state means: `Snapshot` -> Pod problems, model identity, rollout, load, conditions, status. Pure."""
