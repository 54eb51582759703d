"""When: the work queue, one reconcile from observation to status, kopf's watches, resync and leader election."""
