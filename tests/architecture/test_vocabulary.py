"""Identifiers and help texts use the field's words, not the project's former private ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import PROGRAMS, ROOT, Module, modules

REPLACEMENTS = {
    "told": "predicted, recorded, reported",
    "retold": "remap",
    "said": "reported, recorded, message",
    "asked": "requested",
    "seen": "view, observed, read",
    "answer": "output, prediction",
    "answers": "outputs, predictions",
    "strays": "deviates, deviation",
    "strayed": "deviates, deviation",
    "looks": "probe views, evaluations",
    "mend": "fix",
    "mended": "fixed",
    "nobody": "no one, empty",
    "spoil": "augment, corrupt",
    "spoiled": "augmented, corrupted, degraded",
    "misfit": "mismatch",
    "shaken": "perturbed",
    "handed": "written, kept",
    "handout": "output",
    "rival": "baseline",
    "rivals": "baselines",
    "twin": "reference",
    "foreign": "teacher transfer",
    "recut": "recrop",
    "wish": "requirements",
    "watched": "held out",
    "picture": "image",
    "pictures": "images",
    "whom": "persons",
}
"""Word of the former vocabulary: what to write instead."""

ALLOWED = {
    "pictures": "a field of options and of a report that scripts of users name",
}


def words(identifier: str) -> list[str]:
    """`TaughtLook_of` as lower-case words."""
    spaced = "".join(f"_{c}" if c.isupper() else c for c in identifier)
    return [word for word in spaced.lower().split("_") if word]


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names that a file defines: functions, classes, parameters, variables, fields."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr
            case ast.alias(asname=str(name)):
                yield node.lineno, name


def help_texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What `help=` says, and the first lines of docstrings of commands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "help":
            for part in ast.walk(node.value):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def former_words(module: Module) -> Iterator[str]:
    found = [(line, words(name), name) for line, name in identifiers(module.tree)]
    texts = help_texts(module.tree) if module.is_command else ()
    found += [(line, text.lower().replace(",", " ").split(), text) for line, text in texts]
    for line, parts, name in found:
        for word in parts:
            if word in REPLACEMENTS and name not in ALLOWED:
                yield f"{module.where}:{line} {name!r}: write {REPLACEMENTS[word]} for {word!r}"


def test_no_former_word_is_left() -> None:
    tests = [Module(path) for path in sorted((ROOT / "tests").rglob("*.py"))]
    checked = [*modules(), *modules(*PROGRAMS), *tests]
    assert [each for module in checked for each in former_words(module)] == []


@pytest.mark.parametrize(
    "code",
    [
        "def predict(told): ...",
        "strayed_px = 1",
        "class HandedModel: ...",
        "import numpy as answer",
        "self.pictures_seen = 1",
    ],
)
def test_a_former_word_is_noticed(tmp_path: Path, code: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(code, encoding="utf-8")
    found = list(former_words(Module(path, tmp_path)))
    assert found
    assert "write" in found[0]
