"""What an ONNX graph refers to beside itself, found without the onnx package, before it is run.

A graph may name files whose bytes become tensors, call functions within functions, and loop. ONNX
Runtime reads any file that lies below the working directory, and unrolls and runs the rest without
a limit. posekit's own graphs do none of it but for weights, which are supplied by name in memory.

Source: onnx.proto (field numbers) and the protobuf encoding's description.
"""

from __future__ import annotations

import functools
import graphlib
from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from posekit.errors import BundleError

MOST_FIELDS = 2_000_000
"""Of a file, a tensor's values counted once: the largest network here has under 100,000."""
MOST_NODES = 1_000_000
"""With each function counted as often as it is called."""
_SMALL = 1 << 20  # bytes: a bundle's graphs, which are opened several times
_WEIGHTS = "weights.safetensors"
_DATA = ".data"
_ORT_FORMAT = b"ORTM"  # at byte 4: ONNX Runtime's own format, which holds no protobuf
_LOOPS = ("Loop", "Scan")
_OUTSIDE = ("EPContext",)  # an engine in a file

# Message -> field number -> message in it; all else is skipped.
_MESSAGES = {
    "model": {7: "main", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "main": {1: "node", 5: "initializer", 15: "sparse"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "initializer": {},
    "tensor": {},
}
_NAMED = {"node": (4, 7), "function": (1, 10)}  # name and domain
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14  # of a tensor
_KEY, _VALUE = 1, 2  # of an entry of external_data

Field = tuple[int, int, int]
"""Number, and start and end of its value; of a plain number start is -1, end the number."""
Function = tuple[str, str]
"""Domain and name."""


class _MalformedError(ValueError):
    """Not the protobuf of an ONNX graph; the text says why."""


def external_initializers(graph: bytes, name: str) -> frozenset[str]:
    """Names of the graph's initializers whose values are not in it, but in a bundle or `.data`.

    name: begins a message. Raises BundleError: not an ONNX graph; a tensor that refers to another
    file, or that is not an initializer of the main graph; loops; functions nested beyond a limit.
    """
    try:
        return (_scan_small if len(graph) < _SMALL else _scanned)(graph)
    except _MalformedError as error:
        raise BundleError(f"{name}: {error}") from error


def _scanned(graph: bytes) -> frozenset[str]:
    scan = _Scan(graph)
    scan.run()
    _check_functions(scan.nodes, scan.calls)
    return frozenset(scan.external)


_scan_small = functools.lru_cache(maxsize=16)(_scanned)


def check_supplied(graph: bytes, supplied: Container[str], name: str) -> frozenset[str]:
    """`external_initializers`, each of which must be among the `supplied`. Raises BundleError."""
    found = external_initializers(graph, name)
    if lacking := sorted(each for each in found if each not in supplied):
        raise BundleError(
            f"{name}: tensor {lacking[0]!a} refers to a file and is none of its own weights; "
            "refused"
        )
    return found


@dataclass(eq=False)
class _Scan:
    """One pass over a graph. external: what stands outside.

    nodes: own nodes of each function, None is the graph.  calls: functions that each calls.
    """

    data: bytes
    external: set[str] = field(default_factory=set)
    nodes: defaultdict[Function | None, int] = field(default_factory=lambda: defaultdict(int))
    calls: defaultdict[Function | None, list[Function]] = field(
        default_factory=lambda: defaultdict(list)
    )
    left: int = MOST_FIELDS

    def run(self) -> None:
        """Visit every message that may hold a tensor. Raises _MalformedError."""
        if self.data[4:8] == _ORT_FORMAT:
            raise _MalformedError("in ONNX Runtime's own format; wanted an ONNX graph")
        pending: list[tuple[str, int, int, Function | None]] = [("model", 0, len(self.data), None)]
        while pending:
            message, start, end, owner = pending.pop()
            fields = list(self._fields(start, end))
            if message in ("tensor", "initializer"):
                self._tensor(fields, is_initializer=message == "initializer")
                continue
            if message in _NAMED:
                named = self._named(fields, *_NAMED[message])
                owner = named if message == "function" else owner
                if message == "node":
                    self._node(named, owner)
            inner = _MESSAGES[message]
            pending += [
                (inner[n], at, stop, owner) for n, at, stop in fields if n in inner and at >= 0
            ]

    def _node(self, named: Function, owner: Function | None) -> None:
        if named[1] in _LOOPS:
            raise _MalformedError(f"holds a {named[1]}, which may never end; posekit runs no loops")
        if named[1] in _OUTSIDE:
            raise _MalformedError(f"holds a {named[1]}, which refers to an engine in another file")
        self.nodes[owner] += 1
        self.calls[owner].append(named)

    def _named(self, fields: list[Field], name: int, domain: int) -> Function:
        texts = {number: self.data[at:end] for number, at, end in fields if at >= 0}
        found = [texts.get(number, b"").decode("utf-8", "replace") for number in (domain, name)]
        return "" if found[0] == "ai.onnx" else found[0], found[1]

    def _tensor(self, fields: list[Field], *, is_initializer: bool) -> None:
        """Note a tensor whose values stand elsewhere, where that is allowed."""
        entries = [(at, end) for number, at, end in fields if number == _EXTERNAL_DATA]
        marked = any(number == _DATA_LOCATION and end for number, _, end in fields)
        if not entries and not marked:
            return
        name = self._named(fields, _NAME, 0)[1]
        location = self._location(entries)
        own = location == _WEIGHTS or location.endswith(_DATA)
        if not own or "/" in location or "\\" in location:
            raise _MalformedError(f"tensor {name!a} refers to the file {location!a}; refused")
        if not is_initializer or name in self.external:
            raise _MalformedError(f"tensor {name!a} refers to a file and is not a weight; refused")
        self.external.add(name)

    def _location(self, entries: list[tuple[int, int]]) -> str:
        """The one location that the entries give, or ""."""
        found = ""
        for start, end in entries:
            pair = list(self._fields(start, end))
            texts = {n: self.data[at:stop] for n, at, stop in pair if at >= 0}
            if texts.get(_KEY) in (b"offset", b"length", b"checksum"):
                continue
            if len(pair) != 2 or texts.get(_KEY) != b"location" or found:
                raise _MalformedError("a tensor refers to a file in an unknown way; refused")
            found = texts.get(_VALUE, b"").decode("utf-8", "backslashreplace")
        return found

    def _fields(self, at: int, end: int) -> Iterator[Field]:
        """The fields of the message in [at, end). Raises _MalformedError."""
        data = self.data
        while at < end:
            tag, at = _varint(data, at, end)
            self.left -= 1
            if self.left < 0 or not 8 <= tag < 1 << 32:
                raise _MalformedError("not a whole ONNX file, or one of too many parts")
            kind = tag & 7
            if kind == 0:
                number, at = _varint(data, at, end)
                yield tag >> 3, -1, number
                continue
            if kind == 2:
                size, at = _varint(data, at, end)
            else:
                size = {1: 8, 5: 4}.get(kind, end)
            if size > end - at or kind not in (1, 2, 5):
                raise _MalformedError("not a whole ONNX file")
            yield tag >> 3, (at if kind == 2 else -1), (at + size if kind == 2 else 0)
            at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number and where it ends. Raises _MalformedError."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _MalformedError("not a whole ONNX file")


def _check_functions(
    nodes: defaultdict[Function | None, int], calls: defaultdict[Function | None, list[Function]]
) -> None:
    """Raises _MalformedError where functions, written out, are endless or too many nodes."""
    functions = set(nodes)
    inner = {each: [call for call in calls[each] if call in functions] for each in functions}
    try:
        order = list(graphlib.TopologicalSorter(inner).static_order())
    except graphlib.CycleError as error:
        raise _MalformedError("holds a function that calls itself; refused") from error
    size: dict[Function | None, int] = {}
    for each in order:
        size[each] = nodes[each] + sum(size[call] for call in inner[each])
        if size[each] > MOST_NODES:
            raise _MalformedError(f"its functions, written out, are over {MOST_NODES:,} nodes")
