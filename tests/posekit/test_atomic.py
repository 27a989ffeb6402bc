"""Outputs appear whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from posekit.atomic import AtomicFile, AtomicFolder, write_atomic
from posekit.errors import SourceError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_only_once_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    output = AtomicFile(path)
    output.file.write("grün")
    assert not path.exists()
    output.commit()
    assert path.read_bytes() == "grün".encode()
    assert names(path.parent) == ["a.txt"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")

    def interrupted() -> None:
        with AtomicFile(path, "wb") as output:
            output.file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_an_abort_takes_back_the_folders_it_made_and_no_others(tmp_path):
    (tmp_path / "mine").mkdir()
    first = AtomicFile(tmp_path / "mine" / "a" / "b" / "one")
    second = AtomicFile(tmp_path / "mine" / "a" / "b" / "two")
    first.abort()
    assert names(tmp_path / "mine" / "a" / "b") == [".two.partial"]
    second.commit()
    third = AtomicFile(tmp_path / "mine" / "c" / "three")
    third.abort()
    assert names(tmp_path / "mine") == ["a"]
    AtomicFile(tmp_path / "mine" / "a" / "four").abort()
    (tmp_path / "empty").mkdir()
    AtomicFile(tmp_path / "empty" / "five").abort()
    assert names(tmp_path) == ["empty", "mine"]


def test_committing_replaces_the_old_file(tmp_path):
    write_atomic(tmp_path / "a", "old and longer")
    write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


def test_the_first_of_commit_and_abort_counts(tmp_path):
    output = AtomicFile(tmp_path / "a")
    output.commit()
    output.abort()
    output.commit()
    assert names(tmp_path) == ["a"]
    output = AtomicFile(tmp_path / "b")
    output.abort()
    output.commit()
    assert names(tmp_path) == ["a"]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path):
    for round_ in ("first", "second"):
        with AtomicFolder(tmp_path / "out") as output:
            (output.folder / f"{round_}.txt").write_text("x")
            if round_ == "second":
                assert names(tmp_path / "out") == ["first.txt"]
    assert names(tmp_path / "out") == ["second.txt"]
    assert names(tmp_path) == ["out"]


def test_an_aborted_folder_leaves_the_old_one(tmp_path):
    with AtomicFolder(tmp_path / "out") as output:
        (output.folder / "old").touch()
    output = AtomicFolder(tmp_path / "out")
    (output.folder / "new").touch()
    output.abort()
    assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path) == ["out"]


def test_what_a_killed_run_left_is_not_in_the_next_output(tmp_path):
    killed = AtomicFolder(tmp_path / "out")
    (killed.folder / "stale").touch()
    with AtomicFolder(tmp_path / "out") as output:
        (output.folder / "fresh").touch()
    assert names(tmp_path / "out") == ["fresh"]


def test_a_file_where_the_folder_should_be_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match=r"file/a\.txt: cannot be written: a file stands where"):
        write_atomic(tmp_path / "file" / "a.txt", "x")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SourceError, match="cannot be written: its folder cannot be written to"):
        write_atomic(tmp_path / "a", "x")


FULL_DISK = """
import resource, sys
from pathlib import Path
from posekit.atomic import write_atomic
from posekit.errors import SourceError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"x" * 1001)
except SourceError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="file size limits stand in for a full disk")
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path):
    path = tmp_path / "a"
    run = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be written: no room left on its disk")
    assert names(tmp_path) == []
