"""What torch says of its device reaches the engine as what to do about it."""

from __future__ import annotations

import pytest
import torch
from embedding_runtime.engine.model import DeviceLostError, OutOfMemoryError
from embedding_runtime.models.device_errors import device_errors


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (torch.OutOfMemoryError("16 GiB"), OutOfMemoryError),
        (torch.AcceleratorError("illegal access"), DeviceLostError),
        (ValueError("an input's own fault"), ValueError),
    ],
)
def test_torchs_errors_become_the_engines(raised: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected, match=str(raised)), device_errors():
        raise raised
