"""Texts of files and models as HTML."""

import base64
import html
from pathlib import Path
from typing import Any


def escaped(value: Any) -> str:
    """A value as HTML text, with its indentation."""
    # Bytes of a file's name that are no UTF-8 are surrogates, which cannot be written.
    text = str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return html.escape(text).replace("  ", "&emsp;")


def jpeg_data(path: Path) -> str:
    """A picture as it stands in a page: an address that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


__all__ = ["escaped", "jpeg_data"]
