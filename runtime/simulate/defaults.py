"""What is assumed where nobody says otherwise. Without numpy, so that a command's help need not wait for it."""

from __future__ import annotations

from typing import Final

MEASURED_START: Final = "lognormal:7.6ms,0.16"
"""What this platform measures with a warm template on two cores of an AMD EPYC (`python -m tests.bench`, 200
rounds): the first answer from zero after 7.6 ms in the median and 11.0 ms at p99,
which is a standard deviation of 0.16 of the logarithm. It holds for one start at a time."""
COMMON_SERVICE: Final = "lognormal:50ms,0.8"
"""For traces that do not say how long their requests took."""
TRACES: Final = (
    "ramp:0-100rps/10m",
    "step:10rps/5m,100rps/5m",
    "spike:5-200rps/15m,at=5m,for=30s",
    "diurnal:5-50rps/24h",
    "poisson:50rps/1h",
    "heavy-tail:functions=1000,requests=2000000,hours=24",
)
"""One of each generator."""
