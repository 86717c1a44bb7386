"""What an operator of a laptop platform may choose; flags, variables and the reference come from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from upwell.functions.errors import InvalidSettings
from upwell.runtime.http.tls import Certificate
from upwell.runtime.mesh.settings import MeshSettings
from upwell.runtime.settings import setting

LOOPBACK: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class UpSettings:
    """What an operator of a laptop platform may choose."""

    port: int = setting(8080, "Port of the gateway; 0 takes a free one.", least=0, most=65535)
    host: tuple[str, ...] = setting(LOOPBACK, "Addresses to listen on; by default this machine alone reaches it.")
    tls_port: int = setting(
        8443,
        "Port of the gateway in TLS, where there is a certificate; 0 takes a free one.",
        least=0,
        most=65535,
    )
    tls_certificate: str = setting(
        "", "File of a certificate chain in PEM, read again when it changes; without one there is no TLS."
    )
    tls_key: str = setting("", "File of the certificate's key in PEM; by default it is in the certificate's file.")
    trusted_proxies: tuple[str, ...] = setting(
        (),
        "Networks of proxies that are believed of whom they forward, such as 10.0.0.0/8. What anyone else says in"
        " Forwarded and X-Forwarded-* is replaced.",
    )
    private_from: tuple[str, ...] = setting(
        (), "Networks whose callers reach functions that are private (cluster-local) too, besides this machine."
    )
    max_body_bytes: int = setting(1 << 30, "Of a request body; more is answered with 413. 0 for any.", least=0)
    admin_port: int = setting(
        9090, "Port of metrics and health on 127.0.0.1; 0 takes a free one.", least=0, most=65535
    )
    domains: tuple[str, ...] = setting(
        ("localhost", "example.com"),
        "A function answers on NAME.NAMESPACE. of each; the first makes its URL. A ConfigMap config-domain takes"
        " their place, but for localhost.",
    )
    images: tuple[str, ...] = setting(
        (),
        "What images stand for: NAME=PATH[:callable] or NAME=cmd:COMMAND; one that holds a comma goes into a JSON"
        " array. What apply maps comes first.",
    )
    templates: int = setting(
        32, "Imported functions kept ready to fork, about 10 MB of private memory each.", least=1
    )
    zone: str = setting("", "Where this gateway runs, as REGION/ZONE: rules that prefer a zone prefer this one.")
    gateway_labels: tuple[str, ...] = setting(
        ("istio-system/istio=ingressgateway", "knative-serving/app=activator"),
        "What the gateway is labelled with, as NAMESPACE/LABEL=VALUE. Policies of these namespaces act everywhere,"
        " others in their own.",
    )
    stepped_refill: bool = setting(
        False,
        "Fill the buckets of rate limiters at the end of each interval, as Envoy did up to 1.30, and not"
        " continuously.",
    )
    drain_seconds: float = setting(10.0, "What requests under way get when the platform stops.", least=0)
    prometheus: str = setting(
        "",
        "Address of the Prometheus that answers the queries which revisions are scaled by, such as"
        " http://127.0.0.1:9091; without one they hold what they have.",
    )
    show_errors: bool = setting(False, "Answer an exception with its traceback, which every caller then sees.")
    name_policies: bool = False
    """Say in a policy's answer which one it was."""
    any_admin_port: bool = False
    """Take another where `admin_port` is in use."""
    autoscaler: Mapping[str, str] = field(default_factory=dict)
    """Keys of `config-autoscaler` that stand above what a ConfigMap says."""

    def certificate(self) -> Certificate | None:
        """What the gateway shows in TLS. Raises InvalidSettings for files that are none."""
        if not self.tls_certificate:
            return None
        return Certificate(Path(self.tls_certificate), Path(self.tls_key) if self.tls_key else None)

    def mesh(self) -> MeshSettings:
        """What holds for policies. Raises InvalidSettings for a label that cannot be read."""
        labels: dict[str, dict[str, str]] = {}
        for each in self.gateway_labels:
            namespace, slash, label = each.partition("/")
            name, equals, value = label.rpartition("=")
            if not (namespace and slash and name and equals):
                hint = "Write NAMESPACE/LABEL=VALUE, such as istio-system/istio=ingressgateway."
                raise InvalidSettings(f"{each!r} is no label of a gateway", where="--gateway-labels", hint=hint)
            labels.setdefault(namespace, {})[name] = value
        return MeshSettings(
            gateway_labels=labels,
            stepped_refill=self.stepped_refill,
            zone=self.zone,
            name_policies=self.name_policies,
        )
