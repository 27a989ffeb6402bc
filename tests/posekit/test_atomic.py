"""Outputs appear whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from posekit.atomic import AtomicFile, AtomicFiles, AtomicFolder, check_apart, write_atomic
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
    assert all(name.startswith(".two.") for name in names(tmp_path / "mine" / "a" / "b"))
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


def killed(program: str, path: Path) -> None:
    """Run `program`, which gets `path` and waits for its end on purpose, and kill -9 it there."""
    text = "import sys, time\nfrom pathlib import Path\nfrom posekit.atomic import *\n"
    text += f"path = Path(sys.argv[1])\n{program}\nprint('ready', flush=True)\ntime.sleep(600)\n"
    with subprocess.Popen([sys.executable, "-c", text, str(path)], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        run.kill()


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    killed("out = AtomicFolder(path); (out.folder / 'stale').touch()", tmp_path / "out")
    killed("out = AtomicFile(path); out.file.write('half'); out.file.flush()", tmp_path / "a")
    assert len(names(tmp_path)) == 4  # a lock and a hidden output each
    with AtomicFolder(tmp_path / "out") as output:
        (output.folder / "fresh").touch()
    assert names(tmp_path / "out") == ["fresh"]
    write_atomic(tmp_path / "a", "whole")
    assert names(tmp_path) == ["a", "out"]


REPLACE = """
import os
def stop(*_):
    print("ready", flush=True)
    time.sleep(600)
with AtomicFiles([path, path.with_name("b")], overwrite=True) as out:
    for name in ("a", "b"):
        out.place(path.with_name(name)).write_text("new")
    real, done = os.link, []
    def link(source, target, **more):
        if len(done) == MOVES:
            stop()
        real(source, target, **more)
        done.append(target)
        if len(done) == MOVES == 4:
            Path(source).unlink()
            stop()
    os.link = link
"""


@pytest.mark.parametrize("moves", range(5))
def test_a_set_that_was_killed_while_it_replaced_another_is_put_back(tmp_path, moves):
    """Two old files go, two new ones come: killed between these, they are never mixed."""
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    killed(REPLACE.replace("MOVES", str(moves)), tmp_path / "a")
    there = {path.name: path.read_text() for path in tmp_path.iterdir() if path.name in "ab"}
    assert moves == 4 or there.get("a") != "new"  # the first comes last
    with pytest.raises(ZeroDivisionError), AtomicFiles([tmp_path / "a"], overwrite=True):
        raise ZeroDivisionError
    wanted = "new" if moves == 4 else "old"
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == [wanted, wanted]
    assert names(tmp_path)[-2:] == ["a", "b"]


OUTSIDE = ["../victim", "{absolute}", "..", ".", "", "x\\u0000", "link/victim"]


@pytest.mark.parametrize(
    "text",
    [
        *('{{"' + name + '": {inode}}}' for name in OUTSIDE),
        *("[3]", "{{", '{{"a": "x"}}', "[" * 9999),
    ],
)
def test_the_notes_of_a_killed_run_name_nothing_outside_its_folder(tmp_path, text):
    """Whoever may write in a shared folder may have made them up."""
    victim, place = tmp_path / "victim", tmp_path / "place"
    victim.write_text("precious")
    made = place / ".a.01234567.set"
    for part in ("new", "old"):
        (made / part).mkdir(parents=True)
    (made / "new" / "a").touch()
    (place / "link").symlink_to(tmp_path)
    notes = text.format(absolute=victim, inode=victim.stat().st_ino)
    (made / "moves.json").write_text(notes)
    (place / ".a.lock").touch()
    write_atomic(place / "a", "mine")
    assert victim.read_text() == "precious"
    assert names(place) == ["a", "link"]


def test_the_folder_of_a_killed_run_is_no_link_to_another(tmp_path):
    other, place = tmp_path / "other", tmp_path / "place"
    for folder in (other / "new", other / "old", place):
        folder.mkdir(parents=True)
    for path in (other / "new" / "x", other / "old" / "b", place / ".a.lock"):
        path.touch()
    (other / "moves.json").write_text("{}")
    (place / ".a.01234567.set").symlink_to(other)
    write_atomic(place / "a", "mine")
    assert names(place) == ["a"]
    assert names(other / "old") == ["b"]


def test_several_outputs_appear_together_in_more_than_one_folder(tmp_path):
    first, second = tmp_path / "one" / "a", tmp_path / "two" / "b"
    with AtomicFiles([first, None, second], overwrite=False) as out:
        out.place(first).write_text("a")
        out.place(second).write_text("b")
        assert names(first.parent) != ["a"]
    assert [path.read_text() for path in (first, second)] == ["a", "b"]
    assert [names(path.parent) for path in (first, second)] == [["a"], ["b"]]


def test_a_set_of_which_nothing_is_written_leaves_no_folder(tmp_path):
    AtomicFiles([tmp_path / "new" / "a", tmp_path / "new" / "b"], overwrite=False).commit()
    assert names(tmp_path) == []


def test_what_belonged_to_a_replaced_output_goes_with_it(tmp_path):
    outputs = [tmp_path / name for name in ("model", "model.data", "report")]
    for path in outputs:
        path.write_text("old")
    with AtomicFiles(outputs, overwrite=True) as out:
        out.place(outputs[2]).write_text("new")  # the model was refused: the old one stays
    assert [path.read_text() for path in outputs] == ["old", "old", "new"]
    with AtomicFiles(outputs, overwrite=True) as out:
        out.place(outputs[0]).write_text("new")
    assert names(tmp_path) == ["model"]


def test_a_rename_that_fails_undoes_those_before_it(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for path in (first, second):
        path.write_text("old")

    def write() -> None:
        with AtomicFiles([first, second], overwrite=True) as out:
            for path in (first, second):
                out.place(path).write_text("new")
            (out.place(second).parent.parent / "old" / "b").mkdir()  # in the way of the old b

    with pytest.raises(SourceError):
        write()
    assert [path.read_text() for path in (first, second)] == ["old", "old"]
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("kind", [AtomicFile, AtomicFolder])
def test_of_two_writers_of_one_output_the_second_is_refused_until_the_first_is_done(tmp_path, kind):
    first = kind(tmp_path / "out")
    for overwrite in (None, True):
        with pytest.raises(SourceError, match="another run is writing it"):
            kind(tmp_path / "out", overwrite=overwrite)
    with pytest.raises(SourceError, match="another run is writing it"):
        AtomicFiles([tmp_path / "new" / "x", tmp_path / "out"], overwrite=True)
    first.commit()
    assert names(tmp_path) == ["out"]
    with pytest.raises(SourceError, match="--overwrite"):
        kind(tmp_path / "out", overwrite=False)
    kind(tmp_path / "out").commit()
    assert names(tmp_path) == ["out"]


def test_caches_are_written_by_several_at_once(tmp_path):
    with AtomicFile(tmp_path / "cached"):  # whoever holds the lock
        write_atomic(tmp_path / "cached", "mine", shared=True)
        (tmp_path / "cached").unlink()
    write_atomic(tmp_path / "cached", "mine", shared=True)
    assert (tmp_path / "cached").read_text() == "mine"
    assert names(tmp_path) == ["cached"]


@pytest.mark.parametrize("kind", [AtomicFile, AtomicFolder])
def test_a_name_that_was_taken_meanwhile_is_not_replaced(tmp_path, kind):
    output = kind(tmp_path / "out")
    (tmp_path / "out").write_text("precious")
    with pytest.raises(SourceError, match="exists"):
        output.commit()
    assert (tmp_path / "out").read_text() == "precious"
    assert names(tmp_path) == ["out"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_no_link_is_followed(tmp_path):
    """A link under any hidden name that an older version or a stranger would expect."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".a.partial").symlink_to(victim)
    write_atomic(tmp_path / "a", "mine")
    (tmp_path / "linked").symlink_to(victim)
    write_atomic(tmp_path / "linked", "mine")  # the link is replaced, not what it points to
    (tmp_path / ".b.lock").symlink_to(victim)
    with pytest.raises(SourceError, match=r"\.b\.lock beside it is a link"):
        write_atomic(tmp_path / "b", "mine")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "linked").is_symlink()


def test_a_hidden_file_that_is_there_is_never_opened(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    tokens = iter(["0" * 8, "1" * 8])
    monkeypatch.setattr("posekit.atomic.hidden.secrets.token_hex", lambda _: next(tokens))
    (tmp_path / ".a.00000000.partial").hardlink_to(victim)
    write_atomic(tmp_path / "a", "mine")
    assert victim.read_text() == "precious"
    assert (tmp_path / "a").read_text() == "mine"


def test_a_very_long_name_has_a_hidden_one_too(tmp_path):
    path = tmp_path / ("ä" * 125 + ".txt")  # 254 bytes of 255
    write_atomic(path, "x")
    with AtomicFolder(tmp_path / ("b" * 255)) as output:
        (output.folder / "c").touch()
    assert names(tmp_path) == ["b" * 255, path.name]


@pytest.mark.parametrize("kind", [AtomicFile, AtomicFolder])
def test_what_is_unfinished_is_kept_under_a_name_that_says_so(tmp_path, kind):
    for text in ("first", "second"):
        output = kind(tmp_path / "out")
        target = output.partial / "in" if kind is AtomicFolder else output.partial
        target.write_text(text)
        assert output.keep_incomplete() == tmp_path / "out.incomplete"
        output.commit()
        assert names(tmp_path) == ["out.incomplete"]
    kept = tmp_path / "out.incomplete"
    assert (kept / "in" if kind is AtomicFolder else kept).read_text() == "second"


def test_an_output_that_is_an_input_is_refused_whatever_its_name(tmp_path):
    source = tmp_path / "clips" / "clip.mp4"
    source.parent.mkdir()
    source.write_text("x")
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "folder").symlink_to(source.parent)
    (tmp_path / "hard.mp4").hardlink_to(source)
    (tmp_path / "other.mp4").touch()
    same = (source, tmp_path / "clips" / ".." / "clips" / "clip.mp4", tmp_path / "link.mp4")
    for output in (*same, tmp_path / "hard.mp4", tmp_path / "folder" / "clip.mp4", source.parent):
        with pytest.raises(SourceError, match="would replace the input"):
            check_apart([None, output], ["rtsp://camera/1", None, source])
    with pytest.raises(SourceError, match="would replace the input"):
        check_apart([source], [tmp_path / "folder" / "clip.mp4"])
    check_apart([tmp_path / "other.mp4", tmp_path / "new.mp4", None], [source, "x" * 5000, "a\0b"])


def test_an_output_is_no_file_of_an_input_folder(tmp_path):
    """By name, by a link in the folder, by a link to it, and by a pattern."""
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "apart.jpg").touch()
    for name in ("1.jpg", "deep/2", "config.json", "older.json", "older.html"):
        (folder / name).touch()
    (folder / "link.png").symlink_to(tmp_path / "apart.jpg")
    (folder / "loop").symlink_to(folder)
    (tmp_path / "linked").symlink_to(folder)
    inputs = [folder, tmp_path / "linked", str(folder / "**" / "*.jpg"), f"file://{folder}"]
    outputs = ["1.jpg", "deep/2", "link.png", "config.json", "../apart.jpg"]
    for given in inputs:
        for output in outputs:
            with pytest.raises(SourceError, match="would replace the input"):
                check_apart([folder / output], [given])
    with pytest.raises(SourceError, match=r"would replace the input .*1\.jpg"):
        check_apart([folder / "1.jpg"], [str(tmp_path / "im*" / "?.jpg")])
    reports = [folder / "older.json", folder / "older.html", folder / "new.jpg"]
    check_apart(reports, [folder])
    check_apart([tmp_path / "apart.jpg"], [folder / "deep"])


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
