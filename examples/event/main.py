"""Takes a CloudEvent and answers with another, which a broker delivers in its turn."""

from cloudevents.core.v1.event import CloudEvent


async def handle(event: CloudEvent) -> CloudEvent:
    data = event.get_data()
    name = data.get("name", "World") if isinstance(data, dict) else "World"
    return CloudEvent(
        {"type": "com.example.greeted", "source": "/examples/event", "datacontenttype": "application/json"},
        {"greeting": f"Hello, {name}!", "because": event.get_id()},
    )
