"""The parts of Kubernetes' PodSpec that a revision holds.

What upwell acts on is modelled; the fields of type `Kept` are Kubernetes' own, known by name and passed on as they
came. A name that is neither is refused, since a misspelt field would otherwise do nothing, silently.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator

from upwell.functions.api.meta import Model, invalid

Kept: TypeAlias = Any
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=0)]

_ENV_NAME = re.compile(r"[!-<>-~]+")
_RESERVED_ENV = frozenset({"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"})
_RESERVED_PORTS = frozenset({8008, 8012, 8013, 8022, 8112, 9090, 9091})
_PORT_NAMES = ("", "http1", "h2c", "user-port")


def _check_text(text: str) -> str:
    """No process can be given it otherwise."""
    if "\0" in text:
        raise invalid("holds a null character, which no process can be given")
    return text


Text = Annotated[str, AfterValidator(_check_text)]


class EnvVar(Model):
    """An environment variable; one that comes from elsewhere in the cluster says so in `valueFrom`."""

    name: str
    value: Text | None = None
    value_from: Kept = None

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name in _RESERVED_ENV:
            raise invalid(f"{name} is set by the platform and must not be given")
        if not _ENV_NAME.fullmatch(name):
            raise invalid(f"{name!r} cannot be the name of an environment variable")
        return name


class ContainerPort(Model):
    """The port that the container listens on; its name says the protocol."""

    container_port: Port | None = None
    name: str = ""
    protocol: Literal["TCP"] | None = None

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in _PORT_NAMES:
            raise invalid(f"{name!r} names no protocol: it must be http1 or h2c")
        return name

    @field_validator("container_port")
    @classmethod
    def _check_port(cls, port: int | None) -> int | None:
        if port in _RESERVED_PORTS:
            raise invalid(f"{port} is a port that the platform uses in each pod")
        return port


class HttpGet(Model):
    """Ready when a GET is answered with 200 to 399; port 0 or none is the container's own."""

    path: str | None = None
    port: int | str | None = None
    host: str | None = None
    scheme: Literal["HTTP", "HTTPS"] | None = None
    http_headers: list[dict[str, str]] | None = None


class TcpSocket(Model):
    """Ready when a connection is taken."""

    port: int | str | None = None
    host: str | None = None


class Exec(Model):
    """Ready when a command ends with 0."""

    command: list[str] | None = None


class Grpc(Model):
    """Ready when gRPC's health protocol says so."""

    port: int | None = None
    service: str | None = None


class Probe(Model):
    """How to see whether a container is ready or alive."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: Exec | None = None
    grpc: Grpc | None = None
    initial_delay_seconds: Seconds | None = None
    period_seconds: Seconds | None = None
    timeout_seconds: Seconds | None = None
    success_threshold: Seconds | None = None
    failure_threshold: Seconds | None = None
    termination_grace_period_seconds: Seconds | None = None

    @model_validator(mode="after")
    def _check_one_way(self) -> Self:
        ways = [self.http_get, self.tcp_socket, self.exec, self.grpc]
        if sum(way is not None for way in ways) > 1:
            raise invalid("a probe has one of httpGet, tcpSocket, exec and grpc, not several")
        return self


class Resources(Model):
    """What a container may use and what is set aside for it, in Kubernetes' quantities."""

    requests: dict[str, str | int | float] | None = None
    limits: dict[str, str | int | float] | None = None
    claims: Kept = None


class Container(Model):
    """A container of a revision's pods."""

    name: str | None = None
    image: str = Field(min_length=1)
    command: list[Text] | None = None
    args: list[Text] | None = None
    env: list[EnvVar] | None = None
    ports: Annotated[list[ContainerPort], Field(max_length=1)] | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    resources: Resources | None = None

    working_dir: Kept = None
    env_from: Kept = None
    resize_policy: Kept = None
    restart_policy: Kept = None
    restart_policy_rules: Kept = None
    volume_mounts: Kept = None
    volume_devices: Kept = None
    lifecycle: Kept = None
    termination_message_path: Kept = None
    termination_message_policy: Kept = None
    image_pull_policy: Kept = None
    security_context: Kept = None
    stdin: Kept = None
    stdin_once: Kept = None
    tty: Kept = None

    @field_validator("image")
    @classmethod
    def _check_image(cls, image: str) -> str:
        if not image.isprintable() or " " in image:
            raise invalid(f"{image!r} cannot be the name of an image: it holds white space or what is no text")
        return image


class PodSpec(Model):
    """A pod's spec; of several containers the one with ports serves, the others are beside it."""

    containers: list[Container] = Field(min_length=1)
    enable_service_links: bool | None = None

    volumes: Kept = None
    init_containers: Kept = None
    ephemeral_containers: Kept = None
    restart_policy: Kept = None
    termination_grace_period_seconds: Kept = None
    active_deadline_seconds: Kept = None
    dns_policy: Kept = None
    node_selector: Kept = None
    service_account_name: Kept = None
    service_account: Kept = None
    automount_service_account_token: Kept = None
    node_name: Kept = None
    host_network: Kept = None
    host_pid: Kept = Field(default=None, alias="hostPID")
    host_ipc: Kept = Field(default=None, alias="hostIPC")
    host_users: Kept = None
    share_process_namespace: Kept = None
    security_context: Kept = None
    image_pull_secrets: Kept = None
    hostname: Kept = None
    subdomain: Kept = None
    set_hostname_as_fqdn: Kept = Field(default=None, alias="setHostnameAsFQDN")
    hostname_override: Kept = None
    affinity: Kept = None
    scheduler_name: Kept = None
    scheduling_gates: Kept = None
    tolerations: Kept = None
    host_aliases: Kept = None
    priority_class_name: Kept = None
    priority: Kept = None
    preemption_policy: Kept = None
    dns_config: Kept = None
    readiness_gates: Kept = None
    runtime_class_name: Kept = None
    overhead: Kept = None
    topology_spread_constraints: Kept = None
    os: Kept = None
    resource_claims: Kept = None
    resources: Kept = None

    @field_validator("containers")
    @classmethod
    def _check_containers(cls, containers: list[Container]) -> list[Container]:
        serving = sum(bool(container.ports) for container in containers)
        if len(containers) > 1 and serving != 1:
            raise invalid(f"of several containers exactly one must have ports, not {serving}")
        return containers
