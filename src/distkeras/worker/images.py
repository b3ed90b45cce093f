"""Recognize image files that were passed as pixel values, and explain in an error how to decode them."""

from __future__ import annotations

HEAD_BYTES = 12
"""Bytes at the start of a file that identify its format."""


def image_format(head: bytes) -> str | None:
    """Return the format of the image file that begins with `head`; `None` for any other file."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    return None


def image_hint(head: bytes) -> str:
    """Return a hint for an error about bytes of a wrong length: to decode them, if they are an image file."""
    found = image_format(head)
    if found is None:
        return ""
    return (
        f"; the bytes look like an undecoded {found} image: decode them in the worker with `preprocess`, a "
        "function of a minibatch's columns"
    )
