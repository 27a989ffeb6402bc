"""Algorithm 1: losses equal the formula, and only the student's side gets the gradient."""

import copy
import sys
from types import FrameType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posekit.codecs import encode
from posekit_finetune.recipe import Recipe, Strength
from posekit_finetune.train.losses import Target
from posekit_finetune.train.step import Batch, Labels, Networks, Step
from posekit_finetune.views import warps
from tests.finetune.training import BATCH, batch_input, batch_persons, short_recipe, unit_net
from tests.synthetic.people import SPEC, people

STILL = Strength()


def plain(**changes: object) -> Recipe:
    """Easy and hard views that are the crop itself, so the formula takes two lines."""
    values = {"easy": STILL, "hard": STILL, "loss": "mse", "confidence": False, "teacher": "self"}
    return Recipe(**{**values, "ema": 0.0, "mask": False, "retain": 0.0, **changes})  # type: ignore[arg-type]


def step_of(recipe: Recipe, nets: list[nn.Module], **options: object) -> Step:
    parameters = [parameter for net in nets for parameter in net.parameters()]
    networks = Networks(nets, [copy.deepcopy(net) for net in nets], copy.deepcopy(nets[0]))
    offset = people(BATCH, 1, "none").persons.offset
    sgd = torch.optim.SGD(parameters, 0.0)
    return Step(networks, recipe, SPEC, offset, sgd, **options)  # type: ignore[arg-type]


def randoms(stream: int) -> list[np.random.Generator]:
    return [np.random.default_rng((stream, n)) for n in range(BATCH)]


def batch(*, labels: bool = False) -> Batch:
    labeled = batch_persons()
    patches = labeled.persons.patches[:]
    if not labels:
        return Batch(randoms(1), patches)
    return Batch(
        randoms(1), patches, labels=Labels(randoms(2), patches, labeled.points, labeled.weights)
    )


def test_dual_is_the_sum_of_both_supervised_and_both_crossed_losses() -> None:
    """½ MSE(f, gt) + ½ MSE(g, gt) + MSE(f, sg g) + MSE(g, sg f), each with its own half."""
    f, g = unit_net(1), unit_net(2)
    report = step_of(plain(networks=2, supervised=0.5), [f, g])(batch(labels=True))
    with torch.no_grad():
        a, b = f(batch_input()), g(batch_input())
    truth = torch.from_numpy(encode(batch_persons().points, SPEC))
    weight = torch.from_numpy(batch_persons().weights)[:, :, None, None]
    supervised = sum(0.5 * 0.5 * ((weight * (maps - truth)) ** 2).mean() for maps in (a, b))
    crossed = 2 * 0.5 * ((a - b) ** 2).mean()
    assert report.losses["supervised"] == pytest.approx(float(supervised), rel=1e-4)
    assert report.losses["consistency"] == pytest.approx(float(crossed), rel=1e-4)


def test_each_network_learns_from_the_other() -> None:
    """A network alone agrees with itself on the same view; two do not."""
    f, g = unit_net(1), unit_net(2)
    assert step_of(plain(), [f])(batch()).losses["consistency"] == pytest.approx(0, abs=1e-9)
    assert step_of(plain(networks=2), [f, g])(batch()).losses["consistency"] > 1e-3


def gradients(recipe: Recipe, nets: list[nn.Module]) -> list[Tensor]:
    step_of(recipe, nets)(batch())
    return [parameter.grad.clone() for net in nets for parameter in net.parameters()
            if parameter.grad is not None]  # fmt: skip


def test_only_the_students_side_gets_the_gradient() -> None:
    """The gradient of the dual loss equals that against maps computed beforehand."""
    f, g = unit_net(1), unit_net(2)
    ours = gradients(plain(networks=2), [f, g])
    with torch.no_grad():
        a, b = f(batch_input()), g(batch_input())
    for net in (f, g):
        net.zero_grad()
    (
        0.5 * ((f(batch_input()) - b) ** 2).mean() + 0.5 * ((g(batch_input()) - a) ** 2).mean()
    ).backward()
    theirs = [parameter.grad for net in (f, g) for parameter in net.parameters()]
    for here, there in zip(ours, theirs, strict=True):
        assert there is not None
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-7)


def test_without_stop_gradient_both_sides_get_it() -> None:
    """On equal views of one network the two sides' gradients cancel, and one alone is 0 too, so
    the views must differ."""
    turned = Strength(turn_deg=(30.0, 30.0))
    one = gradients(plain(hard=turned), [unit_net(1)])
    both = gradients(plain(hard=turned, stop_gradient=False), [unit_net(1)])
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(one, both, strict=True))


@pytest.mark.parametrize("teacher", ["frozen", "ema"])
def test_frozen_and_averaged_teachers_get_no_gradient(teacher: str) -> None:
    step = step_of(plain(teacher=teacher, ema=0.9, hard=Strength((30, 30))), [unit_net(1)])
    step(batch())
    for net in (step.networks.source, *step.networks.averages):
        assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_lambda_weighs_the_consistency(weight: float) -> None:
    nets = [unit_net(1), unit_net(2)]
    whole = step_of(plain(networks=2), nets)(batch()).losses["consistency"]
    report = step_of(plain(networks=2, consistency=weight), nets)(batch(labels=True))
    assert report.losses.get("consistency", 0.0) == pytest.approx(weight * whole, rel=1e-5)


def test_hard_views_are_summed() -> None:
    nets = [unit_net(1), unit_net(2)]
    one = step_of(plain(networks=2), nets)(batch()).losses["consistency"]
    three = step_of(plain(networks=2, hard_views=3), nets)(batch()).losses["consistency"]
    assert three == pytest.approx(3 * one, rel=1e-5)


def test_joints_that_the_labels_do_not_have_are_not_learned() -> None:
    """In a union of skeletons; two halves of the channels add up to the whole loss."""
    nets = [unit_net(1), unit_net(2)]
    whole = step_of(plain(networks=2), nets)(batch()).losses["consistency"]
    known = np.arange(14) < 7
    half = step_of(plain(networks=2), nets, known=known)(batch()).losses["consistency"]
    other = step_of(plain(networks=2), nets, known=~known)(batch()).losses["consistency"]
    assert half + other == pytest.approx(whole, rel=1e-4)
    assert 0 < half < whole


def peaked(*cells: tuple[float, float]) -> Tensor:
    """(1, 14, 32, 24): joint k a Gaussian at its cell; the other joints at (12, 16)."""
    places = np.full((1, 14, 2), (12.0, 16.0))
    places[0, : len(cells)] = np.reshape(cells, (-1, 2))
    return torch.from_numpy(encode(places * SPEC.map_scale + SPEC.map_offset, SPEC))


def target_of(step: Step, maps: Tensor, warp: np.ndarray, *others: Tensor) -> Target:
    """The target of maps in the canonical crop, in a view."""
    return step.target(maps, warps.identity(1), warp, teacher_maps=[maps, *others])


def draw(step: Step) -> tuple[warps.Views, list[warps.Views]]:
    drawn = batch()
    return warps.draw_pair(drawn.randoms, drawn.patches, step.offset, options=step.pair, spec=SPEC)


def mirror() -> np.ndarray:
    matrix = warps.identity(1)
    matrix[0, 0] = (-1, 0, SPEC.input_size[0] - 1)
    return matrix


def test_a_mirror_keeps_the_weight_of_the_more_confident_side() -> None:
    """Left wrist with a peak of 0.2, right one with 0.8: both are in view before and after."""
    maps = peaked()
    maps[:, 6] *= 0.2
    maps[:, 7] *= 0.8
    step = step_of(plain(mask=True), [unit_net(1)])
    target = target_of(step, maps, mirror())
    assert target.weight.tolist() == [[1.0] * 14]
    weighted = target_of(step_of(plain(mask=True, confidence=True), [unit_net(1)]), maps, mirror())
    assert float(weighted.weight[0, 6]) == pytest.approx(0.8, abs=1e-4)  # the right one before
    assert float(weighted.weight[0, 7]) == pytest.approx(0.2, abs=1e-4)


def test_joints_that_leave_the_view_count_only_without_a_mask() -> None:
    """Without a mask they are learned as background, as in the paper."""
    maps = peaked((22.0, 16.0))
    away = warps.identity(1)
    away[0, 0, 2] = 12  # px: six cells to the right
    masked = target_of(step_of(plain(mask=True), [unit_net(1)]), maps, away)
    assert masked.weight[0].tolist() == [0.0, *[1.0] * 13]
    assert masked.defined[0, 0, :, :6].sum() == 0
    whole = target_of(step_of(plain(mask=False), [unit_net(1)]), maps, away)
    assert whole.weight.min() == 1
    assert whole.defined.min() == 1


@pytest.mark.parametrize(("target", "height"), [("gaussian", 1.0), ("gaussian-height", 0.3)])
def test_re_rendered_targets_keep_their_height_between_cells(target: str, height: float) -> None:
    """Rendered in the student's view: resampled half a cell away, 0.65 of 1 would remain."""
    maps = 0.3 * peaked()
    move = warps.identity(1)
    move[0, :, 2] = (1.0, 3.0)  # half a cell, and one and a half
    step = step_of(plain(target=target, mask=True), [unit_net(1)])
    drawn = target_of(step, maps, move).maps
    expected = height * np.exp(-0.5 * (0.5**2 + 0.5**2))
    assert float(drawn.amax()) == pytest.approx(expected, rel=1e-4)
    assert float(drawn[0, 0, 17, 12]) == pytest.approx(expected, rel=1e-4)
    assert float(drawn[0, 0, 18, 13]) == pytest.approx(expected, rel=1e-4)


def test_joints_on_which_the_teachers_disagree_have_no_weight() -> None:
    """As in SSPCM: agreement of the positions, not the height, decides the weight."""
    first, second = peaked((5.0, 5.0)), peaked((9.0, 5.0))  # 8 px apart
    step = step_of(plain(networks=2, agree_px=4.0), [unit_net(1), unit_net(2)])
    weight = target_of(step, first, warps.identity(1), second).weight
    assert weight[0].tolist() == [0.0, *[1.0] * 13]


def test_keep_selects_the_more_confident_half() -> None:
    maps = peaked()
    maps[:, :7] *= 0.5
    weight = target_of(step_of(plain(keep=0.5), [unit_net(1)]), maps, warps.identity(1)).weight
    assert weight[0].tolist() == [0.0] * 7 + [1.0] * 7


@pytest.mark.parametrize(("direction", "teaches"), [("easy-hard", "easy"), ("hard-easy", "hard")])
def test_direction_decides_which_view_teaches(direction: str, teaches: str) -> None:
    turned = Strength(turn_deg=(90.0, 40.0))
    step = step_of(plain(direction=direction, hard=turned), [unit_net(1)])
    teacher, (student,) = draw(step)
    easy, hard = (teacher, student) if teaches == "easy" else (student, teacher)
    np.testing.assert_allclose(easy.matrix, warps.identity(BATCH))
    assert np.abs(hard.matrix - warps.identity(BATCH)).max() > 0.1


def test_hard_from_easy_warps_the_easy_view_again() -> None:
    """Rotations add up to 120 degrees, as in the paper's code."""
    a30 = Strength(turn_deg=(1e9, 60.0))
    step = step_of(plain(easy=a30, hard=a30, hard_from_easy=True), [unit_net(1)])
    easy, (hard,) = draw(step)
    turn = [np.rad2deg(np.arctan2(m[:, 1, 0], m[:, 0, 0])) for m in (easy.matrix, hard.matrix)]
    assert set(np.abs(turn[0]).round()) == {60}
    assert set(np.abs(turn[1]).round()) <= {0, 120}


def test_the_pair_teacher_gives_both_students_one_target() -> None:
    nets = [unit_net(1), unit_net(2)]
    step = step_of(short_recipe("sspcm", 1), nets)
    easy, _ = draw(step)
    first, second = step._teach(easy, batch())
    assert first is second
    assert first.shape == (BATCH, 14, 32, 24)


def test_the_source_itself_has_no_retention_loss_and_another_network_has() -> None:
    """Both sides are normalized alike: equal networks differ by rounding only (KL of 1e-6)."""
    recipe = plain(retain=1.0, teacher="frozen")
    step = step_of(recipe, [unit_net(1)])
    step.networks.students[:] = [step.networks.source]
    assert abs(float(step._retained(batch()).detach())) < 1e-4
    step.networks.students[:] = [unit_net(2)]
    assert float(step._retained(batch()).detach()) > 1e-2


def test_the_retention_loss_has_a_gradient_for_the_student_only() -> None:
    step = step_of(plain(retain=1.0, consistency=0.0, teacher="frozen"), [unit_net(2)])
    step.networks.source.load_state_dict(unit_net(1).state_dict())
    step._retained(batch()).backward()
    assert all(parameter.grad is None for parameter in step.networks.source.parameters())
    assert any(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in step.networks.students[0].parameters()
    )


def test_a_step_calls_into_views_at_most_once_per_line_of_the_algorithm() -> None:
    """Lines 1, 2 and 4, the last for each of 2 students and 3 hard views, and the retained views.

    The target of a student takes its maps through views by itself, in train/target.py.
    """
    recipe = plain(networks=2, hard_views=3, retain=1.0, easy=Strength((15.0, 30.0)))
    step, with_labels, calls = step_of(recipe, [unit_net(1), unit_net(2)]), batch(labels=True), []

    def record(frame: FrameType, event: str, _: object) -> None:
        caller = frame.f_back
        into_views = event == "call" and "/views/" in frame.f_code.co_filename
        if into_views and caller and caller.f_code.co_filename.endswith("train/step.py"):
            calls.append(frame.f_code.co_name)

    sys.setprofile(record)
    try:
        step(with_labels)
    finally:
        sys.setprofile(None)
    assert calls == ["draw_view", "draw_pair", *["augment"] * 6, "out_of_domain_views"]
