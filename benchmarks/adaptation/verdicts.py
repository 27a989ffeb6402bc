"""The gate's current rule on findings that were recorded before."""

from __future__ import annotations

from typing import Any

from posekit_finetune import MetricChange, decide


def current_verdict(findings: list[dict[str, Any]]) -> tuple[bool, list[str]]:
    """Whether the rule lets a model with these findings pass, and its reasons."""
    passed, reasons = decide([MetricChange.from_dict(each) for each in findings])
    return passed, list(reasons)


def differences(findings: list[dict[str, Any]]) -> dict[str, float]:
    """Change of each indicator by its name, NaN where it was not measured."""
    return {each.name: each.difference for each in map(MetricChange.from_dict, findings)}
