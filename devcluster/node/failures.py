"""Failures on demand: annotations of Pods and nodes that make the agent misbehave as real nodes do. Pure.

On a Pod (also on a running one, with `kubectl annotate`):

- `devcluster/image-pull: fail`, or a number: every pull fails, or takes that many seconds
- `devcluster/start-error: CONTAINER`: that container's command cannot be executed
- `devcluster/oom-kill: CONTAINER[/ANYTHING]`: that container is killed now and reported OOMKilled; change what follows
  the slash to do it again
- `devcluster/kill: CONTAINER[/ANYTHING]`: the same as a plain SIGKILL
- `devcluster/signal: CONTAINER/NUMBER[/ANYTHING]`: that container's first process gets a signal, such as 19 (SIGSTOP)

On a Node:

- `devcluster/lost: "true"`: the node falls silent: no heartbeats, no Pod status, nothing started or stopped
- `devcluster/broken-images: REPOSITORY[,REPOSITORY…]`: pulls of these fail
- `devcluster/slow-images: REPOSITORY=SECONDS[,…]`: the first pull of these takes that long
- `devcluster/broken-devices: RESOURCE[,RESOURCE…]`: Pods that ask for one of these extended resources are refused
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from devcluster.node.images import parse_reference

PREFIX = "devcluster/"
IMAGE_PULL, START_ERROR = PREFIX + "image-pull", PREFIX + "start-error"
OOM_KILL, KILL, SIGNAL = PREFIX + "oom-kill", PREFIX + "kill", PREFIX + "signal"
BROKEN_DEVICES = PREFIX + "broken-devices"
LOST, BROKEN_IMAGES, SLOW_IMAGES = PREFIX + "lost", PREFIX + "broken-images", PREFIX + "slow-images"


@dataclass(frozen=True)
class ImageTrouble:
    """What is wrong with pulling an image."""

    refused: bool = False
    delay: float = 0.0


def annotations_of(item: Mapping[str, Any] | None) -> Mapping[str, str]:
    """The annotations of an object that may have none."""
    return (item or {}).get("metadata", {}).get("annotations") or {}


def _number(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


def _matches(entry: str, reference: str) -> bool:
    parsed = parse_reference(reference)
    return parsed is not None and entry in (parsed.repository, parsed.repository.rpartition("/")[2], reference)


def image_trouble(pod: Mapping[str, Any], node: Mapping[str, Any] | None, reference: str) -> ImageTrouble:
    """What the annotations of a Pod and its node ask for when `reference` is pulled."""
    asked = annotations_of(pod).get(IMAGE_PULL, "")
    if asked == "fail":
        return ImageTrouble(refused=True)
    marks = annotations_of(node)
    broken = [entry.strip() for entry in marks.get(BROKEN_IMAGES, "").split(",")]
    refused = any(_matches(entry, reference) for entry in broken if entry)
    delay = _number(asked) if asked else 0.0
    for entry in marks.get(SLOW_IMAGES, "").split(","):
        repository, _, seconds = entry.strip().rpartition("=")
        if repository and _matches(repository, reference):
            delay = max(delay, _number(seconds))
    return ImageTrouble(refused, delay)


def kill_order(before: Mapping[str, Any], after: Mapping[str, Any], annotation: str) -> str | None:
    """The container to kill when `annotation` has just been set or changed."""
    old, new = annotations_of(before).get(annotation), annotations_of(after).get(annotation)
    if not new or new == old:
        return None
    return new.partition("/")[0]


def signal_order(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, int] | None:
    """The container to signal, and the signal's number, when the annotation has just been set or changed."""
    old, new = annotations_of(before).get(SIGNAL), annotations_of(after).get(SIGNAL)
    container, _, rest = (new or "").partition("/")
    number = rest.partition("/")[0]
    return (container, int(number)) if new != old and container and number.isdigit() else None


def refused_device(pod: Mapping[str, Any], node: Mapping[str, Any] | None) -> str | None:
    """The extended resource of a Pod's containers for which its node has no working device."""
    broken = annotations_of(node).get(BROKEN_DEVICES, "").split(",")
    for container in pod["spec"].get("containers", ()):
        for resource in container.get("resources", {}).get("limits", {}):
            if resource in broken:
                return str(resource)
    return None
