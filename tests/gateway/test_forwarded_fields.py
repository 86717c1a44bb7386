"""Whom a request is taken to come from, and what the function is told of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.http import serving
from upwell.functions.errors import InvalidSettings
from upwell.runtime.gateway.forwarded import (
    ClientOrigin,
    ForwardedFields,
    complete_answer,
    dropped_fields,
    forwards_left,
    last_answer,
)
from upwell.runtime.gateway.routes import PathRule, RouteTarget, VirtualHost
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.messages import Headers, RequestHead

TARGET = RouteTarget("default/hello-00001", 100, [(b"knative-serving-revision", b"hello-00001")])
RULES = (PathRule(b"/", (), (TARGET,)),)


def head(fields: Headers, method: bytes = b"GET", version: bytes = b"1.1", target: bytes = b"/a?b") -> RequestHead:
    request = RequestHead(method, target, version, fields, dict(reversed(fields)))
    request.host = b"hello.example.com"
    return request


class Connection:
    """Stands for the connection of an exchange that nobody answers."""

    settings: Any = type("Settings", (), {"hold_bytes": 1000})
    expecting = False


def exchange(fields: Headers, client: str = "127.0.0.1", scheme: str = "http", **more: bytes) -> Exchange:
    connection: Any = Connection()
    return Exchange(connection, head(fields, **more), client, scheme, 0.0)


def told(exchange: Exchange, forwarded: ForwardedFields, host: bytes | None = None) -> dict[bytes, bytes]:
    fields = forwarded.fields(exchange, forwarded.client_of(exchange), host)
    assert len(dict(fields)) == len(fields)
    return dict(fields)


XFF = b"x-forwarded-for"


@pytest.mark.parametrize(
    "fields", [[], [(XFF, b"9.9.9.9")], [(b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"evil")]]
)
def test_what_a_stranger_says_of_its_way_is_replaced(fields: Headers) -> None:
    assert told(exchange(fields, "203.0.113.7"), ForwardedFields(["10.0.0.0/8"])) == {
        b"x-forwarded-for": b"203.0.113.7",
        b"x-forwarded-proto": b"http",
        b"forwarded": b"for=203.0.113.7;proto=http",
        b"via": b"1.1 upwell",
    }


def test_what_a_trusted_proxy_says_passes_with_the_proxy_at_its_end() -> None:
    fields: Headers = [
        (XFF, b"203.0.113.7, 10.0.0.9"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"shop.example.com"),
        (b"x-forwarded-port", b"443"),
        (b"x-real-ip", b"203.0.113.7"),
    ]
    asked = exchange(fields, "10.0.0.1")
    forwarded = ForwardedFields(["10.0.0.0/8"])
    assert forwarded.client_of(asked) == ClientOrigin("203.0.113.7", "https", False, True)
    assert told(asked, forwarded, b"inner.example.com") == {
        b"x-forwarded-for": b"203.0.113.7, 10.0.0.9, 10.0.0.1",
        b"x-forwarded-proto": b"https",
        b"x-forwarded-host": b"shop.example.com",
        b"x-forwarded-port": b"443",
        b"x-real-ip": b"203.0.113.7",
        b"forwarded": b"for=203.0.113.7, for=10.0.0.9, for=10.0.0.1;proto=http",
        b"via": b"1.1 upwell",
    }


def test_a_host_that_is_rewritten_is_told_as_the_one_that_was_asked() -> None:
    assert told(exchange([]), ForwardedFields(), b"inner.example.com")[b"x-forwarded-host"] == b"hello.example.com"
    assert b"x-forwarded-host" not in told(exchange([]), ForwardedFields())


@pytest.mark.parametrize(
    ("fields", "address", "inside"),
    [
        ([], "10.0.0.1", False),
        ([(XFF, b"127.0.0.1")], "127.0.0.1", True),
        ([(XFF, b"203.0.113.7, 127.0.0.1")], "127.0.0.1", True),
        ([(XFF, b"127.0.0.1, 203.0.113.7")], "203.0.113.7", False),
        ([(XFF, b"127.0.0.1"), (XFF, b"203.0.113.7")], "203.0.113.7", False),
        ([(XFF, b"203.0.113.7, 10.1.1.1, 10.2.2.2")], "203.0.113.7", False),
        ([(XFF, b"10.1.1.1, 10.2.2.2")], "10.1.1.1", False),
        ([(XFF, b"[2001:db8::1]:4711")], "2001:db8::1", False),
        ([(XFF, b"203.0.113.7:4711")], "203.0.113.7", False),
        ([(XFF, b"::ffff:127.0.0.1")], "127.0.0.1", True),
        ([(XFF, b"unknown")], "10.0.0.1", False),
        ([(XFF, b"")], "10.0.0.1", False),
        ([(XFF, b"127.0.0.1"), (b"forwarded", b"for=203.0.113.7")], "127.0.0.1", False),
        ([(b"forwarded", b'for="[2001:db8::1]:4711";proto=https')], "2001:db8::1", False),
        ([(b"forwarded", b"for=127.0.0.1;by=10.0.0.1, for=10.0.0.7")], "127.0.0.1", True),
        ([(b"forwarded", b"for=127.0.0.1 for=203.0.113.7")], "10.0.0.1", False),
        ([(b"forwarded", b"for=_hidden")], "10.0.0.1", False),
        ([(b"via", b"1.1 proxy")], "10.0.0.1", False),
        ([(b"x-real-ip", b"127.0.0.1")], "10.0.0.1", False),
        ([(XFF, b",".join([b"127.0.0.1"] * 65))], "10.0.0.1", False),
    ],
)
def test_the_client_behind_a_trusted_proxy_is_the_last_that_is_not_trusted(
    fields: Headers, address: str, inside: bool
) -> None:
    origin = ForwardedFields(["10.0.0.0/8"]).client_of(exchange(fields, "10.0.0.1"))
    assert (origin.address, origin.is_inside, origin.is_trusted) == (address, inside, True)


@pytest.mark.parametrize("client", ["", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "192.168.7.7"])
@pytest.mark.parametrize(
    "name", [XFF, b"forwarded", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via"]
)
def test_a_caller_inside_is_one_on_this_machine_or_in_a_named_network_that_speaks_for_itself(
    client: str, name: bytes
) -> None:
    forwarded = ForwardedFields(private_from=["192.168.0.0/16"])
    assert forwarded.client_of(exchange([], client)).is_inside
    assert not forwarded.client_of(exchange([(name, b"127.0.0.1")], client)).is_inside


@pytest.mark.parametrize("client", ["203.0.113.7", "10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1%eth0"])
def test_anyone_else_is_outside(client: str) -> None:
    forwarded = ForwardedFields(private_from=["192.168.0.0/16"])
    origin = forwarded.client_of(exchange([], client))
    assert not origin.is_inside
    assert not forwarded.answers(VirtualHost("default/a", ("a",), RULES, is_private=True), origin)
    assert forwarded.answers(VirtualHost("default/a", ("a",), RULES), origin)


@given(st.lists(st.tuples(st.sampled_from([XFF, b"forwarded", b"via"]), st.binary(max_size=40)), max_size=5))
def test_no_field_makes_a_stranger_someone_inside_and_every_field_can_be_read(fields: Headers) -> None:
    fields = [(name, value.replace(b"\r", b"").replace(b"\n", b"")) for name, value in fields]
    trusting = ForwardedFields(["10.0.0.0/8"])
    assert not trusting.client_of(exchange(fields, "203.0.113.7")).is_inside
    behind = exchange(fields, "10.0.0.1")
    assert all(b"\n" not in value for _, value in trusting.fields(behind, trusting.client_of(behind)))


@given(
    st.lists(
        st.tuples(st.sampled_from(["for", "proto", "by", "host", "FOR"]), st.ip_addresses()),
        min_size=1,
        max_size=6,
    )
)
def test_a_chain_of_elements_is_read_member_by_member(members: list[tuple[str, Any]]) -> None:
    text = ", ".join(
        f'{name}="[{address}]";x=y' if address.version == 6 else f"{name}={address}" for name, address in members
    )
    chain = [
        address.ipv4_mapped or address if address.version == 6 else address
        for name, address in members
        if name.lower() == "for"
    ]
    origin = ForwardedFields(["10.0.0.1"]).client_of(exchange([(b"forwarded", text.encode())], "10.0.0.1"))
    last_is_for = members[-1][0].lower() == "for"
    if last_is_for and str(chain[-1]) != "10.0.0.1":
        assert origin.address == str(chain[-1])
    elif not last_is_for:
        assert (origin.address, origin.is_inside) == ("10.0.0.1", False)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "somewhere", ""])
def test_a_network_that_cannot_be_read_is_refused_with_its_flag(text: str) -> None:
    with pytest.raises(InvalidSettings, match="no network") as raised:
        ForwardedFields([text])
    assert raised.value.where == "--trusted-proxies"


def test_names_of_the_platform_are_dropped_by_their_beginnings_and_underscores_pass() -> None:
    names = [
        *(b"k-proxy-request", b"k-anything", b"knative-serving-tag", b"knative-foo", b"forwarded"),
        *(
            b"x-forwarded-for",
            b"x-forwarded-client-cert",
            b"user_type",
            b"accept",
            b"kind",
            b"x-forward",
            b"x_real",
        ),
        *(b"k_proxy_request", b"knative_serving_tag", b"x_forwarded_for", b"x-forwarded_for", b"x_forwarded-for"),
        *(b"x-real-ip", b"x_real_ip", b"x-real_ip", b"x_real-ip"),
    ]
    request = head([(name, b"1") for name in names])
    kept = {b"user_type", b"accept", b"kind", b"x-forward", b"x_real"}
    dropped = dropped_fields(request, TARGET)
    assert dropped >= set(names) - kept
    assert dropped.isdisjoint(kept)
    assert b"knative-serving-revision" in dropped, "the route sets it"
    assert b"knative-serving-tag" not in dropped_fields(request, TARGET, keeps_tag=True)
    assert dropped_fields(head([(b"accept", b"1")]), TARGET) is TARGET.replaced


@pytest.mark.parametrize(
    ("value", "left"), [(b"0", 0), (b"3", 3), (b"x", None), (b"", None), (b"-1", None), (b"9" * 12, None)]
)
@pytest.mark.parametrize("method", [b"OPTIONS", b"TRACE"])
def test_a_request_that_limits_its_forwards_is_passed_on_with_one_less_and_answered_at_none(
    method: bytes, value: bytes, left: int | None
) -> None:
    asked = exchange([(b"max-forwards", value), (b"cookie", b"secret")], method=method)
    assert forwards_left(asked.request) == left
    assert (last_answer(asked.request) is not None) == (left == 0)
    assert (b"max-forwards" in dropped_fields(asked.request, TARGET)) == (left is not None)
    passed = told(asked, ForwardedFields()).get(b"max-forwards")
    assert passed == (None if left is None else b"%d" % max(0, left - 1))


def test_a_trace_that_ends_here_gets_what_was_received_without_secrets() -> None:
    fields: Headers = [(b"host", b"a"), (b"max-forwards", b"0"), (b"cookie", b"s"), (b"authorization", b"s")]
    answer = last_answer(head(fields, method=b"TRACE"))
    assert answer == (
        [(b"content-type", b"message/http")],
        b"TRACE /a?b HTTP/1.1\r\nhost: a\r\nmax-forwards: 0\r\n\r\n",
    )
    assert last_answer(head(fields)) is None


@pytest.mark.parametrize(
    ("https_port", "client", "fields", "scheme", "location"),
    [
        (None, "203.0.113.7", [], "http", None),
        (443, "203.0.113.7", [], "http", b"https://hello.example.com/a?b"),
        (8443, "203.0.113.7", [], "http", b"https://hello.example.com:8443/a?b"),
        (8443, "203.0.113.7", [], "https", None),
        (8443, "203.0.113.7", [(b"x-forwarded-proto", b"https")], "http", b"https://hello.example.com:8443/a?b"),
        (None, "10.0.0.1", [(b"x-forwarded-proto", b"http")], "http", b"https://hello.example.com/a?b"),
        (8443, "10.0.0.1", [(b"x-forwarded-proto", b"https")], "http", None),
        (8443, "10.0.0.1", [(b"forwarded", b"for=1.2.3.4;proto=https")], "http", None),
        (None, "10.0.0.1", [], "http", None),
    ],
)
def test_plain_http_is_sent_to_https_where_someone_answers_there(
    https_port: int | None, client: str, fields: Headers, scheme: str, location: bytes | None
) -> None:
    forwarded = ForwardedFields(["10.0.0.0/8"])
    forwarded.https_port = https_port
    asked = exchange(fields, client, scheme)
    vhost = VirtualHost("default/a", ("a",), RULES, redirects=True)
    origin = forwarded.client_of(asked)
    assert forwarded.redirect(vhost, asked.request, origin) == location
    assert forwarded.redirect(VirtualHost("default/a", ("a",), RULES), asked.request, origin) is None


def test_the_peer_of_a_real_connection_is_the_caller_and_an_answer_without_a_date_gets_one() -> None:
    seen: list[ClientOrigin] = []
    dated: Headers = []
    own: Headers = [(b"date", b"yesterday")]

    async def main() -> None:
        forwarded = ForwardedFields()

        def handle(exchange: Exchange) -> None:
            seen.append(forwarded.client_of(exchange))
            complete_answer(exchange, dated)
            complete_answer(exchange, own)
            exchange.respond(200, [])

        async with serving(handle) as served:
            await served.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n\r\n")

    asyncio.run(main())
    assert seen == [ClientOrigin("127.0.0.1", "http", True, False)]
    assert own == [(b"date", b"yesterday")]
    ((name, value),) = dated
    assert name == b"date"
    assert value.endswith(b" GMT")
