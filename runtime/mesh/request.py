"""A request as policies read it: headers, pseudo headers, query, attributes of the events that it carries.

Made only where a chain has something to ask. What costs (flow labels, the query, the events of a structured body)
is read when a policy first asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from upwell.runtime.http.messages import RequestHead
from upwell.runtime.mesh.attributes import Attributes

if TYPE_CHECKING:
    from upwell.runtime.mesh.http_route import RoutePlan

_HEADER_LABEL = "http.request.header."


class PolicyRequest:
    """One request. Names of header fields are given in lower case."""

    __slots__ = (
        "_labels",
        "_query",
        "client",
        "connection",
        "deadline",
        "events",
        "head",
        "plan",
        "scheme",
    )

    def __init__(
        self,
        head: RequestHead,
        *,
        client: str = "",
        connection: object = None,
        scheme: str = "http",
        deadline: float | None = None,
        events: Sequence[Attributes] = (),
    ) -> None:
        self.head = head
        self.client = client
        """The caller's address."""
        self.connection = connection
        """Stands for the caller's connection: hashable, and may be referred to weakly."""
        self.scheme = scheme
        self.deadline = deadline
        """Monotonic seconds by which the answer must have begun; None without one."""
        self.events = events
        """Attributes of the events in a structured or batched body; empty for any other request."""
        self._query: Mapping[str, str] | None = None
        self._labels: Mapping[str, str] | None = None
        self.plan: RoutePlan | None = None
        """What the route of a VirtualService that it takes does with it."""

    def values(self, name: str) -> Sequence[str]:
        """What stands under a header's name: `:method`, `:path` (with its query), `:authority` and `:scheme` are
        parts of the request itself; several fields of one name are joined by a comma, as Envoy does.

        Usually one value or none. A batch of events has one for each event that has the attribute `ce-NAME`.
        """
        head = self.head
        if name.startswith(":"):
            pseudo = self._pseudo(name)
            return () if pseudo is None else (pseudo,)
        if self.events and name.startswith("ce-"):
            attribute = name[3:]
            return [event[attribute] for event in self.events if attribute in event]
        encoded = name.encode("latin-1")
        first = head.header(encoded)
        if first is None:
            return ()
        found = [value for field, value in head.headers if field == encoded]
        return (b",".join(found).decode("latin-1"),)

    def _pseudo(self, name: str) -> str | None:
        head = self.head
        if name == ":path":
            return head.origin_target.decode("latin-1")
        if name == ":method":
            return head.method.decode("latin-1")
        if name == ":authority":
            return head.host.decode("latin-1")
        return self.scheme if name == ":scheme" else None

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters, decoded; of one that stands twice, the first."""
        if self._query is None:
            self._query = self._read_query()
        return self._query

    def _read_query(self) -> Mapping[str, str]:
        _, _, text = self.head.origin_target.partition(b"?")
        pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=1000) if text else []
        return dict(reversed(pairs))

    @property
    def labels(self) -> Mapping[str, str]:
        """Flow labels as FluxNinja Aperture names them, `http.request.header.NAME` with `_` for `-`, and the
        members of `baggage`. Of a batch of events the first one's attributes count."""
        if self._labels is None:
            self._labels = self._read_labels()
        return self._labels

    def _read_labels(self) -> Mapping[str, str]:
        head = self.head
        labels: dict[str, Any] = {
            "http.method": head.method.decode("latin-1"),
            "http.target": head.origin_target.decode("latin-1"),
            "http.host": head.host.decode("latin-1"),
            "http.scheme": self.scheme,
            "http.flavor": head.version.decode("latin-1"),
            "http.request_content_length": str(head.content_length or 0),
        }
        labels |= dict(_baggage(self.values("baggage")))
        for field, _ in head.headers:
            name = field.decode("latin-1")
            labels[_HEADER_LABEL + name.replace("-", "_")] = self.values(name)[0]
        for event in self.events[:1]:
            labels |= {f"{_HEADER_LABEL}ce_{attribute}": value for attribute, value in event.items()}
        return labels


def _baggage(values: Sequence[str]) -> Sequence[tuple[str, str]]:
    """Members of W3C baggage, without their properties."""
    members = []
    for member in ",".join(values).split(",")[:64]:
        name, equals, value = member.partition(";")[0].partition("=")
        if equals and name.strip():
            members.append((name.strip(), unquote(value.strip())))
    return members
