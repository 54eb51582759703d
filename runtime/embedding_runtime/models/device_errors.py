"""What torch raises about its device, as the errors the engine knows what to do about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from embedding_runtime.engine.model import DeviceLostError, OutOfMemoryError


@contextmanager
def device_errors() -> Iterator[None]:
    """Raises OutOfMemoryError, its caches given back, and DeviceLostError in place of torch's own."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemoryError(str(error)) from error
    except torch.AcceleratorError as error:
        raise DeviceLostError(str(error)) from error
