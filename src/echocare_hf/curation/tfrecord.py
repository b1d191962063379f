"""TFRecord files of `tf.train.Example`, read without TensorFlow.

Sources: tensorflow.org/tutorials/load_data/tfrecord (record framing) and protobuf.dev/programming-guides/encoding (wire format).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .archives import ArchiveError

_MAX_RECORD = 1024**3
_NO_EXAMPLE = (
    AttributeError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    struct.error,
)  # a field lacks or is of another type
_CONVENTION = {"image/class/text": "label"}  # TensorFlow's own name of it, in the scripts that convert its data sets


def read_tfrecord(path: Path) -> Iterator[dict[str, Any]]:
    """The examples of a file, each as a dict from feature name to value: bytes, text, a number, or a list of several.

    Bytes that are UTF-8 and shorter than 1,000 become text. Checksums are not verified: an image that is damaged fails to decode.

    Raises:
        ArchiveError: if the file is cut short or is no TFRecord file.
    """
    with path.open("rb") as file:
        while head := file.read(12):
            size = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else _MAX_RECORD + 1
            record = file.read(size) if size <= _MAX_RECORD else b""
            if len(record) < size or len(file.read(4)) < 4:
                raise ArchiveError(path, "damaged_archive", "is no complete TFRecord file; copy it again")
            try:
                example = _example(record)
            except _NO_EXAMPLE as error:
                raise ArchiveError(path, "damaged_archive", "holds something else than tf.train.Example") from error
            yield example


def _example(record: bytes) -> dict[str, Any]:
    """Example { Features features = 1 }, Features { map<string, Feature> feature = 1 }."""
    values: dict[str, Any] = {}
    for _, features in _fields(record):
        for _, entry in _fields(features):
            parts = dict(_fields(entry))
            values[parts[1].decode("utf-8")] = _feature(parts.get(2, b""))
    for name, column in _CONVENTION.items():
        if name in values:
            values.setdefault(column, values.pop(name))
    return values


def _feature(data: bytes) -> Any:
    """Feature { BytesList = 1, FloatList = 2, Int64List = 3 }, each { repeated value = 1 }."""
    found: list[Any] = []
    for kind, content in _fields(data):
        for _, value in _fields(content):
            if kind == 1:
                found.append(_text_or_bytes(value))
            elif kind == 2:
                found += [number for (number,) in struct.iter_unpack("<f", value)]
            elif isinstance(value, bytes):  # packed
                position = 0
                while position < len(value):
                    number, position = _varint(value, position)
                    found.append(_signed(number))
            else:
                found.append(_signed(value))
    return found[0] if len(found) == 1 else found


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8") if len(value) < 1000 else value
    except UnicodeDecodeError:
        return value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and content of every field of a message: bytes, or an int for a varint."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        if tag & 7 == 0:
            value, position = _varint(data, position)
            yield tag >> 3, value
            continue
        if tag & 7 == 2:
            size, position = _varint(data, position)
        elif tag & 7 in (1, 5):
            size = 8 if tag & 7 == 1 else 4
        else:
            raise ValueError(f"wire type {tag & 7}")
        if position + size > len(data):
            raise ValueError("cut short")
        yield tag >> 3, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
