"""Starts programs through node/sandbox.py: they die with this process, and say whether they could be executed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SANDBOX = Path(__file__).parent / "node" / "sandbox.py"
SANDBOX_COMMAND = (sys.executable, "-I", "-S", str(_SANDBOX))


class StartError(Exception):
    """A command could not be executed; the message is the system's."""


async def start(
    description: Mapping[str, Any], *, file: Path, log: Path
) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    """Start what `description` says (sandbox.py lists its fields), in a session of its own, output appended to `log`.

    `file` carries the description to the sandbox, readable by its owner alone, and is gone once it has been read.
    Returns the process and what the sandbox reported, such as the `pid` of the command.

    Raises:
        StartError: the command cannot be executed.
    """
    read, write = os.pipe()
    try:
        _write_private(file, json.dumps({**description, "report": write, "parent": os.getpid()}))
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(*SANDBOX_COMMAND, "start", str(file)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[write],
                start_new_session=True,
            )
    finally:
        os.close(write)
    report = await _read_all(read)
    os.unlink(file)  # it holds what the command's variables hold
    facts: dict[str, Any] = {}
    for line in report.splitlines():
        facts |= json.loads(line)
    if "error" in facts or "pid" not in facts:
        await process.wait()
        raise StartError(str(facts.get("error", "the process ended before its command was executed")))
    return process, facts


def _write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)


async def _read_all(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    try:
        return await reader.read()
    finally:
        transport.close()
