"""nginx and Envoy in front of the same replica, each with one worker, a rate limit that lets all pass and an
access log in a file: what others spend on what our gateway does."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .framework import ENVOY, environment
from .processes import free_port, server, wait_for_listener

NGINX_REMEDY: Final = "apt-get install nginx-light"
RATE: Final = 1_000_000
"""Requests a second."""
_NGINX: Final = """\
daemon off;
master_process off;
error_log {directory}/nginx-error.log;
pid {directory}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log {directory}/nginx-access.log;
  client_body_temp_path {directory}/nginx-body;
  proxy_temp_path {directory}/nginx-proxy;
  fastcgi_temp_path {directory}/nginx-fastcgi;
  uwsgi_temp_path {directory}/nginx-uwsgi;
  scgi_temp_path {directory}/nginx-scgi;
  keepalive_requests 1000000000;
  limit_req_zone $host zone=hosts:1m rate={rate}r/s;
  upstream replica {{ server unix:{replica}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      limit_req zone=hosts burst={rate} nodelay;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_pass http://replica;
    }}
  }}
}}
"""


def nginx_binary() -> str | None:
    """Where nginx is installed, or None."""
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@contextlib.contextmanager
def nginx(binary: str, directory: Path, replica: str) -> Iterator[tuple[int, int]]:
    """nginx with `limit_req` before the Unix socket `replica`: its pid and its port."""
    port = free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(_NGINX.format(directory=directory, port=port, replica=replica, rate=RATE))
    log = directory / "nginx.log"
    with server([binary, "-p", str(directory), "-c", str(configuration)], log) as process:
        wait_for_listener(process, log, ("127.0.0.1", port))
        yield process.pid, port


@contextlib.contextmanager
def envoy(directory: Path, replica: str) -> Iterator[tuple[int, int]]:
    """Envoy with its local rate limit before the Unix socket `replica`: its pid and its port.

    Raises NotInstalled.
    """
    (binary,) = environment(ENVOY).glob("lib/python*/site-packages/envoy/_bin/envoy")
    port = free_port()
    configuration = directory / "envoy.json"
    configuration.write_text(json.dumps(_envoy(directory, replica, port)))
    log = directory / "envoy.log"
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    with server([str(binary), "-c", str(configuration), *options], log) as process:
        wait_for_listener(process, log, ("127.0.0.1", port))
        yield process.pid, port


def _envoy(directory: Path, replica: str, port: int) -> dict[str, Any]:
    everyone = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    limit = {
        "@type": _type("filters.http.local_ratelimit.v3.LocalRateLimit"),
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": RATE, "tokens_per_fill": RATE, "fill_interval": "1s"},
        "filter_enabled": everyone,
        "filter_enforced": everyone,
    }
    log = {"@type": _type("access_loggers.file.v3.FileAccessLog"), "path": str(directory / "envoy-access.log")}
    manager = {
        "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "gateway",
        "access_log": [{"name": "file", "typed_config": log}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "replica"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "limit", "typed_config": limit},
            {"name": "router", "typed_config": {"@type": _type("filters.http.router.v3.Router")}},
        ],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": replica}}}}
    cluster = {
        "name": "replica",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "replica", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"
