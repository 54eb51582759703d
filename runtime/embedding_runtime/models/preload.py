"""Loading torch's shared libraries without stopping the rest of the process.

`import torch` opens gigabytes of libraries while holding the interpreter's lock: for that long no health request would
be answered. Opened here first, through a foreign call that releases the lock, the import finds them already there.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path

_LIBRARIES = ("libtorch_global_deps.so", "libtorch_cpu.so", "libtorch_cuda.so", "libtorch.so", "libtorch_python.so")


def preload_torch() -> None:
    """Open torch's libraries. Where that fails, the import does it, and reports what is wrong."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return
    try:
        dlopen = ctypes.CDLL(None).dlopen
    except (OSError, AttributeError):
        return
    dlopen.restype = ctypes.c_void_p
    dlopen.argtypes = (ctypes.c_char_p, ctypes.c_int)
    for name in _LIBRARIES:
        path = Path(found.origin).parent / "lib" / name
        if path.exists():
            # Global, as torch itself opens the first; the others must find its symbols.
            dlopen(str(path).encode(), os.RTLD_LAZY | os.RTLD_GLOBAL)
