"""Outputs appear whole or not at all: written under a hidden name, then renamed.

One run at a time writes an output: a lock beside it keeps a second one out while it is written. The
lock of a killed run no longer holds, and what that run left is removed by the next one.
"""

from posekit.atomic.checks import check_apart, check_free, explained
from posekit.atomic.folders import free_name, new_folder
from posekit.atomic.hidden import make_folder, remove_empty
from posekit.atomic.output import (
    INCOMPLETE,
    AtomicFile,
    AtomicFiles,
    AtomicFolder,
    discard_all,
    write_atomic,
)

__all__ = [
    "INCOMPLETE",
    "AtomicFile",
    "AtomicFiles",
    "AtomicFolder",
    "check_apart",
    "check_free",
    "discard_all",
    "explained",
    "free_name",
    "make_folder",
    "new_folder",
    "remove_empty",
    "write_atomic",
]
