"""The budget of the engines' parity: FP16's, and what the bundle states of itself, checked."""

from __future__ import annotations

import dataclasses
import json

import pytest

from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import BundleError
from posekit_engines.gpu_check.plan_parity import BUDGET, budget


def stating(text: str) -> Bundle:
    whole = Bundle.open(bundle.find("movenet-lightning"))
    return dataclasses.replace(whole, extras={"parity.json": text.encode("latin-1")})


def test_the_bundle_s_own_deviation_is_added() -> None:
    found = budget(stating(json.dumps({"flip": {"mean_px": 0.25}})))
    assert found["mean_px"] == pytest.approx(BUDGET.mean_px + 0.25)
    assert found["p99_px"] == pytest.approx(BUDGET.p99_px or BUDGET.mean_px)
    assert budget(stating("{}"))["mean_px"] == pytest.approx(BUDGET.mean_px)


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000, "[]", '{"flip": []}', "\xff", '{"flip": {"mean_px": NaN}}'),
        *(f'{{"flip": {{"mean_px": {n}}}}}' for n in ("1e999", "9" * 400, "-1", '"1"', "1e6")),
    ],
)
def test_what_is_no_such_table_is_damage(text: str) -> None:
    with pytest.raises(BundleError, match=r"movenet-lightning: parity\.json: ") as caught:
        budget(stating(text))
    assert str(caught.value).isprintable()
