"""Losses: their formulas, what they are invariant to, and which side gets the gradient."""

import numpy as np
import pytest
import torch
from torch import Tensor

from posekit_finetune.train import losses
from posekit_finetune.train.losses import Target


def maps(seed: int, persons: int = 2) -> Tensor:
    return torch.rand(persons, 3, 6, 5, generator=torch.Generator().manual_seed(seed))


def target(values: Tensor, weight: Tensor | None = None) -> Target:
    weight = torch.ones(values.shape[:2]) if weight is None else weight
    return Target(values, torch.ones_like(values[:, :1]), weight)


def test_mse_is_half_the_mean_square_of_weighted_differences() -> None:
    """The reference's: mean over joints of 0.5 MSE(w p, w t), written with NumPy."""
    weight = torch.tensor([[1.0, 0.0, 1.0], [0.5, 1.0, 0.0]])
    ours = losses.mse(maps(1), target(maps(2), weight))
    p, t, w = maps(1).numpy(), maps(2).numpy(), weight.numpy()[:, :, None, None]
    theirs = np.mean([0.5 * np.mean((w * p - w * t)[:, k] ** 2) for k in range(3)])
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


def test_cells_that_are_not_defined_do_not_count() -> None:
    defined = torch.ones(2, 1, 6, 5)
    defined[:, :, :, 3:] = 0
    student, other = maps(1), maps(1)
    other[:, :, :, 3:] += 5
    partial = Target(other, defined, torch.ones(2, 3))
    assert float(losses.mse(student, partial)) == 0
    loss = losses.spatial_kl(student, partial)
    other[:, :, :, 3:] -= 2
    assert float(losses.spatial_kl(student, partial)) == pytest.approx(float(loss), rel=1e-6)


def test_spatial_kl_is_invariant_to_a_shift_of_the_logits() -> None:
    """Softmax(x + c) = softmax(x): lowering a map does not reduce the loss."""
    logits = 8 * maps(3)
    shift = torch.tensor([[-30.0, 0.0, 7.0], [2.0, -1.0, 40.0]])[:, :, None, None]
    plain = losses.spatial_kl(logits, target(maps(4)))
    shifted = losses.spatial_kl(logits + shift, target(maps(4)))
    assert float(shifted) == pytest.approx(float(plain), abs=1e-5)  # float32 at 40: 4e-6


def test_pixel_losses_are_not() -> None:
    """They fall when maps are lowered, which is how they collapse."""
    low = 0.05 * maps(4)
    assert float(losses.mse(maps(4) * 0.5, target(low))) > float(losses.mse(low, target(low)))


def test_spatial_kl_is_0_where_the_student_agrees() -> None:
    expected = maps(5) + 0.1
    logits = 2 * expected.log()  # its softmax is expected ** 2, normalized
    assert float(losses.spatial_kl(logits, target(expected), 2.0)) == pytest.approx(0, abs=1e-5)
    assert float(losses.spatial_kl(logits, target(maps(6)), 2.0)) > 0.05


def test_spatial_kl_equals_torchs_kl_div() -> None:
    expected, logits = maps(7) + 0.1, 4 * maps(8)
    shares = (expected**2).flatten(2)
    shares = shares / shares.sum(2, keepdim=True)
    logs = torch.log_softmax(logits.flatten(2), 2)
    theirs = torch.nn.functional.kl_div(logs, shares, reduction="none").sum(2).mean()
    ours = losses.spatial_kl(logits, target(expected), 2.0)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("loss", [losses.mse, losses.bce, losses.spatial_kl])
def test_a_detached_target_gets_no_gradient(loss: object) -> None:
    student, teacher = maps(1).requires_grad_(), maps(2).requires_grad_()
    loss(student, target(teacher.detach())).backward()  # type: ignore[operator]
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_amplitude_is_0_at_the_height_and_the_squared_difference_elsewhere() -> None:
    expected = losses.render_gaussians(
        torch.tensor([[[2.0, 3.0]]]), torch.ones(1, 1), maps(1)[:1, :1], sigma=1.0
    )
    height = torch.full((1, 1), 0.8)
    assert float(losses.amplitude(0.8 * expected, target(expected), height)) == pytest.approx(
        0, abs=1e-9
    )
    half = losses.amplitude(0.4 * expected, target(expected), height)
    assert float(half) == pytest.approx(0.16, rel=1e-5)


def test_in_view_excludes_a_map_whose_mass_left_the_view() -> None:
    before = torch.ones(1, 2, 4, 4)
    after = before.clone()
    after[:, 1, :, 1:] = 0  # a quarter remains
    assert losses.in_view(before, after, torch.ones(1)).tolist() == [[1.0, 0.0]]
    # A warp that enlarges areas fourfold should keep four times the mass.
    assert losses.in_view(before, after, torch.tensor([4.0])).tolist() == [[0.0, 0.0]]


def test_peaks_are_x_then_y() -> None:
    values = torch.zeros(1, 1, 6, 5)
    values[0, 0, 4, 1] = 0.7
    height, cells = losses.peaks(values)
    assert height.item() == pytest.approx(0.7)
    assert cells.tolist() == [[[1.0, 4.0]]]


def test_rendered_gaussians_have_the_requested_position_and_height() -> None:
    rendered = losses.render_gaussians(
        torch.tensor([[[1.0, 4.0]]]), torch.full((1, 1), 0.6), maps(1)[:1, :1], sigma=2.0
    )
    height, cells = losses.peaks(rendered)
    assert cells.tolist() == [[[1.0, 4.0]]]
    assert height.item() == pytest.approx(0.6)
    assert rendered[0, 0, 4, 3].item() == pytest.approx(0.6 * np.exp(-0.5), rel=1e-5)


def test_nearest_pair_is_chosen_joint_by_joint() -> None:
    def at(*columns: int) -> Tensor:
        cells = torch.tensor([[[float(c), 2.0] for c in columns]])
        return losses.render_gaussians(cells, torch.ones(1, 2), torch.zeros(1, 2, 6, 5), sigma=1.0)

    now, before = at(0, 4), at(2, 0)
    other, other_before = at(4, 4), at(2, 2)
    means = losses.nearest_pair([now, before], [other, other_before])
    torch.testing.assert_close(means[:, 0], before[:, 0])  # both at column 2
    torch.testing.assert_close(means[:, 1], now[:, 1])  # both at column 4
