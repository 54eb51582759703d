"""What a running cluster says about itself, in `state.json` of its state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError


class ComponentState(BaseModel):
    """One program of the control plane."""

    model_config = ConfigDict(frozen=True)

    pid: int | None
    restarts: int


class State(BaseModel):
    """A cluster's state, written by its supervisor."""

    model_config = ConfigDict(frozen=True)

    phase: Literal["starting", "ready", "stopping", "failed"]
    pid: int
    message: str = ""
    server: str = ""
    isolated: bool | None = None
    nodes: list[str] = []
    took: float | None = None
    """Seconds from the supervisor's start to Ready nodes."""
    components: dict[str, ComponentState] = {}


def write_state(directory: Path, state: State) -> None:
    """Replace the state file at once."""
    fresh = directory / "state.json.new"
    fresh.write_text(state.model_dump_json(indent=2))
    fresh.replace(directory / "state.json")


def read_state(directory: Path) -> State | None:
    """The last state written, also of a cluster that is gone; None when there is none."""
    try:
        return State.model_validate_json((directory / "state.json").read_text())
    except (OSError, ValidationError):
        return None


def is_up(directory: Path) -> bool:
    """Whether a keeper holds the directory's lock: true from the start of a cluster to the end of its last process."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
