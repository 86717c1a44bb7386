from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.host import reached, run
from upwell.runtime.host.channel import QUEUED_MESSAGES, Channel
from upwell.runtime.host.wire import Received, Wire


def marked(text: str) -> IO[str]:
    """A file that is recognised by what it holds."""
    file = tempfile.TemporaryFile("w+")  # noqa: SIM115  # the caller's to close
    file.write(text)
    file.flush()
    return file


def read_and_close(descriptor: int) -> str:
    with os.fdopen(descriptor) as file:
        file.seek(0)
        return file.read()


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


@given(
    st.lists(st.dictionaries(st.text(min_size=1).filter(lambda name: name != "descriptors"), values), max_size=8)
)
def test_messages_arrive_whole_and_in_order(messages: list[dict[str, object]]) -> None:
    near, far = socket.socketpair()
    sender, receiver = Wire(near), Wire(far)
    for message in messages:
        sender.send(message)
    sender.close()
    arrived: list[Received] = []
    while (batch := receiver.read()) is not None:
        arrived += batch
    receiver.close()
    assert [received.message for received in arrived] == messages


def test_each_message_gets_its_own_descriptors() -> None:
    near, far = socket.socketpair()
    sender, receiver = Wire(near), Wire(far)
    files = [marked(text) for text in ("one", "two", "three")]
    sender.send({"name": "first"}, [files[0].fileno(), files[1].fileno()])
    sender.send({"name": "second"})
    sender.send({"name": "third"}, [files[2].fileno()])
    sender.close()
    arrived: list[Received] = []
    while (batch := receiver.read()) is not None:
        arrived += batch
    texts = [[read_and_close(descriptor) for descriptor in received.descriptors] for received in arrived]
    assert texts == [["one", "two"], [], ["three"]]
    assert not any(os.get_inheritable(file.fileno()) for file in files)
    receiver.close()
    for file in files:
        file.close()


def test_a_closed_wire_closes_descriptors_that_no_message_claimed() -> None:
    near, far = socket.socketpair()
    receiver = Wire(far)
    reading, writing = os.pipe()
    socket.send_fds(near, [b'{"half": '], [writing])
    os.close(writing)
    assert receiver.read() == []
    assert receiver.has_partial
    receiver.close()
    assert os.read(reading, 1) == b""
    os.close(reading)
    near.close()


class Heard:
    """One end of a channel and what it was told."""

    def __init__(self, connection: socket.socket) -> None:
        self.received: list[Received] = []
        self.ended = 0
        self.channel = Channel(connection, asyncio.get_running_loop(), self.received.append, self._end)

    def _end(self) -> None:
        self.ended += 1


def test_a_burst_that_the_kernel_does_not_take_is_kept_with_its_descriptors_and_sent_later() -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        heard = Heard(near)
        count = QUEUED_MESSAGES
        for number in range(count):
            with marked(str(number)) as file:
                assert heard.channel.send({"number": number, "padding": "x" * 200}, [file.fileno()])
        other = Heard(far)
        await reached(lambda: len(other.received) == count)
        assert [received.message["number"] for received in other.received] == list(range(count))
        texts = [read_and_close(received.descriptors[0]) for received in other.received]
        assert texts == [str(number) for number in range(count)]
        heard.channel.close()
        await reached(lambda: other.ended == 1)
        assert not heard.ended

    run(main())


def test_a_message_larger_than_the_sockets_buffer_arrives_whole() -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        heard, other = Heard(near), Heard(far)
        with marked("with it") as file:
            heard.channel.send({"text": "x" * 3_000_000}, [file.fileno()])
        await reached(lambda: len(other.received) == 1)
        assert len(other.received[0].message["text"]) == 3_000_000
        assert read_and_close(other.received[0].descriptors[0]) == "with it"
        for each in (heard, other):
            each.channel.close()

    run(main())


def test_a_reader_that_never_reads_costs_a_bounded_queue() -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        heard = Heard(near)
        sent = 0
        while heard.channel.send({"padding": "x" * 1000}):
            sent += 1
            assert sent < 2 * QUEUED_MESSAGES
        heard.channel.close()
        assert not heard.channel.send({})
        far.close()

    run(main())


def test_sending_to_an_end_that_is_gone_is_told_and_so_is_the_end() -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        heard = Heard(near)
        far.close()
        assert not heard.channel.send({"to": "nobody"})
        await reached(lambda: heard.ended == 1)
        heard.channel.close()

    run(main())


def test_what_arrived_before_the_end_can_still_be_read() -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        heard = Heard(near)
        with far:
            Wire(far).send({"last": "words"})
        heard.channel.read_rest()
        assert [received.message for received in heard.received] == [{"last": "words"}]
        heard.channel.close()
        await asyncio.sleep(0)
        assert heard.ended == 0

    run(main())


@pytest.mark.parametrize("times", [1, 2])
def test_closing_a_channel_twice_is_harmless(times: int) -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        heard = Heard(near)
        for _ in range(times):
            heard.channel.close()
        assert far.recv(1) == b""
        far.close()

    run(main())
