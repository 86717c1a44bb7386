"""With the article's settings a Service named as its gets the Ingress that it prints, and rolls out gradually."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import yaml

from support.platform import platform, run
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import INGRESS, SERVICE
from upwell.runtime.control.rollout import ROLLOUT_ANNOTATION, Rollout

ARTICLE = Path(__file__).parents[1] / "golden" / "article" / "kingress.yaml"
SECONDS = 20.0
USER = "1281429699509011-1724722123"


def config_map(name: str, data: dict[str, str]) -> Manifest:
    metadata = {"name": name, "namespace": "knative-serving"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def service(version: str, **annotations: str) -> Manifest:
    container = {"image": "app", "env": [{"name": "VERSION", "value": version}]}
    user = {"serving.knative.dev/creator": USER, "serving.knative.dev/lastModifier": USER}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "httpbin", "annotations": {**user, **annotations}},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


def images(directory: Path) -> dict[str, str]:
    source = directory / "source.py"
    source.write_text("def main():\n    return 'httpbin'\n")
    return {"app": str(source)}


def test_the_articles_ingress_is_stored_and_answers_below_localhost_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            maps = [
                config_map("config-domain", {"example.com": ""}),
                config_map("config-features", {"tag-header-based-routing": "enabled"}),
                config_map("config-network", {"ingress-class": "istio.ingress.networking.knative.dev"}),
            ]
            await on.apply(maps, images={})
            await on.apply([service("1")], images=images(tmp_path))
            await on.wait_ready(ObjectKey(SERVICE, "default", "httpbin"), SECONDS)
            stored = await on.objects.get(ObjectKey(INGRESS, "default", "httpbin"))
            assert stored is not None
            wanted = yaml.safe_load(ARTICLE.read_text())
            assert stored["spec"] == wanted["spec"]
            for name in ("labels", "annotations", "name", "namespace"):
                assert stored["metadata"][name] == wanted["metadata"][name]
            for host in (b"httpbin.default.example.com", b"httpbin.default.localhost"):
                assert on.gateway.routes.find(host) is not None

    run(scenario())


def test_a_new_revision_gets_the_traffic_step_by_step(tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        duration = {"serving.knative.dev/rollout-duration": "4s"}
        async with platform(tmp_path) as on:
            key = ObjectKey(SERVICE, "default", "httpbin")
            for version in ("1", "2"):
                await on.apply([service(version, **duration)], images=images(tmp_path))
                if version == "1":
                    await on.wait_ready(key, SECONDS)
            seen: list[int] = []
            deadline = time.monotonic() + SECONDS
            while (not seen or seen[-1] < 100) and time.monotonic() < deadline:
                stored = await on.objects.get(ObjectKey(INGRESS, "default", "httpbin"))
                assert stored is not None
                rollout = Rollout.from_json(stored["metadata"]["annotations"][ROLLOUT_ANNOTATION])
                assert rollout is not None
                latest = rollout.configurations[0].revisions[-1]
                if latest.revision.endswith("2") and latest.percent not in seen:
                    seen.append(latest.percent)
                await asyncio.sleep(0.05)
            await on.wait_ready(key, SECONDS)
            return seen

    assert run(scenario()) == [1, 34, 67, 100]
