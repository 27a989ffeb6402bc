"""Runs: reproducible, resumable bit for bit, equal on two processes; and what collapse is."""

import dataclasses
import itertools
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from posekit.bundle import Bundle, find
from posekit.errors import DivergedError, InputError
from posekit_finetune.assess.ensemble import predict_members
from posekit_finetune.train.loop import Loop, epoch_rows
from posekit_finetune.train.networks import Start, start_networks
from tests.finetune.training import (
    PERSONS,
    final_weights,
    pairs,
    short_recipe,
    small_net,
    spread_start,
    start,
    training_data,
)
from tests.support.assets import ROOT
from tests.synthetic.people import SPEC, SmallNet, people


def test_weights_depend_on_the_seed_alone() -> None:
    run_recipe = short_recipe("single", 3)
    first, again = (
        final_weights(Loop(start(), training_data(labels=True), run_recipe, seed=1))
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in pairs(first, again))
    other = final_weights(Loop(start(), training_data(labels=True), run_recipe, seed=2))
    assert any(not torch.equal(a, b) for a, b in pairs(first, other))


@pytest.mark.parametrize("name", ["sspcm", "default"])
def test_an_interrupted_run_ends_with_the_weights_of_a_whole_one(tmp_path: Path, name: str) -> None:
    """Bit for bit: two networks with averages and plain Adam; and relative steps with an anchor."""
    extra = {"sspcm": (), "default": ("teacher=self", "optimizer=relative", "anchor=0.1")}[name]
    run_recipe = short_recipe(name, 6, *extra)
    labels = name == "sspcm"
    whole = final_weights(
        Loop(_starts(run_recipe.networks), training_data(labels=labels), run_recipe)
    )
    state = tmp_path / "state.pt"
    early = dataclasses.replace(run_recipe, watch_every=2)
    cut = Loop(_starts(run_recipe.networks), training_data(labels=labels), early, state=state)
    for snapshot in itertools.islice(cut, 2):
        assert snapshot.step in (2, 4)
    cut.save()
    resumed = Loop(
        _starts(run_recipe.networks), training_data(labels=labels), run_recipe, state=state
    )
    assert resumed.step == 4
    assert all(torch.equal(a, b) for a, b in pairs(whole, final_weights(resumed)))


def _starts(count: int) -> Start:
    return start(*range(count))


def permutation(epoch: int) -> np.ndarray:
    return np.random.default_rng(epoch).permutation(PERSONS)


def test_every_person_is_drawn_once_per_epoch() -> None:
    rows = np.concatenate(
        [epoch_rows(np.arange(n, n + 16), PERSONS, permutation) for n in range(0, 2 * PERSONS, 16)]
    )
    assert sorted(rows[:PERSONS]) == sorted(rows[PERSONS:]) == list(range(PERSONS))
    assert rows[:PERSONS].tolist() != rows[PERSONS:].tolist()


def test_an_order_is_drawn_once_per_epoch_and_not_per_sample() -> None:
    epochs: list[int] = []

    def recorded(epoch: int) -> np.ndarray:
        epochs.append(epoch)
        return permutation(epoch)

    places = np.arange(PERSONS - 8, PERSONS + 8)
    rows = epoch_rows(places, PERSONS, recorded)
    assert sorted(epochs) == [0, 1]
    assert rows.tolist() == [*permutation(0)[-8:], *permutation(1)[:8]]


def test_supervised_steps_come_first() -> None:
    """The supervised warm-up of the paper's text; joint from step 0 is alone_steps = 0."""
    run_recipe = short_recipe("dual", 3, "alone_steps=2")
    loop = Loop(
        start(0, 1), training_data(labels=True), dataclasses.replace(run_recipe, watch_every=1)
    )
    losses = [set(snapshot.report.losses) for snapshot in loop]
    assert losses == [{"supervised"}, {"supervised"}, {"supervised", "consistency"}]


def test_two_networks_stay_different_and_one_is_copied() -> None:
    run_recipe = short_recipe("dual", 1)
    two = Loop(start(0, 1), training_data(), run_recipe)
    assert any(not torch.equal(a, b) for a, b in _first_weights(two))
    copies = Loop(start(0), training_data(), run_recipe)
    assert all(torch.equal(a, b) for a, b in _first_weights(copies))
    perturbed = Loop(start(0), training_data(), dataclasses.replace(run_recipe, head_noise=0.05))
    assert any(not torch.equal(a, b) for a, b in _first_weights(perturbed))


def _first_weights(loop: Loop) -> list[tuple[torch.Tensor, torch.Tensor]]:
    first, second = loop.networks.students
    return list(zip(first.parameters(), second.parameters(), strict=True))


def test_an_exported_network_is_blended_with_its_own_source() -> None:
    run_recipe = short_recipe("dual", 2, "blend=0")
    loop = Loop(start(0, 1), training_data(labels=True), run_recipe)
    list(loop)
    for index in (0, 1):
        expected = small_net(index).state_dict()
        for name, value in loop.export_network(index).state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, expected[name])


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    net = small_net()
    with torch.no_grad():
        net.final_layer.bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match="old weights stand"):
        list(Loop(Start(SPEC, (net,)), training_data(labels=True), short_recipe("supervised", 1)))


def test_a_second_network_must_have_the_firsts_maps() -> None:
    lightning, thunder = (Bundle.open(find(f"movenet-{name}")) for name in ("lightning", "thunder"))
    assert len(start_networks(lightning, lightning).nets) == 2
    with pytest.raises(InputError, match=r"movenet-thunder: takes \(256, 256\)"):
        start_networks(lightning, thunder)


# Collapse, on a network that is trained here in a few seconds of one core.


@cache
def trained() -> SmallNet:
    run_recipe = short_recipe("supervised", 120, "rate=3e-3")
    (snapshot,) = Loop(start(), training_data(labels=True), run_recipe)
    assert isinstance(snapshot.net, SmallNet)
    return snapshot.net


def response(name: str, steps: int, *, labels: bool = False) -> float:
    """Mean peak afterwards, as a share of that before."""
    persons = people(PERSONS, 1, "none").persons
    before = predict_members([trained()], persons)[0].response
    loop = Loop(Start(SPEC, (trained(),)), training_data(labels=labels), short_recipe(name, steps))
    (snapshot,) = loop
    return predict_members([snapshot.net], persons)[0].response / before


def test_fifty_steps_of_plain_same_strength_consistency_collapse() -> None:
    """Without labels the response falls to a tenth of that at the start, here below 0.6."""
    assert response("same-strength-both", 50) < 0.6


def test_fifty_steps_of_labels_alone_do_not_collapse() -> None:
    """The same steps, rate and views, so the optimizer is not the cause."""
    assert response("supervised", 50, labels=True) > 0.8


PROGRAM = """
import sys
import torch
from lightning_fabric import Fabric
from posekit_finetune.train.loop import Loop
from tests.finetune.training import short_recipe, spread_start, training_data

fabric = Fabric(accelerator="cpu", devices=1, num_nodes=2, strategy="ddp")
fabric.launch()
run_recipe = short_recipe(sys.argv[1], 3, "batch_norm=frozen")
start = spread_start(run_recipe.networks)
loop = Loop(start, training_data(labels=True), run_recipe, fabric=fabric)
(snapshot,) = loop
if fabric.global_rank == 0:
    nets = map(loop.export_network, range(run_recipe.networks))
    torch.save([net.state_dict() for net in nets], sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single", "dual"])
def test_two_processes_equal_one_at_the_same_global_batch(tmp_path: Path, name: str) -> None:
    """gloo, half of each batch per process; gradients are averaged, so sums differ by rounding.

    Adam turns a gradient's rounding into a step where the gradient itself is nearly 0: 3 steps of
    1e-3 move a weight by 3e-3; a hundredth of that is allowed, and more for one weight in 50.
    """
    program, out = tmp_path / "program.py", tmp_path / "nets.pt"
    program.write_text(PROGRAM)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = [str(ROOT / folder) for folder in (".", "engines", "finetune")]
    running = []
    for rank in range(2):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(folders),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "NODE_RANK": str(rank),
            "LOCAL_RANK": "0",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(program), name, str(out)]
        running.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    for process in running:
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error[-2000:]
    run_recipe = short_recipe(name, 3, "batch_norm=frozen")
    loop = Loop(spread_start(run_recipe.networks), training_data(labels=True), run_recipe)
    list(loop)
    for n, two in enumerate(torch.load(out, weights_only=True)):
        for key, one in loop.export_network(n).state_dict().items():
            away = (one.float() - two[key].float()).abs()
            assert float((away > 3e-5).float().mean()) < 0.02, key
            assert float(away.max()) < 3e-3, key
