"""Which tests run, and a closing count of those that did not and why."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from tests.support import needs, verification


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption(
        "--record", action="store_true", help="add what ran to engines/verification.json"
    )


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else children ignore Ctrl-C too
    config.pluginmanager.register(needs)
    if config.getoption("--record"):
        config.pluginmanager.register(verification.Recorder(verification.RECORD))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with scripts/test --slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skipped tests by the first words of their reason."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = text.removeprefix("Skipped: ")
        if reason.startswith("shared asset "):
            reason = "shared assets are missing: set POSEKIT_ASSETS to the folder that has them"
        reasons[reason] += 1
    if reasons:
        terminalreporter.section("skipped checks")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:4} {reason}")
