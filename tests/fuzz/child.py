"""The process that changes and uses files: one line before and one after each, on a pipe.

python -m tests.fuzz.child KIND SEED FIRST LAST FOLDER FD
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
import warnings
from pathlib import Path
from typing import TextIO

from posekit.diagnostics.bench import peak_memory_mb
from tests.fuzz import kinds

LIMIT = 2 << 30
"""Bytes of private memory that may be written: an allocation beyond it fails."""


def main() -> None:
    kind, seed, first, last, folder, pipe = sys.argv[1:]
    with os.fdopen(int(pipe), "w", buffering=1) as out:
        _run(kind, int(seed), range(int(first), int(last)), Path(folder), out)


def _run(kind: str, seed: int, numbers: range, folder: Path, out: TextIO) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    warnings.simplefilter("ignore")
    kinds.use_sound(kind, folder)
    _tell(out, "ready", numbers.start, "")
    for number in numbers:
        path = kinds.changed(kind, seed, number, folder)
        _tell(out, "start", number, "")
        _tell(out, *_used(kind, path, folder, number))
    _tell(out, "end", numbers.stop, "")


def _used(kind: str, path: Path, folder: Path, number: int) -> tuple[str, int, str]:
    """refused or accepted with the sentence, or fault with the trace."""
    from posekit.errors import PosekitError

    try:
        kinds.use(kind, path, folder)
    except kinds.Refused as error:
        return _sentence("refused", number, str(error))
    except PosekitError as error:
        return _sentence("accepted", number, str(error))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "fault", number, traceback.format_exc()
    return "accepted", number, ""


def _sentence(result: str, number: int, text: str) -> tuple[str, int, str]:
    if not text.strip() or len(text) > 2000 or not text.isprintable():
        return "fault", number, f"no sentence of printable characters: {text[:600]!a}"
    return result, number, text


def _tell(out: TextIO, *values: object) -> None:
    """A line of JSON; last the most memory of this process so far, MB."""
    print(json.dumps([*values, round(peak_memory_mb() or 0)]), file=out)


if __name__ == "__main__":
    main()
