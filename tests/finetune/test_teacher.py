"""The frozen teacher says of a person what multi-view inference says of its crop."""

from pathlib import Path

import numpy as np

from posekit.multiview import MultiView
from posekit_finetune.teacher import look
from tests.finetune.test_learner import lightning, persons


def test_it_is_the_multi_view_inference(tmp_path: Path) -> None:
    """The same code on the same crops; maps are kept in float16, so 0.0005 of 1 is lost."""
    few = persons().select([0, 5])
    path = tmp_path / "maps.npy"
    seen = look(few, lightning(), views=2, threads=1, path=path)
    bundle = lightning()
    assert seen.maps.shape == (2, 17, 48, 48)
    runtime = MultiView(bundle, views=2, device="cpu", threads=1)
    crops = few.crops(slice(None))
    mirrored = np.ascontiguousarray(crops[:, :, ::-1])
    both = np.stack([crops, mirrored], 1).reshape(-1, *crops.shape[1:])
    np.testing.assert_allclose(np.asarray(seen.maps, np.float32), runtime.maps(both), atol=2e-3)
    assert seen.points.shape == (2, 17, 2)
    assert seen.scores.shape == (2, 17)


def test_kept_maps_are_read_and_not_made_again(tmp_path: Path) -> None:
    few, path = persons().select([0, 5]), tmp_path / "maps.npy"
    first = look(few, lightning(), views=1, threads=1, path=path)
    np.save(path, np.asarray(first.maps) * np.float16(0.5))
    again = look(few, lightning(), views=1, threads=1, path=path)
    np.testing.assert_allclose(again.scores, first.scores * 0.5, rtol=2e-3)


def test_progress_counts_persons(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    look(persons(), lightning(), views=1, threads=1, progress=lambda *done: told.append(done))
    assert told[-1] == (8, 8)
    assert told == sorted(told)
    assert {every for _, every in told} == {8}
