"""Policies by the hosts that they name, so that a place is asked of those alone that may mean it.

With as many policies as routes, to ask each place of every policy would stop all requests for seconds at each
change of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class ByHost(Generic[Item]):
    """Items in their order, each with the canonical hosts that it names; patterns (`*`, `inbound|80||`) may mean
    any host."""

    def __init__(self, items: Iterable[tuple[Item, Iterable[str]]] = ()) -> None:
        self._items: list[Item] = []
        self._anywhere: set[int] = set()
        self._by_host: dict[str, set[int]] = {}
        for index, (item, hosts) in enumerate(items):
            self._items.append(item)
            for host in hosts:
                if "*" in host or "|" in host:
                    self._anywhere.add(index)
                else:
                    self._by_host.setdefault(host, set()).add(index)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def at(self, hosts: Iterable[str]) -> list[Item]:
        """Those that name one of these hosts, and those that may name any, in their order."""
        found = self._anywhere.union(*(self._by_host[host] for host in hosts if host in self._by_host))
        return [self._items[index] for index in sorted(found)]
