"""Outputs as files: names, overwriting, full disks, memory."""

import builtins
import subprocess
import sys
import tracemalloc

import pandas as pd
import pytest

from posekit.errors import InputError, MissingExtraError, SourceError
from posekit.types import Frame
from posekit.write import SUFFIXES, open_writers
from tests.support.written import HEADER, IMAGE, SEQUENCE, TIDY, make_poses, names_in, strict, write


@pytest.mark.parametrize("name", SUFFIXES)
def test_no_frame_at_all_is_a_complete_file(tmp_path, name):
    (path,) = write(tmp_path, name, frames=[])
    match name:
        case "jsonl":
            assert len(path.read_text().splitlines()) == 1
        case "coco" | "labelstudio":
            assert strict(path.read_text()) == []
        case "csv":
            assert list(pd.read_csv(path).columns) == TIDY
        case "parquet":
            assert list(pd.read_parquet(path).columns) == TIDY
        case "openpose":
            assert list(path.iterdir()) == []
        case "dlc":
            assert len(pd.read_csv(path, header=[0, 1, 2, 3], index_col=0)) == 0


@pytest.mark.parametrize("name", SUFFIXES)
def test_nothing_has_its_name_before_close_and_abort_leaves_nothing(tmp_path, name):
    writers = open_writers([name], tmp_path, "clip", header=HEADER)
    for index, poses in enumerate(SEQUENCE):
        writers.write(Frame(IMAGE, index, 0.0), poses)
    visible = [each for each in names_in(tmp_path) if not each.startswith(".")]
    assert visible == []
    writers.abort()
    assert names_in(tmp_path) == []
    writers.abort()
    assert writers.close() == writers.paths  # too late: nothing appears
    assert names_in(tmp_path) == []


def test_formats_are_written_side_by_side_and_once_each(tmp_path):
    paths = write(tmp_path, *SUFFIXES, "jsonl", stem="clip")
    assert [path.name for path in paths] == [f"clip{suffix}" for suffix in SUFFIXES.values()]
    assert names_in(tmp_path) == sorted(path.name for path in paths)


@pytest.mark.parametrize("name", SUFFIXES)
def test_an_existing_output_is_kept_unless_overwriting(tmp_path, name):
    (path,) = write(tmp_path, name, stem="clip")
    before = path.stat().st_mtime_ns
    with pytest.raises(SourceError, match=r"clip.*exists.*--overwrite"):
        open_writers(["jsonl", name], tmp_path / "", "clip", header=HEADER)
    assert path.stat().st_mtime_ns == before
    assert names_in(tmp_path) == [path.name]
    writers = open_writers([name], tmp_path, "clip", header=HEADER, overwrite=True)
    writers.write(Frame(IMAGE, 9), make_poses([1]))
    assert writers.close() == [path]
    assert names_in(tmp_path) == [path.name]
    if name == "openpose":
        assert names_in(path) == ["clip_000000000009_keypoints.json"]


def test_aborting_an_overwrite_keeps_the_old_output(tmp_path):
    paths = write(tmp_path, "jsonl", "openpose", stem="clip")
    before = paths[0].read_text()
    writers = open_writers(["jsonl", "openpose"], tmp_path, "clip", header=HEADER, overwrite=True)
    writers.write(Frame(IMAGE, 9), make_poses([1]))
    writers.abort()
    assert paths[0].read_text() == before
    assert len(names_in(paths[1])) == 4


@pytest.mark.parametrize(("wrong", "right"), [("json", "jsonl"), ("openpos", "openpose")])
def test_an_unknown_format_offers_the_nearest(tmp_path, wrong, right):
    with pytest.raises(InputError, match=f"'{wrong}': did you mean {right}"):
        open_writers([wrong], tmp_path, "clip", header=HEADER)


def test_a_format_like_nothing_lists_all(tmp_path):
    with pytest.raises(InputError, match=r"'qqq': There are jsonl, coco, csv"):
        open_writers(["qqq"], tmp_path / "new", "clip", header=HEADER)
    assert not (tmp_path / "new").exists()


def test_a_missing_pyarrow_names_the_extra_and_leaves_nothing(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_pyarrow(name, *args, **kwargs):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(MissingExtraError, match=r"posekit\[parquet\]"):
        open_writers(["jsonl", "parquet"], tmp_path, "clip", header=HEADER)
    assert names_in(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    for name in SUFFIXES:
        with pytest.raises(SourceError, match="cannot be written"):
            open_writers([name], tmp_path / "file", "clip", header=HEADER)


FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from posekit.errors import SourceError
from posekit.skeletons import COCO_17
from posekit.types import Boxes, Frame, Poses
from posekit.write import Header, open_writers

name, folder, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
header = Header("1", "m", "0", COCO_17, "s")
poses = Poses(np.random.default_rng(0).uniform(0, 99, (9, 17, 2)), np.ones((9, 17)),
              Boxes([[0, 0, 9, 9]] * 9), COCO_17)
writers = open_writers(["jsonl", name], folder, "clip", header=header)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    for index in range(40):
        writers.write(Frame(np.zeros((99, 99, 3), np.uint8), index), poses)
    writers.close()
except SourceError as error:
    writers.abort()
    sys.stdout.write(str(error))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="file size limits stand in for a full disk")
@pytest.mark.parametrize("name", SUFFIXES)
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, name):
    limit = 1_000 if name == "openpose" else 30_000
    run = [sys.executable, "-W", "error", "-c", FULL_DISK, name, str(tmp_path), str(limit)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.startswith(str(tmp_path / "clip"))
    assert ": cannot be written: no room left on its disk" in done.stdout
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "frames"),
    [("jsonl", 200), ("coco", 300), ("csv", 200), ("dlc", 300), ("labelstudio", 40)],
)
def test_memory_stays_flat_whatever_the_length(tmp_path, name, frames):
    """A writer that gathers even the text alone would hold all of the file."""
    writers = open_writers([name], tmp_path, "clip", header=HEADER)
    poses, frame = make_poses([1, 2, 3]), Frame(IMAGE)
    for _ in range(3):
        writers.write(frame, poses)
    tracemalloc.start()
    for _ in range(frames):
        writers.write(frame, poses)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (path,) = writers.close()
    assert peak < path.stat().st_size / 2


LONG = """
import sys
from pathlib import Path
import numpy as np
from posekit.skeletons import COCO_17
from posekit.types import Boxes, Frame, Poses
from posekit.write import Header, open_writers, table

table._GROUP = 1_700  # a row group each 100 frames, as a long video has many
writers = open_writers(
    sys.argv[2:], Path(sys.argv[1]), "clip", header=Header("1", "m", "0", COCO_17, "s")
)
image, points = np.zeros((9, 9, 3), np.uint8), np.random.default_rng(0).uniform(0, 99, (17, 2))
boxes = Boxes([[0, 0, 9, 9]])
memory = []
for index in range(2400):
    poses = Poses(points[None] + index / 7, np.ones((1, 17)), boxes, COCO_17, ids=[1])
    writers.write(Frame(image, index, index / 30), poses)
    if index % 800 == 799:
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
writers.close()
print(memory[-1] - memory[0], "pandas" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_memory_does_not_grow_with_the_length_and_pandas_stays_out(tmp_path):
    run = [sys.executable, "-c", LONG, str(tmp_path), *(n for n in SUFFIXES if n != "openpose")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    grown, pandas = done.stdout.split()
    # All that is written of a frame takes 8.4 kB; whoever keeps 1 kB of it holds 1.6 MB more.
    assert int(grown) < 1_600_000
    assert pandas == "False"  # pyarrow.array would load it: 75 MB at the first row group
