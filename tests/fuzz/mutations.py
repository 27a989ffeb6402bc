"""Changes of bytes and of structure, drawn from a random generator: equal seeds, equal files."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from typing import Any

BOUNDARIES = (0, 1, 127, 255, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
DEEP = 100_000
TEXTS = (
    "",
    "\0",
    "\x1b[2J\x1b[31mred\r\n",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "a" * 5000,
    "\u202etxt.\ufeff",
    "%s%n{0}",
    "nan",
)


def odd_value(rng: random.Random) -> Any:
    """A value that hardly any field wants."""
    makers: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.choice((-1, 0, 1, *BOUNDARIES)) * rng.choice((1, -1)),
        lambda: 10 ** rng.choice((20, 400)),
        lambda: rng.choice((float("nan"), float("inf"), -float("inf"), 1e308, -1e-308, 0.5)),
        lambda: rng.choice(TEXTS),
        list,
        dict,
        lambda: [rng.choice(makers[:6])()] * rng.choice((1, 2, 3, 500)),
        lambda: {rng.choice(TEXTS): odd_value(rng)},
        lambda: nested(rng.choice((30, 70, 400)), as_dict=rng.random() < 0.5),
    ]
    return rng.choice(makers)()


def nested(depth: int, *, as_dict: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if as_dict else [value]
    return value


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes that know nothing of the format."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = _changed_once(data, rng)
    return data


def _changed_once(data: bytes, rng: random.Random) -> bytes:
    data = data or rng.randbytes(64)
    at, length = _span(len(data), rng)
    part = data[at : at + length]
    match rng.randrange(8):
        case 0:
            return _flipped(data, rng)
        case 1:
            return data[: rng.choice((at, rng.randrange(min(len(data), 64) + 1)))]
        case 2:  # a piece of it, elsewhere
            to = rng.randrange(len(data))
            return data[:to] + part + data[to + rng.choice((0, length)) :]
        case 3:
            return data[:at] + bytes(length) + data[at + length :]
        case 4:
            return data[:at] + rng.randbytes(length) + data[at + length :]
        case 5:
            return data[:at] + data[at + length :]
        case 6:
            size = rng.choice((1, 2, 4, 8))
            number = (rng.choice(BOUNDARIES) & (1 << 8 * size) - 1).to_bytes(
                size, rng.choice(("little", "big"))
            )
            return data[:at] + number + data[at + size :]
        case _:
            return data + part * rng.choice((1, 3))


def _flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    near_start = rng.random() < 0.4
    for _ in range(rng.choice((1, 2, 8, 32))):
        changed[rng.randrange(min(len(data), 128) if near_start else len(data))] ^= (
            1 << rng.randrange(8)
        )
    return bytes(changed)


def _span(size: int, rng: random.Random) -> tuple[int, int]:
    """Start and length of a piece; headers are hit as often as contents."""
    start = rng.randrange(min(size, 256) if rng.random() < 0.4 else size)
    return start, min(size - start, rng.choice((1, 4, 16, 100, size // 10 + 1)))


def changed_tree(value: Any, rng: random.Random) -> Any:
    """A JSON or TOML value with one to three of its nodes changed, removed, doubled or added."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed_node(value, rng)
    return value


def _changed_node(value: Any, rng: random.Random) -> Any:
    holders = list(_containers(value))
    if not holders or rng.random() < 0.02:
        return odd_value(rng)
    holder = rng.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    key = rng.choice(keys) if keys else None
    action = rng.randrange(6) if keys else 5
    if action <= 2:
        holder[key] = odd_value(rng) if action else _tweaked(holder[key], rng)
    elif action == 3:
        del holder[key]
    elif action == 4:  # under another name, or twice
        if isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        else:
            holder.extend([holder[key]] * rng.choice((1, 2000)))
    elif isinstance(holder, dict):
        holder[rng.choice(("extra", *TEXTS))] = odd_value(rng)
    else:
        holder.append(odd_value(rng))
    return value


def _tweaked(value: Any, rng: random.Random) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, -value, value * 2, value // 2))
    if isinstance(value, float):
        return rng.choice((-value, value * 1e6, value / 1e6, value + 1e-3))
    if isinstance(value, str):
        return rng.choice((value.upper(), value[1:], value * 2, value + "\t", value[::-1]))
    return odd_value(rng)


def _containers(value: Any) -> list[Any]:
    """Every list and table, each level as likely as its number of nodes."""
    found, pending = [], [value]
    while pending and len(found) < 2000:
        node = pending.pop()
        if isinstance(node, dict | list):
            found.append(node)
            pending += node.values() if isinstance(node, dict) else node
    return found


def changed_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON text that is changed as a tree, or as text."""
    if rng.random() < 0.75:
        return json.dumps(changed_tree(json.loads(data), rng), ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
    return _changed_text(data, rng)


def changed_json_lines(data: bytes, rng: random.Random) -> bytes:
    """JSON Lines with one line changed, dropped, doubled or moved."""
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(rng.randrange(len(lines)), lines[at])
        case 2:
            lines[at] = changed_bytes(lines[at], rng)
        case _:
            lines[at] = changed_json(lines[at].strip(), rng) + b"\n"
    return b"".join(lines)


def _changed_text(data: bytes, rng: random.Random) -> bytes:
    """The text itself: depth, constants, encodings, or bytes."""
    match rng.randrange(6):
        case 0:
            return rng.choice((b"[", b'{"a":')) * DEEP
        case 1:  # a value in it is very deep
            at = rng.randrange(len(data))
            return data[:at] + b"[" * 5000 + b"]" * 5000 + data[at:]
        case 2:
            numbers = [m.span() for m in re.finditer(rb"-?\d[\d.]*", data)] or [(0, 0)]
            start, end = rng.choice(numbers)
            text = rng.choice((b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"0x1", b"1_0"))
            return data[:start] + text + data[end:]
        case 3:
            return data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-8-sig")))
        case _:
            return changed_bytes(data, rng)


_ODD_TOML = (
    *("nan", "inf", "-inf", "-1", "0", "1e308", "true", '""', "[]", "{}", "1979-05-27"),
    *("9" * 5000, "9" * 400, "[" * 200 + "]" * 200, "[" * 20_000, '"\\u0000"', "'\x1b[2J'"),
    *("[nan, 1]", "[1, 2, 3]", "{a = 1}", "0x7fffffffffffffff", "1_000", '"' + "a" * 9000 + '"'),
)


def changed_toml(data: bytes, rng: random.Random) -> bytes:
    """TOML with a line's value or key replaced, doubled, dropped or added."""
    lines = data.decode("utf-8").splitlines()
    pairs = [n for n, line in enumerate(lines) if " = " in line]
    at = rng.choice(pairs)
    key, _, _ = lines[at].partition(" = ")
    match rng.randrange(8):
        case 0 | 1 | 2:
            lines[at] = f"{key} = {rng.choice(_ODD_TOML)}"
        case 3:
            lines.insert(rng.randrange(len(lines)), lines[at])
        case 4:
            del lines[at]
        case 5:
            added = (f"extra = {rng.choice(_ODD_TOML)}", "[x" + ".x" * 3000 + "]", "[[easy]]", "=")
            lines.insert(rng.randrange(len(lines)), rng.choice(added))
        case 6:
            lines[at] = rng.choice((key.upper(), f"{key}.a", '"\\n"', "''")) + " = 1"
        case _:
            return changed_bytes(data, rng)
    return "\n".join(lines).encode("utf-8")
