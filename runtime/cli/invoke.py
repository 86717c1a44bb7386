"""`upwell invoke`: one request to a service, through the gateway as any client's would go."""

from __future__ import annotations

import errno
import http.client
import sys
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import click

from upwell.functions.errors import InvalidSettings, Unavailable
from upwell.runtime.api.client import Client
from upwell.runtime.cli.named import DEFAULT_NAMESPACE, service_name
from upwell.runtime.cli.options import complete_name, duration, namespace_option, pairs, with_client_beside_data
from upwell.runtime.cli.sending import gateway_address, read_body, service_host
from upwell.runtime.load.parts import check_method, content_type, encode_target, event_fields, read_field

EXAMPLES = """
\b
Examples:
  upwell invoke hello
  upwell invoke hello --path '/greet?name=Ada' -v
  upwell invoke hello --data '{"name": "Ada"}'
  upwell invoke hello --event com.example.order --data @order.json --subject 42
  echo hi | upwell invoke hello --data - --header 'content-type: text/plain'
\b
Exit codes: 0 the answer is below 400; 1 it is not, or there was none; 2 the input is wrong.
"""
PIECE: Final = 64 * 1024


@click.command(epilog=EXAMPLES)
@click.argument("name", shell_complete=complete_name)
@click.option("--data", "-d", "body", metavar="TEXT|@FILE|-", help="The body: a text, a file, or standard input.")
@click.option("--event", metavar="TYPE", help="Send a CloudEvent of this type in binary mode; --data is its data.")
@click.option("--source", default="upwell-invoke", show_default=True, help="The event's source.")
@click.option("--id", "identity", metavar="ID", help="The event's id.  [default: a random one]")
@click.option("--subject", help="The event's subject.")
@click.option("--extension", "extensions", multiple=True, metavar="NAME=VALUE", help="A further attribute of it.")
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="A header of the request.")
@click.option("--path", default="/", show_default=True, help="Path and query.")
@click.option("--method", "-X", help="[default: POST with a body or an event, else GET]")
@click.option("--timeout", type=duration, default="300s", show_default=True, help="For each part of the answer.")
@click.option("--verbose", "-v", is_flag=True, help="Show both heads on standard error.")
@namespace_option
@with_client_beside_data
def invoke(client: Client, name: str, namespace: str | None, timeout: float, verbose: bool, **given: Any) -> None:
    """Send a request or an event to a service and print the answer."""
    if timeout <= 0:
        raise InvalidSettings("nothing can come in no time", where="--timeout")
    request = _request(_Given(**given))
    host = service_host(client, namespace or DEFAULT_NAMESPACE, service_name(name))
    connection = _dial(client, timeout)
    try:
        sent = [("Host", host), *request.headers]
        if verbose:
            _show_head(">", f"{request.method} {request.path} HTTP/1.1", sent)
        answer = _send(connection, request, sent)
        if verbose:
            _show_head("<", f"HTTP/1.1 {answer.status} {answer.reason}", answer.getheaders())
        delivered = _copy(answer)
    except TimeoutError as error:
        raise Unavailable(f"nothing came for {timeout:g} s", where=host) from error
    except (http.client.HTTPException, ConnectionError) as error:
        raise Unavailable("the gateway ended the connection before the answer did", where=host) from error
    finally:
        connection.close()
    if not delivered:
        raise BrokenPipeError(errno.EPIPE, "nobody reads what is printed")
    if answer.status >= 400:
        click.echo(f"{answer.status} {answer.reason}", err=True)
        sys.exit(1)


@dataclass(frozen=True, slots=True)
class _Given:
    body: str | None
    event: str | None
    source: str
    identity: str | None
    subject: str | None
    extensions: tuple[str, ...]
    headers: tuple[str, ...]
    path: str
    method: str | None


class _Request(NamedTuple):
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes | None


def _request(given: _Given) -> _Request:
    body = None if given.body is None else read_body(given.body)
    headers = [read_field(each, "--header") for each in given.headers]
    if given.event is not None:
        headers = [*_event_headers(given.event, given), *headers]
    elif given.subject or given.identity or given.extensions:
        where = "--subject, --id, --extension"
        raise InvalidSettings("there is no event to say this of", where=where, hint="Give --event.")
    named = {name.lower() for name, _ in headers}
    if body is not None and "content-type" not in named:
        headers.append(("Content-Type", content_type(body)))
    if body is not None and "content-length" not in named:
        headers.append(("Content-Length", str(len(body))))
    method = given.method or ("GET" if body is None and given.event is None else "POST")
    check_method(method)
    path = given.path if given.path.startswith("/") else f"/{given.path}"
    return _Request(method, encode_target(path), headers, body)


def _event_headers(kind: str, given: _Given) -> list[tuple[str, str]]:
    """A CloudEvent's attributes in binary mode."""
    attributes = {
        "specversion": "1.0",
        "id": given.identity or str(uuid.uuid4()),
        "source": given.source,
        "type": kind,
        **({"subject": given.subject} if given.subject else {}),
        **pairs(given.extensions, "--extension"),
    }
    return event_fields(attributes)


def _dial(client: Client, timeout: float) -> http.client.HTTPConnection:
    """A connection to the gateway, at an address of this machine."""
    host, port = gateway_address(client)
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.connect()
    except OSError as error:
        raise Unavailable("the gateway takes no connection", where=f"{host}:{port}") from error
    return connection


def _send(
    connection: http.client.HTTPConnection, request: _Request, headers: Sequence[tuple[str, str]]
) -> http.client.HTTPResponse:
    connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders(request.body)
    return connection.getresponse()


def _copy(answer: http.client.HTTPResponse) -> bool:
    """Print the body as it comes, byte for byte; False when nobody reads it any more."""
    output = sys.stdout.buffer
    data = b""
    try:
        while piece := answer.read1(PIECE):
            data = piece
            output.write(data)
            output.flush()
        if data and not data.endswith(b"\n") and sys.stdout.isatty():
            output.write(b"\n")
            output.flush()
    except BrokenPipeError:
        return False
    return True


def _show_head(mark: str, first: str, headers: Iterable[tuple[str, str]]) -> None:
    for line in (first, *(f"{name}: {value}" for name, value in headers), ""):
        click.echo(f"{mark} {line}".rstrip(), err=True)
