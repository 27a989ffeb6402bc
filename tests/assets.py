"""Where tests find real images, weights and video."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shipped(relative: str) -> Path:
    """A file of the repository, such as `posekit/models/movenet-thunder.posekit`."""
    path = ROOT / relative
    assert path.exists(), f"{relative} is missing from the checkout"
    return path


def shared(relative: str) -> Path:
    """A file of the shared asset folder beside the repository; skips the test without it."""
    path = ROOT.parent / "shared" / "assets" / relative
    if not path.exists():
        pytest.skip(f"shared asset {relative} is not here")
    return path
