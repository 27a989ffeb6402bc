"""Runs a program: `python -m benchmarks NAME [ARGUMENTS]`; without a name, lists them all."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

FOLDERS = ("runtime", "accuracy", "adaptation", "export", "report")


def programs() -> dict[str, str]:
    """Module of each program by its name: those files of the folders that have a `main`."""
    here = Path(__file__).parent
    return {
        path.stem: f"{here.name}.{folder}.{path.stem}"
        for folder in FOLDERS
        for path in sorted((here / folder).glob("*.py"))
        if "\ndef main(" in path.read_text(encoding="utf-8")
    }


def listing() -> str:
    """A line a program, by folder: its name and the first line of its docstring."""
    lines = ["usage: python -m benchmarks NAME [ARGUMENTS]; NAME --help lists its arguments"]
    folder = ""
    for name, module in programs().items():
        if folder != (folder := module.split(".")[1]):
            lines += ["", f"{folder}:"]
        path = Path(__file__).parent / folder / f"{name}.py"
        first = path.read_text(encoding="utf-8").partition("\n")[0].strip('"')
        lines.append(f"  {name:22} {first.partition(' `')[0].rstrip('.:')}")
    return "\n".join(lines)


def main() -> None:
    """Run the program that the first argument names."""
    found = programs()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(listing())
        return
    if name not in found:
        sys.exit(f"python -m benchmarks: no program {name!r}; there are {', '.join(sorted(found))}")
    sys.argv = [f"python -m benchmarks {name}", *arguments]
    importlib.import_module(found[name]).main()


if __name__ == "__main__":
    main()
