"""A recipe is one frozen dataclass: default, unit and source of each number beside it.

A TOML file overrides it, `--set name=value` overrides that; an unknown name is an error that
offers the nearest. The recipes that come with posekit are in `recipes/`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from posekit.errors import RecipeError
from posekit_finetune.views.warps import Strength

RECIPES = Path(__file__).parent / "recipes"

Made = TypeVar("Made", "Recipe", Strength)
Teacher = Literal["self", "ema", "pair", "frozen", "ensemble"]
Direction = Literal["easy-hard", "hard-easy"]


@dataclass(frozen=True)
class Recipe:
    """How a network learns. Sources: X = Xie et al., ICCV 2021 (its code where it says so);
    M = measured, `benchmarks/adaptation/adapt.py`.

    networks: 1, or 2 that teach each other (X, Algorithm 1).
    teacher: self (dual: the other network), ema (mean teacher), pair (of the two networks and
        their averages, joint by joint the two that agree best; SSPCM), frozen (the source),
        ensemble (the frozen source seen in `ensemble_views` views; M).
    direction: which view teaches (X: easy-hard; the reverse collapses).
    easy, hard: views; hard_from_easy warps the easy view a second time (X's code), else the crop.
    hard_views: students' views for one look of the teacher (MultiAugs).
    target: maps as they are (X), clean Gaussians of height 1 (UniFrame) or of the peak's height.
    loss: mse (X), bce, or kl of the spatial softmax (M), whose target is sharpened by `power`.
    supervised, consistency: weights of the two losses (X's text: 1 and 1; its dual code 0.5 and 1).
    """

    networks: Literal[1, 2] = 1
    teacher: Teacher = "ensemble"
    ensemble_views: Literal[1, 2, 4, 8, 16] = 16
    direction: Direction = "easy-hard"
    stop_gradient: bool = True
    easy: Strength = field(default_factory=Strength)
    hard: Strength = field(
        default_factory=lambda: Strength(
            turn_deg=(8.0, 20.0), scale=(0.05, 0.1), move_px=2.0, flip=0.5, any_turn=0.4
        )
    )
    hard_from_easy: bool = False
    hard_views: int = 1
    repeat_joints: bool = False  # X's code draws Joint Cutout's joints with replacement
    target: Literal["maps", "gaussian", "gaussian-height"] = "maps"
    loss: Literal["mse", "bce", "kl"] = "kl"
    power: float = 2.0  # M: of the target maps, under kl
    amplitude: float = 1.0  # M: weight of keeping the peaks' height, under kl
    aim: float = 0.0  # weight of showing a gated network where its joints are, cells
    confidence: bool = True  # M: a joint counts as the teacher's peak is high
    keep: float = 1.0  # share of the most confident joints that count (UniFrame: 0.5)
    agree_px: float = 0.0  # two teachers must agree within this, crop px; 0: no matter (SSPCM)
    mask: bool = True  # leave out cells that the teacher did not see (X: all count)
    dispute: float = 0.0  # how much more a joint counts where a sure ensemble and the source differ
    focus: float = 0.0  # how much more often persons are drawn on whom teacher and source differ
    supervised: float = 1.0
    consistency: float = 1.0
    alone_steps: int = 0  # labelled images only, before consistency begins (X, supplement B)
    retain: float = 1.0  # M: weight of answering as the source does in views far from the person
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
    anchor: float = 0.0  # pull towards the source's weights, relative to each channel's size
    learn: Literal["all", "deep", "late", "head"] = "deep"  # M: layers up to stride 4 stand still
    batch_norm: Literal["train", "frozen"] = "frozen"  # X: train, in all three passes
    head_noise: float = 0.0  # makes twins differ: noise on the second network's head, share of rms
    optimizer: Literal["relative", "adam"] = "relative"  # M: adam destroys folded networks
    rate: float = 1e-3  # relative: share of a channel's rms a step; adam: X 1e-3
    warm_up: int = 20  # steps
    schedule: Literal["cosine", "steps"] = "cosine"  # steps: a tenth at 70 % and 90 % (X)
    clip: float = 0.0  # largest norm of the gradient, 0: any
    ema: float = 0.99  # decay of the averaged weights, which are what is handed out; 0: none
    blend: float = 0.8  # share of the learned weights in what is handed out, rest the source's
    steps: int = 1400
    batch: int = 16  # persons a step
    labelled_batch: int = 16
    watch_every: int = 350  # steps between two looks at the held-out persons

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise RecipeError(f"recipe: {name} = {value}; wanted {low} to {high}")
        if not self.stop_gradient and self.teacher != "self":
            raise RecipeError("recipe: only teacher = self can do without stop_gradient")
        if self.teacher in ("ema", "pair") and not self.ema:
            raise RecipeError(f"recipe: teacher = {self.teacher} is an average; wanted ema above 0")
        if self.teacher == "pair" and self.networks != 2:
            raise RecipeError("recipe: teacher = pair is of two networks; wanted networks = 2")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and TOML."""
        return dataclasses.asdict(self)


_RANGES = (
    ("networks", 1, 2),
    ("hard_views", 1, 8),
    ("keep", 0.01, 1),
    ("steps", 1, 10_000_000),
    ("batch", 1, 4096),
    ("labelled_batch", 1, 4096),
    ("rate", 1e-9, 1),
    ("ema", 0, 0.99999),
    ("blend", 0, 1),
    ("dispute", 0, 1000),
    ("watch_every", 1, 10_000_000),
)


def load(name: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """A recipe of the package by name, or a TOML file, with `name=value` settings on top.

    A dot reaches into a view: `hard.turn_deg=[20,45]`. Raises RecipeError.
    """
    path = Path(name) if Path(name).suffix == ".toml" else RECIPES / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        known = sorted(file.stem for file in RECIPES.glob("*.toml"))
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise RecipeError(
            f"recipe {str(name)!r}: no such file or name; {hint}known are {', '.join(known)}"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as TOML ({error})") from error
    table.pop("about", None)
    recipe = overridden(Recipe(), table)
    for setting in settings:
        recipe = overridden(recipe, _parsed(setting))
    return recipe


def _parsed(setting: str) -> dict[str, Any]:
    """`a.b=value` as a nested table; the value is TOML, or a bare word."""
    name, sign, value = setting.partition("=")
    if not sign:
        raise RecipeError(f"--set {setting}: wanted name=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(name.strip().split(".")):
        parsed = {part: parsed}
    result: dict[str, Any] = parsed
    return result


def overridden(made: Made, table: dict[str, Any]) -> Made:
    """A recipe, or one of its views, with the table's values. Raises RecipeError."""
    kinds = get_type_hints(type(made))
    changes: dict[str, Any] = {}
    for name, value in table.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, list(kinds), 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(kinds)}"
            raise RecipeError(f"recipe: there is no {name!r}{hint}")
        changes[name] = _checked(name, value, getattr(made, name), kind=kinds[name])
    return dataclasses.replace(made, **changes)


def _checked(name: str, value: Any, default: Any, *, kind: Any) -> Any:
    if isinstance(default, Strength):
        if not isinstance(value, dict):
            raise RecipeError(f"recipe: {name} is a table of a view's numbers, got {value!r}")
        return overridden(default, value)
    choices = get_args(kind) if getattr(kind, "__origin__", None) is Literal else ()
    if choices:
        if value not in choices:
            raise RecipeError(f"recipe: {name} = {value!r}; wanted one of {choices}")
        return value
    if isinstance(default, tuple):
        pair = isinstance(value, list | tuple) and len(value) == len(default)
        if not pair or not all(isinstance(v, int | float) for v in value):
            raise RecipeError(f"recipe: {name} = {value!r}; wanted {len(default)} numbers")
        return tuple(float(v) for v in value)
    wanted = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(default, bool):
        raise RecipeError(f"recipe: {name} = {value!r}; wanted {type(default).__name__}")
    return type(default)(value)


def to_toml(recipe: Recipe) -> str:
    """The whole recipe as a TOML text that `load` reads."""
    lines, tables = [], []
    for name, value in recipe.to_dict().items():
        if isinstance(value, dict):
            tables += [f"\n[{name}]"] + [f"{k} = {json.dumps(v)}" for k, v in value.items()]
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join(lines + tables) + "\n"
