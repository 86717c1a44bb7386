"""Manifests applied to a whole platform: what answers then, what does not, and what is said of it."""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.platform import Answer, Function, platform, run, until
from upwell.functions.errors import InvalidFunction, InvalidInput, InvalidSettings, NotFound, Unavailable
from upwell.functions.manifest import load_manifests
from upwell.runtime.clock import SystemClock
from upwell.runtime.cluster.interface import Manifest, ObjectKey
from upwell.runtime.cluster.kinds import (
    CONFIGURATION,
    DEPLOYMENT,
    INGRESS,
    NAMESPACE,
    REVISION,
    ROUTE,
    SERVICE,
)
from upwell.runtime.cluster.memory import MemoryStore
from upwell.runtime.control.admission import Refused
from upwell.runtime.control.conditions import find
from upwell.runtime.roles.up import Platform

ROOT = Path(__file__).parents[2]
ARTICLE = ROOT / "examples/helloworld/helloworld-go.yaml"
IMAGE = "registry.{REGION-ID}.aliyuncs.com/knative-sample/helloworld-go:73fbdd56"
HELLO = "def main(request):\n    return 'hello'\n"
KEY = ObjectKey(SERVICE, "default", "hello")
UNMAPPED = 'no source or command is mapped to the image "app"; map it with: upwell apply -f … --image app=PATH'
READY_SECONDS = 20.0


def service(name: str = "hello", image: str = "app", **template: Any) -> Manifest:
    spec = {"containers": [{"image": image}], **template}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"template": {"spec": spec}},
    }


def named(revision: str, **template: Any) -> Manifest:
    manifest = service(**template)
    manifest["spec"]["template"]["metadata"] = {"name": revision}
    return manifest


def config_map(name: str, **data: str) -> Manifest:
    data = {key.replace("__", "-").replace("_", "."): value for key, value in data.items()}
    metadata = {"name": name, "namespace": "knative-serving"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def source(directory: Path, text: str = HELLO, name: str = "source.py") -> str:
    path = directory / name
    path.write_text(text)
    return str(path)


async def ask(on: Platform, host: str) -> Answer:
    return await Function(on, "", "").ask(host=host, timeout=5)


async def stored(on: Platform, key: ObjectKey) -> Manifest:
    manifest = await on.objects.get(key)
    assert manifest is not None
    return manifest


async def revisions(on: Platform) -> list[str]:
    return [manifest["metadata"]["name"] for manifest in await on.objects.list(REVISION)]


def test_the_articles_manifest_answers_with_the_example_mapped_to_its_image(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            manifests = [each.data for each in load_manifests(ARTICLE.read_text(), ARTICLE.name)]
            images = {IMAGE: str(ROOT / "examples/helloworld")}
            (applied,) = await on.apply(manifests, images=images)
            assert (applied.action, applied.warnings) == ("created", ())
            ready = await on.wait_ready(applied.key, READY_SECONDS)
            assert ready["status"]["url"] == f"http://helloworld-go.default.localhost:{on.port}"
            for domain in ("example.com", "localhost", "svc.cluster.local"):
                answer = await ask(on, f"helloworld-go.default.{domain}")
                assert (answer.status, answer.text.strip()) == (200, "Hello Knative!")
            (again,) = await on.apply(manifests, images=images)
            assert again.action == "unchanged"
            (kept,) = await on.apply(manifests)
            assert kept.action == "unchanged"
            assert await revisions(on) == ["helloworld-go-00001"]

    run(scenario())


def test_nothing_of_a_batch_is_applied_when_one_manifest_or_mapping_is_wrong(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            good, bad = service("good"), service("bad", timeoutSeconds=-1)
            with pytest.raises(Refused) as refused:
                await on.apply([good, bad], images={"app": source(tmp_path)})
            assert refused.value.index == 1
            assert refused.value.where == "spec.template.spec.timeoutSeconds"
            with pytest.raises(Refused, match="twice"):
                await on.apply([good, good])
            with pytest.raises(InvalidFunction, match="no such file"):
                await on.apply([good, service("other", "b")], images={"app": source(tmp_path), "b": "/absent"})
            with pytest.raises(InvalidSettings, match="no manifest has the image ap"):
                await on.apply([good], images={"ap": source(tmp_path)})
            with pytest.raises(InvalidInput):
                await on.apply([good], images={"app": "cmd:"})
            assert await on.objects.list(SERVICE) == []

    run(scenario())


def test_a_source_that_there_is_no_room_for_is_told_of_and_nothing_is_applied(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            (tmp_path / "bundles").write_text("in the way")
            with pytest.raises(Unavailable, match="the source cannot be kept: ") as raised:
                await on.apply([service()], images={"app": source(tmp_path)})
            assert str(tmp_path / "bundles") in raised.value.hint
            assert await on.objects.list(SERVICE) == []

    run(scenario())


def test_a_dry_run_says_what_would_happen_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            images = {"app": source(tmp_path)}
            (applied,) = await on.apply([service()], images=images, dry_run=True)
            assert applied.action == "created"
            assert applied.manifest["spec"]["template"]["spec"]["timeoutSeconds"] == 300
            assert await on.objects.list(SERVICE) == []
            assert list((tmp_path / "bundles").glob("*")) == []
            await on.apply([service()], images=images)
            (same,) = await on.apply([service()], images=images, dry_run=True)
            (other,) = await on.apply([service(timeoutSeconds=9)], images=images, dry_run=True)
            assert (same.action, other.action) == ("unchanged", "configured")
            assert (await stored(on, KEY))["spec"]["template"]["spec"]["timeoutSeconds"] == 300

    run(scenario())


@pytest.mark.parametrize("revision", ["", "hello-blue"])
def test_an_image_without_a_mapping_is_told_of_and_mapping_it_repairs_the_revision(
    tmp_path: Path, revision: str
) -> None:
    async def scenario() -> None:
        manifest = named(revision) if revision else service()
        async with platform(tmp_path) as on:
            (applied,) = await on.apply([manifest])
            assert (applied.action, applied.warnings) == ("created", (UNMAPPED,))
            with pytest.raises(InvalidFunction) as raised:
                await on.wait_ready(KEY, READY_SECONDS)
            told = f'Revision "{revision or "hello-00001"}" failed with message: {UNMAPPED}.'
            assert raised.value.what == told
            ready = find(await stored(on, KEY), "Ready")
            assert ready is not None
            assert ready[1:4] == ("False", "RevisionFailed", told)
            assert await on.objects.list(DEPLOYMENT) == []
            assert (await ask(on, "hello.default.localhost")).status == 404
            (mapped,) = await on.apply([manifest], images={"app": source(tmp_path)})
            assert (mapped.action, mapped.warnings) == ("configured", ())
            await on.wait_ready(KEY, READY_SECONDS)
            assert (await ask(on, "hello.default.localhost")).text == "hello"
            assert await revisions(on) == [revision or "hello-00001"]

    run(scenario())


def test_an_edited_source_serves_when_it_is_mapped_again_and_not_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path, images=(f"app={tmp_path}/source.py",)) as on:
            source(tmp_path)
            await on.apply([service()])
            await on.wait_ready(KEY, READY_SECONDS)
            source(tmp_path, HELLO.replace("hello", "changed"))
            assert (await ask(on, "hello.default.localhost")).text == "hello"
            (applied,) = await on.apply([service()])
            assert applied.action == "configured", "the platform's settings map it at each apply"
            await on.wait_ready(KEY, READY_SECONDS)
            assert (await ask(on, "hello.default.localhost")).text == "changed"
            assert await revisions(on) == ["hello-00001", "hello-00002"]
            (other,) = await on.apply([service()], images={"app": source(tmp_path, HELLO, "other.py")})
            assert other.action == "configured", "what apply maps comes before the settings"

    run(scenario())


def test_waiting_for_what_is_not_there_or_not_in_time_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            with pytest.raises(NotFound):
                await on.wait_ready(KEY, READY_SECONDS)
            slow = source(tmp_path, "import time\ntime.sleep(2)\n" + HELLO)
            await on.apply([service()], images={"app": slow})
            with pytest.raises(Unavailable) as raised:
                await on.wait_ready(KEY, 0.5)
            assert raised.value.exit_code == 1
            assert "waited 0.5 s" in raised.value.hint
            assert "waiting for a Revision to become ready" in raised.value.hint
            gone = asyncio.create_task(on.wait_ready(KEY, READY_SECONDS))
            await asyncio.sleep(0)
            await on.delete(KEY)
            with pytest.raises(NotFound):
                await gone
            (applied,) = await on.apply([config_map("config-domain")])
            assert await on.wait_ready(applied.key, 1) == applied.manifest

    run(scenario())


def test_what_is_deleted_answers_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            team = service("team-hello")
            team["metadata"]["namespace"] = "team"
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
            applied = await on.apply([namespace, service(), team], images={"app": source(tmp_path)})
            assert str(applied[0].key) == "Namespace /team"
            for each in applied:
                await on.wait_ready(each.key, READY_SECONDS)
            for host, key in (
                ("hello.default.localhost", KEY),
                ("team-hello.team.localhost", ObjectKey(NAMESPACE, "", "team")),
            ):
                assert (await ask(on, host)).status == 200
                await on.delete(key)
                await until(lambda: len({vhost.name for vhost in on.gateway.routes.vhosts}) < 2, "routes")
                assert (await ask(on, host)).status == 404
                with pytest.raises(NotFound):
                    await on.delete(key)
            for kind in (SERVICE, REVISION, DEPLOYMENT, INGRESS, NAMESPACE):
                assert await on.objects.list(kind) == []

    run(scenario())


def test_a_changed_domain_is_answered_at_once_by_every_service(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            labelled = service("labelled")
            labelled["metadata"]["labels"] = {"app": "x"}
            for each in await on.apply([service(), labelled], images={"app": source(tmp_path)}):
                await on.wait_ready(each.key, READY_SECONDS)

            def answers(host: str) -> bool:
                return on.gateway.routes.find(host.encode()) is not None

            (applied,) = await on.apply([config_map("config-domain", mine_com="", x_com="selector:\n  app: x")])
            await until(lambda: answers("hello.default.mine.com") and answers("labelled.default.x.com"))
            assert not answers("hello.default.example.com")
            assert not answers("labelled.default.mine.com")
            assert (await ask(on, "labelled.default.x.com")).text == "hello"
            assert (await ask(on, "hello.default.localhost")).text == "hello"
            ready = await on.wait_ready(KEY, READY_SECONDS)
            assert ready["status"]["url"] == f"http://hello.default.mine.com:{on.port}"
            await on.delete(applied.key)
            await until(lambda: answers("hello.default.example.com") and not answers("hello.default.mine.com"))

    run(scenario())


def test_a_cluster_local_service_answers_inside_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            manifest = service()
            manifest["metadata"]["labels"] = {"networking.knative.dev/visibility": "cluster-local"}
            await on.apply([manifest], images={"app": source(tmp_path)})
            ready = await on.wait_ready(KEY, READY_SECONDS)
            assert ready["status"]["url"] == "http://hello.default.svc.cluster.local"
            assert (await ask(on, "hello.default.svc.cluster.local")).text == "hello"
            for host in ("hello.default.localhost", "hello.default.example.com", "localhost"):
                assert (await ask(on, host)).status == 404

    run(scenario())


def test_a_changed_autoscaler_holds_for_revisions_that_are_there_and_flags_stand_above_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path, stable_window="30s") as on:
            await on.apply([service()], images={"app": source(tmp_path)})
            await on.wait_ready(KEY, READY_SECONDS)

            def burst() -> int:
                return on.gateway.revisions["default/hello-00001"].activator.limits.burst_threshold

            assert burst() == 100
            with pytest.raises(Refused) as refused:
                await on.apply([config_map("config-autoscaler", max__scale__up__rate="1")])
            assert refused.value.where == "data.max-scale-up-rate"
            data = {"container__concurrency__target__default": "7", "stable__window": "60s", "min__scale": "1"}
            (applied,) = await on.apply([config_map("config-autoscaler", **data)])
            await until(lambda: burst() == 7, "the gateway's limit")
            assert on.autoscaler.config.stable_window == 30.0
            on.autoscaler.tick()
            await until(lambda: len(on.cluster.replicas("default/hello-00001")) == 1, "min-scale")
            await on.delete(applied.key)
            await until(lambda: burst() == 100, "the gateway's limit")
            assert on.autoscaler.config.min_scale == 0

    run(scenario())


def test_changed_defaults_hold_for_what_is_applied_afterwards_and_in_the_same_batch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            defaults = config_map("config-defaults", revision__timeout__seconds="40", container__concurrency="3")
            (first,) = await on.apply([service()])
            _, second = await on.apply([defaults, service("second")])
            assert second.manifest["spec"]["template"]["spec"]["timeoutSeconds"] == 40
            assert second.manifest["spec"]["template"]["spec"]["containerConcurrency"] == 3
            (again,) = await on.apply([service()])
            assert (first.action, again.action) == ("created", "configured")

    run(scenario())


LIMITED = """
import asyncio, os

async def main(request):
    if request.url.path == "/slow":
        await asyncio.sleep(30)
    return os.environ["TARGET"]
"""


def test_limits_variables_and_annotations_reach_what_they_are_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            manifest = service(
                timeoutSeconds=1,
                responseStartTimeoutSeconds=1,
                idleTimeoutSeconds=1,
                containerConcurrency=2,
            )
            template = manifest["spec"]["template"]
            template["metadata"] = {"annotations": {"autoscaling.knative.dev/min-scale": "1"}}
            template["spec"]["containers"][0]["env"] = [{"name": "TARGET", "value": "a developer"}]
            await on.apply([manifest], images={"app": source(tmp_path, LIMITED)})
            await on.wait_ready(KEY, READY_SECONDS)
            limits = on.gateway.revisions["default/hello-00001"].activator.limits
            assert (limits.container_concurrency, limits.timeout_seconds, limits.burst_threshold) == (2, 1.0, 2)
            on.autoscaler.tick()
            await until(lambda: len(on.cluster.replicas("default/hello-00001")) == 1, "min-scale")
            assert (await ask(on, "hello.default.localhost")).text == "a developer"
            slow = await Function(on, "hello", "").ask("/slow", timeout=5)
            assert slow.status == 504
            manifest["spec"]["template"]["spec"]["timeoutSeconds"] = 2
            (applied,) = await on.apply([manifest])
            assert applied.action == "configured"

    run(scenario())


def renamed(manifest: Manifest, name: str) -> Manifest:
    """One of the objects of the Service `hello`, as one of another's."""
    copied: Manifest = copy.deepcopy(manifest)

    def rename(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rename(each) for key, each in value.items()}
        if isinstance(value, list):
            return [rename(each) for each in value]
        return value.replace("hello", name) if isinstance(value, str) and "main" not in value else value

    return {key: rename(value) for key, value in copied.items()}


def test_a_platform_that_starts_on_what_is_stored_answers_its_first_request(tmp_path: Path) -> None:
    async def scenario() -> float:
        clock = SystemClock()
        objects = MemoryStore(clock)
        async with platform(tmp_path, objects=objects) as on:
            await on.apply([service(), config_map("config-domain", mine_com="")], images={"app": source(tmp_path)})
            await on.wait_ready(KEY, READY_SECONDS)
            await until(lambda: on.gateway.routes.find(b"hello.default.mine.com") is not None)
        kinds = (SERVICE, CONFIGURATION, ROUTE, REVISION, DEPLOYMENT, INGRESS)
        originals = [manifest for kind in kinds for manifest in await objects.list(kind)]
        for number in range(200):
            uids: dict[str, str] = {}
            for original in originals:
                manifest = renamed(original, f"f{number}")
                for reference in manifest["metadata"].get("ownerReferences", []):
                    reference["uid"] = uids[reference["kind"]]
                created = await objects.create(manifest)
                uids[manifest["kind"]] = created["metadata"]["uid"]
                await objects.update_status(created | {"status": manifest["status"]})
        started = clock.monotonic()
        async with platform(tmp_path, objects=objects) as on:
            seconds = clock.monotonic() - started
            for name in ("f0", "f199", "hello"):
                assert (await ask(on, f"{name}.default.mine.com")).text == "hello"
        return seconds

    assert run(scenario()) < 10


PROGRAM = """
import http.server, os

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.environ['TARGET']} {os.environ['K_SERVICE']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""


def test_a_command_that_is_mapped_to_an_image_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as on:
            source(tmp_path, PROGRAM, "program.py")
            command = json.dumps({"command": f"{sys.executable} program.py", "directory": str(tmp_path)})
            manifest = service()
            manifest["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "TARGET", "value": "from"}]
            (applied,) = await on.apply([manifest], images={"app": command})
            await on.wait_ready(applied.key, READY_SECONDS)
            assert (await ask(on, "hello.default.localhost")).text == "from hello"

    run(scenario())


def test_a_command_that_ends_is_told_with_how(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path, logs=tmp_path / "logs") as on:
            command = f"cmd:{sys.executable} -c 'print(1/0)'"
            (applied,) = await on.apply([service()], images={"app": command})
            with pytest.raises(InvalidFunction) as raised:
                await on.wait_ready(applied.key, READY_SECONDS)
            assert "exit" in raised.value.what
            assert "ZeroDivisionError" in raised.value.what

    run(scenario())


FUNC_YAML = """\
name: greeter
runtime: python
run:
  envs:
  - {name: GREETING, value: hello}
  - {name: WHO, value: nobody}
  - {name: PASSWORD, value: '{{ secret:database:password }}'}
  - {name: COLOUR, value: '{{ configMap:colours:main }}'}
"""


def test_a_func_project_brings_its_variables_along_and_those_without_a_value_are_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        project = tmp_path / "project"
        project.mkdir()
        source(project, FUNC_YAML, "func.yaml")
        source(
            project,
            "import os\ndef main(): return ' '.join(os.environ[n] for n in ('GREETING', 'WHO', 'COLOUR'))\n",
            "func.py",
        )
        manifest = service()
        given = [{"name": "WHO", "value": "Ada"}, {"name": "COLOUR", "value": "red"}]
        manifest["spec"]["template"]["spec"]["containers"][0]["env"] = given
        async with platform(tmp_path) as on:
            (applied,) = await on.apply([manifest], images={"app": str(project)})
            (warning,) = applied.warnings
            assert "func.yaml takes PASSWORD from {{ secret:database:password }}" in warning
            await on.wait_ready(KEY, READY_SECONDS)
            assert (await ask(on, "hello.default.localhost")).text == "hello Ada red"
            (again,) = await on.apply([manifest], images={})
            assert again.action == "unchanged"

    run(scenario())
