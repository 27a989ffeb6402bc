"""Guards against drift: sizes, parameters, docstrings, and what is never written.

The aims are prose (CONTRIBUTING.md); these tests only stop the code from walking away from them.
"""

from __future__ import annotations

import ast
import statistics
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from posekit import errors
from tests.architecture.tree import PACKAGES, PROGRAMS, ROOT, Function, Module, functions, modules

# What may break a guard, and why. Keep it under five.
ALLOWED: dict[str, str] = {
    "posekit/cli/last_net.py": "no exception may end the command line in a trace",
    "posekit/api.py:load": "what is asked of the machine is three things: device, runtime, threads",
}

FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "misc", "base", "core"}
BASES: dict[str, set[str]] = {
    name: {base.__name__ for base in kind.__mro__ if issubclass(base, errors.PosekitError)}
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.PosekitError)
}


def all_functions(*folders: str) -> list[Function]:
    return [function for module in modules(*folders) for function in functions(module)]


def offenders(found: Iterator[str]) -> list[str]:
    return [each for each in found if each.split(" ")[0] not in ALLOWED]


# Each rule takes what it judges and gives the reason for which it is wrong, or None.


def too_long(function: Function) -> str | None:
    limit = 60 if function.node.name == "step" else 40
    if function.is_command:
        return None
    return f"{function.lines} lines, {limit} at most" if function.lines > limit else None


def logic_in_command(function: Function) -> str | None:
    if not function.is_command or function.statements <= 12:
        return None
    return f"{function.statements} statements, 12 at most"


def too_many_parameters(function: Function) -> str | None:
    total, positional = function.parameters
    if function.is_command or (total <= 6 and positional <= 3):
        return None
    return f"{total} parameters, {positional} by position; 6 and 3 at most"


def long_docstring(function: Function) -> str | None:
    lines = len(function.doc.splitlines())
    return f"a docstring of {lines} lines, 8 at most" if lines > 8 else None


def undocumented_errors(function: Function) -> str | None:
    """An error that a public function itself raises stands in its docstring, or a base of it."""
    doc = function.doc
    if function.node.name in ("__init__", "__call__", "__iter__", "__next__") and function.holder:
        doc += ast.get_docstring(function.holder) or ""
    elif not function.is_public:
        return None
    raised = {name for name in raises(function.node) if not BASES[name] & set(words(doc))}
    return f"raises {', '.join(sorted(raised))} and does not say so" if raised else None


def undocumented(function: Function) -> str | None:
    if function.doc or not function.is_public:
        return None
    return "has no docstring"


FUNCTION_RULES = (
    too_long,
    logic_in_command,
    too_many_parameters,
    long_docstring,
    undocumented,
    undocumented_errors,
)


def raises(node: ast.AST) -> set[str]:
    """Names of our errors in the `raise` statements of a function, not of functions inside it."""
    found = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            found |= {ast.unparse(child.exc.func).rpartition(".")[2]} & set(BASES)
        found |= raises(child)
    return found


def words(text: str) -> list[str]:
    return "".join(char if char.isalnum() else " " for char in text).split()


def catches_all(module: Module) -> Iterator[str]:
    """`except:` and `except Exception`; BaseException only to clean up and raise it again."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = set(words(ast.unparse(node.type))) if node.type else {"Exception"}
        last = node.body[-1]
        raised_again = isinstance(last, ast.Raise) and last.exc is None
        if "Exception" in caught or ("BaseException" in caught and not raised_again):
            yield f"{module.where} catches everything in line {node.lineno}"


def prints(module: Module) -> Iterator[str]:
    if module.is_command:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield f"{module.where}:{node.lineno} prints"


def touches_sys_path(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        imported = isinstance(node, ast.ImportFrom) and node.module == "sys"
        names = {alias.name for alias in node.names} if imported else set()
        if "path" in names or (isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path"):
            yield f"{module.where} touches sys.path"


def registers(module: Module) -> Iterator[str]:
    for function in functions(module):
        if any("regist" in ast.unparse(each) for each in function.node.decorator_list):
            yield f"{function.where} is put into a registry"


def bad_name(module: Module) -> Iterator[str]:
    parts = Path(module.where).with_suffix("").parts
    if FORBIDDEN_NAMES & set(parts):
        yield f"{module.where} has a name that says nothing"


def too_big(module: Module) -> Iterator[str]:
    limit = 120 if module.is_command else 400
    count = len(module.text.splitlines())
    if count > limit:
        yield f"{module.where} has {count} lines, {limit} at most"


MODULE_RULES = (catches_all, prints, touches_sys_path, registers, bad_name, too_big)


@pytest.mark.parametrize("rule", FUNCTION_RULES, ids=lambda rule: rule.__name__)
def test_functions_keep_the_rule(rule: Callable[[Function], str | None]) -> None:
    found = ((each.where, rule(each)) for each in all_functions())
    wrong = offenders(f"{where} {reason}" for where, reason in found if reason)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("rule", MODULE_RULES, ids=lambda rule: rule.__name__)
def test_modules_keep_the_rule(rule: Callable[[Module], Iterator[str]]) -> None:
    wrong = offenders(line for module in modules() for line in rule(module))
    assert not wrong, "\n".join(wrong)


def test_a_folder_has_at_most_14_modules() -> None:
    """More are no longer read at a glance; `__init__.py` counts."""
    counts = Counter(each.path.parent for each in modules(*PACKAGES, *PROGRAMS, "tests"))
    large = {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > 14}
    assert not large


def test_programs_and_tests_keep_to_the_sizes() -> None:
    files = [line for each in modules(*PROGRAMS, "tests") for line in too_big(each)]
    long = [f"{each.where} {too_long(each)}" for each in all_functions(*PROGRAMS) if too_long(each)]
    names = [line for each in modules(*PROGRAMS, "tests") for line in bad_name(each)]
    wrong = offenders(iter(files + long + names))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_median_function_is_short(package: str) -> None:
    lengths = [function.lines for function in all_functions(package)]
    assert statistics.median(lengths or [0]) <= 12


def test_few_exceptions_each_with_a_reason() -> None:
    assert len(ALLOWED) < 5
    assert all(len(reason.split()) > 3 for reason in ALLOWED.values())


def test_ruff_bounds_complexity_and_nothing_is_excused() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    assert "C90" in ruff["lint"]["select"]
    assert ruff["lint"]["mccabe"]["max-complexity"] <= 8
    excused = [module.where for module in modules() if "noqa: C901" in module.text]
    assert not excused


WRONG = '''
import sys

def long_one(a, b, c, d):
    """Says little."""
    try:
        print(sys.path)
    except Exception:
        raise InputError("no")
''' + "".join(f"    x = {n}\n" for n in range(40))


@pytest.mark.parametrize("rule", [too_long, too_many_parameters, undocumented_errors])
def test_function_rules_find_what_is_wrong(
    tmp_path: Path, rule: Callable[[Function], str | None]
) -> None:
    (function,) = functions(_written(tmp_path, WRONG))
    assert rule(function)


@pytest.mark.parametrize("rule", [catches_all, prints, touches_sys_path])
def test_module_rules_find_what_is_wrong(
    tmp_path: Path, rule: Callable[[Module], Iterator[str]]
) -> None:
    assert list(rule(_written(tmp_path, WRONG)))


def test_base_exception_may_be_caught_to_clean_up(tmp_path: Path) -> None:
    text = "try:\n    f()\nexcept BaseException:\n    g()\n    raise\n"
    assert not list(catches_all(_written(tmp_path, text)))
    assert list(catches_all(_written(tmp_path, text.replace("    raise\n", ""))))


def _written(folder: Path, text: str) -> Module:
    path = folder / "wrong.py"
    path.write_text(text, encoding="utf-8")
    return Module(path, folder)
