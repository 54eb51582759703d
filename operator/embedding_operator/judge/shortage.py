"""Whether stopping an old Pod would make room for a new one that no node can take. Pure.

A rollout may stop a Pod that serves only where that helps. What the scheduler says names what is missing; what the old
Pods ask for tells whether they hold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from embedding_operator.observe.snapshot import PodState

_INSUFFICIENT: Final = re.compile(r"Insufficient ([A-Za-z0-9./_-]+)")
_DEVICES: Final = re.compile(r"cannot allocate all claims", re.I)
_CLAIM_IN_USE: Final = re.compile(
    r"using PersistentVolumeClaim with the same name|in[- ]use by another pod|already in use", re.I
)
"""The scheduler's plugin VolumeRestrictions, of a ReadWriteOncePod claim. A conflict of a volume's node affinity is
none of these: it stays, whoever leaves."""


def missing_resources(message: str) -> frozenset[str]:
    """The resources that a scheduler's message says there is not enough of."""
    return frozenset(name.rstrip(".") for name in _INSUFFICIENT.findall(message))


def _frees_resources(old: PodState, new: PodState) -> bool:
    """Whether `old` holds as much as `new` asks for of everything that is missing."""
    return all(
        0 < new.requests.get(name, 0) <= old.requests.get(name, 0) for name in missing_resources(new.scheduling_message)
    )


def makes_room(old: PodState, new: PodState) -> bool:
    """Whether the end of `old` alone would give the unscheduled `new` what the scheduler says it lacks.

    Only extended resources (their names have a domain), devices claimed by the same template and a claim that one Pod
    at a time may use count: of processors and memory there is rarely one, and more of them than any node has is a
    mistake that no stopped Pod repairs. One Pod, because a rollout in place stops one at a time.
    """
    if new.scheduled or not old.scheduled:
        return False
    message = new.scheduling_message
    if any("/" in name for name in missing_resources(message)):
        return _frees_resources(old, new)
    if _DEVICES.search(message):
        return bool(old.claim_templates & new.claim_templates)
    return _CLAIM_IN_USE.search(message) is not None and bool(old.volume_claims & new.volume_claims)


def gives_way(new: PodState, pods: Iterable[PodState]) -> bool:
    """Whether a Pod of another template would make room for `new`."""
    return any(old.template_hash != new.template_hash and makes_room(old, new) for old in pods)
