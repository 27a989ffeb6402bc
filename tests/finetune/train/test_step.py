"""Algorithm 1: losses are those of the formula, and the gradient takes the student's way only."""

import copy

import numpy as np
import pytest
import torch
from posekit_finetune.data.labelled import Labelled
from torch import Tensor, nn

from benchmarks.stick_figures import SPEC, figures
from posekit.codecs import encode
from posekit_finetune.recipe import Recipe, Strength
from posekit_finetune.train.step import Batch, Labels, Networks, Step
from posekit_finetune.views import warps
from tests.finetune.small import small, small_net

COUNT = 6
STILL = Strength()


def lively(seed: int) -> nn.Module:
    """A network whose maps have a spread of 1, in evaluation mode."""
    net, generator = small_net(seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in (net.up[0][0], net.up[1][0], net.final_layer):
            layer.weight.normal_(0, 0.2, generator=generator)
        net.final_layer.weight.div_(net.eval()(crops()).std())
        net.final_layer.bias.fill_(1.0)
    return net.eval()


def plain(**changes: object) -> Recipe:
    """Easy and hard views that are the crop itself: the formula can be written in two lines."""
    values = {"easy": STILL, "hard": STILL, "loss": "mse", "confidence": False, "teacher": "self"}
    return Recipe(**{**values, "ema": 0.0, "mask": False, "retain": 0.0, **changes})  # type: ignore[arg-type]


def made(recipe: Recipe, nets: list[nn.Module], **given: object) -> Step:
    parameters = [parameter for net in nets for parameter in net.parameters()]
    networks = Networks(nets, [copy.deepcopy(net) for net in nets], copy.deepcopy(nets[0]))
    offset = figures(COUNT, 1, "none").persons.offset
    sgd = torch.optim.SGD(parameters, 0.0)
    return Step(networks, recipe, SPEC, offset, sgd, **given)  # type: ignore[arg-type]


def randoms(stream: int) -> list[np.random.Generator]:
    return [np.random.default_rng((stream, n)) for n in range(COUNT)]


def persons() -> Labelled:
    return figures(COUNT, 1, "none")


def batch(*, labels: bool = False) -> Batch:
    known = persons()
    patches = known.persons.patches[:]
    given = Labels(randoms(2), patches, known.points, known.weights) if labels else None
    return Batch(randoms(1), patches, labels=given)


def crops() -> Tensor:
    return warps.normalize(persons().persons.crops(slice(None)), SPEC)


def test_dual_is_the_sum_of_both_supervised_and_both_crossed_losses() -> None:
    """½ MSE(f, gt) + ½ MSE(g, gt) + MSE(f, sg g) + MSE(g, sg f), each with its own half."""
    f, g = lively(1), lively(2)
    report = made(plain(networks=2, supervised=0.5), [f, g])(batch(labels=True))
    with torch.no_grad():
        a, b = f(crops()), g(crops())
    truth = torch.from_numpy(encode(persons().points, SPEC))
    weight = torch.from_numpy(persons().weights)[:, :, None, None]
    supervised = sum(0.5 * 0.5 * ((weight * (maps - truth)) ** 2).mean() for maps in (a, b))
    crossed = 2 * 0.5 * ((a - b) ** 2).mean()
    assert report.losses["supervised"] == pytest.approx(float(supervised), rel=1e-4)
    assert report.losses["consistency"] == pytest.approx(float(crossed), rel=1e-4)


def test_each_network_is_taught_by_the_other() -> None:
    """A network alone agrees with itself on the same view; two do not."""
    f, g = lively(1), lively(2)
    assert made(plain(), [f])(batch()).losses["consistency"] == pytest.approx(0, abs=1e-9)
    assert made(plain(networks=2), [f, g])(batch()).losses["consistency"] > 1e-3


def gradients(recipe: Recipe, nets: list[nn.Module]) -> list[Tensor]:
    made(recipe, nets)(batch())
    return [parameter.grad.clone() for net in nets for parameter in net.parameters()
            if parameter.grad is not None]  # fmt: skip


def test_the_gradient_takes_the_students_side_only() -> None:
    """That of the dual loss equals that against maps which another copy gave beforehand."""
    f, g = lively(1), lively(2)
    ours = gradients(plain(networks=2), [f, g])
    with torch.no_grad():
        a, b = f(crops()), g(crops())
    for net in (f, g):
        net.zero_grad()
    (0.5 * ((f(crops()) - b) ** 2).mean() + 0.5 * ((g(crops()) - a) ** 2).mean()).backward()
    theirs = [parameter.grad for net in (f, g) for parameter in net.parameters()]
    for here, there in zip(ours, theirs, strict=True):
        assert there is not None
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-7)


def test_without_stop_gradient_both_sides_get_it() -> None:
    """Alike views of one network: the two sides' gradients cancel; one alone is nought here too,
    so the views must differ."""
    turned = Strength(turn_deg=(30.0, 30.0))
    one = gradients(plain(hard=turned), [lively(1)])
    both = gradients(plain(hard=turned, stop_gradient=False), [lively(1)])
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(one, both, strict=True))


@pytest.mark.parametrize("teacher", ["frozen", "ema"])
def test_other_teachers_get_no_gradient(teacher: str) -> None:
    step = made(plain(teacher=teacher, ema=0.9, hard=Strength((30, 30))), [lively(1)])
    step(batch())
    for net in (step.networks.source, *step.networks.averages):
        assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_lambda_weighs_the_consistency(weight: float) -> None:
    nets = [lively(1), lively(2)]
    whole = made(plain(networks=2), nets)(batch()).losses["consistency"]
    report = made(plain(networks=2, consistency=weight), nets)(batch(labels=True))
    assert report.losses.get("consistency", 0.0) == pytest.approx(weight * whole, rel=1e-5)


def test_hard_views_are_summed() -> None:
    nets = [lively(1), lively(2)]
    one = made(plain(networks=2), nets)(batch()).losses["consistency"]
    three = made(plain(networks=2, hard_views=3), nets)(batch()).losses["consistency"]
    assert three == pytest.approx(3 * one, rel=1e-5)


def test_joints_that_no_labels_know_are_not_taught() -> None:
    """In a union of skeletons; then half of the channels give half of the loss or less."""
    nets = [lively(1), lively(2)]
    whole = made(plain(networks=2), nets)(batch()).losses["consistency"]
    known = np.arange(14) < 7
    half = made(plain(networks=2), nets, known=known)(batch()).losses["consistency"]
    other = made(plain(networks=2), nets, known=~known)(batch()).losses["consistency"]
    assert half + other == pytest.approx(whole, rel=1e-4)
    assert 0 < half < whole


def peaked(*cells: tuple[float, float]) -> Tensor:
    """(1, 14, 32, 24): joint k a Gaussian at its cell; those that are not named at (12, 16)."""
    places = np.full((1, 14, 2), (12.0, 16.0))
    places[0, : len(cells)] = np.reshape(cells, (-1, 2))
    return torch.from_numpy(encode(places * SPEC.map_scale + SPEC.map_offset, SPEC))


def mirror() -> np.ndarray:
    matrix = warps.identity(1)
    matrix[0, 0] = (-1, 0, SPEC.input_size[0] - 1)
    return matrix


def test_a_mirror_does_not_cost_the_surer_side_its_weight() -> None:
    """Left wrist with a peak of 0.2, right one of 0.8: both are in view before and after."""
    maps = peaked()
    maps[:, 6] *= 0.2
    maps[:, 7] *= 0.8
    step = made(plain(mask=True), [lively(1)])
    target = step._target(maps, mirror(), [maps])
    assert target.weight.tolist() == [[1.0] * 14]
    sure = made(plain(mask=True, confidence=True), [lively(1)])._target(maps, mirror(), [maps])
    assert float(sure.weight[0, 6]) == pytest.approx(0.8, abs=1e-4)  # was the right one
    assert float(sure.weight[0, 7]) == pytest.approx(0.2, abs=1e-4)


def test_what_leaves_the_view_counts_only_without_a_mask() -> None:
    """The paper teaches it as background."""
    maps = peaked((22.0, 16.0))
    away = warps.identity(1)
    away[0, 0, 2] = 12  # px: six cells to the right
    masked = made(plain(mask=True), [lively(1)])._target(maps, away, [maps])
    assert masked.weight[0].tolist() == [0.0, *[1.0] * 13]
    assert masked.defined[0, 0, :, :6].sum() == 0
    whole = made(plain(mask=False), [lively(1)])._target(maps, away, [maps])
    assert whole.weight.min() == 1
    assert whole.defined.min() == 1


@pytest.mark.parametrize(("target", "height"), [("gaussian", 1.0), ("gaussian-height", 0.3)])
def test_re_rendered_targets_keep_their_height_between_cells(target: str, height: float) -> None:
    """Drawn in the student's view: carried, half a cell away, sigma 1, 0.65 would be left of 1."""
    maps = 0.3 * peaked()
    move = warps.identity(1)
    move[0, :, 2] = (1.0, 3.0)  # half a cell, and one and a half
    step = made(plain(target=target, mask=True), [lively(1)])
    drawn = step._target(maps, move, [maps]).maps
    wanted = height * np.exp(-0.5 * (0.5**2 + 0.5**2))
    assert float(drawn.amax()) == pytest.approx(wanted, rel=1e-4)
    assert float(drawn[0, 0, 17, 12]) == pytest.approx(wanted, rel=1e-4)
    assert float(drawn[0, 0, 18, 13]) == pytest.approx(wanted, rel=1e-4)


def test_teachers_that_disagree_do_not_teach() -> None:
    """SSPCM's idea: agreement in place, not height, says whom to trust."""
    first, second = peaked((5.0, 5.0)), peaked((9.0, 5.0))  # 8 px apart
    step = made(plain(networks=2, agree_px=4.0), [lively(1), lively(2)])
    weight = step._target(first, warps.identity(1), [first, second]).weight
    assert weight[0].tolist() == [0.0, *[1.0] * 13]


def test_keep_takes_the_surer_half() -> None:
    maps = peaked()
    maps[:, :7] *= 0.5
    weight = made(plain(keep=0.5), [lively(1)])._target(maps, warps.identity(1), [maps]).weight
    assert weight[0].tolist() == [0.0] * 7 + [1.0] * 7


@pytest.mark.parametrize(("direction", "teaches"), [("easy-hard", "easy"), ("hard-easy", "hard")])
def test_direction_says_which_view_teaches(direction: str, teaches: str) -> None:
    turned = Strength(turn_deg=(90.0, 40.0))
    step = made(plain(direction=direction, hard=turned), [lively(1)])
    easy, (hard,) = step._draw(batch())
    moved = {"easy": easy.matrix, "hard": hard} if teaches == "easy" else {
        "easy": hard, "hard": easy.matrix
    }  # fmt: skip
    np.testing.assert_allclose(moved["easy"], warps.identity(COUNT))
    assert np.abs(moved["hard"] - warps.identity(COUNT)).max() > 0.1


def test_the_hard_view_is_the_easy_one_warped_again() -> None:
    """A30 and then A60: turns add up to 120 degrees, as in the paper's code."""
    a30 = Strength(turn_deg=(1e9, 60.0))
    step = made(plain(easy=a30, hard=a30, hard_from_easy=True), [lively(1)])
    easy, (hard,) = step._draw(batch())
    turn = [np.rad2deg(np.arctan2(m[:, 1, 0], m[:, 0, 0])) for m in (easy.matrix, hard)]
    assert set(np.abs(turn[0]).round()) == {60}
    assert set(np.abs(turn[1]).round()) <= {0, 120}


def test_the_pair_teacher_gives_both_students_one_target() -> None:
    nets = [lively(1), lively(2)]
    step = made(small("sspcm", 1), nets)
    easy, _ = step._draw(batch())
    first, second = step._teach(easy, batch())
    assert first is second
    assert first.shape == (COUNT, 14, 32, 24)


def test_the_source_itself_has_nothing_to_retain_and_another_network_has() -> None:
    """Both sides in one shape: equal networks differ by rounding only (a KL of some 1e-6)."""
    recipe = plain(retain=1.0, teacher="frozen")
    step = made(recipe, [lively(1)])
    step.networks.students[:] = [step.networks.source]
    assert abs(float(step._retained(batch()).detach())) < 1e-4
    step.networks.students[:] = [lively(2)]
    assert float(step._retained(batch()).detach()) > 1e-2


def test_retaining_pulls_the_student_only() -> None:
    step = made(plain(retain=1.0, consistency=0.0, teacher="frozen"), [lively(2)])
    step.networks.source.load_state_dict(lively(1).state_dict())
    step._retained(batch()).backward()
    assert all(parameter.grad is None for parameter in step.networks.source.parameters())
    assert any(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in step.networks.students[0].parameters()
    )
