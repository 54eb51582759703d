"""What the figures were measured on, and whether it was quiet."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

_PACKAGES = ("torch", "transformers", "tokenizers", "uvicorn", "uvloop", "httptools", "numpy")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
# Processor time that neither the server nor the generator used, as a share of the machine, above which we warn.
BUSY_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Machine:
    """Hardware and versions."""

    processor: str
    processors: int
    flags: tuple[str, ...]
    memory_gigabytes: float
    kernel: str
    python: str
    packages: dict[str, str]
    virtual: bool

    @property
    def has_bfloat16(self) -> bool:
        """Whether the CPU multiplies bfloat16 fast."""
        return bool({"avx512_bf16", "amx_bf16"} & set(self.flags))

    @property
    def has_int8(self) -> bool:
        """Whether the CPU multiplies int8 fast."""
        return bool({"avx512_vnni", "amx_int8"} & set(self.flags))


def describe() -> Machine:
    """This machine."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    fields = dict(part.split(":", 1) for part in cpuinfo.split("\n\n")[0].splitlines() if ":" in part)
    facts = {name.strip(): value.strip() for name, value in fields.items()}
    flags = facts.get("flags", "").split()
    return Machine(
        processor=facts.get("model name", platform.processor() or platform.machine()),
        processors=len(os.sched_getaffinity(0)),
        flags=tuple(flag for flag in _FLAGS if flag in flags),
        memory_gigabytes=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        kernel=platform.release(),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
        virtual="hypervisor" in flags,
    )


def load_average() -> float:
    """Processes that wanted to run, averaged over the last minute."""
    return os.getloadavg()[0]
