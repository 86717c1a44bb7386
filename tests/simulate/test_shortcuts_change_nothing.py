"""A simulation that leaves out what cannot have an effect ends as one that does everything."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from support.simulation import conditions, observe
from upwell.runtime.simulate.heavy_tail import heavy_tail
from upwell.runtime.simulate.observed import Observed
from upwell.runtime.simulate.simulation import Conditions
from upwell.runtime.simulate.world import Shortcuts

LENGTH = 400.0


def told(observed: Observed) -> tuple[object, ...]:
    """Everything that a report is made of."""
    columns = observed.replicas
    return (
        observed.ended,
        observed.dispatched.tobytes(),
        observed.finished.tobytes(),
        observed.fate.tobytes(),
        observed.cold.tobytes(),
        observed.scales,
        observed.wants,
        sorted(observed.panics),
        *(sorted(getattr(columns, name)) for name in ("started", "ready", "drained", "gone", "busy")),
    )


def same(given: Conditions, varied: dict[str, str]) -> Observed:
    taken = observe(given, varied, Shortcuts.TAKEN)
    assert told(taken) == told(observe(given, varied, Shortcuts.AVOIDED))
    return taken


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    functions=st.integers(1, 12),
    requests=st.integers(1, 800),
    varied=st.fixed_dictionaries(
        {},
        optional={
            "window": st.sampled_from(["6s", "20s", "60s"]),
            "target": st.sampled_from(["0.5", "1", "3", "100"]),
            "container-concurrency": st.sampled_from(["0", "1", "5"]),
            "scale-down-delay": st.sampled_from(["0s", "10s", "60s"]),
            "scale-to-zero-pod-retention-period": st.sampled_from(["0s", "20s"]),
            "metric": st.sampled_from(["concurrency", "rps"]),
            "metric-aggregation-algorithm": st.sampled_from(["linear", "weighted-exponential"]),
            "panic-threshold-percentage": st.sampled_from(["110", "200", "1000"]),
            "activation-scale": st.sampled_from(["2", "4"]),
            "min-scale": st.sampled_from(["0", "1"]),
            "initial-scale": st.sampled_from(["0", "1", "3"]),
            "max-scale": st.sampled_from(["0", "5"]),
            "scale-to-zero-grace-period": st.sampled_from(["1s", "10s", "30s"]),
        },
    ),
)
def test_whatever_the_settings(seed: int, functions: int, requests: int, varied: dict[str, str]) -> None:
    of = heavy_tail("mix", functions=functions, requests=requests, seconds=LENGTH, seed=seed)
    if varied.get("max-scale") and varied.get("initial-scale") == "3":
        varied = {**varied, "max-scale": "5"}
    same(conditions(of, start=0.4, seed=seed), varied)


def test_functions_that_rest_most_of_the_time() -> None:
    of = heavy_tail("mix", functions=40, requests=600, seconds=1800.0, seed=4)
    few = replace(of, service=of.service / 10)
    observed = same(conditions(few, start=0.4), {"window": "6s"})
    assert sum(observed.cold) > 60, "they went to zero and came back"
