"""Any program that listens on $PORT is a replica, behind a sidecar that keeps the revision's limits."""

from __future__ import annotations

import json
from pathlib import Path

from support.host import hosting, run
from support.programs import command, program, serving

TELLS_ITS_WORLD = """
    import json
    def answer(request):
        names = ("PORT", "K_SERVICE", "GREETING", "UPWELL_REPLICA", "PYTHONUNBUFFERED")
        world = {name: os.environ.get(name) for name in names}
        world |= {"directory": os.getcwd(), "arguments": sys.argv[1:], "listens": request.server.server_address[1]}
        world |= {"group": os.getpgid(0), "pid": os.getpid(), "parent": os.getppid()}
        world |= {"descriptors": {n: os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                                  if os.path.exists(f"/proc/self/fd/{n}")}}
        return 200, json.dumps(world)
"""


def test_a_program_gets_its_port_its_environment_and_its_directory_and_nothing_of_ours(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            source = program(
                tmp_path / "p", TELLS_ITS_WORLD, environment={"K_SERVICE": "program", "GREETING": "good day"}
            )
            source = command(
                [*source.command, "--port=$(PORT)", "$$(PORT)", "$(ABSENT)"],
                tmp_path / "p",
                environment=source.environment,
            )
            running = await serving(host, source)
            world = json.loads((await running.get()).body)
            port = world["PORT"]
            assert int(port) == world["listens"]
            assert (world["K_SERVICE"], world["GREETING"]) == ("program", "good day")
            assert world["arguments"] == [f"--port={port}", "$(PORT)", "$(ABSENT)"]
            assert Path(world["directory"]) == (tmp_path / "p").resolve()
            assert world["group"] == world["pid"] != running.pid
            assert world["parent"] == running.pid
            assert world["UPWELL_REPLICA"] == str(running.pid)
            kinds = set(world["descriptors"].values())
            assert str(tmp_path / "p" / "output.log") in kinds
            # Its own listener and the connection from the sidecar; nothing of the sidecar's.
            assert sum(kind.startswith("socket:") for kind in kinds) == 2

    run(main())
