"""JSON as people's tools write it: odd values become an error or a readable text, never a failure later on."""

import json
import re
from typing import Any

_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    JSON may hold half a surrogate pair ("\\ud800"), which no encoding can write: U+FFFD stands in its place.

    Raises:
        ValueError: for what is no JSON (`json.JSONDecodeError`), is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return _writable(value) if _HALF_PAIR.search(text) else value


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_writable(item) for item in value]
    if isinstance(value, dict):
        return {_writable(name): _writable(item) for name, item in value.items()}
    return value
