"""What is said of an image that cannot be used."""

from __future__ import annotations


class UnusableImageError(ValueError):
    """The image cannot be used; the text completes the sentence "the image ..."."""
