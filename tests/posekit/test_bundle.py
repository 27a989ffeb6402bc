"""A bundle opens as it was saved, and anything else is refused with one sentence."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import BundleError, SourceError
from posekit.skeletons import COCO_17
from posekit.types import DetectorSpec, ModelSpec

SPEC = ModelSpec("movenet-thunder", (256, 256), (64, 64), COCO_17)


@pytest.fixture
def sample() -> Bundle:
    weights = {"a.weight": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.ones(1, np.int64)}
    graphs = {name: ModelProto(doc_string=name).SerializeToString() for name in ("flip", "plain")}
    return Bundle(
        "sample", SPEC, weights, graphs, {"code": "Apache-2.0"}, {"seed": 1}, {"parity.json": b"{}"}
    )


def entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rebuilt(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_opens_as_it_was_saved(sample: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "sämple 1.posekit"
    sample.save(path)
    again = Bundle.open(path)
    assert (again.name, again.spec, dict(again.licences)) == (
        "sample",
        SPEC,
        {"code": "Apache-2.0"},
    )
    assert again.graphs == sample.graphs
    assert again.extras == sample.extras
    assert again.weights["a.weight"].dtype == np.float16
    np.testing.assert_array_equal(again.weights["a.weight"], sample.weights["a.weight"])
    assert again.to_bytes() == path.read_bytes()


def test_the_same_content_is_the_same_bytes(sample: Bundle) -> None:
    assert sample.to_bytes() == sample.to_bytes()
    with zipfile.ZipFile(io.BytesIO(sample.to_bytes())) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_detector_is_not_a_pose_model(tmp_path: Path) -> None:
    detector = Bundle("d", DetectorSpec("nanodet", (416, 416)), {"w": np.ones(1)}, {"detect": b""})
    detector.save(tmp_path / "d.posekit")
    with pytest.raises(BundleError, match="person detector"):
        _ = Bundle.open(tmp_path / "d.posekit").pose_spec


@pytest.mark.parametrize("size", [0, 10, 200, -1])
def test_a_truncated_file_is_refused(sample: Bundle, tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.posekit"
    path.write_bytes(sample.to_bytes()[:size])
    with pytest.raises(BundleError, match=r"cut\.posekit"):
        Bundle.open(path)


def test_every_changed_byte_of_a_part_is_found(sample: Bundle, tmp_path: Path) -> None:
    data = sample.to_bytes()
    for name in ("weights.safetensors", "graphs/flip.onnx", "parity.json"):
        parts = entries(data)
        parts[name] = bytes([parts[name][0] ^ 1]) + parts[name][1:]
        (tmp_path / "x.posekit").write_bytes(rebuilt(parts))
        with pytest.raises(BundleError, match=f"{name} is damaged"):
            Bundle.open(tmp_path / "x.posekit")


def test_a_newer_schema_asks_for_an_update(sample: Bundle, tmp_path: Path) -> None:
    parts = entries(sample.to_bytes())
    manifest = json.loads(parts["manifest.json"]) | {"schema": bundle.SCHEMA + 1}
    parts["manifest.json"] = json.dumps(manifest).encode()
    (tmp_path / "new.posekit").write_bytes(rebuilt(parts))
    with pytest.raises(BundleError, match="update posekit"):
        Bundle.open(tmp_path / "new.posekit")


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "graphs/../../x.onnx", "code.pkl", "a" * 60_000]
)
def test_parts_that_no_bundle_has_are_refused(sample: Bundle, tmp_path: Path, name: str) -> None:
    (tmp_path / "x.posekit").write_bytes(rebuilt({**entries(sample.to_bytes()), name: b"x"}))
    with pytest.raises(BundleError, match="which no bundle does") as caught:
        Bundle.open(tmp_path / "x.posekit")
    assert len(str(caught.value)) < 200 + len(str(tmp_path))


def overlapping(parts: dict[str, bytes]) -> bytes:
    """A zip whose parity.json and adapt.json are one and the same bytes."""
    data = rebuilt({**parts, "parity.json": b"{}", "adapt.json": b"{}"})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        offset = archive.getinfo("parity.json").header_offset
    entry = data.rindex(b"adapt.json") - 46  # in the central directory
    return data[: entry + 42] + offset.to_bytes(4, "little") + data[entry + 46 :]


def overlong(parts: dict[str, bytes]) -> bytes:
    """A zip whose adapt.json claims 2 GB."""
    data = rebuilt({**parts, "adapt.json": b"{}"})
    entry = data.rindex(b"adapt.json") - 46
    size = (2 << 30).to_bytes(4, "little")
    return data[: entry + 20] + size * 2 + data[entry + 28 :]


@pytest.mark.parametrize("damage", [overlapping, overlong])
def test_entries_that_overlap_or_end_behind_the_file_are_refused_before_they_are_read(
    sample: Bundle, tmp_path: Path, damage: Callable[[dict[str, bytes]], bytes]
) -> None:
    parts = entries(sample.to_bytes())
    del parts["parity.json"]
    (tmp_path / "x.posekit").write_bytes(damage(parts))
    with pytest.raises(BundleError, match=r"x\.posekit: .* overlap"):
        Bundle.open(tmp_path / "x.posekit")


@pytest.mark.parametrize(("field", "size"), [(28, 2), (26, 2), (14, 4), (8, 2), (6, 2), (4, 2)])
@pytest.mark.parametrize("value", [0, 1, 200, 0xFFFF, 0xFFFFFFFF])
def test_a_local_header_that_differs_is_one_printable_sentence(
    sample: Bundle, tmp_path: Path, field: int, size: int, value: int
) -> None:
    """Lengths, checksum, method, flags and version of the last entry, which zipfile trusts."""
    data = sample.to_bytes()
    at = data.rindex(b"PK\x03\x04") + field
    number = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    (tmp_path / "x.posekit").write_bytes(data[:at] + number + data[at + size :])
    found, message = None, ""
    try:
        found = Bundle.open(tmp_path / "x.posekit")
    except BundleError as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < 400 + len(str(tmp_path))
    assert found is None or found.manifest() == sample.manifest()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(sample: Bundle, tmp_path: Path) -> None:
    parts = {**entries(sample.to_bytes()), "adapt.json": bytes(50_000_000)}
    (tmp_path / "bomb.posekit").write_bytes(rebuilt(parts, zipfile.ZIP_DEFLATED))
    assert (tmp_path / "bomb.posekit").stat().st_size < 100_000
    with pytest.raises(BundleError, match="compressed"):
        Bundle.open(tmp_path / "bomb.posekit")


@pytest.mark.parametrize(
    "manifest",
    [b"", b"[]", b"{}", b"\xff", b'{"schema": "1", "parts": {}}', b'{"schema": 1, "parts": 3}'],
)
def test_a_manifest_of_another_schema_is_refused(
    sample: Bundle, tmp_path: Path, manifest: bytes
) -> None:
    parts = {**entries(sample.to_bytes()), "manifest.json": manifest}
    (tmp_path / "x.posekit").write_bytes(rebuilt(parts))
    with pytest.raises(BundleError):
        Bundle.open(tmp_path / "x.posekit")


def test_another_zip_and_a_text_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(rebuilt({"hello.txt": b"hi"}))
    (tmp_path / "b.posekit").write_text("hello")
    for name in ("a.zip", "b.posekit", "missing.posekit"):
        with pytest.raises(BundleError, match=name):
            Bundle.open(tmp_path / name)


def test_a_wrong_spec_names_the_field(sample: Bundle, tmp_path: Path) -> None:
    parts = entries(sample.to_bytes())
    manifest = json.loads(parts["manifest.json"])
    del manifest["spec"]["padding"]
    parts["manifest.json"] = json.dumps(manifest).encode()
    (tmp_path / "x.posekit").write_bytes(rebuilt(parts))
    with pytest.raises(BundleError, match="padding"):
        Bundle.open(tmp_path / "x.posekit")


def test_saving_into_a_missing_folder_leaves_nothing(sample: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError):
        sample.save(tmp_path / "file" / "x.posekit")


def test_an_unknown_model_name_offers_the_nearest() -> None:
    with pytest.raises(BundleError, match="did you mean movenet-thunder"):
        bundle.find("movenet-thundr")
