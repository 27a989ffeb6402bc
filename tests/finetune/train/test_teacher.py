"""The frozen teacher predicts for a person what test-time augmentation predicts for its crop."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from posekit.inference.tta import TtaRuntime
from posekit_finetune.train.teacher import predict_pseudo_labels, save_maps
from tests.finetune.lightning import lightning, persons


def test_it_equals_test_time_augmentation(tmp_path: Path) -> None:
    """The same code on the same crops; maps are stored in float16, so 0.0005 of 1 is lost."""
    few = persons().select([0, 5])
    path = tmp_path / "maps.npy"
    labels = predict_pseudo_labels(few, lightning(), views=2, threads=1, path=path)
    bundle = lightning()
    assert labels.maps.shape == (2, 17, 48, 48)
    runtime = TtaRuntime(bundle, views=2, device="cpu", threads=1)
    crops = few.crops(slice(None))
    mirrored = np.ascontiguousarray(crops[:, :, ::-1])
    both_views = np.stack([crops, mirrored], 1).reshape(-1, *crops.shape[1:])
    np.testing.assert_allclose(
        np.asarray(labels.maps, np.float32), runtime.maps(both_views), atol=2e-3
    )
    assert labels.points.shape == (2, 17, 2)
    assert labels.scores.shape == (2, 17)


def test_stored_maps_are_loaded_and_not_predicted_again(tmp_path: Path) -> None:
    few, path = persons().select([0, 5]), tmp_path / "maps.npy"
    first = predict_pseudo_labels(few, lightning(), views=1, threads=1, path=path)
    np.save(path, np.asarray(first.maps) * np.float16(0.5))
    loaded = predict_pseudo_labels(few, lightning(), views=1, threads=1, path=path)
    np.testing.assert_allclose(loaded.scores, first.scores * 0.5, rtol=2e-3)


def test_maps_are_stored_bit_for_bit(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((3, 2, 5, 4)).astype(np.float16)
    stored = save_maps(tmp_path / "new" / "maps.npy", maps)
    assert isinstance(stored, np.memmap)
    np.testing.assert_array_equal(stored, maps)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from posekit.errors import SourceError
from posekit_finetune.train.teacher import save_maps

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    save_maps(Path(sys.argv[1]), np.zeros((9, 17, 48, 48), np.float16))
except SourceError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="file size limits stand in for a full disk")
def test_maps_on_a_full_disk_are_one_clear_error_and_leave_nothing(tmp_path: Path) -> None:
    run = [sys.executable, "-c", FULL_DISK, str(tmp_path / "maps.npy")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "maps.npy: cannot be written: no room left on its disk" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_persons(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    predict_pseudo_labels(
        persons(), lightning(), views=1, threads=1, progress=lambda *counts: calls.append(counts)
    )
    assert calls[-1] == (8, 8)
    assert calls == sorted(calls)
    assert {total for _, total in calls} == {8}
