"""What to change: server-side apply of rendered children, deletion of those no longer asked for, status, Events."""
