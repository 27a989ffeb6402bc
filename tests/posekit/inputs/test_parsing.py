"""One reader of JSON, TOML and numbers: what it takes, and that all else is one sentence."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posekit.errors import BundleError, PosekitError, RecipeError
from posekit.inputs.parsing import (
    number,
    numbers,
    parse_json,
    parse_toml,
    read_json,
    read_toml,
    reason,
    shown,
)

_DEEP = 100_000  # far beyond Python's own recursion limit


def test_json_may_be_nested_as_deep_as_its_limit_and_no_deeper() -> None:
    value = parse_json("[" * 64 + "]" * 64, name="file")
    for _ in range(63):
        (value,) = value
    assert value == []
    with pytest.raises(PosekitError, match=r"^file: JSON nested deeper than 64$"):
        parse_json("[" * 65 + "]" * 65, name="file")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[" * _DEEP, "nested deeper"),
        ('{"a":' * _DEEP, "nested deeper"),
        ("[" * 500 + "]" * 500, "nested deeper"),
        ("NaN", "NaN is no number"),
        ('{"a": [1, -Infinity]}', "-Infinity is no number"),
        ("9" * 5000, r"\(Exceeds the limit \(4300 digits\)\)$"),
        (b'"\xff"', "not UTF-8"),
        ('"' + "\\ud800" + '"', "not UTF-8"),
        ("", "not JSON"),
        ("{", "not JSON"),
        (" " * 2000, "larger than 1,000 bytes"),
    ],
)
def test_json_that_is_not_taken_is_one_sentence_of_the_class(
    data: bytes | str, message: str
) -> None:
    most = 1000 if "larger" in message else 1 << 20
    with pytest.raises(RecipeError, match=message) as caught:
        parse_json(data, name="a.json", error=RecipeError, max_bytes=most)
    assert str(caught.value).startswith("a.json: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_byte_order_marks_and_surrogate_pairs_are_read() -> None:
    assert parse_json(b"\xef\xbb\xbf[1]", name="file") == [1]
    assert parse_json("\ufeff[1]", name="file") == [1]
    assert parse_json(r'"\ud83d\ude00"', name="file") == "\U0001f600"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a = " + "[" * _DEEP, "nested deeper"),
        ("a = " + "[" * 65 + "]" * 65, "nested deeper"),
        ("a" + ".a" * 400_000 + " = 1", "nested deeper"),
        ('["a"' + '."b"' * 100 + "]", "nested deeper"),
        ("a = " + "9" * 5000, "not TOML"),
        ("a = ", "not TOML"),
        (b"a = '\xff'", "not UTF-8"),
    ],
)
def test_toml_that_is_not_taken_is_one_sentence_within_a_second(
    data: bytes | str, message: str
) -> None:
    started = time.monotonic()
    with pytest.raises(RecipeError, match=message):
        parse_toml(data, name="a.toml", error=RecipeError)
    assert time.monotonic() - started < 1


def test_toml_with_dotted_keys_and_many_decimals_is_read() -> None:
    many = ", ".join(["0.5"] * 200)
    assert parse_toml(f"a.b.c = [{many}]", name="file") == {"a": {"b": {"c": [0.5] * 200}}}


@pytest.mark.parametrize("read", [read_json, read_toml])
def test_files_that_cannot_be_read_are_one_sentence(read: object, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b" " * 101)
    for path, message in [
        (tmp_path / "none", "no such file"),
        (tmp_path, "cannot be read"),
        (Path("a\0b"), "cannot be read"),
        (large, "larger than 100 bytes"),
    ]:
        with pytest.raises(BundleError, match=message) as caught:
            read(path, error=BundleError, max_bytes=100)  # type: ignore[operator]
        assert "\0" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1)])
def test_numbers_in_range_are_floats(value: object) -> None:
    result = number(value, name="rate", low=0, high=1)
    assert type(result) is float
    assert result == value


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        pytest.param(10**5000, id="5001 digits"),
        -1,
        1.0001,
        True,
        np.True_,
        None,
        "1",
        [1],
        {},
        1j,
    ],
)
def test_all_else_is_refused_by_name_and_shown_short(value: object) -> None:
    with pytest.raises(RecipeError, match=r"^rate: wanted a finite number from 0 to 1, got ") as c:
        number(value, name="rate", low=0, high=1, error=RecipeError)
    assert len(str(c.value)) < 120


def test_whole_numbers_have_no_fraction() -> None:
    assert number(3.0, name="k", whole=True) == 3
    with pytest.raises(PosekitError, match=r"wanted a whole number from 1, got 2\.5"):
        number(2.5, name="k", low=1, whole=True)


def test_a_list_of_numbers_has_its_length_and_names_the_element() -> None:
    assert numbers((1, 2.5), name="mean", count=2) == [1.0, 2.5]
    assert numbers(np.array([1.0, 2.0]), name="mean") == [1.0, 2.0]
    for values, message in [
        ([1, 2, 3], r"^mean: wanted a list of 2 numbers, got \[1, 2, 3\]$"),
        ([1, math.nan], r"^mean\[1\]: wanted a finite number, got nan$"),
        ([1, [2]], r"^mean\[1\]: "),
        ("12", "wanted a list of 2 numbers"),
        ({1: 2, 3: 4}, "got a table of 2 entries"),
        (None, "got None"),
        (np.array(1.0), "wanted a list"),
    ]:
        with pytest.raises(PosekitError, match=message):
            numbers(values, name="mean", count=2)


@given(st.recursive(st.none() | st.floats() | st.text() | st.integers(), st.lists))
def test_a_value_in_a_message_is_short_and_has_no_control_characters(value: object) -> None:
    text = shown(value)
    assert len(text) <= 250
    assert text.isascii()
    assert text.isprintable()


def test_the_reason_of_another_library_is_one_short_printable_line() -> None:
    assert reason(ValueError("a\n  b\x1b[2J")) == "a b\\x1b[2J"
    assert reason(EOFError()) == "EOFError"
    long = reason(ValueError("begin " + "x" * 5000 + " end"))
    assert long.startswith("begin ")
    assert long.endswith(" end")
    assert len(long) < 320
