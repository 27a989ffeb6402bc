"""The source tree as the architecture tests see it: modules, functions, docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("posekit", "engines/posekit_engines", "finetune/posekit_finetune")
PROGRAMS = ("benchmarks", "scripts", "examples")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One Python file."""

    path: Path
    root: Path = ROOT

    @property
    def where(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def is_command(self) -> bool:
        """Whether it is of the command line."""
        return self.where.startswith("posekit/cli/") and not self.path.name.startswith("_")


@dataclass(frozen=True)
class Function:
    """A function or method; `holder` is the class around it, `nested` is inside a function."""

    module: Module
    node: FunctionNode
    holder: ast.ClassDef | None
    nested: bool

    @property
    def where(self) -> str:
        holder = f"{self.holder.name}." if self.holder else ""
        return f"{self.module.where}:{holder}{self.node.name}"

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def is_public(self) -> bool:
        names = [self.node.name, self.holder.name if self.holder else ""]
        return not self.nested and not any(name.startswith("_") for name in names)

    @property
    def is_command(self) -> bool:
        return self.module.is_command and self.node.name == "command"

    @property
    def lines(self) -> int:
        """From `def` to the end, without the docstring."""
        end = self.node.end_lineno or self.node.lineno
        first = self.node.body[0]
        doc = 0
        if self.doc and first.end_lineno is not None:
            doc = first.end_lineno - first.lineno + 1
        return end - self.node.lineno + 1 - doc

    @property
    def statements(self) -> int:
        """Statements of the body at any depth, without docstring and imports."""
        found = [node for node in ast.walk(self.node) if isinstance(node, ast.stmt)]
        imports = sum(isinstance(node, ast.Import | ast.ImportFrom) for node in found)
        return len(found) - 1 - imports - bool(self.doc)

    @property
    def parameters(self) -> tuple[int, int]:
        """How many there are, and how many may be given by position; self and cls not counted."""
        arguments = self.node.args
        positional = len(arguments.posonlyargs) + len(arguments.args)
        decorators = {ast.unparse(each) for each in self.node.decorator_list}
        if self.holder is not None and not self.nested and "staticmethod" not in decorators:
            positional -= 1
        return positional + len(arguments.kwonlyargs), positional


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Every Python file under these folders of the repository, scripts without suffix included."""
    return tuple(
        Module(path)
        for folder in folders or PACKAGES
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and is_python(path)
    )


def is_python(path: Path) -> bool:
    """By its suffix, or by the first line of a file without one."""
    if path.suffix:
        return path.suffix == ".py"
    with path.open("rb") as file:
        return file.readline().startswith(b"#!") and b"python" in path.read_bytes()[:80]


def functions(module: Module) -> Iterator[Function]:
    """Every function of a module at any depth."""
    yield from _functions(module, module.tree, None, nested=False)


def _functions(
    module: Module, node: ast.AST, holder: ast.ClassDef | None, *, nested: bool
) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FunctionNode):
            yield Function(module, child, holder, nested)
            yield from _functions(module, child, holder, nested=True)
        elif isinstance(child, ast.ClassDef):
            yield from _functions(module, child, child, nested=nested)
        else:
            yield from _functions(module, child, holder, nested=nested)
