"""CloudEvents and policies that match their attributes: binary, structured and batched, whole and broken."""

from __future__ import annotations

import asyncio
import json

import pytest

from support.http import eventually, settle
from support.policed import Player, ask, head, is_over, logged, service, to_httpbin, with_other_route
from support.policies import HTTPBIN, asking, httpbin, policy, status
from upwell.runtime.mesh.settings import MeshSettings
from upwell.runtime.testing.loop import run_fake

LIMIT = policy(
    """
apiVersion: istio.alibabacloud.com/v1
kind: ASMLocalRateLimiter
metadata: {name: events, namespace: istio-system}
spec:
  workloadSelector: {labels: {istio: ingressgateway}}
  isGateway: true
  configs:
  - match: {vhost: {name: httpbin.default.example.com, port: 80}}
    limit: {fill_interval: {seconds: 60}, quota: 1000}
    limit_overrides:
    - request_match: {header_match: [{name: ce-type, exact_match: hot}]}
      limit: {fill_interval: {seconds: 60}, quota: 2}
"""
)
ROUTED = service(
    {"match": [{"headers": {"ce-type": {"exact": "hot"}}}], "directResponse": {"status": 202}}, to_httpbin()
)


def event(kind: str) -> dict[str, object]:
    return {"specversion": "1.0", "id": "1", "source": "/test", "type": kind, "data": {"a": 1}}


def sending(form: str, kind: str) -> bytes:
    """A POST of an event (or a batch with one of another type before it)."""
    if form == "binary":
        fields = f"ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /test\r\nce-type: {kind}\r\n"
        return asking(method=b"POST", fields=fields.encode(), body=b'{"a":1}')
    if form == "structured":
        body, media = json.dumps(event(kind)), "application/cloudevents+json; charset=utf-8"
    else:
        body, media = json.dumps([event("cold"), event(kind)]), "application/cloudevents-batch+json"
    return asking(method=b"POST", fields=f"Content-Type: {media}\r\n".encode(), body=body.encode())


FORMS = ["binary", "structured", "batched"]


@pytest.mark.parametrize("form", FORMS)
def test_a_limit_reads_the_type_of_an_event_and_the_body_arrives_whole(form: str) -> None:
    async def scenario() -> None:
        async with httpbin(LIMIT) as on:
            player = Player()
            await on.replica(player, revision=HTTPBIN)
            hot = sending(form, "hot")
            assert [await ask(on, hot) for _ in range(3)] == [200, 200, 429]
            assert await ask(on, sending(form, "mild")) == 200
            assert {message.body for message in player.seen[:2]} == {hot.partition(b"\r\n\r\n")[2]}
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize("form", FORMS)
def test_a_virtual_service_matches_the_type_of_an_event(form: str) -> None:
    async def scenario() -> None:
        async with httpbin(ROUTED) as on:
            await on.replica(Player(), revision=HTTPBIN)
            assert await ask(on, sending(form, "hot")) == 202
            assert await ask(on, sending(form, "mild")) == 200

    run_fake(scenario())


def test_a_limit_of_another_route_reads_events_that_are_sent_there() -> None:
    text = LIMIT.to_manifest()
    text["metadata"]["namespace"] = "default"
    text["spec"] |= {"workloadSelector": {"labels": {"app": "other-00001"}}, "isGateway": False}
    text["spec"]["configs"][0]["match"] = {"vhost": {"name": "other.default.svc.cluster.local", "port": 80}}

    async def scenario() -> None:
        away = service({"route": [{"destination": {"host": "other"}}]})
        async with httpbin(policy(str(text)), away) as on:
            player = Player()
            await with_other_route(on, player)
            hot = sending("structured", "hot")
            assert [await ask(on, hot) for _ in range(3)] == [200, 200, 429]
            assert len(player.seen) == 2
            await is_over(on)

    run_fake(scenario())


def test_an_event_that_is_too_large_goes_on_without_its_attributes() -> None:
    async def scenario() -> None:
        async with httpbin(LIMIT, mesh=MeshSettings(event_bytes=200)) as on:
            player = Player()
            await on.replica(player, revision=HTTPBIN)
            body = json.dumps({**event("hot"), "data": "x" * 100_000}).encode()
            large = asking(method=b"POST", fields=b"Content-Type: application/cloudevents+json\r\n", body=body)
            assert [await ask(on, large) for _ in range(4)] == [200] * 4
            assert all(message.body == body for message in player.seen)
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'"text"', b"[1, {}]", b"\xff\xfe", b"[" * 5000])
def test_what_is_no_event_goes_on_as_any_request(body: bytes) -> None:
    async def scenario() -> None:
        async with httpbin(LIMIT) as on:
            player = Player()
            await on.replica(player, revision=HTTPBIN)
            fields = b"Content-Type: application/cloudevents+json\r\n"
            assert await ask(on, asking(method=b"POST", fields=fields, body=body)) == 200
            assert player.only.body == body

    run_fake(scenario())


def test_an_event_may_arrive_slowly_and_in_chunks() -> None:
    async def scenario() -> None:
        async with httpbin(ROUTED) as on:
            body = json.dumps(event("hot")).encode()
            fields = b"Content-Type: application/cloudevents+json\r\nTransfer-Encoding: chunked\r\n"
            client = await on.client(asking(method=b"POST", fields=fields))
            for byte in body:
                client.send(b"1\r\n%c\r\n" % byte)
                await asyncio.sleep(0.1)
            assert not client.received
            client.send(b"0\r\n\r\n")
            await eventually(lambda: b"\r\n\r\n" in client.received)
            assert status(bytes(client.received)) == 202
            await is_over(on)

    run_fake(scenario())


def test_a_client_that_waits_to_be_told_is_told_once() -> None:
    async def scenario() -> None:
        async with httpbin(LIMIT) as on:
            player = Player()
            await on.replica(player, revision=HTTPBIN)
            data = sending("structured", "hot").replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1)
            first, _, body = data.partition(b"\r\n\r\n")
            client = await on.client(first + b"\r\n\r\n")
            await eventually(lambda: client.received.endswith(b"\r\n\r\n"))
            assert bytes(client.received) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(body)
            received = await client.answer(b"ok")
            assert received.count(b" 100 Continue") == 1
            assert player.only.body == body
            client.close()
            await is_over(on)

    run_fake(scenario())


@pytest.mark.parametrize("how", ["leaves", "malformed", "never"])
def test_a_body_that_does_not_arrive_ends_the_request_once(how: str) -> None:
    async def scenario() -> None:
        async with httpbin(LIMIT, ROUTED) as on:
            lines = logged(on)
            fields = b"Content-Type: application/cloudevents+json\r\nTransfer-Encoding: chunked\r\n"
            client = await on.client(asking(method=b"POST", fields=fields) + b"1\r\n{\r\n")
            await settle()
            if how == "leaves":
                client.transport.abort()
            elif how == "malformed":
                client.send(b"zz\r\n")
            await asyncio.sleep(100.0)
            expected = {"leaves": (499, "client_gone"), "malformed": (400, "bad_request")}
            if how == "never":
                assert [line[0] for line in lines] == [408]
            else:
                assert [line[:2] for line in lines] == [expected[how]]
            assert client.closed
            await is_over(on)
            assert on.gateway.timers.statistics().pending == 0

    run_fake(scenario())


def test_a_body_that_drips_past_its_time_is_answered_once_and_read_no_further() -> None:
    async def scenario() -> None:
        async with httpbin(LIMIT) as on:
            lines = logged(on)
            player = Player()
            await on.replica(player, revision=HTTPBIN)
            data = sending("structured", "hot")
            end = data.index(b"\r\n\r\n") + 4
            client = await on.client(data[:end])
            for byte in data[end:]:
                if client.closed:
                    break
                client.send(b"%c" % byte)
                await asyncio.sleep(2.0)
            assert status(bytes(client.received)) == 408
            assert [line[0] for line in lines] == [408]
            assert player.seen == []
            await is_over(on)

    run_fake(scenario())


def test_policies_may_go_while_an_event_arrives() -> None:
    async def scenario() -> None:
        async with httpbin(LIMIT) as on:
            player = Player()
            await on.replica(player, revision=HTTPBIN)
            data = sending("structured", "hot")
            client = await on.client(data[:-5])
            await settle()
            on.gateway.set_policies([])
            client.send(data[-5:])
            assert status(await client.answer(b"ok")) == 200
            client.close()
            await is_over(on)
            assert (await head(on, data)).endswith(b"ok")

    run_fake(scenario())
