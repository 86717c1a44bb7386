"""Dataclasses come back from JSON as they were, and what does not fit is refused with every fault."""

from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, Literal, NewType, NotRequired, Optional, TypedDict
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.functions.converters import FAULTS_LIMIT, Fault, Misfit
from upwell.functions.decoding import Undecodable, decoder
from upwell.functions.encoding import encode_json
from upwell.functions.typed import InvalidBody, json_reader

Name = NewType("Name", str)


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Size(enum.IntEnum):
    SMALL = 1


class Address(TypedDict):
    street: str
    number: NotRequired[int]


@dataclass(frozen=True)
class Leaf:
    text: str
    number: int
    real: float
    flag: bool
    nothing: None = None


@dataclass
class Tree:
    name: Name
    leaf: Leaf
    colour: Colour
    size: Size
    choice: Literal["a", 1, True]
    moment: datetime
    day: date
    hour: time
    key: UUID
    amount: Decimal
    raw: bytes
    address: Address
    maybe: Optional[Leaf] = None  # noqa: UP045  people write it so
    either: int | str | None = None
    pair: tuple[int, str] = (1, "")
    many: tuple[int, ...] = ()
    names: frozenset[str] = frozenset()
    by_name: dict[str, Leaf] = field(default_factory=dict)
    by_number: dict[int, str] = field(default_factory=dict)
    children: list[Tree] = field(default_factory=list)
    anything: Any = None
    computed: int = field(init=False, default=3)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
numbers = st.integers(-(10**20), 10**20)
reals = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.builds(Leaf, text, numbers, reals, st.booleans())
zones = st.none() | st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=-30))])
moments = st.datetimes(timezones=zones)
trees = st.recursive(
    st.builds(
        Tree,
        name=text.map(Name),
        leaf=leaves,
        colour=st.sampled_from(Colour),
        size=st.just(Size.SMALL),
        choice=st.sampled_from(["a", 1, True]),
        moment=moments,
        day=st.dates(),
        hour=st.times(),
        key=st.uuids(),
        amount=st.decimals(allow_nan=False, allow_infinity=False),
        raw=st.binary(max_size=5),
        address=st.fixed_dictionaries({"street": text}, optional={"number": numbers}),
        maybe=st.none() | leaves,
        either=st.none() | numbers | text,
        pair=st.tuples(numbers, text),
        many=st.lists(numbers, max_size=3).map(tuple),
        names=st.frozensets(text, max_size=3),
        by_name=st.dictionaries(text, leaves, max_size=2),
        by_number=st.dictionaries(numbers, text, max_size=2),
    ),
    lambda inner: st.builds(dataclasses.replace, inner, children=st.lists(inner, max_size=2)),
    max_leaves=3,
)


@given(trees)
def test_what_is_encoded_is_decoded_to_the_same(tree: Tree) -> None:
    assert json_reader(Tree)(encode_json(tree)) == tree


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_json_value_is_decoded_or_refused_with_its_faults(value: Any) -> None:
    for annotation in (Tree, list[Leaf], dict[int, Leaf], Leaf | int | None, set[Any], tuple[int, str]):
        faults = faults_of(annotation, value)
        assert all(fault.message for fault in faults)


def faults_of(annotation: object, value: Any) -> tuple[Fault, ...]:
    """None for a value that fits, and at least one for any other."""
    try:
        decoder(annotation)(value)
    except Misfit as misfit:
        return misfit.faults or (Fault((), ""),)
    return ()


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, True, "expected an integer, got a boolean"),
        (int, 1.0, "expected an integer, got a number"),
        (int, "1", "expected an integer, got a string"),
        (float, "1", "expected a number, got a string"),
        (float, 10**400, "expected a number of double precision, got a larger one"),
        (float, float("inf"), "expected a number of double precision, got a larger one"),
        (bool, 1, "expected a boolean, got an integer"),
        (str, None, "expected a string, got null"),
        (str, "\ud800", "expected valid Unicode, got half of a surrogate pair"),
        (None, 0, "expected null, got an integer"),
        (bytes, "?", "expected a string of base64"),
        (datetime, "yesterday", "expected a time such as 2024-02-29T12:00:00Z"),
        (datetime, 5, "expected a time such as 2024-02-29T12:00:00Z, got an integer"),
        (datetime, "2023-02-29T12:00:00Z", "expected a time such as 2024-02-29T12:00:00Z"),
        (date, "20240229", "expected a date such as 2024-02-29"),
        (time, "12", "expected a time of day such as 12:00:00"),
        (UUID, "{00000000-0000-0000-0000-000000000000}", "expected a UUID"),
        (Decimal, "1_000", "expected a decimal number, or one in a string"),
        (Decimal, "NaN", "expected a decimal number, or one in a string"),
        (Colour, "green", 'expected "red" or 2'),
        (Size, True, "expected 1"),
        (Literal[1, "x", None], True, 'expected 1 or "x" or null'),
        (Literal["a"], ["a"], 'expected "a"'),
        (int | str, 1.5, "expected int or str, which a number like this is not"),
        (tuple[int, str], [1], "expected an array of 2 items, got one of 1"),
        (tuple[int], 1, "expected an array, got an integer"),
        (set[Any], [{}], "expected an array of what can stand in a set"),
        (list[int], {}, "expected an array, got an object"),
        (dict[str, int], [], "expected an object, got an array"),
        (Leaf, [], "expected an object, got an array"),
    ],
)
def test_value_of_another_type_is_refused(annotation: object, value: Any, message: str) -> None:
    with pytest.raises(Misfit) as refused:
        decoder(annotation)(value)
    assert [fault.message for fault in refused.value.faults] == [message]


def test_every_fault_is_told_by_its_path() -> None:
    value = {
        "text": 1,
        "number": "1",
        "real": 1,
        "flag": None,
    }
    with pytest.raises(Misfit) as refused:
        decoder(dict[str, list[Leaf]])({"a": [value, {}], "b": []})
    assert [fault.field() for fault in refused.value.faults] == [
        "a[0].text",
        "a[0].number",
        "a[0].flag",
        "a[1].text",
        "a[1].number",
        "a[1].real",
        "a[1].flag",
    ]


def test_faults_are_bounded() -> None:
    with pytest.raises(Misfit) as refused:
        decoder(list[int])([""] * 1000)
    assert len(refused.value.faults) == FAULTS_LIMIT


@pytest.mark.parametrize("body", [b'{"a":NaN}', b"Infinity", b"1" * 5000, b"[" * 100_000, b'"\xff"', b"{}x"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        json_reader(Any)(body)


def test_name_of_an_integer_key_is_the_integer_and_no_other_spelling() -> None:
    decode = decoder(dict[int, str])
    assert decode({"-1": "a"}) == {-1: "a"}
    for name in ("01", " 1", "1_0", "x", "9" * 5000):
        with pytest.raises(Misfit):
            decode({name: "a"})


@dataclass
class Prepared:
    name: Final[str]
    factor: dataclasses.InitVar[int]
    tags: dataclasses.InitVar[list[str]] = ()

    def __post_init__(self, factor: int, tags: list[str]) -> None:
        self.prepared = (factor * 2, list(tags))


def test_what_a_class_takes_for_its_making_alone_is_read_too() -> None:
    decode = decoder(Prepared)
    assert decode({"name": "a", "factor": 2}).prepared == (4, [])
    assert decode({"name": "a", "factor": 2, "tags": ["x"]}).prepared == (4, ["x"])
    with pytest.raises(Misfit) as refused:
        decode({"name": "a", "tags": [1]})
    expected = (Fault(("factor",), "is missing"), Fault(("tags", 0), "expected a string, got an integer"))
    assert refused.value.faults == expected


@dataclass(init=False)
class WantsMore:
    name: str

    def __init__(self, name: str, extra: int) -> None:
        self.name = name


@dataclass
class Unresolved:
    name: Nowhere  # type: ignore[name-defined]  # noqa: F821


@dataclass
class Deep:
    items: list[complex]


@pytest.mark.parametrize(
    ("annotation", "named"),
    [
        (complex, "a complex"),
        (Deep, r"items\[\] is a complex"),
        (WantsMore, "extra"),
        (Unresolved, "Nowhere"),
        (dict[float, str], "keys"),
        (Literal[b"x"], "Literal"),
    ],
)
def test_type_that_json_cannot_give_is_refused_at_once(annotation: object, named: str) -> None:
    with pytest.raises(Undecodable, match=named):
        decoder(annotation)


def test_recursive_class_is_read_to_any_depth_that_python_has() -> None:
    nested: dict[str, Any] = {"text": "", "number": 1, "real": 1, "flag": True}
    assert decoder(Leaf)(nested) == Leaf("", 1, 1.0, True)
    deep = json.dumps([[[[]]]])
    assert json_reader(list[Any])(deep.encode()) == [[[[]]]]
