"""Traffic of many functions as a public cloud sees it, after Shahrad et al., "Serverless in the Wild" (ATC 2020).

What is modelled of Azure Functions in July 2019, with the paper's figures:

- popularity spans eight orders of magnitude: 45 % of applications are called at most once an hour, 81 % at most
  once a minute, and the others make nearly all calls (99.6 %). The rates of the lower 81 % follow that line,
  log-linear between its marks; the head bends upwards as steeply as the wished number of requests needs;
- 15.6 % of functions are called by timers, nearly all at most once a minute, without variation between calls;
  40 % of applications vary more than a Poisson process does (queues and events come in bursts); the rest are
  Poisson processes here;
- half of the calls do not vary over the day, the other half follows it;
- the mean times that functions run are log-normal with a log mean of -0.38 and a deviation of 2.36 (in seconds):
  half of them run for less than a second, 96 % for less than a minute, which is where they are cut here. How the
  runs of one function vary the paper does not fit; here their logarithms deviate by 0.5.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from upwell.runtime.simulate.trace import FloatArray, IntArray, Trace, ordered

DAY: Final = 86_400.0
HOURLY_SHARE, MINUTELY_SHARE = 0.45, 0.81
HOURLY, MINUTELY = 24.0, 1440.0
LEAST_A_DAY: Final = 0.1
TIMER_SHARE: Final = 0.156
BURSTY_SHARE: Final = 0.4
STEADY_SHARE: Final = 0.5
LOG_MEAN, LOG_DEVIATION = -0.38, 2.36
GREATEST_MEAN: Final = 60.0
RUN_DEVIATION: Final = 0.5
BURST_SIZE: Final = 20.0
"""Calls of one burst, on average."""
BURST_GAP: Final = 0.5
"""Mean seconds between two calls of a burst."""
_STEEPEST: Final = 60.0
_DAY_POINTS: Final = 289


def heavy_tail(name: str, *, functions: int, requests: int, seconds: float, seed: int) -> Trace:
    """`requests` calls of `functions` functions within `seconds`."""
    generator = np.random.default_rng([seed, 0])
    a_day = popularity(functions, requests * DAY / seconds)
    counts = _counts(a_day, requests)
    kinds = generator.random(functions)
    # Timers are for functions called at most once a minute, so that their share of those is greater.
    timers = (a_day <= MINUTELY) & (kinds < TIMER_SHARE / MINUTELY_SHARE)
    bursty = ~timers & (generator.random(functions) < BURSTY_SHARE / (1 - TIMER_SHARE))
    times = [
        _periodic(count, seconds, generator)
        if timers[index]
        else _bursts(count, seconds, generator)
        if bursty[index]
        else _over_the_day(generator.random(count), seconds, generator)
        for index, count in enumerate(counts.tolist())
    ]
    means = np.minimum(np.exp(LOG_MEAN + LOG_DEVIATION * generator.standard_normal(functions)), GREATEST_MEAN)
    function = np.repeat(np.arange(functions), counts)
    runs = np.exp(RUN_DEVIATION * generator.standard_normal(requests) - RUN_DEVIATION**2 / 2)
    digits = len(str(functions - 1))
    names = tuple(f"default/function-{index:0{digits}}" for index in range(functions))
    return ordered(name, names, np.concatenate(times), function, means[function] * runs, seconds)


def popularity(functions: int, total: float) -> FloatArray:
    """Calls a day of each function, least popular first, which add up to `total`."""
    rank = (np.arange(functions) + 0.5) / functions
    marks = np.array([0.0, HOURLY_SHARE, MINUTELY_SHARE])
    body = np.exp(np.interp(rank, marks, np.log([LEAST_A_DAY, HOURLY, MINUTELY])))
    head = np.maximum(rank - MINUTELY_SHARE, 0.0) / (1 - MINUTELY_SHARE)
    if body.sum() >= total:
        return np.asarray(body * (total / body.sum()))
    low, high = 0.0, _STEEPEST
    for _ in range(100):
        middle = (low + high) / 2
        if (body * np.exp(middle * head**2)).sum() < total:
            low = middle
        else:
            high = middle
    wished = body * np.exp(high * head**2)
    return np.asarray(wished * (total / wished.sum()))


def _counts(a_day: FloatArray, requests: int) -> IntArray:
    """Whole numbers in these proportions that add up, the largest fractions rounded up."""
    exact = a_day * (requests / a_day.sum())
    counts = np.floor(exact).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: requests - int(counts.sum())]] += 1
    return np.asarray(counts, np.int64)


def _periodic(count: int, seconds: float, generator: np.random.Generator) -> FloatArray:
    period = seconds / max(1, count)
    return np.asarray((np.arange(count) + generator.random()) * period)


def _bursts(count: int, seconds: float, generator: np.random.Generator) -> FloatArray:
    """Clusters at the times of a Poisson process, each call soon after the one before it."""
    if count == 0:
        return np.empty(0)
    clusters = max(1, round(count / BURST_SIZE))
    begins = _over_the_day(generator.random(clusters), seconds, generator)
    sizes = generator.multinomial(count, generator.dirichlet(np.ones(clusters)))
    gaps = np.cumsum(generator.exponential(BURST_GAP, count))
    firsts = np.cumsum(sizes) - sizes
    offset = np.repeat(gaps[np.minimum(firsts, count - 1)], sizes)
    return np.asarray((np.repeat(begins, sizes) + gaps - offset) % seconds)


def _over_the_day(places: FloatArray, seconds: float, generator: np.random.Generator) -> FloatArray:
    """Places from 0 to 1 as times: half evenly, half as the day goes, with noon in the middle of the day."""
    times = places * seconds
    varied = generator.random(len(places)) >= STEADY_SHARE
    points = np.linspace(0.0, seconds, int(max(1.0, seconds / DAY) * _DAY_POINTS))
    cumulative = points / DAY - np.sin(2 * np.pi * points / DAY) / (2 * np.pi)
    if cumulative[-1] > 0:
        times[varied] = np.interp(places[varied] * cumulative[-1], cumulative, points)
    return np.asarray(times)
