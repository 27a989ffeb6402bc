"""A recipe is one frozen dataclass: default, unit and source of each number beside it.

A TOML file overrides it, `--set name=value` overrides that; an unknown name is an error that
suggests the closest. The shipped recipes are in `recipes/`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from posekit.errors import RecipeError
from posekit.inputs.parsing import number, numbers, parse_toml, read_toml, shown
from posekit_finetune.views.warps import Strength

RECIPES = Path(__file__).parent / "recipes"

Overridable = TypeVar("Overridable", "Recipe", Strength)
Teacher = Literal["self", "ema", "pair", "frozen", "ensemble"]
Direction = Literal["easy-hard", "hard-easy"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Sources: X = Xie et al., ICCV 2021 (its code where noted);
    M = measured, `benchmarks/adaptation/adapt.py`.

    networks: 1, or 2 that teach each other (X, Algorithm 1).
    teacher: self (with two: the other network), ema (mean teacher), pair (of the two networks and
        their averages, for each joint the two that agree best; SSPCM), frozen (the source),
        ensemble (test-time augmentation of the frozen source in `ensemble_views` views; M).
    direction: which view teaches (X: easy-hard; the reverse collapses).
    easy, hard: views; hard_from_easy warps the easy view a second time (X's code), else the crop.
    hard_views: students' views per view of the teacher (MultiAugs).
    target: the teacher's maps (X), Gaussians of height 1 (UniFrame) or of the peak's height.
    loss: mse (X), bce, or kl of the spatial softmax (M), whose target is sharpened by `power`.
    supervised, consistency: weights of the two losses (X's text: 1 and 1; its dual code 0.5 and 1).
    """

    networks: Literal[1, 2] = 1
    teacher: Teacher = "ensemble"
    ensemble_views: Literal[1, 2, 4, 8, 16] = 16  # rotations and flips (M)
    direction: Direction = "easy-hard"
    stop_gradient: bool = True  # the teacher's side gets no gradient (X)
    easy: Strength = field(default_factory=Strength)
    hard: Strength = field(
        default_factory=lambda: Strength(
            turn_deg=(8.0, 20.0), scale=(0.05, 0.1), move_px=2.0, flip=0.5, any_turn=0.4
        )
    )
    hard_from_easy: bool = False  # warp the easy view a second time (X's code), else the crop
    hard_views: int = 1
    repeat_joints: bool = False  # X's code: draw Joint Cutout's joints with replacement
    target: Literal["maps", "gaussian", "gaussian-height"] = "maps"
    loss: Literal["mse", "bce", "kl"] = "kl"
    power: float = 2.0  # M: of the target maps, under kl
    amplitude: float = 1.0  # M: weight of preserving the peaks' height, with kl
    aim: float = 0.0  # weight of a gated network's error of its expected joints, cells
    confidence: bool = True  # M: weigh each joint by the height of the teacher's peak
    keep: float = 1.0  # share of the most confident joints that count (UniFrame: 0.5)
    agree_px: float = 0.0  # two teachers must agree within this, crop px; 0: unlimited (SSPCM)
    mask: bool = True  # exclude cells outside the teacher's view (X: all count)
    dispute: float = 0.0  # extra weight of joints where a confident ensemble and the source differ
    focus: float = 0.0  # extra probability of drawing persons on whom teacher and source differ
    supervised: float = 1.0
    consistency: float = 1.0
    alone_steps: int = 0  # steps on labeled images only, before consistency (X, supplement B)
    retain: float = 1.0  # M: weight of equality with the source in out-of-domain views
    far: Strength = field(
        default_factory=lambda: Strength(
            turn_deg=(15.0, 30.0),
            scale=(0.4, 0.6),
            move_px=30.0,
            flip=0.5,
            operations=1,
            magnitude=10.0,
        )
    )
    anchor: float = 0.0  # weight decay towards the source's weights, per unit of learning rate
    learn: Literal["all", "deep", "late", "head"] = "deep"  # M: layers up to stride 4 are frozen
    batch_norm: Literal["train", "frozen"] = "frozen"  # X: train, in all three passes
    head_noise: float = 0.0  # noise on the head of a copied second network, share of rms
    optimizer: Literal["relative", "adam"] = "relative"  # M: adam destroys folded networks
    rate: float = 1e-3  # relative: share of a channel's rms per step; adam: X 1e-3
    warm_up: int = 20  # steps
    schedule: Literal["cosine", "steps"] = "cosine"  # steps: a tenth at 70 % and 90 % (X)
    clip: float = 0.0  # maximum norm of the gradient, 0: unlimited
    ema: float = 0.99  # decay of the averaged weights, which are exported; 0: no average
    blend: float = 0.8  # share of the learned weights in the exported ones, the rest the source's
    steps: int = 1400  # training steps (M)
    batch: int = 16  # persons per step
    labelled_batch: int = 16  # labeled persons per step
    watch_every: int = 350  # steps between two evaluations of the held-out persons

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            whole = isinstance(getattr(type(self), name), int)
            value = getattr(self, name)
            number(
                value, name=f"recipe: {name}", low=low, high=high, whole=whole, error=RecipeError
            )
        for view in ("easy", "hard", "far"):
            _check_view(view, getattr(self, view))
        if not self.stop_gradient and self.teacher != "self":
            raise RecipeError(
                f"recipe: stop_gradient = false, teacher = {self.teacher}; wanted teacher = self"
            )
        if self.teacher in ("ema", "pair") and not self.ema:
            raise RecipeError(f"recipe: teacher = {self.teacher} is an average; wanted ema above 0")
        if self.teacher == "pair" and self.networks != 2:
            raise RecipeError(
                f"recipe: teacher = pair, networks = {self.networks}; wanted networks = 2"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


_RANGES: dict[str, tuple[float, float]] = {
    "networks": (1, 2),
    "ensemble_views": (1, 16),
    "hard_views": (1, 8),
    "power": (0, 100),
    "amplitude": (0, 1e6),
    "aim": (0, 1e6),
    "keep": (0.01, 1),
    "agree_px": (0, 1e4),
    "dispute": (0, 1000),
    "focus": (0, 1000),
    "supervised": (0, 1e6),
    "consistency": (0, 1e6),
    "alone_steps": (0, 10_000_000),
    "retain": (0, 1e6),
    "anchor": (0, 1e6),
    "head_noise": (0, 100),
    "rate": (1e-9, 1),
    "warm_up": (0, 10_000_000),
    "clip": (0, 1e9),
    "ema": (0, 0.99999),
    "blend": (0, 1),
    "steps": (1, 10_000_000),
    "batch": (1, 4096),
    "labelled_batch": (1, 4096),
    "watch_every": (1, 10_000_000),
}
_VIEW_RANGES: dict[str, tuple[float, float]] = {
    "turn_deg": (0, 1e9),  # a spread beyond 360 puts every view at the limit
    "turn_share": (0, 1),
    "scale": (0, 10),
    "move_px": (0, 1e4),
    "flip": (0, 1),
    "any_turn": (0, 1),
    "operations": (0, 100),
    "magnitude": (0, 30),
    "cutout": (0, 1000),
}
_LONGEST_SETTING = 10_000  # characters
_WORD = re.compile(r"(?!true|false|nan|inf)[A-Za-z][\w-]*")  # needs no quotes


def _check_view(view: str, strength: Strength) -> None:
    """Raises RecipeError where a number of a view is none, or beyond its range."""
    for name, (low, high) in _VIEW_RANGES.items():
        value = getattr(strength, name)
        values = value if isinstance(value, tuple) else (value,)
        label = f"recipe: {view}.{name}"
        numbers(values, name=label, low=low, high=high, error=RecipeError)
        if isinstance(getattr(Strength, name), int):
            number(value, name=label, whole=True, error=RecipeError)


def load(name: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name, or a TOML file, overridden by `name=value` settings.

    A dot selects a value of a view: `hard.turn_deg=[20,45]`. Raises RecipeError.
    """
    path = Path(name) if Path(name).suffix == ".toml" else RECIPES / f"{name}.toml"
    if not _exists(path):
        known = sorted(file.stem for file in RECIPES.glob("*.toml"))
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise RecipeError(
            f"recipe {shown(str(name))}: no such file or name; {hint}known are {', '.join(known)}"
        )
    table = read_toml(path, error=RecipeError)
    table.pop("about", None)
    recipe = override(Recipe(), table)
    for setting in settings:
        recipe = override(recipe, _parse(setting))
    return recipe


def _exists(path: Path) -> bool:
    """Whether there is a file; a name that no file can have is none."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long; a NUL
        return False


def _parse(setting: str) -> dict[str, Any]:
    """`a.b=value` as a nested table; the value is TOML, or a bare word."""
    name, sign, value = setting.partition("=")
    path = name.strip().split(".")
    if not sign or len(path) > 2 or len(setting) > _LONGEST_SETTING:
        raise RecipeError(f"--set {shown(setting)}: wanted name=value, or view.name=value")
    parsed: Any = value.strip()
    if not _WORD.fullmatch(parsed):
        label = f"--set {shown(setting)}"
        parsed = parse_toml(f"value = {parsed}", name=label, error=RecipeError)["value"]
    for part in reversed(path):
        parsed = {part: parsed}
    result: dict[str, Any] = parsed
    return result


def override(values: Overridable, table: dict[str, Any]) -> Overridable:
    """A recipe, or one of its views, with the table's values. Raises RecipeError."""
    kinds = get_type_hints(type(values))
    changes: dict[str, Any] = {}
    for name, value in table.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, list(kinds), 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(kinds)}"
            raise RecipeError(f"recipe: there is no {shown(name)}{hint}")
        changes[name] = _check_value(name, value, getattr(values, name), kind=kinds[name])
    return dataclasses.replace(values, **changes)


def _check_value(name: str, value: Any, default: Any, *, kind: Any) -> Any:
    label = f"recipe: {name}"
    if isinstance(default, Strength):
        if not isinstance(value, dict):
            raise RecipeError(f"recipe: {name} is a table of a view's numbers, got {shown(value)}")
        return override(default, value)
    choices = get_args(kind) if getattr(kind, "__origin__", None) is Literal else ()
    if choices:
        if value not in choices:
            raise RecipeError(f"recipe: {name} = {shown(value)}; wanted one of {choices}")
        return value
    if isinstance(default, tuple):
        return tuple(numbers(value, name=label, count=len(default), error=RecipeError))
    if isinstance(default, float):
        return number(value, name=label, error=RecipeError)
    if type(value) is not type(default):
        raise RecipeError(f"{label} = {shown(value)}; wanted {type(default).__name__}")
    return value
