"""kopf only watches: nothing of it reaches the API server by itself."""

from __future__ import annotations

import kopf
from embedding_operator.control.handlers import watch_settings


def test_kopf_posts_no_events_and_scans_nothing() -> None:
    """By default it posts one for every line that a handler logs, which a busy cluster makes a storm."""
    assert kopf.OperatorSettings().posting.enabled, "the default this guards against"
    settings = watch_settings()
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.peering.standalone
