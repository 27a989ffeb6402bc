"""JSON, TOML and numbers from files and options: checked once, refused in one sentence.

Every parser error (syntax, depth, size, encoding, integers too long to convert) becomes the error
class that the caller names. Nothing here knows what the values mean.
"""

from __future__ import annotations

import json
import math
import numbers as kinds
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from posekit.errors import InputError, PosekitError

__all__ = [
    "number",
    "numbers",
    "parse_json",
    "parse_toml",
    "printable",
    "read_json",
    "read_toml",
    "reason",
    "shown",
]

JSON_BYTES = 1 << 29  # COCO's train2017 keypoint annotations are 2**28
TOML_BYTES = 1 << 20
MAX_DEPTH = 64
_INFINITY = math.inf
_LONGEST_SHOWN = 60
_LONGEST_REASON = 300
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# tomllib's time is quadratic in the parts of a dotted key: 100 kB of them take minutes.
_DOTTED_KEY = r"""(?:(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){%d}"""


def parse_json(
    data: bytes | str,
    *,
    name: str,
    error: type[PosekitError] = InputError,
    max_bytes: int = JSON_BYTES,
    max_depth: int = MAX_DEPTH,
) -> Any:
    """The value of a JSON text (UTF-8); NaN, Infinity and lone surrogates are refused.

    name: begins every message, such as the file's path.
    Raises `error`: not JSON, more than `max_bytes`, or nested deeper than `max_depth`.
    """

    def parse(text: str) -> Any:
        value = json.loads(text, parse_constant=_refuse_constant)
        if _LONE_SURROGATE.search(text):  # halves of a pair are fine, one alone is not text
            json.dumps(value, ensure_ascii=False).encode()
        return value

    return _parse(data, parse, name, kind="JSON", error=error, limits=(max_bytes, max_depth))


def parse_toml(
    data: bytes | str,
    *,
    name: str,
    error: type[PosekitError] = InputError,
    max_bytes: int = TOML_BYTES,
    max_depth: int = MAX_DEPTH,
) -> dict[str, Any]:
    """The table of a TOML text (UTF-8); its nan and inf are left for `number` to refuse.

    Raises `error`: not TOML, more than `max_bytes`, or nested deeper than `max_depth`.
    """

    def parse(text: str) -> dict[str, Any]:
        if re.search(_DOTTED_KEY % max_depth, text):
            raise RecursionError
        return tomllib.loads(text)

    limits = (max_bytes, max_depth)
    table: dict[str, Any] = _parse(data, parse, name, kind="TOML", error=error, limits=limits)
    return table


def read_json(
    path: Path,
    *,
    error: type[PosekitError] = InputError,
    max_bytes: int = JSON_BYTES,
    max_depth: int = MAX_DEPTH,
) -> Any:
    """`parse_json` of a file. Raises `error`, also where it is missing or too large."""
    data = _read(path, max_bytes, error)
    return parse_json(data, name=str(path), error=error, max_bytes=max_bytes, max_depth=max_depth)


def read_toml(
    path: Path,
    *,
    error: type[PosekitError] = InputError,
    max_bytes: int = TOML_BYTES,
    max_depth: int = MAX_DEPTH,
) -> dict[str, Any]:
    """`parse_toml` of a file. Raises `error`, also where it is missing or too large."""
    data = _read(path, max_bytes, error)
    return parse_toml(data, name=str(path), error=error, max_bytes=max_bytes, max_depth=max_depth)


def number(
    value: object,
    *,
    name: str,
    low: float = -_INFINITY,
    high: float = _INFINITY,
    whole: bool = False,
    error: type[PosekitError] = InputError,
) -> float:
    """`value` as a float: a finite number, no boolean or text, from `low` to `high` inclusive.

    whole: no fraction.  name: begins the message.
    Raises `error`, whose message holds the value, shortened, and what was wanted.
    """
    try:
        is_number = isinstance(value, kinds.Real) and not isinstance(value, bool)
        result = float(value) if is_number else math.nan  # type: ignore[arg-type]
    except OverflowError:
        result = math.inf
    fits = math.isfinite(result) and low <= result <= high and not (whole and result % 1)
    if not fits:
        raise error(f"{name}: wanted {_range(low, high, whole=whole)}, got {shown(value)}")
    return result


def numbers(
    values: object,
    *,
    name: str,
    count: int | None = None,
    low: float = -_INFINITY,
    high: float = _INFINITY,
    error: type[PosekitError] = InputError,
) -> list[float]:
    """A list of `number`s, `count` of them where it is given.

    Raises `error`: no list, another length, or the first element that is no such number.
    """
    found = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(found, (list, tuple)) or count not in (None, len(found)):
        wanted = "a list of numbers" if count is None else f"a list of {count} numbers"
        raise error(f"{name}: wanted {wanted}, got {shown(values)}")
    return [
        number(value, name=f"{name}[{n}]", low=low, high=high, error=error)
        for n, value in enumerate(found)
    ]


def shown(value: object) -> str:
    """A value for a message: escaped, at most 60 characters, a list or table by its length."""
    if isinstance(value, dict):
        return f"a table of {len(value)} entries"
    if isinstance(value, (list, tuple)) and (len(value) > 4 or any(map(_is_nested, value))):
        return f"a list of {len(value)} values"
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    text = ascii(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def counted(count: int, noun: str) -> str:
    """`1 video`, `2 videos`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str) -> str:
    """A text whose control characters are escaped: no name moves a terminal's cursor."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def reason(error: BaseException) -> str:
    """Another library's error for a message: one line, escaped, its middle left out if too long."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    if len(text) <= _LONGEST_REASON:
        return text
    return f"{text[: _LONGEST_REASON // 3]} ... {text[-_LONGEST_REASON * 2 // 3 :]}"


def _is_nested(value: object) -> bool:
    return isinstance(value, (list, tuple, dict))


def _range(low: float, high: float, *, whole: bool) -> str:
    kind = "a whole number" if whole else "a finite number"
    if low == -_INFINITY:
        return kind if high == _INFINITY else f"{kind} up to {high:g}"
    return f"{kind} from {low:g}" + ("" if high == _INFINITY else f" to {high:g}")


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _read(path: Path, max_bytes: int, error: type[PosekitError]) -> bytes:
    """At most one byte more than is allowed, so that the parser refuses the rest."""
    try:
        with Path(path).open("rb") as file:
            return file.read(max_bytes + 1)
    except FileNotFoundError as cause:
        raise error(f"{path}: no such file") from cause
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise error(f"{shown(str(path))}: cannot be read ({cause})") from cause


def _parse(
    data: bytes | str,
    parse: Callable[[str], Any],
    name: str,
    *,
    kind: str,
    error: type[PosekitError],
    limits: tuple[int, int],
) -> Any:
    """What `parse` gives, or one sentence of class `error`; limits: bytes, depth."""
    max_bytes, max_depth = limits
    if len(data) > max_bytes:
        raise error(f"{name}: larger than {max_bytes:,} bytes, the most that is read of a {kind}")
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
        value = parse(text)
    except (UnicodeDecodeError, UnicodeEncodeError) as cause:
        raise error(f"{name}: not UTF-8 text ({cause.reason})") from cause
    except RecursionError as cause:
        raise error(f"{name}: {kind} nested deeper than {max_depth}") from cause
    except ValueError as cause:  # also an integer of more digits than Python converts
        reason = str(cause).partition(" for integer string conversion")[0]
        raise error(f"{name}: not {kind} ({reason})") from cause
    if _deeper(value, max_depth):
        raise error(f"{name}: {kind} nested deeper than {max_depth}")
    return value


def _deeper(value: Any, max_depth: int) -> bool:
    """Whether containers lie deeper than `max_depth` in one another, without recursion."""
    level = [value] if isinstance(value, (list, dict)) else []
    for _ in range(max_depth):
        if not level:
            return False
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (list, dict))
        ]
    return bool(level)
