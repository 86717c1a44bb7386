"""How traffic is shared, in words: for `describe`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from upwell.runtime.cli.table import duration
from upwell.runtime.cli.views import splits
from upwell.runtime.control.rollout import (
    NANOSECONDS,
    ROLLOUT_ANNOTATION,
    ConfigurationRollout,
    Rollout,
)

TRAFFIC_HEADERS = ("PERCENT", "REVISION", "LATEST", "TAG", "URL")
RULE_HEADERS = ("HOSTS", "VISIBILITY", "PATH", "HEADERS", "TRAFFIC")


def traffic_rows(manifest: Mapping[str, Any]) -> list[list[str]]:
    """The targets in the status of a Service or a Route."""
    return [
        [
            f"{each.get('percent', 0)}%",
            each.get("revisionName", ""),
            "yes" if each.get("latestRevision") else "",
            each.get("tag", ""),
            each.get("url", ""),
        ]
        for each in (manifest.get("status") or {}).get("traffic") or ()
    ]


def rule_rows(ingress: Mapping[str, Any]) -> list[list[str]]:
    """The paths of an Ingress, in the order in which they are tried."""
    return [
        [
            ",".join(rule.get("hosts") or ("*",)),
            rule.get("visibility") or "ExternalIP",
            path.get("path") or "/",
            ",".join(f"{name}={match['exact']}" for name, match in (path.get("headers") or {}).items()),
            splits(path),
        ]
        for rule in ingress["spec"].get("rules") or ()
        for path in rule["http"]["paths"]
    ]


def rollout_lines(ingress: Mapping[str, Any], now: float) -> Iterator[str]:
    """What is on its way to the latest revisions, a line each; `now` in Unix seconds."""
    annotations = ingress["metadata"].get("annotations") or {}
    rollout = Rollout.from_json(annotations.get(ROLLOUT_ANNOTATION)) or Rollout()
    for each in rollout.configurations:
        if not each.is_done:
            yield f"{_whose(each)}{_shares(each)}; {_timing(each, now)}"


def _whose(rollout: ConfigurationRollout) -> str:
    return f"tag {rollout.tag}: " if rollout.tag else ""


def _shares(rollout: ConfigurationRollout) -> str:
    *older, latest = (f"{each.revision} {each.percent}%" for each in rollout.revisions)
    return f"{_listed(older)} to {latest}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _timing(rollout: ConfigurationRollout, now: float) -> str:
    step = rollout.step
    if not step.next_step_time:
        return "goes on when the gateway answers with this"
    wait = duration(step.next_step_time / NANOSECONDS - now)
    return f"{step.step_size}% more every {step.step_duration / NANOSECONDS:g}s, the next in {wait}"
