"""What was on disk before the packages were rearranged opens and goes on: see the files' README."""

import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

import posekit
from posekit.bundle import Bundle
from posekit.cli import app
from posekit.diagnostics.verify import verify
from posekit_finetune import recipe
from posekit_finetune.assess.monitor import MonitorReading

FILES = Path(__file__).parents[1] / "files" / "made_before_move"
REPORT = json.loads((FILES / "report.json").read_text())
STORED_STEP, LAST_STEP = 6, 12  # of the interrupted run, evaluated every 4 steps


def test_a_bundle_opens_runs_and_is_written_as_it_was() -> None:
    path = FILES / "tiny.posekit"
    bundle = Bundle.open(path)
    assert bundle.to_bytes() == path.read_bytes()
    assert bundle.provenance["parents"] == ["0" * 64]
    # The stored output is torch's with float32 weights: 0.05 px is what float16 weights may cost.
    assert max(verify(bundle).values()) <= 0.05
    for command in ("verify", "inspect"):
        assert CliRunner().invoke(app, [command, str(path)]).exit_code == 0
    poses = posekit.load(path, "cpu", 1)(
        bundle.reference["crops"][0], np.array([[0, 0, 48, 64]], np.float32)
    )
    assert poses.points.shape == (1, 17, 2)
    assert poses.confidence is not None  # the calibration is found and used


def test_a_recipe_is_read_as_it_was() -> None:
    loaded = recipe.load(FILES / "recipe.toml")
    assert json.loads(json.dumps(loaded.to_dict())) == REPORT["recipe"]
    assert loaded != recipe.Recipe()


def test_the_readings_of_a_report_are_read_as_they_were() -> None:
    """The state of an interrupted run holds the same dictionaries."""
    for each in REPORT["history"]:
        finite = {k: np.nan if v is None else v for k, v in each["values"].items()}
        read = MonitorReading.from_dict({**each, "values": finite})
        assert (read.step, read.losses) == (each["step"], each["losses"])
        assert set(read.values) == set(each["values"])


@dataclass
class Resumed:
    """The interrupted run, carried to its end by the code under test."""

    work: Path
    stored: dict[str, Any]
    names: set[str]
    summary: dict[str, Any] = field(default_factory=dict)
    stages: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    readings: list[int] = field(default_factory=list)
    steps: int = 0

    def count(self, _done: int, _total: int) -> None:
        self.counts[self.stages[-1]] = self.counts.get(self.stages[-1], 0) + 1

    def count_step(self) -> bool:
        self.steps += 1
        return False


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    place = tmp_path_factory.mktemp("interrupted")
    with tarfile.open(FILES / "interrupted.tar.xz") as archive:
        archive.extractall(place, filter="data")
    work = place / "work"
    (state,) = work.glob("state-*.pt")
    names = {path.name for path in work.iterdir()}
    run = Resumed(work, torch.load(state, weights_only=True), names)
    adapted = posekit.adapt(
        place / "source.posekit",
        place / "images",
        place / "out.posekit",
        recipe=str(FILES / "recipe.toml"),
        boxes="full",
        threads=1,
        seed=3,
        work=work,
        resume=True,
        hooks=posekit.AdaptHooks(
            on_stage=run.stages.append,
            on_count=run.count,
            on_reading=lambda reading, _seconds: run.readings.append(reading.step),
            stopped=run.count_step,
        ),
    )
    run.summary = adapted.summary
    return run


def test_an_interrupted_adaptation_goes_on_from_its_stored_step(resumed: Resumed) -> None:
    """Nothing is computed again: no person is searched for, no map predicted, no step repeated."""
    assert resumed.stored["step"] == STORED_STEP
    assert not [stage for stage in resumed.counts if "searching" in stage or "predicting" in stage]
    assert sum("predicting" in stage for stage in resumed.stages) == 2
    assert resumed.steps == LAST_STEP - STORED_STEP
    assert resumed.readings == [8, 12]
    assert [each["step"] for each in resumed.summary["history"]] == [4, 8, 12]
    recalled = resumed.summary["history"][0]
    assert {name: recalled[name] for name in REPORT["history"][0]} == REPORT["history"][0]
    assert {path.name for path in resumed.work.iterdir()} == resumed.names
    assert resumed.summary["facts"]["data_fingerprint"] == REPORT["facts"]["data_fingerprint"]


def test_an_interrupted_adaptation_ends_with_the_weights_of_a_whole_run(resumed: Resumed) -> None:
    """To the bit where the same kernels run. With torch's plain kernels and without oneDNN the
    deviation was at most 3e-4 of a tensor's largest movement after the stored step, on 98 % of the
    weights 2.3e-4; twice the anchor, which is the smallest term of this recipe, makes it 1e-3.
    """
    (state,) = resumed.work.glob("state-*.pt")
    last = torch.load(state, weights_only=True)
    assert last["step"] == LAST_STEP
    finished = load_file(FILES / "finished.safetensors")
    assert len(finished) == 20  # weights and biases of two heads, of the student and the average
    for name, wanted in finished.items():
        kind, _, tensor = name.partition(".")
        before, after = (each[kind][0][tensor].numpy() for each in (resumed.stored, last))
        moved = float(np.abs(wanted - before).max())
        deviation = np.abs(after - wanted)
        assert moved > 0, name
        assert float(np.quantile(deviation, 0.98)) <= 5e-4 * moved, name
        assert float(deviation.max()) <= 0.05 * moved, (
            name
        )  # a gradient's rounding is a step's sign


def test_the_report_of_a_resumed_run_has_the_keys_of_one_made_before(resumed: Resumed) -> None:
    assert keys(resumed.summary) >= keys(REPORT)  # keys may be added
    for name, wanted in REPORT["before"].items():
        found = resumed.summary["before"][name]
        assert found == (None if wanted is None else pytest.approx(wanted, abs=0.02)), name


def keys(value: Any, at: str = "") -> set[str]:
    """The names of all values, nested ones with a dot."""
    if isinstance(value, list):
        return set().union(*(keys(each, f"{at}[]") for each in value)) if value else {at}
    if not isinstance(value, dict):
        return {at}
    return {at}.union(*(keys(each, f"{at}.{name}") for name, each in value.items()))
