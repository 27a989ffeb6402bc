"""The no-harm gate: is the adapted network better than its source, as far as can be measured?

Three questions. Does it still detect the same keypoints (floors)? Is anything worse that should not
get worse (harms)? Is there evidence of an improvement (doubts)? It passes if nothing speaks against
it. What a recipe optimizes, agreement with its teacher and equivariance under its own
transformations, is not sufficient: an indicator that no recipe trains must have improved as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posekit_finetune.assess.checks import Check
from posekit_finetune.assess.compare import MetricChange, agreement, compare, difference
from posekit_finetune.assess.indicators import Indicators, Measure
from posekit_finetune.assess.monitor import DISTINCT_FLOOR, RESPONSE_FLOOR
from posekit_finetune.assess.probe_views import UNTRAINED

UNCHANGED = 0.002
"""Below this share of moved joints the network is the source: nothing was learned."""

MIN_SOURCE_AGREEMENT = 0.9
"""Least agreement with the source's confident and consistent predictions. Such joints are right far
more often than others, so a network that leaves a tenth of them is more often wrong than right."""

MAX_CROSSED = 0.1
"""Largest share of the source's confident left/right pairs that may be exchanged. The source's own
ensemble exchanges 3 % of them on LSPET, correctly; a network that confuses sides, nearly all."""

MAX_BIAS = 0.015
"""Largest common shift of all persons, share of the crop: 3 px of 192. An improvement moves joints
in various directions; a common shift is an error of coordinates."""

MARGINS = {
    "teacher": 0.01,
    UNTRAINED: 0.01,
    "swaps": 0.01,
    "bones": 0.05,
    "asymmetry": 0.02,
    "jumps": 0.01,
}
"""Largest allowed loss of each: half the interval's width at 300 persons, or the pilot's rule.

The teacher's is that of `compare.agreement`. Bones are compared with the range of the source's,
which is wrong where the source is weak: on low-resolution images ("lowres" in
benchmarks/adaptation/adapt.py) a network that gained 4.5 points left that range by .022 more, and
the teacher with its upright view by .053."""

MIN_FLIP_GAIN = 0.01
"""Least gain in flip equivariance: with agreement above -0.01 the pilot's rule, which passed 0 of
43 harmed checkpoints and 22 of 31 improved ones. The untrained view must have gained too, and one
of the two significantly. To require that of both refused improved runs for lack of persons, and no
harmful one that the rest of the rule passes (benchmarks/adaptation/gate.py)."""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision.

    reasons: sentences, why it passed or not.  findings: the change of each indicator and check.
    unchanged: the predictions equal the source's.  harmful: something is worse; where neither this
    nor `passed`, only the evidence of an improvement is missing.  labels: the checks with labels
    that were part of the decision, by name.
    """

    passed: bool
    reasons: tuple[str, ...]
    findings: tuple[MetricChange, ...]
    unchanged: bool = False
    harmful: bool = False
    labels: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> MetricChange:
        return {each.name: each for each in self.findings}[name]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        findings = [each.to_dict() for each in self.findings]
        return {
            "passed": self.passed,
            "reasons": list(self.reasons),
            "findings": findings,
            "unchanged": self.unchanged,
            "harmful": self.harmful,
        }


def judge(
    before: Indicators,
    after: Indicators,
    *,
    checks: Sequence[Check] = (),
    seed: int = 0,
) -> Verdict:
    """Compare the source with the adapted network on the held-out persons.

    after: measured with `source=before` and the same teacher. Raises InputError.
    """
    changes = compare(before, after, seed=seed)
    checked = tuple(check_change(check, seed) for check in checks)
    decisive = [change for check, change in zip(checks, checked, strict=True) if check.decides]
    passed, reasons = decide(changes, decisive)
    named = {each.name: each for each in changes}
    unchanged = _is_unchanged(named)
    harmful = not unchanged and bool(_against(named, decisive))
    return Verdict(
        passed,
        reasons,
        (*changes, *checked),
        unchanged=unchanged,
        harmful=harmful,
        labels=tuple(each.name for each in decisive),
    )


def check_change(check: Check, seed: int = 0) -> MetricChange:
    """A check's paired difference with its interval."""
    measure = Measure(check.name, "with labels", 1)
    return difference(measure, check.before, check.after, groups=check.groups, seed=seed)


def decide(
    findings: Sequence[MetricChange], labeled: Sequence[MetricChange] = ()
) -> tuple[bool, tuple[str, ...]]:
    """The rule itself: whether the network passes, and why or why not.

    labeled: metrics with labels, larger is better; a loss refuses, a gain replaces the evidence.
    """
    changes = {each.name: each for each in findings}
    if _is_unchanged(changes):
        return False, (
            f"{changes['changed'].after:.1%} of the body's joints moved: its predictions equal "
            "the source's, so nothing was learned",
        )
    against = _against(changes, labeled)
    proven = any(each.low > 0 for each in labeled)
    doubts = [] if proven else [*filter(None, _doubts(changes))]
    if against or doubts:
        return False, (*against, *doubts)
    return True, _gains(changes, labeled)


def _is_unchanged(changes: Mapping[str, MetricChange]) -> bool:
    return changes["changed"].after < UNCHANGED and not any(_floors(changes))


def _against(changes: Mapping[str, MetricChange], labeled: Sequence[MetricChange]) -> list[str]:
    """What speaks against the network, whatever it has gained."""
    return [
        *filter(None, _floors(changes)),
        *filter(None, _harms(changes)),
        *(
            f"{each.name} with labels fell by {-each.difference:.3f} {_interval(each)}"
            for each in labeled
            if each.high < 0
        ),
    ]


def _floors(changes: Mapping[str, MetricChange]) -> list[str]:
    """Does it still detect the same keypoints?"""
    response, distinct, source = (changes[name] for name in ("response", "distinct", "source"))
    crossed, bias = changes["crossed"], changes["bias"]
    return [
        f"its mean peak fell from {response.before:.3f} to {response.after:.3f}"
        if not response.after >= RESPONSE_FLOOR * response.before
        else "",
        f"it has {distinct.after:.2f} different peak cells per person for a keypoint, the source "
        f"{distinct.before:.2f}"
        if not distinct.after >= DISTINCT_FLOOR * distinct.before
        else "",
        "the source is confident of no joint of these persons, so harm cannot be measured"
        if not source.defined
        else f"it moves {1 - source.after:.1%} of the joints that the source is confident and "
        f"consistent in; allowed are {1 - MIN_SOURCE_AGREEMENT:.0%}"
        if source.after < MIN_SOURCE_AGREEMENT
        else "",
        f"left and right are exchanged in {crossed.after:.1%} of the confident pairs"
        if crossed.after > MAX_CROSSED
        else "",
        f"all persons have a common shift of {bias.after:.1%} of the crop"
        if bias.after > MAX_BIAS
        else "",
    ]


def _harms(changes: Mapping[str, MetricChange]) -> list[str]:
    """Is anything worse that should not get worse?"""
    compared = {**changes, "teacher": agreement(changes)}
    return [
        f"{each.about}: {each.before:.3f} before, {each.after:.3f} after"
        for name, margin in MARGINS.items()
        if (each := compared[name]).defined and each.gain < -margin
    ]


def shows_gain(changes: Mapping[str, MetricChange]) -> bool:
    """Whether one of the two indicators of an improvement is significant."""
    return changes["flip"].low > 0 or changes[UNTRAINED].low > 0


def _doubts(changes: Mapping[str, MetricChange]) -> list[str]:
    """Is there evidence of an improvement beyond what it was trained on?"""
    flip, untrained = changes["flip"], changes[UNTRAINED]
    return [
        f"flip equivariance gained {_gain(flip)}; wanted {MIN_FLIP_GAIN:+.2f} at least"
        if not flip.difference >= MIN_FLIP_GAIN
        else "",
        f"under a transformation that it was not trained on it gained nothing: {_gain(untrained)}"
        if not untrained.difference > 0
        else "",
        f"flip equivariance gained {_gain(flip)}, equivariance under a transformation that it was "
        f"not trained on {_gain(untrained)}: neither is significant; more persons would decide it"
        if not shows_gain(changes)
        else "",
    ]


def _gain(change: MetricChange) -> str:
    return f"{change.difference:+.3f} {_interval(change)}"


def _interval(change: MetricChange) -> str:
    return f"(95 %: {change.low:+.3f} to {change.high:+.3f})"


def _gains(changes: Mapping[str, MetricChange], labeled: Sequence[MetricChange]) -> tuple[str, ...]:
    flip, untrained, source = changes["flip"], changes[UNTRAINED], changes["source"]
    return (
        f"under mirroring {flip.after:.1%} of the joints stay in place, {flip.before:.1%} before "
        f"{_interval(flip)}",
        f"under a transformation that it was not trained on {untrained.after:.1%} of the joints "
        f"stay in place, {untrained.before:.1%} before {_interval(untrained)}",
        f"it keeps {source.after:.1%} of the joints that the source is confident in",
        *(f"{each.name} with labels: {_gain(each)}" for each in labeled),
    )
