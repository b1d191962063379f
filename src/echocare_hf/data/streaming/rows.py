"""Samples of a row group: columns as Python and numpy have them, images decoded."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow
from PIL import Image

from ..reading_image import to_rgb
from ..reading_record import check_size

UNDECODABLE, MISSING, UNREADABLE = REASONS = ("undecodable_image", "missing_column", "unreadable_shard")
"""Why a row is skipped."""


class BadRowError(Exception):
    """A row that cannot be used: one of `REASONS`, and a text for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason, text)
        self.reason, self.text = reason, text


@dataclass(frozen=True)
class Decoder:
    """From encoded bytes to an image; see the arguments of the same names of `stream`.

    Raises:
        ValueError: if they make no sense.
    """

    image_as: Literal["array", "pil", "bytes"] = "array"
    mode: Literal["RGB", "L"] = "RGB"
    draft: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.image_as not in ("array", "pil", "bytes"):
            raise ValueError(f'image_as is "array", "pil" or "bytes", not {self.image_as!r}')
        if self.mode not in ("RGB", "L"):
            raise ValueError(f'mode is "RGB" or "L", not {self.mode!r}')
        sides = (self.draft, self.draft) if isinstance(self.draft, int) else self.draft
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise ValueError(f"draft is a side in pixels or (height, width), not {self.draft!r}")
        object.__setattr__(self, "draft", sides)

    def __call__(self, encoded: bytes | None) -> Any:
        """Decode.

        Raises:
            BadRowError: if this is no image that can be decoded.
        """
        if not encoded:
            raise BadRowError(UNDECODABLE, "the row holds no image")
        if self.image_as == "bytes":
            return encoded
        try:
            return self._decode(encoded)
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
            raise BadRowError(UNDECODABLE, f"no image that can be decoded ({error})") from error

    def _decode(self, encoded: bytes) -> Any:
        with Image.open(io.BytesIO(encoded)) as image:
            check_size(Path("image"), image.height, image.width)
            if isinstance(self.draft, tuple):
                image.draft(self.mode, self.draft[::-1])
            if image.mode not in ("RGB", "L", "YCbCr") or "transparency" in image.info:
                decoded = Image.fromarray(to_rgb(Path("image"), image))
            else:
                image.load()
                decoded = image
            grey = decoded.mode == "L" and self.image_as == "array"
            decoded = decoded if grey else decoded.convert(self.mode)
        if self.image_as == "pil":
            return decoded
        return _repeated(np.asarray(decoded), len(self.mode)) if grey else _with_channels(np.array(decoded))


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _repeated(grey: np.ndarray, channels: int) -> np.ndarray:
    """Grey (height, width) as (height, width, channels): what Pillow's conversion to RGB gives, in half its time."""
    pixels = np.empty((*grey.shape, channels), grey.dtype)
    for channel in range(channels):
        pixels[..., channel] = grey
    return pixels


class RowGroup:
    """The rows of a row group, or of as much of it as was read.

    Args:
        table: its columns.
        decoder: of the column `image`.
    """

    def __init__(self, table: pyarrow.Table, decoder: Decoder) -> None:
        self.columns: dict[str, Callable[[int], Any]] = {}
        for name in table.column_names:
            parts = table[name]
            column = parts.chunk(0) if parts.num_chunks == 1 else parts.combine_chunks()  # joining would copy
            self.columns[name] = _images(column, decoder) if name == "image" else _values(column)

    def sample(self, row: int) -> dict[str, Any]:
        """One row.

        Raises:
            BadRowError: if its image cannot be decoded.
        """
        return {name: value(row) for name, value in self.columns.items()}


def _images(column: pyarrow.Array, decoder: Decoder) -> Callable[[int], Any]:
    encoded = column.field("bytes") if pyarrow.types.is_struct(column.type) else column
    return lambda row: decoder(encoded[row].as_py())


_TEXTS = (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_string_view)


def _values(column: pyarrow.Array) -> Callable[[int], Any]:
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if any(is_text(kind) for is_text in _TEXTS):
        texts = column.cast(pyarrow.large_string()).fill_null("").to_pylist()
        return texts.__getitem__
    if pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind):
        numbers = column.to_numpy(zero_copy_only=False)  # NaN for null
        return lambda row: numbers[row].item()
    lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    if any(is_list(kind) for is_list in lists) and pyarrow.types.is_primitive(kind.value_type):
        none = np.empty(0, kind.value_type.to_pandas_dtype())
        return lambda row: np.array(column[row].values) if column[row].is_valid else none.copy()
    return lambda row: column[row].as_py()
