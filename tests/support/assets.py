"""Where tests find real images, weights and video."""

from pathlib import Path

from tests.support import needs

ROOT = Path(__file__).resolve().parents[2]


def shipped(relative: str) -> Path:
    """A file of the repository, such as `posekit/models/movenet-thunder.posekit`."""
    path = ROOT / relative
    assert path.exists(), f"{relative} is missing from the checkout"
    return path


def shared(relative: str) -> Path:
    """A file of the shared asset folder; the test that needs it carries the marker `assets`."""
    return needs.asset(relative)
