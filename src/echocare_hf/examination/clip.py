"""What a clip shows as a whole: its anatomy over time, the frame that shows each structure best, and measurements over the heart cycle.

    summary = ClipSummary(AnatomyTree.default(), least_familiarity=gate.threshold)
    for frame in frames:                       # FrameResult, in order; masks and images in it are not looked at
        summary.add(frame)
    findings = summary.finish()

Anatomy scores are smoothed over time (`over_time.py`). Frames whose familiarity is below the limit count for nothing; those whose
familiarity is not known count. Kept are numbers only, a few hundred bytes a frame.

The left ventricle's end-diastole, end-systole and ejection fraction come from measurements "area" and "long axis" (the longest extent of
the mask, or the ellipse's long axis) of what stands for the node `left_ventricle`; see `cycles.py`.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from echocare_hf.anatomy.tree import AnatomyTree
from echocare_hf.model.video_echocare import NOMINAL_FRAME_RATE

from .cycles import Heartbeat, area_length_volume, find_heartbeat, smooth_curve
from .over_time import best_paths, smooth_scores
from .results import MILLILITRE, MILLIMETRE, PER_MINUTE, PERCENT, SQUARE_MILLIMETRE, FrameResult, Label, Measurement

LEFT_VENTRICLE = "left_ventricle"
APICAL_VIEWS = ("heart_a2c", "heart_a3c", "heart_a4c")
"""Views that show the left ventricle's long axis, which the area-length method needs."""


@dataclass(eq=False)
class ClipFindings:
    """What a clip shows.

    Attributes:
        tree: of the nodes below.
        frames: int `(frames,)`, index of each frame in the file, in order.
        deepest: int `(frames,)`, position in the tree of the last node of each frame's smoothed path, -1 for none.
        scores: float `(frames,)`, smoothed score of that node.
        counted: bool `(frames,)`, False for frames that are unfamiliar.
        anatomy_path: of the clip: the best path through the scores' mean over all frames that count.
        key_frames: id of a node, or label, to the index of the frame that shows it best.
        measurements: least, largest and mean value of what was measured in frames, and of the heart cycle; `spread` is the standard
            deviation between cycles.
        end_diastoles, end_systoles: indices of frames, one each a cycle.
        warnings: one line each.
    """

    tree: AnatomyTree
    frames: np.ndarray
    deepest: np.ndarray
    scores: np.ndarray
    counted: np.ndarray
    anatomy_path: tuple[Label, ...] = ()
    key_frames: dict[str, int] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    end_diastoles: tuple[int, ...] = ()
    end_systoles: tuple[int, ...] = ()
    warnings: list[str] = field(default_factory=list)

    def frame_paths(self) -> Iterator[tuple[int, Label | None]]:
        """Of each frame in order: its index, and the last node of its smoothed path with the path to it; None for no path."""
        for index, node, score in zip(self.frames, self.deepest, self.scores, strict=True):
            if node < 0:
                yield int(index), None
            else:
                names = tuple(self.tree.names[step] for step in self.tree.path_nodes(int(node)))
                yield int(index), Label(names[-1], float(score), self.tree.ids[node], names)


class _Quantity(NamedTuple):
    """What is measured in frame after frame."""

    model: str
    of: str | None
    node: str | None
    name: str
    unit: str


class _Series:
    """Values of a quantity, one a frame at most: the one with the highest score, the first of equal ones."""

    def __init__(self) -> None:
        self.places, self.values, self.scores = array("q"), array("d"), array("f")

    def add(self, place: int, value: float, score: float | None) -> None:
        score = float("nan") if score is None else score
        if self.places and self.places[-1] == place:
            if score > self.scores[-1]:
                self.values[-1], self.scores[-1] = value, score
            return
        self.places.append(place)
        self.values.append(value)
        self.scores.append(score)


class ClipSummary:
    """Collects the frames of a clip and says what they show together.

    Args:
        tree: of the anatomy labels; labels of nodes that it does not have are left out, with a warning.
        least_familiarity: frames below it count for nothing.
    """

    def __init__(self, tree: AnatomyTree, least_familiarity: float = 0.0) -> None:
        self.tree = tree
        self.least_familiarity = least_familiarity
        self._indices, self._times, self._counted = array("q"), array("d"), array("b")
        self._places, self._nodes, self._scores = array("q"), array("H"), array("f")
        self._positions = {identifier: position for position, identifier in enumerate(tree.ids)}
        self._series: dict[_Quantity, _Series] = {}
        self._objects: dict[str, tuple[float, int]] = {}
        self._unknown: set[str] = set()
        self._has_anatomy = False
        self._num_asked = 0

    def add(self, frame: FrameResult) -> None:
        """The next frame.

        Raises:
            ValueError: if it does not come after the one before.
        """
        if self._indices and frame.index <= self._indices[-1]:
            raise ValueError(f"frame {frame.index} comes after frame {self._indices[-1]}: add frames in their order")
        place = len(self._indices)
        self._num_asked += frame.familiarity is not None
        counts = frame.familiarity is None or frame.familiarity >= self.least_familiarity
        self._indices.append(frame.index)
        self._times.append(float("nan") if frame.time_ms is None else frame.time_ms)
        self._counted.append(bool(counts))
        if not counts:
            return
        for node, score in self._node_scores(frame).items():
            self._places.append(place)
            self._nodes.append(node)
            self._scores.append(score)
        for measurement in frame.measurements:
            quantity = _Quantity(
                measurement.model, measurement.of, measurement.node, measurement.name, measurement.unit
            )
            self._series.setdefault(quantity, _Series()).add(place, measurement.value, measurement.score)
        for ellipses in frame.ellipses.values():
            for ellipse in ellipses:
                self._show(ellipse.node or ellipse.label, ellipse.score, frame.index)

    def _node_scores(self, frame: FrameResult) -> dict[int, float]:
        """Score of each node that a frame names, the mean over its models; a node's ancestors score no less than it."""
        total: dict[int, float] = {}
        models = [labels for labels in frame.anatomy.values() if labels]
        self._has_anatomy |= bool(frame.anatomy)
        for labels in models:
            own: dict[int, float] = {}
            for label in labels:
                position = self._positions.get(label.node or label.label)
                if position is None:
                    self._unknown.add(label.node or label.label)
                    continue
                for step in self.tree.path_nodes(position):
                    own[step] = max(own.get(step, 0.0), label.score)
            for node, score in own.items():
                total[node] = total.get(node, 0.0) + score / len(models)
        return total

    def _show(self, name: str, score: float, frame: int) -> None:
        """Keeps the frame with the highest score of a structure, the first of equal ones."""
        if name not in self._objects or score > self._objects[name][0]:
            self._objects[name] = (score, frame)

    def finish(self) -> ClipFindings:
        """What all frames show together."""
        frames = np.array(self._indices, dtype=np.int64)
        counted = np.array(self._counted, dtype=bool)
        times, time_problem = self._frame_times()
        nodes, smoothed = self._smoothed(times, counted)
        deepest, scores = best_paths(self.tree, nodes, smoothed, counted)
        findings = ClipFindings(self.tree, frames, deepest, scores, counted)
        if self._unknown:
            findings.warnings.append(f"labels that the anatomy tree does not have: {', '.join(sorted(self._unknown))}")
        if len(frames) and not counted.all():
            of, others = (f"{len(frames)} frames", "")
            if self._num_asked < len(frames):
                of, others = f"{self._num_asked} frames looked at", "; those not looked at do"
            findings.warnings.append(f"{(~counted).sum()} of {of} are unfamiliar and do not count{others}")
        if self._has_anatomy and counted.any():
            mean = np.zeros(len(self.tree))
            mean[nodes] = smoothed[counted].mean(0)
            findings.anatomy_path = self._labels(mean)
        self._choose_key_frames(findings, nodes, smoothed)
        self._measure(findings, times, time_problem)
        return findings

    def _frame_times(self) -> tuple[np.ndarray, str | None]:
        """Time of each frame in milliseconds, and why the heart cycle cannot be told from them; nominal ones where the file has none."""
        times = np.array(self._times)
        nominal = np.array(self._indices, dtype=np.float64) * (1000 / NOMINAL_FRAME_RATE)
        if np.isnan(times).any():
            return nominal, "the file does not say when its frames were taken"
        if (np.diff(times) <= 0).any():
            return nominal, "the file's frame times do not rise from frame to frame"
        return times, None

    def _smoothed(self, times: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the nodes that were seen, `(nodes,)`, and their smoothed scores, float32 `(frames, nodes)`."""
        named = np.array(self._nodes, dtype=np.int64)
        nodes, columns = np.unique(named, return_inverse=True)
        raw = np.zeros((len(times), len(nodes)), np.float32)
        raw[np.array(self._places, dtype=np.int64), columns] = np.array(self._scores)
        return nodes, smooth_scores(times, raw, counted)

    def _labels(self, scores: np.ndarray) -> tuple[Label, ...]:
        labels = []
        for node, score in self.tree.best_path(scores):
            names = tuple(self.tree.names[step] for step in self.tree.path_nodes(node))
            labels.append(Label(self.tree.names[node], score, self.tree.ids[node], names))
        return tuple(labels)

    def _choose_key_frames(self, findings: ClipFindings, nodes: np.ndarray, smoothed: np.ndarray) -> None:
        """By smoothed score for nodes on the path of a frame; by their own score for what was found in a place, which goes first."""
        shown = {node for deepest in set(findings.deepest.tolist()) - {-1} for node in self.tree.path_nodes(deepest)}
        for column, node in enumerate(nodes.tolist()):
            if node in shown:
                scores = np.where(findings.counted, smoothed[:, column], -1)
                findings.key_frames[self.tree.ids[node]] = int(findings.frames[scores.argmax()])
        for quantity, series in self._series.items():
            if quantity.of is not None:
                scored = np.array(series.scores, dtype=np.float64)
                by_score = not np.isnan(scored).any()
                if by_score or quantity.name == "area":
                    values = scored if by_score else np.array(series.values)
                    best = int(values.argmax())
                    frame = int(findings.frames[series.places[best]])
                    # A size is no score: it only stands in where there is none.
                    self._show(quantity.node or quantity.of, float(values[best]) if by_score else -1.0, frame)
        findings.key_frames |= {name: frame for name, (_, frame) in self._objects.items()}

    def _measure(self, findings: ClipFindings, times: np.ndarray, time_problem: str | None) -> None:
        for quantity, series in self._series.items():
            if len(series.values) < 2:
                continue
            values = np.array(series.values)
            for word, place in (("minimum", int(values.argmin())), ("maximum", int(values.argmax()))):
                frame = int(findings.frames[series.places[place]])
                findings.measurements.append(_value(quantity, f"{quantity.name}, {word}", values[place], frame))
            findings.measurements.append(_value(quantity, f"{quantity.name}, mean", values.mean()))
        for quantity, series in self._series.items():
            if quantity.name == "area" and quantity.node == LEFT_VENTRICLE:
                problem = time_problem
                if problem is None:
                    heartbeat = find_heartbeat(times[np.array(series.places)], np.array(series.values))
                    problem = heartbeat.problem
                    if heartbeat.cycles:
                        self._measure_cycles(findings, times, quantity, series, heartbeat)
                if problem is not None:
                    findings.warnings.append(
                        f"no end-diastole, end-systole and ejection fraction from {quantity.model}: {problem}"
                    )

    def _measure_cycles(
        self, findings: ClipFindings, times: np.ndarray, area: _Quantity, series: _Series, heartbeat: Heartbeat
    ) -> None:
        cycles = heartbeat.cycles
        moments = np.array([(cycle.start_ms, cycle.systole_ms) for cycle in cycles])
        measured = times[np.array(series.places)]

        def at_moments(values: array) -> np.ndarray:
            """(cycles, 2), at end-diastole and end-systole."""
            smoothed = smooth_curve(measured, np.array(values), moments.ravel(), heartbeat.bandwidth_ms)
            return smoothed.reshape(moments.shape)

        diastoles = [int(findings.frames[series.places[cycle.diastole]]) for cycle in cycles]
        systoles = [int(findings.frames[series.places[cycle.systole]]) for cycle in cycles]
        findings.end_diastoles, findings.end_systoles = tuple(diastoles), tuple(systoles)
        areas = at_moments(series.values)
        rates = np.array([60_000 / (cycle.end_ms - cycle.start_ms) for cycle in cycles])
        changes = 100 * (1 - areas[:, 1] / areas[:, 0])
        findings.measurements += [
            _mean(area, "end-diastolic area", areas[:, 0], area.unit, diastoles[0]),
            _mean(area, "end-systolic area", areas[:, 1], area.unit, systoles[0]),
            _mean(area, "fractional area change", changes, PERCENT),
            _mean(area, "heart rate", rates, PER_MINUTE),
        ]
        if any(cycle.at_edge for cycle in cycles):
            findings.warnings.append(
                "the clip begins or ends near end-diastole, which is taken to lie in its first or last frame"
            )
        length, lengths = self._long_axis(area, series)
        problem = self._no_volume(findings, lengths)
        if problem is not None or length is None or lengths is None:
            findings.warnings.append(f"no ejection fraction from {area.model}: {problem}")
            return
        volumes = np.vectorize(area_length_volume)(areas, at_moments(lengths.values))
        fractions = 100 * (1 - volumes[:, 1] / volumes[:, 0])
        findings.measurements.append(_mean(area, "ejection fraction", fractions, PERCENT))
        if (area.unit, length.unit) == (SQUARE_MILLIMETRE, MILLIMETRE):
            findings.measurements += [
                _mean(area, "end-diastolic volume", volumes[:, 0] / 1000, MILLILITRE, diastoles[0]),
                _mean(area, "end-systolic volume", volumes[:, 1] / 1000, MILLILITRE, systoles[0]),
            ]

    def _long_axis(self, area: _Quantity, series: _Series) -> tuple[_Quantity, _Series] | tuple[None, None]:
        """The long axis that goes with an area, measured in the same frames."""
        for quantity, other in self._series.items():
            if quantity[:3] == area[:3] and quantity.name == "long axis" and other.places == series.places:
                return quantity, other
        return None, None

    def _no_volume(self, findings: ClipFindings, lengths: _Series | None) -> str | None:
        """Why the area-length method does not apply, None where it does."""
        if lengths is None:
            return "it needs the left ventricle's long axis in each frame"
        view = next((label.node for label in reversed(findings.anatomy_path) if label.node), "")
        if view.startswith("heart_") and view not in APICAL_VIEWS:
            return f"the area-length method needs an apical view, and this is {view}"
        if view not in APICAL_VIEWS:
            findings.warnings.append("the ejection fraction takes the view for an apical one, which no model has said")
        return None


def _value(quantity: _Quantity, name: str, value: float, frame: int | None = None) -> Measurement:
    return Measurement(name, float(value), quantity.unit, quantity.model, quantity.of, quantity.node, frame)


def _mean(quantity: _Quantity, name: str, values: np.ndarray, unit: str, frame: int | None = None) -> Measurement:
    """The mean over the cycles, with the standard deviation between them."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return Measurement(name, float(values.mean()), unit, quantity.model, quantity.of, quantity.node, frame, spread)
