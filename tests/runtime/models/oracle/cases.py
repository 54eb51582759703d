"""What NVIDIA's class was asked, and what this runtime is asked to give the same answers to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """A query, or a passage of text, image or both. `size` is the image's width and height; its seed is its place."""

    name: str
    kind: str
    text: str = ""
    size: tuple[int, int] | None = None


# How the checkpoint is built (vl_checkpoints.build) for each set of values.
VARIANTS: dict[str, dict[str, Any]] = {
    "atomic": {},
    "plain": {"atomic": False, "nested": False},
    "other": {
        "config": {"select_layer": -2, "pooling": "cls"},
        "processor": {
            "max_input_tiles": 4, "use_thumbnail": False, "query_prefix": "search:", "passage_prefix": "",
            "norm_type": "imagenet",
        },
    },
}  # fmt: skip
CASES = (
    Case("query", "query", "what is a vector?"),
    Case("query of other letters", "query", "Ünïcödé & symbols, 0 1 2"),
    Case("passage", "passage", "Embeddings of sentences are vectors; passages and queries meet in one space."),
    Case("one tile", "passage", size=(30, 30)),
    Case("one tile, enlarged", "passage", size=(7, 7)),
    Case("six tiles and thumbnail", "passage", size=(150, 100)),
    Case("two tiles and thumbnail", "passage", size=(40, 80)),
    Case("five in a row", "passage", size=(500, 97)),
    Case("one tile and text", "passage", "a list of numbers", (32, 32)),
    Case("several tiles and text", "passage", "The quick brown fox jumps over the lazy dog.", (64, 96)),
)
# Kinds of files whose pixels are recorded as NVIDIA's processor sees them: format, mode, and how Pillow saves it. In
# 16-bit grey this runtime differs, and says so.
FILES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "grey": ("PNG", "L", {}), "grey with transparency": ("PNG", "LA", {}), "transparent": ("PNG", "RGBA", {}),
    "one bit": ("PNG", "1", {}), "palette": ("PNG", "P", {}),
    "palette with transparency": ("PNG", "P", {"transparency": bytes(range(0, 256, 2))}),
    "16 bits of grey": ("PNG", "I;16", {}), "32 bits of grey": ("TIFF", "I", {}), "floats": ("TIFF", "F", {}),
    "CMYK": ("JPEG", "CMYK", {"quality": 92}), "CMYK in TIFF": ("TIFF", "CMYK", {}), "Lab": ("TIFF", "LAB", {}),
    "baseline": ("JPEG", "RGB", {"quality": 92}), "progressive": ("JPEG", "RGB", {"quality": 92, "progressive": True}),
    "orientation of a photograph": ("JPEG", "RGB", {"quality": 92, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01"
                                    b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    "orientation of a TIFF": ("TIFF", "RGB", {"tiffinfo": {0x0112: 6}}), "lossy": ("WEBP", "RGBA", {"quality": 80}),
    "GIF": ("GIF", "P", {}), "BMP": ("BMP", "RGB", {}),
}  # fmt: skip
# Widths and heights for the table of tilings at 512 pixels and at most six tiles.
SIZES = (
    (1, 1), (224, 224), (300, 200), (512, 512), (513, 512), (640, 480), (480, 640), (800, 600), (1024, 768),
    (1275, 1650), (1650, 1275), (2000, 1000), (1000, 2000), (1000, 3000), (3000, 1000), (2000, 2000), (2480, 3508),
    (3508, 2480), (1920, 1080), (1080, 1920), (100, 1000), (1000, 100), (512, 1024), (1024, 512), (1536, 1024),
    (1024, 1536), (700, 701), (701, 700), (250, 251), (850, 1100), (3264, 2448), (4032, 3024), (3024, 4032),
    (8192, 16384), (16384, 8192), (16384, 100), (3, 16384), (5, 4), (1366, 768), (2560, 1080), (600, 599), (345, 567),
)  # fmt: skip
