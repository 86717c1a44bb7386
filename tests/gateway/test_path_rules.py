"""What an Ingress says of paths, headers, tags and visibility, in the gateway's answers."""

from __future__ import annotations

from typing import Any

import pytest

from support.gateway import REVISION, stage
from support.torture import Echo, Message
from upwell.runtime.control.ingress import virtual_hosts
from upwell.runtime.gateway.activator import RevisionLimits
from upwell.runtime.gateway.routes import RouteTable, VirtualHost
from upwell.runtime.testing.loop import run_fake

INSIDE = ["hello.default", "hello.default.svc", "hello.default.svc.cluster.local"]
OUTSIDE = ["hello.default.example.com"]


def path(percent: int | None = None, **more: Any) -> dict[str, Any]:
    split: dict[str, Any] = {
        "appendHeaders": {"Knative-Serving-Revision": "hello-00001", "Knative-Serving-Namespace": "default"},
        "serviceName": "hello-00001",
        "serviceNamespace": "default",
        "servicePort": 80,
    }
    return {"splits": [split if percent is None else split | {"percent": percent}]} | more


def rule(hosts: list[str], *paths: dict[str, Any], private: bool = False) -> dict[str, Any]:
    return {
        "hosts": hosts,
        "http": {"paths": list(paths)},
        "visibility": "ClusterLocal" if private else "ExternalIP",
    }


def hosts_of(*rules: dict[str, Any], **spec: Any) -> tuple[VirtualHost, ...]:
    labels = {"serving.knative.dev/route": "hello", "serving.knative.dev/routeNamespace": "default"}
    metadata = {"name": "hello", "namespace": "default", "labels": labels}
    return virtual_hosts({"metadata": metadata, "spec": {"rules": list(rules), **spec}})


def ask(vhosts: tuple[VirtualHost, ...], sent: bytes) -> tuple[bytes, list[Message]]:
    async def scenario() -> tuple[bytes, list[Message]]:
        async with stage() as on:
            on.gateway.set_routes(RouteTable(vhosts))
            echo = Echo()
            await on.replica(echo.script)
            client = await on.client(sent.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n"))
            return await client.to_the_end(), echo.seen

    return run_fake(scenario())


def get(host: str, target: str = "/", fields: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()


TAGGED = hosts_of(
    rule(
        OUTSIDE,
        path(
            appendHeaders={"Knative-Serving-Tag": "beta"},
            headers={"Knative-Serving-Tag": {"exact": "beta"}, "X-Other": {"exact": "yes"}},
        ),
        path(appendHeaders={"Knative-Serving-Default-Route": "true"}),
    ),
    rule(["beta-hello.default.example.com"], path(appendHeaders={"Knative-Serving-Tag": "beta"})),
)


@pytest.mark.parametrize(
    ("host", "fields", "seen"),
    [
        (OUTSIDE[0], "Knative-Serving-Tag: beta\r\nX-Other: yes\r\n", {b"knative-serving-tag": [b"beta"]}),
        (
            OUTSIDE[0],
            "Knative-Serving-Tag: beta\r\n",
            {b"knative-serving-tag": [b"beta"], b"knative-serving-default-route": [b"true"]},
        ),
        (OUTSIDE[0], "Knative-Serving-Default-Route: forged\r\n", {b"knative-serving-default-route": [b"true"]}),
        ("beta-hello.default.example.com", "Knative-Serving-Tag: gamma\r\n", {b"knative-serving-tag": [b"beta"]}),
        (OUTSIDE[0], "Knative-Serving-Revision: forged\r\n", {b"knative-serving-revision": [b"hello-00001"]}),
    ],
)
def test_a_tag_is_read_from_a_header_where_rules_do_and_every_field_that_is_set_replaces_the_callers(
    host: str, fields: str, seen: dict[bytes, list[bytes]]
) -> None:
    _, messages = ask(TAGGED, get(host, fields=fields))
    (message,) = messages
    for name, values in seen.items():
        assert message.values(name) == values


def test_a_virtual_host_stands_for_a_tag_and_a_visibility() -> None:
    assert [(vhost.name, vhost.tag, vhost.keeps_tag) for vhost in TAGGED] == [
        ("default/hello", "", True),
        ("default/hello", "beta", False),
    ]
    without_headers = hosts_of(rule(OUTSIDE, path()), rule(["beta-hello.default.example.com"], path()))
    assert [vhost.tag for vhost in without_headers] == ["", "beta"]
    merged = hosts_of(rule(INSIDE, path(), private=True), rule(OUTSIDE, path()), rule(["hello.org"], path()))
    assert [(vhost.hosts, vhost.is_private) for vhost in merged] == [
        (tuple(INSIDE), True),
        ((*OUTSIDE, "hello.org"), False),
    ]


@pytest.mark.parametrize(
    ("target", "answered"),
    [("/", False), ("/v1", True), ("/v1/a?b", True), ("/v12", True), ("/V1", False), ("/v/1", False)],
)
def test_a_path_is_a_literal_prefix_and_a_host_without_one_that_fits_has_nothing_there(
    target: str, answered: bool
) -> None:
    received, seen = ask(hosts_of(rule(OUTSIDE, path(path="/v1"))), get(OUTSIDE[0], target))
    assert received.startswith(b"HTTP/1.1 200 " if answered else b"HTTP/1.1 404 ")
    assert [message.target.decode() for message in seen] == ([target] if answered else [])


def test_the_first_rule_that_fits_counts_and_may_rewrite_the_host() -> None:
    vhosts = hosts_of(
        rule(
            OUTSIDE,
            path(path="/a", rewriteHost="inner.example.com", appendHeaders={"X-Rule": "one", "X-Split": "rule"}),
            path(path="/a/b", appendHeaders={"X-Rule": "two"}),
        )
    )
    _, (message,) = ask(vhosts, get(OUTSIDE[0], "/a/b"))
    assert message.values(b"x-rule") == [b"one"]
    assert message.values(b"host") == [b"inner.example.com"]
    assert message.values(b"x-forwarded-host") == [OUTSIDE[0].encode()]


def test_what_a_split_sets_counts_more_than_what_its_rule_sets() -> None:
    one = path(appendHeaders={"X-Who": "rule", "X-Rule": "rule"})
    one["splits"][0]["appendHeaders"] = {"x-who": "split"}
    (vhost,) = hosts_of(rule(OUTSIDE, one))
    assert vhost.only is not None
    (target,) = vhost.only.targets
    assert dict(target.headers) == {b"x-who": b"split", b"x-rule": b"rule"}
    assert target.percent == 100, "one split without a share has all"
    assert target.revision == REVISION


@pytest.mark.parametrize("sign", ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "Via: 1.1 tunnel"])
def test_a_private_host_is_there_for_callers_on_this_machine_alone(sign: str) -> None:
    vhosts = hosts_of(rule(INSIDE, path(), private=True), rule(OUTSIDE, path()))
    hidden, none = ask(vhosts, get(INSIDE[0], fields=sign + "\r\n"))
    missing, _ = ask(vhosts, get("nothing.here", fields=sign + "\r\n"))
    assert none == []
    assert hidden.replace(INSIDE[0].encode(), b"nothing.here").split(b"\r\n")[0] == missing.split(b"\r\n")[0]
    assert same_but_for_lengths(hidden, INSIDE[0]) == same_but_for_lengths(missing, "nothing.here")
    assert ask(vhosts, get(INSIDE[0]))[0].startswith(b"HTTP/1.1 200 ")
    assert ask(vhosts, get(OUTSIDE[0], fields=sign + "\r\n"))[0].startswith(b"HTTP/1.1 200 ")


def same_but_for_lengths(answer: bytes, host: str) -> list[bytes]:
    lines = answer.replace(host.encode(), b"HOST").split(b"\r\n")
    return [line for line in lines if not line.startswith((b"content-length", b"date"))]


def test_plain_http_is_redirected_where_the_ingress_says_so_and_someone_answers_in_tls() -> None:
    vhosts = hosts_of(rule(INSIDE, path(), private=True), rule(OUTSIDE, path()), httpOption="Redirected")

    async def scenario() -> tuple[bytes, bytes]:
        async with stage(RevisionLimits()) as on:
            on.gateway.set_routes(RouteTable(vhosts))
            on.gateway.forwarded.https_port = 8443
            echo = Echo()
            await on.replica(echo.script)
            client = await on.client(get(OUTSIDE[0], "/a?b"))
            redirected = await client.answer(b"\r\n\r\n")
            local = await (await on.client(get(INSIDE[0]))).answer(b"GET / ")
            return redirected, local

    redirected, local = run_fake(scenario())
    assert redirected.startswith(b"HTTP/1.1 301 ")
    assert b"\r\nlocation: https://hello.default.example.com:8443/a?b\r\n" in redirected
    assert local.startswith(b"HTTP/1.1 200 ")
