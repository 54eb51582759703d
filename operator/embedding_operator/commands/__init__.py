"""What people run by hand: render, diff, status, support-bundle. They read; only `run` writes to a cluster."""
