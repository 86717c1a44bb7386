"""A Service's labels decide where it answers, and who waits for it after they changed is told the new place."""

from __future__ import annotations

from pathlib import Path

from support.platform import platform, run
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import SERVICE

KEY = ObjectKey(SERVICE, "default", "hello")
DOMAINS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "config-domain", "namespace": "knative-serving"},
    "data": {"team.com": "selector:\n  app: team\n", "rest.com": ""},
}


def service(**labels: str) -> Manifest:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello", "labels": labels},
        "spec": {"template": {"spec": {"containers": [{"image": "app"}]}}},
    }


def test_a_service_with_other_labels_is_ready_where_they_say(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("def main():\n    return 'hello'\n")

    async def scenario() -> list[tuple[str, int, int]]:
        told = []
        async with platform(tmp_path) as on:
            await on.apply([DOMAINS], images={})
            for declared in (service(), service(app="team"), service(app="other")):
                await on.apply([declared], images={"app": str(source)})
                ready = await on.wait_ready(KEY, 20)
                host = ready["status"]["url"].removeprefix("http://").partition(":")[0]
                route = on.gateway.routes.find(host.encode())
                told.append((host, ready["metadata"]["generation"], int(route is not None)))
        return told

    assert run(scenario()) == [
        ("hello.default.rest.com", 1, 1),
        ("hello.default.team.com", 1, 1),
        ("hello.default.rest.com", 1, 1),
    ]
