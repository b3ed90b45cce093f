"""Image files that were given as the numbers of an image: what they look like, and what to do with them."""

from __future__ import annotations

HEAD_BYTES = 12
"""What must be seen of a file to tell its format."""


def image_format(head: bytes) -> str | None:
    """Return the format of the image file that begins with `head`; `None`: it is no image file known here."""
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
    """Return the end of an error about bytes of a wrong length: that they must be decoded, where it is so."""
    found = image_format(head)
    if found is None:
        return ""
    return (
        f"; the bytes look like an undecoded {found} image: decode them in the worker with `preprocess`, a "
        "function of a minibatch's columns"
    )
