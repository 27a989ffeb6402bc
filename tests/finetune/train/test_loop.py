"""Runs: repeatable, resumable to the bit, the same on two processes; and what collapse is."""

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

from benchmarks.stick_figures import SPEC, SmallNet, figures
from posekit.bundle import Bundle, find
from posekit.errors import DivergedError, InputError
from posekit_finetune.assess.ensemble import load_members
from posekit_finetune.train.loop import Loop
from posekit_finetune.train.networks import Start, start_networks
from tests.assets import ROOT
from tests.finetune.small import (
    PERSONS,
    lively_start,
    material,
    pairs,
    small,
    small_net,
    start,
    weights,
)


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    made = small("single", 3)
    first, again = (weights(Loop(start(), material(labels=True), made, seed=1)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in pairs(first, again))
    other = weights(Loop(start(), material(labels=True), made, seed=2))
    assert any(not torch.equal(a, b) for a, b in pairs(first, other))


@pytest.mark.parametrize("name", ["sspcm", "default"])
def test_a_run_that_was_cut_off_ends_where_the_whole_one_does(tmp_path: Path, name: str) -> None:
    """To the bit: two networks with averages and plain Adam; and relative steps with an anchor."""
    extra = {"sspcm": (), "default": ("teacher=self", "optimizer=relative", "anchor=0.1")}[name]
    made = small(name, 6, *extra)
    labels = name == "sspcm"
    whole = weights(Loop(_starts(made.networks), material(labels=labels), made))
    state = tmp_path / "state.pt"
    early = dataclasses.replace(made, watch_every=2)
    cut = Loop(_starts(made.networks), material(labels=labels), early, state=state)
    for reached in itertools.islice(cut, 2):
        assert reached.step in (2, 4)
    cut.save()
    resumed = Loop(_starts(made.networks), material(labels=labels), made, state=state)
    assert resumed.step == 4
    assert all(torch.equal(a, b) for a, b in pairs(whole, weights(resumed)))


def _starts(count: int) -> Start:
    return start(*range(count))


def test_every_person_is_seen_once_an_epoch() -> None:
    loop = Loop(start(), material(), small("single", 1))
    rows = np.concatenate([loop._rows(np.arange(n, n + 16)) for n in range(0, 2 * PERSONS, 16)])
    assert sorted(rows[:PERSONS]) == sorted(rows[PERSONS:]) == list(range(PERSONS))
    assert rows[:PERSONS].tolist() != rows[PERSONS:].tolist()


def test_labelled_steps_alone_come_first() -> None:
    """The supervised warm-up of the paper's text; joint from step 0 is alone_steps = 0."""
    made = small("dual", 3, "alone_steps=2")
    loop = Loop(start(0, 1), material(labels=True), dataclasses.replace(made, watch_every=1))
    seen = [set(reached.report.losses) for reached in loop]
    assert seen == [{"supervised"}, {"supervised"}, {"supervised", "consistency"}]


def test_two_given_networks_stay_two_and_one_becomes_twins() -> None:
    made = small("dual", 1)
    given = Loop(start(0, 1), material(), made)
    assert any(not torch.equal(a, b) for a, b in _first_weights(given))
    twins = Loop(start(0), material(), made)
    assert all(torch.equal(a, b) for a, b in _first_weights(twins))
    shaken = Loop(start(0), material(), dataclasses.replace(made, head_noise=0.05))
    assert any(not torch.equal(a, b) for a, b in _first_weights(shaken))


def _first_weights(loop: Loop) -> list[tuple[torch.Tensor, torch.Tensor]]:
    first, second = loop.networks.students
    return list(zip(first.parameters(), second.parameters(), strict=True))


def test_what_is_handed_out_is_blended_with_its_own_source() -> None:
    made = small("dual", 2, "blend=0")
    loop = Loop(start(0, 1), material(labels=True), made)
    list(loop)
    for index in (0, 1):
        wanted = small_net(index).state_dict()
        for name, value in loop.handed(index).state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, wanted[name])


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    net = small_net()
    with torch.no_grad():
        net.final_layer.bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match="old weights stand"):
        list(Loop(Start(SPEC, (net,)), material(labels=True), small("supervised", 1)))


def test_a_second_network_must_have_the_firsts_maps() -> None:
    lightning, thunder = (Bundle.open(find(f"movenet-{name}")) for name in ("lightning", "thunder"))
    assert len(start_networks(lightning, lightning).nets) == 2
    with pytest.raises(InputError, match=r"movenet-thunder: takes \(256, 256\)"):
        start_networks(lightning, thunder)


# Collapse, on a network that is trained here in a few seconds of one core.


@cache
def trained() -> SmallNet:
    made = small("supervised", 120, "rate=3e-3")
    (reached,) = Loop(start(), material(labels=True), made)
    assert isinstance(reached.net, SmallNet)
    return reached.net


def response(name: str, steps: int, *, labels: bool = False) -> float:
    """Mean peak afterwards, as a share of that before."""
    persons = figures(PERSONS, 1, "none").persons
    before = load_members([trained()], persons)[0].response
    loop = Loop(Start(SPEC, (trained(),)), material(labels=labels), small(name, steps))
    (reached,) = loop
    return load_members([reached.net], persons)[0].response / before


def test_fifty_steps_of_raw_same_strength_consistency_trip_the_alarm() -> None:
    """Without labels its response falls to a tenth; the alarm is at 0.6 of the start."""
    assert response("same-strength-both", 50) < 0.6


def test_labels_alone_do_not() -> None:
    """The same steps, rate and views: it is not the optimiser that puts the maps out."""
    assert response("supervised", 50, labels=True) > 0.8


PROGRAM = """
import sys
import torch
from lightning_fabric import Fabric
from posekit_finetune.train.loop import Loop
from tests.finetune.small import lively_start, material, small

fabric = Fabric(accelerator="cpu", devices=1, num_nodes=2, strategy="ddp")
fabric.launch()
made = small(sys.argv[1], 3, "batch_norm=frozen")
loop = Loop(lively_start(made.networks), material(labels=True), made, fabric=fabric)
(reached,) = loop
if fabric.global_rank == 0:
    torch.save([net.state_dict() for net in map(loop.handed, range(made.networks))], sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single", "dual"])
def test_two_processes_equal_one_at_the_same_global_batch(tmp_path: Path, name: str) -> None:
    """gloo, half of each batch a process; gradients are the mean, so sums differ by rounding.

    Adam turns a gradient's rounding into a step where the gradient itself is next to nothing: 3
    steps of 1e-3 move a weight by 3e-3; a hundredth of that is allowed, and seldom more.
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
    made = small(name, 3, "batch_norm=frozen")
    loop = Loop(lively_start(made.networks), material(labels=True), made)
    list(loop)
    for n, two in enumerate(torch.load(out, weights_only=True)):
        for key, one in loop.handed(n).state_dict().items():
            away = (one.float() - two[key].float()).abs()
            assert float((away > 3e-5).float().mean()) < 0.02, key
            assert float(away.max()) < 3e-3, key
