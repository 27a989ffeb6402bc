"""Changes that know a binary format: zip, protobuf (ONNX), safetensors, pickles, NumPy arrays."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import pickletools
import random
import warnings
import zipfile
from typing import Any

from tests.fuzz.mutations import (
    BOUNDARIES,
    TEXTS,
    changed_bytes,
    changed_json,
    changed_tree,
    odd_value,
)

Entries = list[tuple[str, bytes]]


def entries(data: bytes) -> Entries:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


def zipped(parts: Entries, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two entries of one name
        for name, part in parts:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), part, compression)
    return buffer.getvalue()


def changed_zip(data: bytes, rng: random.Random) -> bytes:
    """A zip with other entries, or with headers that lie about them."""
    if rng.random() < 0.4:
        return _lying_headers(data, rng)
    parts = entries(data)
    at = rng.randrange(len(parts))
    name, part = parts[at]
    names = ("../x", "/x", "manifest.json", "graphs/a.onnx", "x\0y", "engines/x.plan", name + "/")
    match rng.randrange(7):
        case 0:
            del parts[at]
        case 1:
            parts.append((name, rng.choice((part, b"", rng.randbytes(100)))))
        case 2:
            parts[at] = (rng.choice((*names, *(t for t in TEXTS if t and "\0" not in t))), part)
        case 3:
            parts.append((rng.choice(names), rng.randbytes(50)))
        case 4:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = (name, parts[other][1]), (parts[other][0], part)
        case 5:
            parts[at] = (name, changed_bytes(part, rng))
        case _:
            return zipped(parts, rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))
    return zipped(parts)


def _lying_headers(data: bytes, rng: random.Random) -> bytes:
    """Fields of a local, a central or the end record set to other numbers."""
    mark, fields = rng.choice(
        (
            (b"PK\x03\x04", ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
            (b"PK\x01\x02", ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (42, 4))),
            (b"PK\x05\x06", ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
        )
    )
    places = [
        n for n in range(len(data) - 3) if data[n : n + 1] == b"P" and data.startswith(mark, n)
    ]
    if not places:
        return changed_bytes(data, rng)
    offset, size = rng.choice(fields)
    at = rng.choice(places) + offset
    value = rng.choice((*BOUNDARIES, rng.randrange(1 << 8 * size), len(data)))
    number = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    return data[:at] + number + data[at + size :]


def changed_bundle(data: bytes, rng: random.Random) -> bytes:
    """A bundle: as bytes, as a zip, or a part that is changed and whose sha256 is right again."""
    choice = rng.random()
    if choice < 0.15:
        return changed_bytes(data, rng)
    if choice < 0.3:
        return changed_zip(data, rng)
    parts = dict(entries(data))
    manifest = json.loads(parts.pop("manifest.json"))
    if choice < 0.5:
        key = rng.choice(("spec", "spec", "parts", "licences", "provenance", ""))
        target = {**manifest, key: changed_tree(manifest[key], rng)} if key else None
        manifest = target or changed_tree(manifest, rng)
    else:
        name = rng.choice(list(parts))
        parts[name] = _changed_part(name, parts[name], rng)
        manifest["parts"][name] = hashlib.sha256(parts[name]).hexdigest()
    text = json.dumps(manifest).encode("utf-8", "surrogatepass")
    return zipped([("manifest.json", text), *parts.items()])


def _changed_part(name: str, data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return changed_bytes(data, rng)
    if name.endswith(".onnx"):
        return changed_protobuf(data, rng)
    if name.endswith(".safetensors"):
        return changed_safetensors(data, rng)
    return changed_json(data, rng)


def changed_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Its JSON header as a tree, its length, or its values."""
    size = int.from_bytes(data[:8], "little")
    header, values = json.loads(data[8 : 8 + size]), data[8 + size :]
    match rng.randrange(6):
        case 0:
            length = rng.choice((*BOUNDARIES, size + 1, size - 1)) & (1 << 64) - 1
            return length.to_bytes(8, "little") + data[8:]
        case 1:
            values = changed_bytes(values, rng)
        case 2:
            values = rng.choice((b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f", b"\xff")) * len(values)
        case 3:
            entry = header[rng.choice(list(header))]
            entry.update({rng.choice(("dtype", "shape", "data_offsets", "x")): _odd_entry(rng)})
        case _:
            header = changed_tree(header, rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + values


def _odd_entry(rng: random.Random) -> Any:
    return rng.choice(
        (
            "F64",
            "BF16",
            "F8_E4M3",
            "I8",
            "BOOL",
            [2**40, 2**40],
            [0],
            [],
            [0, 2**63],
            [8, 4],
            odd_value(rng),
        )
    )


def changed_protobuf(data: bytes, rng: random.Random, depth: int = 0) -> bytes:
    """A protobuf message with one field changed, dropped, doubled or moved, at any depth."""
    fields = _fields(data)
    if not fields:
        return changed_bytes(data, rng)
    at = rng.randrange(len(fields))
    number, kind, value = fields[at]
    inner = kind == 2 and len(value) > 1 and depth < 6 and _fields(value)
    if inner and rng.random() < 0.8:
        fields[at] = (number, kind, changed_protobuf(value, rng, depth + 1))
    else:
        _change_field(fields, at, rng)
    return b"".join(_encoded(*field) for field in fields)


def _change_field(fields: list[tuple[int, int, Any]], at: int, rng: random.Random) -> None:
    number, kind, value = fields[at]
    match rng.randrange(6):
        case 0:
            del fields[at]
        case 1:
            fields.insert(rng.randrange(len(fields)), fields[at])
        case 2:
            fields[at] = (rng.choice((number + 1, rng.randrange(1, 30))), kind, value)
        case 3:
            fields += [fields[at]] * rng.choice((1, 100))
        case _ if kind == 0:
            fields[at] = (number, kind, rng.choice((*BOUNDARIES, value + 1)))
        case _:
            text = rng.choice((b"", b"Loop", b"Conv", b"../x", rng.choice(TEXTS).encode()))
            fields[at] = (number, kind, rng.choice((text, changed_bytes(value, rng))))


def _fields(data: bytes) -> list[tuple[int, int, Any]]:
    """Number, wire type and value of each field; none where it is no message."""
    found, at = [], 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if tag >> 3 == 0 or kind not in (0, 1, 2, 5):
            return []
        if kind == 0:
            value, at = _varint(data, at)
            found.append((tag >> 3, kind, value))
            continue
        size, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + size > len(data):
            return []
        found.append((tag >> 3, kind, data[at : at + size]))
        at += size
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    return value, at


def _encoded(number: int, kind: int, value: Any) -> bytes:
    head = _as_varint(number << 3 | kind)
    if kind == 0:
        return head + _as_varint(value)
    return head + (_as_varint(len(value)) if kind == 2 else b"") + value


def _as_varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


_ODD_OPS = (
    *(b"0", b"1", b"2", b"(", b")", b"]", b"}", b"N", b"t", b"a", b"b", b"s", b"u", b"R", b"\x81"),
    *(
        b"\x85",
        b"\x8f",
        b"\x90",
        b"Q",
        b"\x93",
        b"\x94",
        b"\x88",
        b"cos\nsystem\n",
        b"i__main__\nx\n",
    ),
    *(b"h\xff", b"j\xff\xff\xff\xff", b"K\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 8),
    *(b"X\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"I" + b"9" * 5000 + b"\n", b"Fnan\n", b"."),
    *(b"ctorch\nload\n", b"cbuiltins\neval\n", b"ccollections\nOrderedDict\n", b"]" * 2000),
    *(
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"G\x7f\xf8\0\0\0\0\0\0",
        b"\x8c\x03abc",
        b"(" * 2000,
    ),
)


def changed_pickle(data: bytes, rng: random.Random) -> bytes:
    """A pickle with opcodes dropped, doubled, moved or added."""
    try:
        places = [at for _, _, at in pickletools.genops(data) if at is not None]
    except ValueError:
        return changed_bytes(data, rng)
    starts = [*places, len(data)]
    ops = [data[a:b] for a, b in itertools.pairwise(starts)]
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(len(ops))
        match rng.randrange(5):
            case 0:
                del ops[at]
            case 1:
                ops.insert(at, rng.choice(ops))
            case 2 | 3:
                ops.insert(at, rng.choice(_ODD_OPS))
            case _:
                ops[at] = changed_bytes(ops[at], rng)
    return b"".join(ops)


def changed_torch(data: bytes, rng: random.Random) -> bytes:
    """A PyTorch file: its pickle, an entry, the zip, or its bytes."""
    if rng.random() < 0.35 or not data.startswith(b"PK"):
        return rng.choice((changed_bytes, changed_pickle))(data, rng)
    if rng.random() < 0.3:
        return changed_zip(data, rng)
    parts = entries(data)
    pickled = next((n for n, (name, _) in enumerate(parts) if name.endswith(".pkl")), 0)
    at = pickled if rng.random() < 0.7 else rng.randrange(len(parts))
    name, part = parts[at]
    parts[at] = (name, (changed_pickle if at == pickled else changed_bytes)(part, rng))
    return zipped(parts)
