"""Ctrl-C and SIGTERM, as every command takes them."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import run, start, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
SIGNALS = [signal.SIGINT, signal.SIGTERM]

BUSY = """
import hashlib, sys
from pathlib import Path
from posekit.atomic import AtomicFile, AtomicFolder
from posekit.cli import last_net, signals

signals.install()

def work():
    folder = Path(sys.argv[1])
    with AtomicFile(folder / "a"), AtomicFolder(folder / "b") as out:
        (out.folder / "c").touch()
        with signals.graceful(lambda: signals.tell("asked")):
            print("ready", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 600_000_000)  # minutes in C, without a pause

last_net.run(work)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_at_once_whatever_runs(tmp_path: Path, number: int) -> None:
    process = start(tmp_path, program=BUSY)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    time.sleep(0.5)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 3
    assert process.returncode == 130
    assert err.endswith("posekit: ended at once\n")
    assert list(tmp_path.iterdir()) == []


def test_the_echo_of_one_key_press_is_not_a_second_signal(tmp_path: Path) -> None:
    """A terminal and a program in between (uv, npm) both pass on one Ctrl-C."""
    process = start(tmp_path, program=BUSY)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_without_more_to_keep_ends_in_one_line(tmp_path: Path, number: int) -> None:
    arguments = ("export", "movenet-lightning", "-o", tmp_path / "new" / "x.onnx")
    process = start(*arguments)
    wait_until(lambda: list(tmp_path.glob("new/.x.onnx.*.set")))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "posekit: interrupted\n")
    assert list(tmp_path.iterdir()) == []


DONE = """
import os, signal
from posekit.cli import last_net, signals

signals.install()

class Late:
    def __del__(self):  # when the interpreter goes, as libraries in C tear down what they hold
        os.kill(os.getpid(), signal.SIGTERM)

def work():
    global late
    late = Late()
    import atexit
    atexit.register(os.kill, os.getpid(), signal.SIGINT)

last_net.run(work)
"""


def test_signals_after_the_work_is_done_do_not_change_how_it_ended() -> None:
    assert run(program=DONE) == (0, "", "")


SWALLOWING = """
import os, signal, sys
from posekit.cli import last_net, signals

signals.install()

def work():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(1000))
    except BaseException:  # as modules in C do it while they are loaded
        {then}

last_net.run(work)
"""


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ('raise ImportError("initialization failed")', "interrupted"),
        ("import time; time.sleep(100)", "ended at once"),
    ],
)
def test_an_interruption_that_is_swallowed_ends_the_command_all_the_same(
    then: str, message: str
) -> None:
    began = time.monotonic()
    code, _, err = run(program=SWALLOWING.format(then=then))
    assert (code, err) == (130, f"posekit: {message}\n")
    assert time.monotonic() - began < 30


NET = """
import sys
from posekit.cli import main
from posekit import bundle
def find(_):
    raise {error}
bundle.find = find
sys.argv = ["posekit", "inspect", "x", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("ZeroDivisionError('too\\nmuch')", "unexpected ZeroDivisionError: too much; "),
        ("RecursionError", "unexpected RecursionError; "),
        ("MemoryError", "out of memory; "),
        ("RuntimeError('x' * 10_000)", "unexpected RuntimeError: xxx"),
    ],
)
def test_an_unexpected_exception_is_one_sentence(error: str, sentence: str) -> None:
    code, out, err = run(program=NET.format(error=error))
    assert (code, out) == (1, "")
    assert err.startswith("posekit: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert "--debug" in err
    assert len(err) < 600
    code, _, err = run("--debug", program=NET.format(error=error))
    assert code == 1
    assert "Traceback" in err
