"""Heart cycles in a curve of the left ventricle's area: end-diastole, end-systole, heart rate and ejection fraction.

The curve is smoothed by local quadratic regression over time, which keeps the height of its peaks. End-diastoles are its peaks, no closer
than `FASTEST` beats a minute allow, and end-systole is the least area between two of them. Volumes are those of the single-plane
area-length method, 8 area^2 / (3 pi length), which is exact for an ellipsoid with a round short axis.

Source: Lang et al. 2015, Recommendations for cardiac chamber quantification by echocardiography in adults, section on volumes; Cleveland
1979 for the local regression.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.signal import find_peaks

SLOWEST, FASTEST = 30.0, 220.0
"""Heart rates that are believed, beats a minute."""

BANDWIDTH_MS, CYCLE_SHARE, FRAMES = 40.0, 1 / 16, 1.2
"""Standard deviation of the weights of the local regression: at first in milliseconds, and once the cycle's length is known its share of
it; never below so many frames."""

GRID = 2
"""Places a frame at which the smoothed curve is looked at."""

LEAST_FRAMES = 8
"""Frames of a cycle below which its ends are not believed."""

LONGEST_GAP_MS = 100.0
"""Measured frames that lie farther apart than this, and than 2.5 frames, have a gap between them, over which no cycle goes."""

LEAST_CHANGE = 0.05
"""Least change of the area over a cycle, as a share of its maximum."""

PROMINENCE, NOISE = 0.3, 5.0
"""A peak stands out by this share of the curve's range, and by this many standard deviations of the noise of one frame."""

EDGE_SHARE = 0.95
"""A clip that begins or ends on the way down or up counts as at end-diastole from this share of the range on."""


@dataclass(frozen=True)
class Cycle:
    """One heart cycle, from an end-diastole to the next; places are positions in the arrays given, times in milliseconds.

    Attributes:
        start_ms, end_ms: of the two end-diastoles.
        systole_ms: of the end-systole between them.
        diastole, systole: place of the measured frame nearest to the first end-diastole and to the end-systole.
        at_edge: whether the clip begins or ends at one of the end-diastoles, so that it may lie outside.
    """

    start_ms: float
    systole_ms: float
    end_ms: float
    diastole: int
    systole: int
    at_edge: bool


@dataclass(frozen=True)
class Heartbeat:
    """What a clip shows of the heartbeat.

    Attributes:
        cycles: in order; none if there is a problem.
        bandwidth_ms: standard deviation of the smoothing that they were found with.
        problem: why there is no cycle.
    """

    cycles: tuple[Cycle, ...] = ()
    bandwidth_ms: float = BANDWIDTH_MS
    problem: str | None = None


def smooth_curve(times_ms: np.ndarray, values: np.ndarray, at_ms: np.ndarray, bandwidth_ms: float) -> np.ndarray:
    """Local quadratic regression with Gaussian weights.

    Args:
        times_ms: `(frames,)`, ascending.
        values: `(frames,)`.
        at_ms: `(places,)`, times to smooth at.
        bandwidth_ms: standard deviation of the weights.

    Returns:
        `(places,)`, in the unit of `values`.
    """
    first = np.searchsorted(times_ms, at_ms - 4 * bandwidth_ms)
    last = np.searchsorted(times_ms, at_ms + 4 * bandwidth_ms, side="right")
    smoothed = np.empty(len(at_ms))
    for place, (moment, begin, end) in enumerate(zip(at_ms, first, last, strict=True)):
        if begin == end:  # nothing near: the nearest frame
            smoothed[place] = values[np.abs(times_ms - moment).argmin()]
            continue
        offset = (times_ms[begin:end] - moment) / bandwidth_ms
        weights = np.exp(-(offset**2) / 4)  # root of the Gaussian weights, for least squares
        powers = np.vander(offset, min(3, end - begin), increasing=True)
        solution = np.linalg.lstsq(powers * weights[:, None], values[begin:end] * weights, rcond=None)[0]
        smoothed[place] = solution[0]
    return smoothed


def find_heartbeat(times_ms: np.ndarray, areas: np.ndarray) -> Heartbeat:
    """The heart cycles that a clip shows as a whole.

    Args:
        times_ms: `(frames,)`, ascending, of the frames in which the area was measured.
        areas: `(frames,)`, above 0, in any unit.
    """
    if len(areas) < LEAST_FRAMES:
        return Heartbeat(
            problem=f"measured in {len(areas)} frames only; a heart cycle needs {LEAST_FRAMES} frames or more"
        )
    step = float(np.median(np.diff(times_ms)))
    breaks = np.flatnonzero(np.diff(times_ms) > max(LONGEST_GAP_MS, 2.5 * step)) + 1
    parts = [part for part in np.split(np.arange(len(areas)), breaks) if len(part) >= LEAST_FRAMES]
    if not parts:
        return Heartbeat(problem="gaps between the measured frames leave no heart cycle as a whole")
    heartbeat = _with_bandwidth(times_ms, areas, parts, step, max(BANDWIDTH_MS, FRAMES * step))
    if not heartbeat.cycles:
        return heartbeat
    length = float(np.median([cycle.end_ms - cycle.start_ms for cycle in heartbeat.cycles]))
    again = _with_bandwidth(times_ms, areas, parts, step, max(CYCLE_SHARE * length, FRAMES * step))
    return again if again.cycles else heartbeat


def _with_bandwidth(
    times_ms: np.ndarray, areas: np.ndarray, parts: list[np.ndarray], step: float, bandwidth: float
) -> Heartbeat:
    """The cycles in the parts of a clip between gaps, each an array of places."""
    curves = []
    for part in parts:
        grid = np.arange(times_ms[part[0]], times_ms[part[-1]] + 0.25 * step, step / GRID)
        curves.append((times_ms[part], part, grid, smooth_curve(times_ms[part], areas[part], grid, bandwidth)))
    low, high = np.percentile(np.concatenate([curve for *_, curve in curves]), (2, 98))
    noise = float(np.median(np.abs(np.diff(areas, 2)))) / (0.6745 * math.sqrt(6))
    least = max(PROMINENCE * (high - low), NOISE * noise, LEAST_CHANGE * high)
    if high - low < least:
        return Heartbeat(problem="its area changes too little, beside its noise, for a heartbeat")
    cycles: list[Cycle] = []
    slow = False
    for times, part, grid, curve in curves:
        peaks, edges = _end_diastoles(curve, step / GRID, least, low + EDGE_SHARE * (high - low))
        for begin, end in pairwise(peaks):
            bottom = begin + int(curve[begin : end + 1].argmin())
            if grid[end] - grid[begin] > 60_000 / SLOWEST:
                slow = True
                continue
            diastole, systole = (int(part[np.abs(times - grid[place]).argmin()]) for place in (begin, bottom))
            at_edge = bool({begin, end} & edges)
            start, middle, stop = (float(grid[place]) for place in (begin, bottom, end))
            cycles.append(Cycle(start, middle, stop, diastole, systole, at_edge))
    if not cycles:
        rate = f"less than {SLOWEST:.0f} beats a minute, which is no heart rate to be believed"
        return Heartbeat(problem=rate if slow else "the clip shows less than one heart cycle as a whole")
    # All or none: to keep the long cycles alone would misstate the heart rate.
    if float(np.median([cycle.end_ms - cycle.start_ms for cycle in cycles])) < LEAST_FRAMES * step:
        return Heartbeat(problem=f"fewer than {LEAST_FRAMES} frames in a heart cycle")
    return Heartbeat(tuple(cycles), bandwidth)


def _end_diastoles(curve: np.ndarray, step: float, least: float, edge_level: float) -> tuple[list[int], set[int]]:
    """Places of the peaks, in order, and those of them at which the curve begins or ends."""
    distance = max(1, math.ceil(60_000 / FASTEST / step))
    peaks = [int(place) for place in find_peaks(curve, prominence=least, distance=distance)[0]]
    edges = set()
    last = len(curve) - 1
    if curve[0] >= edge_level and curve[: distance + 1].argmax() == 0 and (not peaks or peaks[0] >= distance):
        peaks.insert(0, 0)
        edges.add(0)
    rises = curve[-distance - 1 :].argmax() == len(curve[-distance - 1 :]) - 1
    if curve[last] >= edge_level and rises and (not peaks or last - peaks[-1] >= distance):
        peaks.append(last)
        edges.add(last)
    return peaks, edges


def area_length_volume(area: float, length: float) -> float:
    """Volume of the left ventricle by the single-plane area-length method, in the cube of the length's unit."""
    return 8 * area**2 / (3 * math.pi * length)
