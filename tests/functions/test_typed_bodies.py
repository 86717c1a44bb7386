"""A typed parameter is the request's JSON body or its event's data; what does not fit is told by field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import msgspec
import pydantic
import pytest

from support.functions import answer
from upwell.functions import subjects
from upwell.functions.errors import InvalidFunction
from upwell.functions.handler import adapt
from upwell.functions.sdk import Context, Reject

SECRET = "what the author wrote for himself"
JSON = {"content-type": "application/json"}
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}


@dataclass
class Line:
    price: float
    labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.price < 0:
            raise ValueError(SECRET)


@dataclass
class Order:
    customer: str
    lines: list[Line]


class LineModel(pydantic.BaseModel):
    price: float
    labels: list[str] = []

    @pydantic.field_validator("price")
    @classmethod
    def positive(cls, price: float) -> float:
        if price < 0:
            raise ValueError(SECRET)
        return price


class OrderModel(pydantic.BaseModel):
    customer: str
    lines: list[LineModel]


class LineStruct(msgspec.Struct):
    price: float
    labels: list[str] = []

    def __post_init__(self) -> None:
        if self.price < 0:
            raise ValueError(SECRET)


class OrderStruct(msgspec.Struct):
    customer: str
    lines: list[LineStruct]


class Named(TypedDict, total=False):
    name: str


@dataclass
class Unreadable:
    stream: Callable[[], None]


def of_dataclass(order: Order) -> Any:
    return order


def of_pydantic(order: OrderModel) -> Any:
    return order


def of_msgspec(order: OrderStruct) -> Any:
    return order


TYPED = [of_dataclass, of_pydantic, of_msgspec]


def post(function: object, body: bytes, headers: dict[str, str] | None = None) -> Any:
    return answer(function, "POST", content=body, headers=JSON if headers is None else headers)


@pytest.mark.parametrize("function", TYPED)
def test_json_body_becomes_the_typed_value_and_a_typed_value_becomes_json(function: object) -> None:
    response = post(function, b'{"customer":"Ada","lines":[{"price":1.5,"unknown":1}]}')
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == {"customer": "Ada", "lines": [{"price": 1.5, "labels": []}]}


@pytest.mark.parametrize("function", TYPED)
@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"lines":[]}', "customer"),
        (b'{"customer":"Ada","lines":[{"price":1},{"price":"dear"}]}', "lines[1].price"),
        (b'{"customer":"Ada","lines":[{"price":1,"labels":[1]}]}', "lines[0].labels[0]"),
    ],
)
def test_body_that_does_not_fit_is_told_by_the_path_of_its_field(function: object, body: bytes, path: str) -> None:
    response = post(function, body)
    assert response.status_code == 400
    (fault,) = response.json()["faults"]
    # msgspec names the object that lacks a member, and the member in its words.
    assert path in (fault["path"], fault["message"].split("`")[1] if "`" in fault["message"] else "")
    assert fault["message"]


@pytest.mark.parametrize("function", TYPED)
def test_text_of_the_authors_own_checks_is_not_sent(function: object) -> None:
    response = post(function, b'{"customer":"Ada","lines":[{"price":-1}]}')
    assert response.status_code == 400
    assert response.json()["faults"][0]["path"].startswith("lines[0]")
    assert response.json()["faults"][0]["message"] == "is not valid"
    assert SECRET not in response.text


@pytest.mark.parametrize("function", TYPED)
@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b"", b"null", b"[]"])
def test_body_that_is_no_json_object_is_refused(function: object, body: bytes) -> None:
    response = post(function, body)
    assert response.status_code == 400
    assert "Traceback" not in response.text


@pytest.mark.parametrize("function", TYPED)
def test_body_of_another_type_is_refused(function: object) -> None:
    response = post(function, b"customer=Ada", {"content-type": "application/x-www-form-urlencoded"})
    assert response.status_code == 415
    assert response.json()["error"] == "the function takes application/json, not application/x-www-form-urlencoded"


@pytest.mark.parametrize("function", TYPED)
@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.order+json", None])
def test_body_of_any_json_type_or_of_none_is_taken(function: object, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    assert post(function, b'{"customer":"Ada","lines":[]}', headers).status_code == 200


def test_body_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "BODY_BYTES_LIMIT", 10)
    assert post(of_dataclass, b'{"customer":"Ada","lines":[]}').status_code == 413


@pytest.mark.parametrize("function", TYPED)
def test_data_of_a_binary_event_is_the_body(function: object) -> None:
    response = post(function, b'{"customer":"Ada","lines":[]}', EVENT | JSON)
    assert response.json()["customer"] == "Ada"


@pytest.mark.parametrize("function", TYPED)
def test_data_of_a_structured_event_is_the_body(function: object) -> None:
    event = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"customer":"Ada","lines":[]}}'
    response = post(function, event, {"content-type": "application/cloudevents+json"})
    assert response.json()["customer"] == "Ada"


def test_event_with_data_of_another_type_is_refused() -> None:
    assert post(of_dataclass, b"Ada", EVENT | {"content-type": "text/plain"}).status_code == 415


def test_event_without_data_is_refused() -> None:
    response = post(of_dataclass, b"", EVENT)
    assert (response.status_code, response.json()["error"]) == (400, "the event has no data")


def test_malformed_event_is_refused_as_one() -> None:
    response = post(of_dataclass, b"{}", {"ce-specversion": "1.0", "ce-id": "1"})
    assert (response.status_code, response.text) == (400, "the CloudEvent has no source\n")


def takes_dict(body: dict[str, int]) -> Any:
    return body


def takes_plain_dict(body: dict) -> Any:  # type: ignore[type-arg]  # people write it so
    return body


def takes_list(orders: list[OrderModel]) -> Any:
    return [order.customer for order in orders]


def takes_typed_dict(named: Named) -> Any:
    return dict(named)


def takes_text(body: str) -> Any:
    return body.upper()


def takes_bytes(body: bytes) -> Any:
    return body[::-1]


def takes_optional(order: Order | None) -> Any:
    return "nothing" if order is None else order.customer


def takes_constrained(number: Annotated[int, pydantic.Field(gt=3)]) -> Any:
    return str(number)


def takes_default(order: Order | None = None) -> Any:
    return "nothing" if order is None else order.customer


def takes_default_and_context(order: Order | None = None, ctx: Context | None = None) -> Any:
    assert ctx is not None
    return f"{ctx.method} {order and order.customer}"


@pytest.mark.parametrize(
    ("function", "body", "expected"),
    [
        (takes_dict, b'{"a":1}', '{"a":1}'),
        (takes_plain_dict, b'{"a":[null]}', '{"a":[null]}'),
        (takes_list, b'[{"customer":"Ada","lines":[]}]', '["Ada"]'),
        (takes_typed_dict, b'{"name":"Ada","more":1}', '{"name":"Ada"}'),
        (takes_optional, b"null", "nothing"),
        (takes_constrained, b"4", "4"),
        (takes_default, b"", "nothing"),
        (takes_default, b'{"customer":"Ada","lines":[]}', "Ada"),
        (takes_default_and_context, b"", "POST None"),
        (takes_default_and_context, b'{"customer":"Ada","lines":[]}', "POST Ada"),
    ],
)
def test_other_annotations_take_json_too(function: object, body: bytes, expected: str) -> None:
    assert post(function, body).text == expected


@pytest.mark.parametrize(
    ("function", "body"), [(takes_dict, b'{"a":"1"}'), (takes_plain_dict, b"[]"), (takes_constrained, b"3")]
)
def test_other_annotations_are_checked_too(function: object, body: bytes) -> None:
    assert post(function, body).status_code == 400


def test_text_and_bytes_take_any_content_type() -> None:
    assert post(takes_text, "für".encode("latin-1"), {"content-type": "text/plain; charset=latin-1"}).text == "FÜR"
    assert post(takes_text, b"\xff", {"content-type": "text/plain"}).status_code == 400
    assert post(takes_text, b"x", {"content-type": "text/plain; charset=klingon"}).status_code == 415
    assert post(takes_text, b"").text == ""
    assert post(takes_bytes, b"\x00\xff", {"content-type": "image/png"}).content == b"\xff\x00"
    assert post(takes_text, b"plain", EVENT | {"content-type": "text/plain"}).text == "PLAIN"


def test_refusal_of_the_authors_own_check_is_passed_on() -> None:
    @dataclass
    class Checked:
        name: str

        def __post_init__(self) -> None:
            raise Reject(f"no {self.name} here", 422)

    def function(body: Any) -> None: ...

    function.__annotations__["body"] = Checked
    response = post(function, b'{"name":"Ada"}')
    assert (response.status_code, response.text) == (422, "no Ada here\n")


def takes_unreadable(body: Unreadable) -> None: ...


def takes_a_module_type(body: pytest.Item) -> None: ...


@pytest.mark.parametrize("function", [takes_unreadable, takes_a_module_type])
def test_type_that_json_cannot_give_is_refused_when_the_function_is_loaded(function: object) -> None:
    with pytest.raises(InvalidFunction, match="cannot be read from JSON") as refused:
        adapt(function, threads=1)
    assert refused.value.where.startswith(__file__)
