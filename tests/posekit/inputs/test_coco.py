"""posekit.inputs.coco: which annotations of a COCO file are persons, and ids that are checked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posekit.errors import DataError, InputError
from posekit.inputs.coco import Category, choose_category, floats, parse_coco

BOX = [1, 2, 3, 4]


def data_set(categories: list[dict[str, Any]], *used: Any) -> dict[str, Any]:
    """One image with an annotation of each category in `used`."""
    rows = [{"image_id": 1, "bbox": [n, 0, 5, 5], "category_id": c} for n, c in enumerate(used)]
    images = [{"id": 1, "file_name": "a.jpg"}]
    return {"images": images, "annotations": rows, "categories": categories}


def left_edges(data: Any) -> list[float]:
    return [each.bbox[0] for each in parse_coco(data, name="f").annotations if each.bbox]


names = st.text(st.characters(codec="utf-8"), max_size=8).filter(
    lambda text: text.strip().casefold() != "person"
)
person = st.sampled_from(["person", "Person", "PERSON", " person ", "pErSoN"])
ids = st.lists(st.integers(0, 99) | st.text("abc", min_size=1), min_size=1, max_size=6, unique=True)


@given(ids, names, person, st.data())
def test_the_category_called_person_is_chosen_whatever_its_case(
    keys: list[Any], other: str, title: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(keys) - 1))
    categories = [Category(key, title if n == place else other) for n, key in enumerate(keys)]
    assert choose_category(categories, name="f") is categories[place]


@given(ids, names)
def test_else_the_only_one_else_a_refusal_that_lists_them(keys: list[Any], title: str) -> None:
    categories = [Category(key, title) for key in keys]
    if len(keys) == 1:
        assert choose_category(categories, name="f") is categories[0]
        return
    with pytest.raises(InputError, match=f"which of {len(keys)} categories") as caught:
        choose_category(categories, name="f")
    assert all(str(each) in str(caught.value) for each in categories)


def test_categories_of_a_data_set() -> None:
    horse, one = {"id": 2, "name": "horse"}, {"id": 1, "name": "Person"}
    two = {"id": 2, "name": "Person"}
    assert left_edges(data_set([two], 2, 2)) == [0, 1]
    assert left_edges(data_set([horse, one], 2, 1, 2)) == [1]
    found = parse_coco(data_set([horse, one], 2, 1, 2), name="f")
    assert found.notes == ("f: 2 annotations of other categories are left out",)
    found = parse_coco(data_set([{"id": 0, "name": "athlete"}], 0), name="f")
    assert found.notes == ("f: its only category (0: 'athlete') is taken for persons",)
    with pytest.raises(InputError, match=r"which of 2 categories \(2: 'horse', 3: 'cow'\)"):
        parse_coco(data_set([horse, {"id": 3, "name": "cow"}], 2), name="f")
    with pytest.raises(InputError, match="category_id 7, which is not among"):
        parse_coco(data_set([one], 7), name="f")
    with pytest.raises(InputError, match="2 categories have the same id 2"):
        parse_coco(data_set([two, horse], 2), name="f")


def test_a_category_is_named_where_several_may_be_persons() -> None:
    """By name without case, else by id; a name goes before an id, and what is named is no note."""
    one, two = {"id": 1, "name": "Person"}, {"id": 2, "name": "Player"}
    three = {"id": 3, "name": "2"}
    data = data_set([one, two, three], 1, 2, 3)
    for wanted, edge in (("player", 1), ("PLAYER ", 1), ("1", 0), ("person", 0), ("2", 2)):
        found = parse_coco(data, name="f", category=wanted)
        assert [each.bbox[0] for each in found.annotations if each.bbox] == [edge]
        assert found.notes == ("f: 2 annotations of other categories are left out",)
    with pytest.raises(InputError, match=r"none of its 3 categories \(1: 'Person', .*'horse'"):
        parse_coco(data, name="f", category="horse")
    with pytest.raises(DataError, match="none of its 1 categories"):
        parse_coco(results(4), name="f", category="3", error=DataError)
    assert [a.bbox for a in parse_coco(results(3, 4), name="f", category="4").annotations] == [
        [1, 0, 5, 5]
    ]


def results(*used: int) -> list[dict[str, Any]]:
    return [{"image_id": 1, "bbox": [n, 0, 5, 5], "category_id": c} for n, c in enumerate(used)]


def test_results_have_numbers_only() -> None:
    assert left_edges(results(0, 0)) == [0, 1]  # the only one
    assert left_edges(results(18, 1, 3)) == [1]  # COCO's person
    for used in ((0, 1), (3, 18)):  # numbered from 0, or no person
        with pytest.raises(InputError, match="which of 2 categories"):
            parse_coco(results(*used), name="f")
    assert left_edges([{"image_id": 1, "bbox": BOX}]) == [1]


def test_keypoints_belong_to_the_category_that_has_them() -> None:
    """A horse's keypoints are no person's, and a person without keypoints is no label."""
    keypoints = {"keypoints": ["nose"]}
    categories = [{"id": 1, "name": "person", **keypoints}, {"id": 2, "name": "horse", **keypoints}]
    data = data_set(categories, 2, 1, 1)
    for row in data["annotations"][:2]:
        row["keypoints"] = [1, 1, 2]
    found = parse_coco(data, name="f", keypoints=True)
    assert [each.bbox for each in found.annotations] == [[1, 0, 5, 5]]
    del categories[0]["keypoints"], data["annotations"][1]["keypoints"]
    found = parse_coco(data, name="f", keypoints=True)
    assert found.category.name == "horse"
    assert "horse" in found.notes[0]


@given(st.integers(-(2**62), 2**62) | st.text("abc-01", min_size=1, max_size=9))
def test_ids_are_numbers_or_texts(key: int | str) -> None:
    rows = [{"image_id": key, "bbox": BOX}]
    data = {"images": [{"id": key, "file_name": "a.jpg"}], "annotations": rows}
    found = parse_coco(data, name="f")
    assert list(found.images.values()) == ["a.jpg"]
    assert found.annotations[0].image_id in found.images


def test_a_number_written_as_text_is_that_number_and_zeros_in_front_are_not() -> None:
    data = {"images": [{"id": 12}, {"id": "0012"}], "annotations": [{"image_id": "12"}]}
    assert parse_coco(data, name="f").annotations[0].image_id == 12
    for same in (12, "12", 12.0):
        data["images"][1]["id"] = same  # type: ignore[index]
        with pytest.raises(InputError, match="'' and '' have the same id 12"):
            parse_coco(data, name="f")


@pytest.mark.parametrize("key", [None, True, 1.5, [], {}, "", 2**63, 10**400, float("inf")])
def test_what_is_no_id_is_refused_with_its_place(key: object) -> None:
    for row in ({"image_id": key}, {"image_id": 1, "category_id": [1] if key is None else key}):
        with pytest.raises(DataError, match=r"f: annotation 0: .*_id: wanted a whole number"):
            parse_coco([row], name="f", error=DataError)


@given(st.lists(st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9), max_size=8))
def test_lists_of_numbers_are_their_floats(values: list[float]) -> None:
    assert floats(values, name="f") == [float(value) for value in values]


@pytest.mark.parametrize("bad", [True, None, "1", [1], 2e9, -(10**400), float("nan")])
def test_anything_else_in_a_list_of_numbers_is_named(bad: object) -> None:
    with pytest.raises(InputError, match=r"^f\[1\]: wanted a finite number"):
        floats([0, bad], name="f")
    with pytest.raises(InputError, match="a list of 2 numbers"):
        floats([1], name="f", count=2)
