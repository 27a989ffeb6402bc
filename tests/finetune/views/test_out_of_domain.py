"""Out-of-domain views: reproducible from their generators, and without side effects."""

import numpy as np

from posekit_finetune.recipe import Recipe
from posekit_finetune.views.out_of_domain import out_of_domain_views
from posekit_finetune.views.warps import Strength
from tests.synthetic.people import SPEC, people

COUNT = 64


def crops_of(stream: int, strength: Strength) -> np.ndarray:
    persons = people(COUNT, 1, "none").persons
    randoms = [np.random.default_rng((stream, n)) for n in range(COUNT)]
    patches = persons.patches[:]
    return out_of_domain_views(randoms, patches, persons.offset, strength=strength, spec=SPEC).crops


def test_views_depend_on_the_generators_alone() -> None:
    strength = Recipe().far
    assert np.array_equal(crops_of(1, strength), crops_of(1, strength))
    assert not np.array_equal(crops_of(1, strength), crops_of(2, strength))


def test_a_quarter_of_the_views_is_unchanged() -> None:
    """A piece of a neighbor in half of them, blur in half: both miss 64 x 1/4 = 16, and a
    binomial of that lies within 5 and 29 in all but one of 10,000 draws."""
    crops = crops_of(1, Strength())
    plain = people(COUNT, 1, "none").persons.crops(slice(None))
    same = sum(np.array_equal(a, b) for a, b in zip(crops, plain, strict=True))
    assert 5 <= same <= 29


def test_patches_are_not_written_to() -> None:
    persons = people(COUNT, 1, "none").persons
    before = np.array(persons.patches[:])
    crops_of(3, Recipe().far)
    assert np.array_equal(before, people(COUNT, 1, "none").persons.patches[:])
