"""Takes a CloudEvent and answers with another, which a broker delivers in its turn; None answers with nothing."""

from cloudevents.core.v1.event import CloudEvent


async def main(event: CloudEvent) -> CloudEvent:
    data = event.get_data()
    name = data.get("name", "World") if isinstance(data, dict) else "World"
    return CloudEvent(
        {"type": "com.example.greeted", "source": "/greetings", "datacontenttype": "application/json"},
        {"greeting": f"Hello, {name}!", "because": event.get_id()},
    )
