import asyncio

from cloudevents.core.v1.event import CloudEvent
from main import main


def test_event_is_answered_with_a_greeting() -> None:
    arrived = CloudEvent({"id": "7", "type": "com.example.arrived", "source": "/test"}, {"name": "Ada"})
    greeted = asyncio.run(main(arrived))
    assert greeted.get_type() == "com.example.greeted"
    assert greeted.get_data() == {"greeting": "Hello, Ada!", "because": "7"}
