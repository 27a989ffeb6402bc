"""Recipes: names, types and ranges are checked, settings select values of views, files load."""

import dataclasses
import json
import tomllib
from pathlib import Path

import pytest

from posekit.errors import RecipeError
from posekit_finetune import recipe
from posekit_finetune.recipe import RECIPES, Recipe

# Numbers that took anything once.
FREE = (
    *("clip", "power", "amplitude", "aim", "agree_px", "focus", "supervised", "consistency"),
    *("retain", "anchor", "head_noise"),
)
WILD = ("nan", "inf", "-inf", "-1", "1e300")
NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_shipped_recipes_load_and_have_a_description(name: str) -> None:
    loaded = recipe.load(name)
    text = (RECIPES / f"{name}.toml").read_text()
    assert isinstance(loaded, Recipe)
    assert text.startswith("about = ")


def test_the_default_file_is_the_dataclass_default() -> None:
    """The defaults in `Recipe` are those of `posekit adapt`."""
    assert recipe.load("default") == Recipe()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "default"])
def test_a_published_method_inherits_nothing_from_our_default(name: str) -> None:
    """The extensions of `Recipe` beyond the paper are off, whatever the default is."""
    loaded = recipe.load(name)
    for extra in ("anchor", "retain", "dispute", "focus", "aim", "clip", "agree_px"):
        assert getattr(loaded, extra) == 0, extra
    for view in (loaded.easy, loaded.hard):
        assert view.any_turn == 0
        assert view.operations == 0
    written = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    explicit = {"loss", "target", "confidence", "learn", "batch_norm", "optimizer", "rate", "ema"}
    assert explicit | {"blend", "steps", "batch", "labelled_batch", "schedule"} <= set(written)


def test_every_method_of_the_paper_has_a_recipe() -> None:
    expected = {
        *("paper", "single", "dual", "supervised", "pseudo-label", "data-distillation"),
        *("same-strength", "same-strength-both", "reversed", "mean-teacher", "dual-student"),
        *("multi-augs", "sspcm", "rectified", "coco-1k", "coco-5k", "coco-10k", "coco-wild"),
        *("mpii-aic", "h36m"),
    }
    assert expected <= set(NAMES)


def test_paper_equals_the_reference_code() -> None:
    """λ of 2 (0.5 supervised, 1 consistency), joints repeated, no mask, batch norm trained."""
    loaded = recipe.load("paper")
    assert loaded.networks == 2
    assert loaded.consistency / loaded.supervised == 2
    assert loaded.repeat_joints
    assert not loaded.mask
    assert loaded.batch_norm == "train"
    assert (loaded.optimizer, loaded.rate, loaded.schedule) == ("adam", 1e-3, "steps")
    assert loaded.easy.turn_deg == (30, 60)
    assert loaded.easy.turn_share == 0.6
    assert loaded.hard.turn_share == 0.8
    assert loaded.hard.cutout == 5
    assert loaded.hard_from_easy


def test_an_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(RecipeError, match=r"did you mean same-strength\?"):
        recipe.load("same-strenght")
    with pytest.raises(RecipeError, match="did you mean batch_norm"):
        recipe.load("single", ["batchnorm=train"])
    with pytest.raises(RecipeError, match="did you mean turn_deg"):
        recipe.load("single", ["hard.turn_degrees=[1,2]"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("networks=3", "wanted one of"),
        ("steps=many", "wanted int"),
        ("steps=0", "steps: wanted a whole number from 1 to"),
        ("rate=-1", "rate: wanted a finite number from 1e-09 to 1"),
        ("ema=1", "ema: wanted a finite number from 0 to"),
        ("mask=1", "wanted bool"),
        ("steps=true", "wanted int"),
        ("hard=5", "is a table"),
        ("hard.turn_deg=20", "wanted a list of 2 numbers"),
        ("teacher=oracle", "wanted one of"),
        ("steps", "wanted name=value"),
        ("rate=" + "9" * 400, "rate: wanted a finite number"),
        ("rate=" + "9" * 5000, "not TOML"),
        ("aim=" + "[" * 5000, "nested deeper"),
        ("a.b.c=1", "wanted name=value"),
        ("a\0b=1", "there is no"),
        ("hard.operations=1.5", "wanted int"),
        ("hard.flip=2", r"hard\.flip\[0\]: wanted a finite number from 0 to 1"),
        ("hard.turn_deg=[1,nan]", "turn_deg"),
        *(
            (f"{name}={value}", f"{name}: wanted a finite number")
            for name in FREE
            for value in WILD
        ),
    ],
)
def test_wrong_values_are_refused(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.load("single", [setting])


@pytest.mark.parametrize(
    "settings",
    [["stop_gradient=false"], ["teacher=ema", "ema=0"], ["teacher=pair", "networks=1"]],
    ids=str,
)
def test_incompatible_values_are_refused(settings: list[str]) -> None:
    with pytest.raises(RecipeError):
        recipe.load("default", settings)


def test_settings_override_the_file_in_their_order() -> None:
    loaded = recipe.load(
        "single", ["rate=0.5", "hard.turn_deg=[20, 45]", "hard.cutout=2", "rate=1"]
    )
    assert loaded.rate == 1.0
    assert isinstance(loaded.rate, float)
    assert loaded.hard.turn_deg == (20.0, 45.0)
    assert loaded.hard.cutout == 2
    assert loaded.hard.turn_share == recipe.load("single").hard.turn_share  # not overridden


def test_a_users_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('about = "x"\nsteps = 7\n[easy]\nflip = 1\n')
    loaded = recipe.load(path)
    assert (loaded.steps, loaded.easy.flip) == (7, 1.0)


@pytest.mark.parametrize("text", [b"steps = ", b"\xff"])
def test_a_broken_file_has_its_own_error(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(text)
    with pytest.raises(RecipeError, match=r"broken\.toml: not (TOML|UTF-8)"):
        recipe.load(path)


@pytest.mark.parametrize("name", NAMES)
def test_the_values_of_a_report_are_the_recipe(name: str) -> None:
    loaded = recipe.load(name)
    values = json.loads(json.dumps(loaded.to_dict()))
    assert recipe.override(Recipe(), values) == loaded
    assert set(values) == {field.name for field in dataclasses.fields(Recipe)}


def test_every_number_of_a_recipe_has_a_range() -> None:
    """A field without one would take NaN: new fields must be added to the tables."""
    for made, ranges in ((Recipe(), recipe._RANGES), (Recipe().hard, recipe._VIEW_RANGES)):
        values = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
        kinds = {
            name for name, v in values.items() if type(v) in (int, float) or isinstance(v, tuple)
        }
        assert kinds == set(ranges)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "a\0b.toml", "no/such"])
def test_names_that_no_file_can_have_are_one_sentence(name: str) -> None:
    with pytest.raises(RecipeError, match="no such file or name") as caught:
        recipe.load(name)
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["rate = " + "9" * 5000, "a = " + "[" * 100_000, "a" + ".a" * 100_000 + " = 1"]
)
def test_hostile_files_are_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"^.*mine\.toml: "):
        recipe.load(path)
