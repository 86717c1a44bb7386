"""Who really asks, and what a function is told of it: Forwarded and its older relatives (RFC 7239, RFC 9110 7.6).

What a client says of the way that its request took is believed of trusted proxies alone; of anyone else it is
replaced. The client is found as every proxy chain is read: from its end, past those that are trusted.

A private host answers only callers inside: on this machine, or in the networks that the operator names. Whoever
is forwarded on behalf of another is where that other is; a peer that is no trusted proxy and forwards all the same
stands for someone unknown, who is outside.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from upwell.functions.errors import InvalidSettings
from upwell.runtime.gateway.routes import RouteTarget, VirtualHost
from upwell.runtime.http.exchange import Exchange
from upwell.runtime.http.messages import Headers, RequestHead, encode_fields

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

KNOWN_ADDRESSES: Final = 4096
"""Callers of whom it is remembered what they are; the others are looked at again."""
MOST_HOPS: Final = 64
"""Of a forwarded request: more are taken for no chain that could be read."""
TAG_HEADER: Final = b"knative-serving-tag"
_FORWARDED_FOR: Final = b"x-forwarded-for"
_FORWARDED_PROTO: Final = b"x-forwarded-proto"
_FORWARDED: Final = b"forwarded"
_REAL_IP: Final = b"x-real-ip"
_PRIVILEGED: Final = (
    *(b"k-", b"knative-", b"x-forwarded-", _FORWARDED, _REAL_IP),
    *(b"k_", b"knative_", b"x_forwarded_", b"x-forwarded_", b"x_forwarded-"),
    *(b"x_real_ip", b"x-real_ip", b"x_real-ip"),
)
"""What names begin with by which platform and proxies speak; from outside they would let a client do so."""
_FIRST_LETTERS: Final = frozenset(prefix[0] for prefix in _PRIVILEGED)
_SIGNS: Final = (_FORWARDED_FOR, _FORWARDED, b"x-forwarded-host", _FORWARDED_PROTO, _REAL_IP, b"via")
"""Fields that say that a request comes from farther away than the peer."""
_SCHEMES: Final = {b"http": "http", b"https": "https"}
_PAIR: Final = re.compile(rb'\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,"\s]*)\s*')
_PROTO: Final = re.compile(rb'(?:^|;)\s*proto="?(https?)"?\s*(?:;|$)', re.IGNORECASE)
_MAX_FORWARDS: Final = b"max-forwards"
_LIMITED: Final = (b"OPTIONS", b"TRACE")
"""The methods for which RFC 9110 (7.6.2) has Max-Forwards count."""
_NOT_TRACED: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
"""RFC 9110 9.3.8: an answer to TRACE leaves out what is confidential."""


class ClientOrigin(NamedTuple):
    """Where a request comes from, as far as that is known for sure."""

    address: str
    """The caller's, behind trusted proxies; empty for one on a Unix socket."""
    scheme: str
    """By which the caller came."""
    is_inside: bool
    """Whether private hosts answer."""
    is_trusted: bool
    """Whether the peer is a trusted proxy, so that what it forwards passes."""


class ForwardedFields:
    """Reads and writes what is forwarded. Networks are CIDRs or single addresses.

    `https_port` is the gateway's own, None without TLS. Raises InvalidSettings for a network that cannot be read.
    """

    def __init__(self, trusted: Sequence[str] = (), private_from: Sequence[str] = ()) -> None:
        self._trusted = [parse_network(network, "--trusted-proxies") for network in trusted]
        self._private_from = [parse_network(network, "--private-from") for network in private_from]
        self.https_port: int | None = None
        self._is_trusted = lru_cache(KNOWN_ADDRESSES)(lambda address: _is_in(address, self._trusted))
        self._is_near = lru_cache(KNOWN_ADDRESSES)(self._look)
        self._plain = lru_cache(KNOWN_ADDRESSES)(_plain_fields)
        self._direct = lru_cache(KNOWN_ADDRESSES)(self._itself)

    def __repr__(self) -> str:
        return f"<ForwardedFields {len(self._trusted)} trusted, {len(self._private_from)} inside>"

    def client_of(self, exchange: Exchange) -> ClientOrigin:
        """Where a request comes from."""
        peer, request = exchange.client, exchange.request
        if request.lacks(_SIGNS):
            return self._direct(peer, exchange.scheme)
        if not self._trusted or not self._is_trusted(peer):
            return ClientOrigin(peer, exchange.scheme, False, False)
        return self._forwarded(request, peer, exchange.scheme)

    def answers(self, vhost: VirtualHost, origin: ClientOrigin) -> bool:
        """Whether a virtual host is there for this caller; if not, it is as if it did not exist."""
        return origin.is_inside or not vhost.is_private

    def redirect(self, vhost: VirtualHost, request: RequestHead, origin: ClientOrigin) -> bytes | None:
        """The address in https that a request in plain HTTP is to come again at (status 301), if it is.

        None as well where nobody answers in https: without a certificate, and no trusted proxy before us.
        """
        if not vhost.redirects or origin.scheme != "http":
            return None
        forwarded = origin.is_trusted and _told_scheme(request) is not None
        if not forwarded and self.https_port is None:
            return None
        port = b"" if forwarded or self.https_port == 443 else b":%d" % (self.https_port or 443)
        return b"https://" + request.host + port + request.origin_target

    def fields(self, exchange: Exchange, origin: ClientOrigin, host: bytes | None = None) -> Headers:
        """What the function is told of the way here; `host` is the one in whose place it gets another.

        The fields that a client may have sent of these are to be left out, as `dropped_fields` says.
        """
        request = exchange.request
        if not origin.is_trusted or request.lacks(_SIGNS):
            fields = self._plain(exchange.client, exchange.scheme, request.version)
        else:
            fields = _extended_fields(exchange, origin)
        if request.method in _LIMITED and (left := forwards_left(request)) is not None:
            fields = [*fields, (_MAX_FORWARDS, b"%d" % max(0, left - 1))]
        if host is not None and all(name != b"x-forwarded-host" for name, _ in fields):
            return [*fields, (b"x-forwarded-host", request.host)]
        return fields

    def _itself(self, peer: str, scheme: str) -> ClientOrigin:
        return ClientOrigin(peer, scheme, self._is_near(peer), bool(self._trusted) and self._is_trusted(peer))

    def _look(self, address: str) -> bool:
        return _is_local(address) or _is_in(address, self._private_from)

    def _forwarded(self, request: RequestHead, peer: str, scheme: str) -> ClientOrigin:
        """A client of whom a trusted proxy tells; inside when everything that is told says so."""
        chains = [chain for chain in (_addresses(request), _forwarded_addresses(request)) if chain is not None]
        clients = [self._client(chain) for chain in chains]
        scheme = _told_scheme(request) or scheme
        if not clients or not clients[0]:
            return ClientOrigin(peer, scheme, False, True)
        return ClientOrigin(clients[0], scheme, all(bool(each) and self._is_near(each) for each in clients), True)

    def _client(self, chain: Sequence[str]) -> str:
        """The last that is not trusted, else the first; empty when it cannot be told."""
        for address in reversed(chain):
            if not address or not self._is_trusted(address):
                return address
        return chain[0] if chain else ""


def complete_answer(exchange: Exchange, headers: Headers) -> None:
    """Add to an answer what whoever passes it on has to: the time, if it lacks it (RFC 9110 6.6.1)."""
    for name, _ in headers:
        if name == b"date":
            return
    headers.append((b"date", exchange.date()))


def dropped_fields(request: RequestHead, target: RouteTarget, *, keeps_tag: bool = False) -> frozenset[bytes]:
    """Names of the fields that a client may not say to a function, and of those that the route sets.

    Names with an underscore pass, but for those that a function could take for one of the platform's: WSGI and CGI
    do not tell `_` from `-`. `keeps_tag` is the virtual host's.
    """
    names = [name for name in request.names if name[0] in _FIRST_LETTERS and name.startswith(_PRIVILEGED)]
    if request.method in _LIMITED and forwards_left(request) is not None:
        names.append(_MAX_FORWARDS)
    if keeps_tag and TAG_HEADER in names:
        names.remove(TAG_HEADER)
    return target.replaced.union(names) if names else target.replaced


def forwards_left(request: RequestHead) -> int | None:
    """How often an OPTIONS or TRACE request may still be passed on; None when nothing limits it."""
    if request.method not in _LIMITED:
        return None
    value = request.header(_MAX_FORWARDS) or b""
    return int(value) if value.isdigit() and len(value) < 10 else None


def last_answer(request: RequestHead) -> tuple[Headers, bytes] | None:
    """The answer (200) to a request that may not be passed on any more, since it asks for that itself."""
    if request.method not in _LIMITED or forwards_left(request) != 0:
        return None
    if request.method == b"OPTIONS":
        return [], b""
    kept = [field for field in request.headers if field[0] not in _NOT_TRACED]
    line = b"%b %b HTTP/%b\r\n" % (request.method, request.target, request.version)
    return [(b"content-type", b"message/http")], line + encode_fields(kept) + b"\r\n"


def parse_network(text: str, flag: str) -> Network:
    """A CIDR or a single address. Raises InvalidSettings, which names `flag`."""
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        hint = "Give networks such as 10.0.0.0/8 or single addresses."
        raise InvalidSettings(f"{text!r} is no network", where=flag, hint=hint) from error


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _is_in(address: str, networks: Iterable[Network]) -> bool:
    parsed = _parse(address) if address else ipaddress.ip_address("127.0.0.1")
    return parsed is not None and any(parsed in network for network in networks)


def _is_local(address: str) -> bool:
    """Whether a peer is on this machine; on a Unix socket it has no address."""
    parsed = _parse(address)
    return not address or (parsed is not None and parsed.is_loopback)


def _values(request: RequestHead, name: bytes) -> list[bytes]:
    return [value for field, value in request.headers if field == name]


def _addresses(request: RequestHead) -> list[str] | None:
    """The chain in X-Forwarded-For, an unreadable member as an empty string; None without the field."""
    values = _values(request, _FORWARDED_FOR)
    if not values:
        return None
    members = b",".join(values).split(b",")
    return [_address(member) for member in members] if len(members) <= MOST_HOPS else [""]


def _forwarded_addresses(request: RequestHead) -> list[str] | None:
    """The chain in Forwarded (RFC 7239 4), in the same way."""
    values = _values(request, _FORWARDED)
    if not values:
        return None
    text = b",".join(values)
    chain: list[str] = [""]
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None or len(chain) > MOST_HOPS:
            return [""]
        if match[1].lower() == b"for":
            chain[-1] = _address(match[2].strip(b'"'))
        position = match.end()
        separator = text[position : position + 1]
        if separator == b",":
            chain.append("")
        elif separator not in (b";", b""):
            return [""]
        position += 1
    return chain


def _address(member: bytes) -> str:
    """An address without port and brackets; empty for what is none, such as `unknown` and hidden names."""
    text = member.strip().decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    parsed = _parse(text)
    return str(parsed) if parsed is not None else ""


def _told_scheme(request: RequestHead) -> str | None:
    """By which the caller came to the first proxy."""
    told = request.header(_FORWARDED_PROTO)
    if told is None:
        match = _PROTO.search((request.header(_FORWARDED) or b"").partition(b",")[0])
        told = match[1] if match is not None else b""
    return _SCHEMES.get(told.partition(b",")[0].strip().lower())


def _node(address: str) -> bytes:
    """An address as Forwarded writes it."""
    if not address:
        return b"unknown"
    return b'"[%b]"' % address.encode() if ":" in address else address.encode()


def _via(version: bytes) -> tuple[bytes, bytes]:
    return (b"via", version + b" upwell")


def _plain_fields(peer: str, scheme: str, version: bytes) -> Headers:
    encoded = scheme.encode()
    return [
        (_FORWARDED_FOR, peer.encode()),
        (_FORWARDED_PROTO, encoded),
        (_FORWARDED, b"for=%b;proto=%b" % (_node(peer), encoded)),
        _via(version),
    ]


def _extended_fields(exchange: Exchange, origin: ClientOrigin) -> Headers:
    """What a trusted proxy told, and the proxy itself at the end of both chains."""
    request, peer = exchange.request, exchange.client
    told = [field for field in request.headers if field[0].startswith((b"x-forwarded-", _REAL_IP))]
    chain = _values(request, _FORWARDED_FOR)
    nodes = _values(request, _FORWARDED)
    if not nodes:
        nodes = [b"for=%b" % _node(address) for address in _addresses(request) or ()]
    kept = [field for field in told if field[0] not in (_FORWARDED_FOR, _FORWARDED_PROTO)]
    return [
        (_FORWARDED_FOR, b", ".join([*chain, peer.encode()])),
        (_FORWARDED_PROTO, origin.scheme.encode()),
        (_FORWARDED, b", ".join([*nodes, b"for=%b;proto=%b" % (_node(peer), exchange.scheme.encode())])),
        *kept,
        _via(request.version),
    ]
