"""A clip as a whole: anatomy over time, key frames, and the heart cycle of a beating phantom whose volumes are known."""

import numpy as np
import pytest

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.examination.clip import ClipFindings, ClipSummary
from echocare_hf.examination.cycles import area_length_volume, find_heartbeat
from echocare_hf.examination.over_time import SMOOTHING_MS, best_paths, smooth_scores
from echocare_hf.examination.results import Ellipse, FrameResult, Label, Measurement

TREE = AnatomyTree.default()
VENTRICLE = {"model": "lv", "of": "left ventricle", "node": "left_ventricle"}


def named(node: str, score: float = 0.9) -> Label:
    position = TREE.index(node)
    return Label(TREE.names[position], score, TREE.ids[position])


def emptied(phase: np.ndarray, systole: float = 0.35) -> np.ndarray:
    """How much of the stroke volume has left the ventricle, 0 to 1, at a phase of 0 to 1 after end-diastole."""
    ejection = 0.5 - 0.5 * np.cos(np.pi * phase / systole)
    filling = 0.5 + 0.5 * np.cos(np.pi * (phase - systole) / (1 - systole))
    return np.where(phase < systole, ejection, filling)


def heart(times_ms, fraction=0.6, rate=75.0, phase=0.3, noise=0.0, seed=0, end_diastolic_ml=120.0):
    """Area (mm2) and long axis (mm) of an ellipsoid that beats: both axes move, so that area alone does not give the volume."""
    random = np.random.default_rng(seed)
    volume = end_diastolic_ml * (1 - fraction * emptied((np.asarray(times_ms) * rate / 60_000 + phase) % 1))
    half_width = 25 * (volume / end_diastolic_ml) ** 0.4
    half_length = 3000 * volume / (4 * np.pi * half_width**2)
    area = np.pi * half_width * half_length * (1 + noise * random.normal(size=len(volume)))
    return area, 2 * half_length * (1 + noise / 2 * random.normal(size=len(volume)))


def frames_of(times_ms, areas, lengths, unit="mm", **more):
    for index, (time, area, length) in enumerate(zip(times_ms, areas, lengths, strict=True)):
        square = {"mm": "mm2", "{pixels}": "{pixels}2"}[unit]
        measured = (
            Measurement("area", area, square, **VENTRICLE),
            Measurement("long axis", length, unit, **VENTRICLE),
        )
        given = {name: value[index] for name, value in more.items()}
        yield FrameResult(index, None if time is None else float(time), measurements=measured, **given)


def summary_of(frames, **options) -> ClipFindings:
    summary = ClipSummary(TREE, **options)
    for frame in frames:
        summary.add(frame)
    return summary.finish()


def values(findings: ClipFindings) -> dict[str, float]:
    return {measurement.name: measurement.value for measurement in findings.measurements}


def clock(seconds: float, rate: float = 50.0) -> np.ndarray:
    return np.arange(0, seconds * 1000, 1000 / rate)


# The heart cycle -------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame_rate", [25, 50, 100])
@pytest.mark.parametrize(("fraction", "rate"), [(0.6, 60), (0.3, 75), (0.65, 110)])
@pytest.mark.parametrize("phase", [0.15, 0.7])
def test_ejection_fraction_and_heart_rate_are_those_of_the_phantom(frame_rate, fraction, rate, phase):
    times = clock(3, frame_rate)
    found = values(summary_of(frames_of(times, *heart(times, fraction, rate, phase))))
    assert found["ejection fraction"] == pytest.approx(100 * fraction, abs=1)
    assert found["heart rate"] == pytest.approx(rate, rel=0.01)
    assert found["end-diastolic volume"] == pytest.approx(120, rel=0.01)
    assert found["end-systolic volume"] == pytest.approx(120 * (1 - fraction), rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_noise_of_three_percent_moves_the_ejection_fraction_by_a_few_points(seed):
    times = clock(4, 40)
    findings = summary_of(frames_of(times, *heart(times, 0.55, 72, 0.3, noise=0.03, seed=seed)))
    found = values(findings)
    assert found["ejection fraction"] == pytest.approx(55, abs=4)
    assert found["heart rate"] == pytest.approx(72, abs=3)
    spread = {measurement.name: measurement.spread for measurement in findings.measurements}
    assert 0 < spread["ejection fraction"] < 5


def test_end_diastole_and_end_systole_are_the_largest_and_the_smallest_frame_of_each_cycle():
    times = clock(3.3, 50)
    areas, lengths = heart(times, rate=60, phase=0.5)  # end-diastole at 0.5, 1.5 and 2.5 seconds
    findings = summary_of(frames_of(times, areas, lengths))
    expected = [(int(np.argmin(abs(times - 1000 * at))), at) for at in (0.5, 1.5)]
    assert len(findings.end_diastoles) == len(findings.end_systoles) == 2
    for (frame, at), diastole, systole in zip(expected, findings.end_diastoles, findings.end_systoles, strict=True):
        within = np.flatnonzero((times >= 1000 * at) & (times < 1000 * (at + 1)))
        assert abs(diastole - frame) <= 1
        assert abs(systole - within[areas[within].argmin()]) <= 1
    framed = {measurement.name: measurement.frame for measurement in findings.measurements}
    assert framed["end-diastolic area"] == findings.end_diastoles[0]
    assert framed["ejection fraction"] is None


def test_drawn_ellipses_measured_by_counting_pixels():
    """Oracle: the drawn solid's volume, as the sum of its discs; area and length are counted from the mask as a model's would be."""
    times = clock(2.4, 30)
    spacing, side = 0.8, 160
    y, x = np.mgrid[:side, :side] + 0.5
    areas, lengths, discs = [], [], []
    for emptying in emptied((times * 70 / 60_000 + 0.8) % 1):
        half_length, half_width = 62 - 8 * emptying, 34 - 9 * emptying  # pixels
        mask = ((x - 80) / half_width) ** 2 + ((y - 80) / half_length) ** 2 <= 1
        rows = np.flatnonzero(mask.any(1))
        areas.append(mask.sum() * spacing**2)
        lengths.append((rows[-1] - rows[0] + 1) * spacing)
        discs.append((np.pi * (mask.sum(1) * spacing / 2) ** 2 * spacing).sum() / 1000)
    found = values(summary_of(frames_of(times, areas, lengths)))
    assert found["end-diastolic volume"] == pytest.approx(max(discs), rel=0.02)
    assert found["ejection fraction"] == pytest.approx(100 * (1 - min(discs) / max(discs)), abs=1.5)


def test_a_ratio_needs_no_spacing_and_volumes_do():
    times = clock(3)
    areas, lengths = heart(times, 0.5)
    found = values(summary_of(frames_of(times, areas / 0.09, lengths / 0.3, unit="{pixels}")))
    assert found["ejection fraction"] == pytest.approx(50, abs=1)
    assert "end-diastolic volume" not in found


def test_volume_of_a_sphere():
    assert area_length_volume(np.pi * 5**2, 10) == pytest.approx(4 / 3 * np.pi * 5**3)


def test_times_may_be_uneven_and_frames_missing():
    random = np.random.default_rng(0)
    times = clock(5, 50)
    times = times + random.uniform(-6, 6, len(times))
    keep = random.uniform(size=len(times)) > 0.15
    keep[100:135] = False  # 0.7 s: no cycle goes over it
    times = times[keep]
    findings = summary_of(frames_of(times, *heart(times, 0.6, 75, 0.2)))
    found = values(findings)
    assert found["ejection fraction"] == pytest.approx(60, abs=1.5)
    assert found["heart rate"] == pytest.approx(75, rel=0.03)
    gap = (times[np.diff(times).argmax()], times[np.diff(times).argmax() + 1])
    beats = find_heartbeat(times, heart(times, 0.6, 75, 0.2)[0]).cycles
    assert all(cycle.end_ms <= gap[0] or cycle.start_ms >= gap[1] for cycle in beats)


def test_a_clip_from_end_diastole_to_end_diastole_is_one_cycle_and_says_so():
    times = clock(0.801, 50)
    findings = summary_of(frames_of(times, *heart(times, 0.6, 75, 0.0)))
    assert values(findings)["ejection fraction"] == pytest.approx(60, abs=2)
    assert any("first or last frame" in warning for warning in findings.warnings)


@pytest.mark.parametrize(
    ("times", "curve", "reason"),
    [
        (clock(0.5), lambda t: heart(t, phase=0.1), "less than one heart cycle"),
        (clock(3), lambda t: heart(t, fraction=0.0, noise=0.03), "changes too little"),
        (clock(3, 12), lambda t: heart(t, rate=150), "frames in a heart cycle|changes too little"),
        (clock(0.1), heart, "measured in 5 frames only"),
        (clock(10), lambda t: heart(t, rate=20), "no heart rate to be believed"),
        (np.repeat(np.arange(60.0), 2) * 40, heart, "do not rise"),
    ],
)
def test_no_number_where_there_is_no_cycle_but_a_warning(times, curve, reason):
    findings = summary_of(frames_of(times, *curve(times)))
    assert not {"ejection fraction", "heart rate", "fractional area change"} & set(values(findings))
    assert findings.end_diastoles == ()
    (warning,) = findings.warnings
    assert any(part in warning for part in reason.split("|"))


def test_no_frame_times_no_ejection_fraction():
    times = clock(3)
    findings = summary_of(frames_of([None] * len(times), *heart(times)))
    assert "ejection fraction" not in values(findings)
    assert "does not say when" in findings.warnings[0]
    assert values(findings)["area, maximum"] == heart(times)[0].max()


@pytest.mark.parametrize(("view", "given"), [("heart_a4c", True), ("heart_psax_pm", False), (None, True)])
def test_ejection_fraction_needs_an_apical_view(view, given):
    times = clock(3)
    anatomy = [{"tiny": (named(view),)} if view else {}] * len(times)
    findings = summary_of(frames_of(times, *heart(times), anatomy=anatomy))
    assert ("ejection fraction" in values(findings)) == given
    assert "fractional area change" in values(findings)
    assert bool(findings.warnings) == (view != "heart_a4c")


def test_without_a_long_axis_the_area_change_is_all():
    times = clock(3)
    areas, _ = heart(times)
    frames = (
        FrameResult(index, time, measurements=(Measurement("area", area, "mm2", **VENTRICLE),))
        for index, (time, area) in enumerate(zip(times, areas, strict=True))
    )
    findings = summary_of(frames)
    assert values(findings)["fractional area change"] == pytest.approx(100 * (1 - areas.min() / areas.max()), abs=1)
    assert "long axis" in findings.warnings[0]


def test_unfamiliar_frames_do_not_count():
    times = clock(3)
    areas, lengths = heart(times, 0.5)
    familiarity = np.full(len(times), 0.6)
    familiarity[20:23] = 0.001
    areas[20:23] = 1e6
    anatomy = [{"tiny": (named("liver"),)} if score < 0.1 else {} for score in familiarity]
    findings = summary_of(
        frames_of(times, areas, lengths, familiarity=familiarity, anatomy=anatomy), least_familiarity=0.01
    )
    assert values(findings)["ejection fraction"] == pytest.approx(50, abs=1)
    assert values(findings)["area, maximum"] < 1e5
    assert findings.anatomy_path == () and "liver" not in findings.key_frames
    assert f"3 of {len(times)} frames are unfamiliar" in findings.warnings[0]


# Anatomy ---------------------------------------------------------------------------------------------


def test_smoothing_is_a_weighted_mean():
    """Oracle: the weights written out."""
    random = np.random.default_rng(0)
    times = np.cumsum(random.uniform(10, 90, 40))
    scores = random.uniform(size=(40, 3)).astype(np.float32)
    counted = random.uniform(size=40) > 0.2
    weights = np.exp(-abs(times[:, None] - times) / SMOOTHING_MS) * counted
    expected = weights @ scores / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(smooth_scores(times, scores, counted), expected, rtol=1e-5)
    assert not smooth_scores(times, scores, np.zeros(40, bool)).any()


def test_best_paths_are_those_of_the_tree():
    """Oracle: AnatomyTree.best_path, frame by frame."""
    random = np.random.default_rng(1)
    nodes = np.sort(random.choice(len(TREE), 60, replace=False))
    scores = random.uniform(0.2, 1, (50, 60)).astype(np.float32)
    deepest, reached = best_paths(TREE, nodes, scores, np.ones(50, bool))
    for frame in range(50):
        row = np.zeros(len(TREE))
        row[nodes] = scores[frame]
        path = TREE.best_path(row)
        assert (deepest[frame], reached[frame]) == (path[-1] if path else (-1, 0))


def test_one_wrong_frame_does_not_change_the_path_and_a_new_view_does():
    views = ["heart_a4c"] * 30 + ["liver"] * 30
    views[10] = "kidney"
    frames = (FrameResult(index, 40.0 * index, anatomy={"tiny": (named(view),)}) for index, view in enumerate(views))
    findings = summary_of(frames)
    paths = [label for _, label in findings.frame_paths()]
    assert [label.label for label in paths[:28]] == ["Apical four-chamber view"] * 28
    assert [label.path for label in paths[32:]] == [("Abdomen", "Liver")] * 28
    assert paths[0].path[:2] == ("Thorax", "Heart") and paths[0].node == "heart_a4c"
    assert set(findings.key_frames) == {"thorax", "heart", "heart_a4c", "abdomen", "liver"}


def test_the_path_of_the_clip_ends_where_its_frames_part():
    views = ["heart_a4c", "heart_plax"] * 10
    frames = (FrameResult(index, 1000.0 * index, anatomy={"tiny": (named(view),)}) for index, view in enumerate(views))
    assert [label.node for label in summary_of(frames).anatomy_path] == ["thorax", "heart"]


def test_key_frames_are_the_best_ones_and_the_earliest_of_equals():
    scores = [0.6, 0.7, 0.9, 0.9, 0.7]
    frames = [
        FrameResult(
            10 * index,  # every tenth frame of a file
            1000.0 * index,
            anatomy={"tiny": (named("thyroid", score),)},
            ellipses={"det": (Ellipse("nodule", 1 - score, 5, 5, 4, 3, 0),)},
            measurements=(Measurement("area", area, "mm2", "seg", of="cyst"),),
        )
        for index, (score, area) in enumerate(zip(scores, [3, 8, 2, 8, 1], strict=True))
    ]
    key_frames = summary_of(frames).key_frames
    assert key_frames["thyroid"] in (20, 30)  # the smoothed scores of both are near each other
    assert (key_frames["nodule"], key_frames["cyst"]) == (0, 10)


def test_nodes_of_another_tree_are_named():
    frame = FrameResult(0, 0.0, anatomy={"old": (Label("Tail", 0.9, "tail"),)})
    assert summary_of([frame]).warnings == ["labels that the anatomy tree does not have: tail"]


def test_frames_come_in_order():
    summary = ClipSummary(TREE)
    summary.add(FrameResult(3))
    with pytest.raises(ValueError, match="frame 2 comes after frame 3"):
        summary.add(FrameResult(2))


def test_an_empty_clip_has_no_findings():
    findings = ClipSummary(TREE).finish()
    assert (findings.measurements, findings.key_frames, findings.warnings) == ([], {}, [])
    assert list(findings.frame_paths()) == []
