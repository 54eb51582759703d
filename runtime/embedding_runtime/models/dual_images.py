"""From an image's pixels to what the vision tower of CLIP or SigLIP takes: the model's own processor, within bounds.

CLIP's processor stretches the shorter side to the tower's and cuts the middle out, so that one row of 16384 pixels
becomes gigabytes of which nearly everything is cut off; and it copies a large image several times over. So both are
resized here, by the same function of Pillow, and the processor does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedding_runtime.models.files import DirectoryError

# Up to so many pixels, before and after stretching, the processor does everything by itself.
_ORDINARY = 4_000_000
# Up to so many, an image is stretched as a whole, for the same pixels to the last bit; beyond (one side is hundreds of
# times the other), only what is not cut off, whose rows and columns may be rounded in another order.
_STRETCHED = 16_000_000
_FILE = "preprocessor_config.json"


class ImageProcessor:
    """A stock image processor (PIL backend). May be used from several threads.

    Raises DirectoryError unless it makes `side` x `side` pixels of every image.
    """

    def __init__(self, processor: Any, side: int) -> None:
        self._processor = processor
        size = processor.size
        self._short = int(size.shortest_edge) if size.shortest_edge and not size.longest_edge else None
        crop = bool(getattr(processor, "do_center_crop", False))
        made = _both(processor.crop_size) if crop else _both(size)
        if not processor.do_resize or made != (side, side) or (crop and self._short is None and _both(size) != made):
            raise DirectoryError(f"{_FILE}: does not make {side} x {side} pixels, as the vision tower takes, of images")
        if crop and self._short is not None and self._short < side:
            raise DirectoryError(f"{_FILE}: size.shortest_edge {self._short} is less than the {side} that are cut out")
        self._side = side

    def __call__(self, pixels: NDArray[np.uint8], checkpoint: Callable[[], None]) -> NDArray[np.float32]:
        """RGB [height, width, 3] -> [3, side, side]. `checkpoint` is called every few milliseconds."""
        checkpoint()
        height, width, _ = pixels.shape
        stretched_width, stretched_height = self._stretched(width, height)
        if max(height * width, stretched_height * stretched_width) <= _ORDINARY:
            return self._process(pixels)
        return self._process(self._resize(pixels, checkpoint), do_resize=False, do_center_crop=False)

    def _process(self, pixels: NDArray[np.uint8], **options: Any) -> NDArray[np.float32]:
        # An image one or three pixels high would pass for one whose colours come first.
        processed = self._processor(
            images=[Image.fromarray(pixels)], return_tensors="np", input_data_format="channels_last", **options
        )
        values: NDArray[np.float32] = processed["pixel_values"][0]
        return values

    def _stretched(self, width: int, height: int) -> tuple[int, int]:
        """The size an image gets before the middle is cut out."""
        if self._short is None:
            return self._side, self._side
        if width <= height:
            return self._short, int(self._short * height / width)
        return int(self._short * width / height), self._short

    def _resize(self, pixels: NDArray[np.uint8], checkpoint: Callable[[], None]) -> NDArray[np.uint8]:
        """The middle of the stretched image, [side, side, 3]."""
        height, width, _ = pixels.shape
        side = self._side
        stretched_width, stretched_height = self._stretched(width, height)
        left, top = (stretched_width - side) // 2, (stretched_height - side) // 2
        image = Image.fromarray(pixels)
        checkpoint()
        if stretched_width * stretched_height <= _STRETCHED:
            whole = image.resize((stretched_width, stretched_height), self._processor.resample)
            return np.asarray(whole.crop((left, top, left + side, top + side)))
        across, down = width / stretched_width, height / stretched_height
        box = (left * across, top * down, (left + side) * across, (top + side) * down)
        return np.asarray(image.resize((side, side), self._processor.resample, box))


def _both(size: Any) -> tuple[int, int] | None:
    return (int(size.height), int(size.width)) if size is not None and size.height and size.width else None
