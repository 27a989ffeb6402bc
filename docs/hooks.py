"""What the site takes from the source: every message that posekit can raise, and its repository."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("posekit", "engines/posekit_engines", "finetune/posekit_finetune")
MARK = "<!-- every message -->"
OPEN = "…"  # stands for what a message fills in


def errors() -> list[str]:
    """The classes of `posekit.errors`, in the order of the tree."""
    tree = ast.parse((ROOT / "posekit/errors.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def messages() -> dict[str, dict[str, list[str]]]:
    """By error and module: the messages as the source has them, with what they fill in as `…`."""
    found: dict[str, dict[str, list[str]]] = {name: {} for name in errors()}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            where = path.relative_to(ROOT).as_posix().partition("/posekit_")
            module = f"posekit_{where[2]}" if where[2] else where[0]
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for error, text in _raised(tree, found):
                if re.search("[a-z]{3}", text):  # else it is told elsewhere, word for word
                    found[error].setdefault(module, []).append(text)
    return found


def _raised(tree: ast.AST, known: Any) -> Iterator[tuple[str, str]]:
    """Each error that is made in `tree`, and its message."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=error), args=[first, *_]) if error in known:
                yield error, _text(first)


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(_text, parts))
        case ast.BinOp(left=left, right=right):
            return _text(left) + _text(right)
        case _:
            return OPEN


def page() -> str:
    """The messages as Markdown: a heading an error, a list a module."""
    lines = []
    for error, modules in messages().items():
        if modules:
            lines += ["", f"### Messages of {error}", ""]
        for module, texts in modules.items():
            lines += [f"`{module}`", "", *(f"- {_escaped(text)}" for text in texts), ""]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return "``" + text.replace("\n", " ").replace("`", "'") + "``"


def on_config(config: Any) -> Any:
    """MkDocs calls this first: the link to the repository, once pyproject.toml states one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if url := project.get("urls", {}).get("Repository"):
        config.repo_url, config.repo_name = url, project["name"]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this for each page."""
    return markdown.replace(MARK, page()) if MARK in markdown else markdown
