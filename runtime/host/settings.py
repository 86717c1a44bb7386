"""How the platform runs its hosts. Each number has its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostSettings:
    """For the platform's side; what a function sets for itself is in its `FunctionSource`."""

    start_deadline: float = 30.0
    """Seconds until the zygote has our imports: 0.3 s on an idle machine, many times that on a busy one."""
    load_deadline: float = 60.0
    """Seconds a module may take to import; data science stacks take up to 20 s from a cold disk."""
    progress_deadline: float = 60.0
    """Seconds until a program must be ready. Knative gives ten minutes, for images that must be pulled first."""
    exit_wait: float = 2.0
    """Seconds between a replica's channel closing and its exit status coming; it is sent within milliseconds."""
    stop_deadline: float = 5.0
    """Seconds for the zygote to end all that is left once its life line is cut, before it is killed itself."""
    restart_delay: float = 0.1
    """Seconds before a zygote that died is started again; doubled each time in a row."""
    restart_delay_most: float = 5.0
    """The bound of that doubling: requests held meanwhile still have most of their time left."""
    steady_seconds: float = 60.0
    """A zygote that lived this long was healthy, and the delay starts anew."""
    unclaimed_exits: int = 1024
    """Exit statuses kept until the process they belong to is known; it tells its pid in its first message."""
