"""eval/runner/plots.py on results made here: what is drawn against scikit-learn, scipy and loops, and that every plot comes about."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as oracle_roc

sys.path.append(str(Path(__file__).resolve().parents[2] / "eval"))
from echocare_hf.drawing_sheet import contact_sheet
from runner import contact, plots, plots_agreement, plots_boxes, plots_curves, plots_reliability, plots_roc
from runner.plots_chart import Axis, Chart, Entry, axis_of, names_axis, unit_axis
from runner.plots_results import all_results, median_trial

MODELS = {
    "echocare-tiny": ("echocare", 1.6),
    "tiny (random weights)": ("scratch", 0.9),
    "timm:resnet18": ("backbone", 1.1),
}
NAMES = ["benign", "malignant", "normal"]


def make_trial(output, task, model, seed, cases, test, *, kind="backbone", share=1.0, history=(), **facts):
    """A finished trial in the folder layout of eval/run.py."""
    slug = model.replace(":", "-").replace(" ", "-") + ("" if share == 1 else f"@{100 * share:g}")
    folder = output / task / slug / str(seed)
    folder.mkdir(parents=True)
    record = {
        "model": model,
        "kind": kind,
        "seed": seed,
        "train_share": share,
        "arguments": {"data": task, "train_share": share},
        "validation": test,
        "test": test,
        "history": list(history),
        **facts,
    }
    (folder / "metrics.json").write_text(json.dumps(record))
    cases.to_parquet(folder / "cases.parquet", index=False)
    return folder


def facts_of_cases(count, random, part_of):
    return pd.DataFrame(
        {
            "case": [f"case_{index:03}" for index in range(count)],
            "group": [f"patient {index // 2}" for index in range(count)],
            "part": part_of,
            "image": [f"images/case_{index:03}.png" for index in range(count)],
            "device": np.where(np.arange(count) // 2 % 3 == 0, "GE Logiq 7", "Philips HD11"),
            "age": random.integers(20, 90, count // 2).repeat(2).astype(float),
            "size_px": random.integers(300, 900, count),
        }
    )


def classified(seed, strength, count=160, classes=3):
    """A table of cases with softmax probabilities that are too sure of themselves, and its metrics."""
    random = np.random.default_rng(7)
    cases = facts_of_cases(count, random, np.where(np.arange(count) < count // 2, "validation", "test"))
    labels = random.integers(0, classes, count)
    random = np.random.default_rng([seed, round(10 * strength)])
    logits = 3 * (strength * np.eye(classes)[labels] + random.normal(size=(count, classes)))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    cases["label"] = labels
    for index in range(classes):
        cases[f"probability_{index}"] = probabilities[:, index]
    test = (cases["part"] == "test").to_numpy()
    accuracy = float((probabilities[test].argmax(1) == labels[test]).mean())
    areas = [roc_auc_score(labels[test] == index, probabilities[test, index]) for index in range(classes)]
    return cases, {"loss": 1.0, "accuracy": accuracy, "auc": float(np.mean(areas)), "mae_of_nothing": None}


def measured(seed, noise, count=60):
    random = np.random.default_rng(11)
    cases = facts_of_cases(count, random, "test")
    cases["target_ejection_fraction"] = random.uniform(30, 70, count)
    random = np.random.default_rng([seed, round(noise)])
    cases["prediction_ejection_fraction"] = cases["target_ejection_fraction"] + random.normal(1.5, noise, count)
    errors = (cases["prediction_ejection_fraction"] - cases["target_ejection_fraction"]).abs()
    return cases, {"mae": float(errors.mean())}


def steps(best, seed):
    random = np.random.default_rng(seed)
    return [
        {"step": step, "eval_auc": float(best * (1 - np.exp(-step / 60)) + random.normal(0, 0.004))}
        for step in range(20, 420, 20)
    ]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Three models, four trials each, on a classification with three classes and on a measurement; fewer labels for two models."""
    folder = tmp_path_factory.mktemp("results")
    for model, (kind, strength) in MODELS.items():
        for seed in range(4):
            cases, test = classified(seed, strength)
            facts = {"class_names": NAMES, "best_metric": "auc", "kind": kind}
            history = steps(test["auc"], seed)
            make_trial(folder, "breast", model, seed, cases, test, history=history, **facts)
            for share in (0.1, 0.4) if model != "timm:resnet18" else ():
                cases, test = classified(seed, strength * share)
                make_trial(folder, "breast", model, seed, cases, test, share=share, **facts)
            cases, test = measured(seed, 8 / strength)
            units = {"target_names": ["ejection_fraction"], "target_units": ["%"], "best_metric": "error"}
            make_trial(folder, "heart", model, seed, cases, test, kind=kind, **units)
    (folder / "breast" / "echocare-tiny" / "9.partial").mkdir()  # a trial that is not finished
    return folder


def test_every_plot_is_drawn(output):
    written = plots.draw_all(output)
    names = [path.name for path in written]
    assert names[:7] == [
        *("breast_boxes.png", "breast_label_efficiency_auc.png", "breast_adaptation.png", "breast_roc.png"),
        *("breast_reliability.png", "breast_subgroups.png", "breast_worst_echocare-tiny.png"),
    ]
    assert {"heart_boxes.png", "heart_bland_altman.png", "heart_subgroups.png"} <= set(names)
    assert not {"heart_roc.png", "heart_reliability.png", "heart_adaptation.png", "breast_bland_altman.png"} & set(
        names
    )
    assert names[-1] == "overview.png"
    assert sorted(path.name for path in (output / "plots").iterdir()) == sorted(names)  # nothing half-written beside
    for path in written:
        with Image.open(path) as picture:
            assert picture.mode == "RGB" and len(np.unique(np.asarray(picture))) > 20


def test_a_choice_of_plots_and_the_command(output, tmp_path, capsys):
    written = plots.draw_all(output, kinds=["boxes"], tasks=["heart"])
    assert [path.name for path in written] == ["heart_boxes.png"]
    by_headline = plots.draw_all(output, headlines={"breast": ["accuracy", "auc"]}, kinds=["label_efficiency"])
    assert [path.name[24:] for path in by_headline] == ["accuracy.png", "auc.png"]
    assert plots.draw_all(output, kinds=["overview"], tasks=["heart"]) == []  # of one there is nothing to overlook
    assert plots.main([str(output), "--only", "adaptation"]) == 0
    assert capsys.readouterr().out.split() == [str(output / "plots" / "breast_adaptation.png")]
    assert plots.main([str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert "nowhere: there is no such folder" in error and error.count("\n") == 1
    assert plots.main([str(tmp_path)]) == 2 and "no finished trial" in capsys.readouterr().err
    assert plots.main([str(output), "--tasks", "liver"]) == 2 and "breast, heart" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no plots 'pie'"):
        plots.draw_all(output, kinds=["pie"])


def test_the_script_runs_by_itself(tmp_path):
    script = Path(plots.__file__)
    told = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "OUTPUT/plots" in told.stdout


def test_results_are_sorted_by_model_and_share(output):
    breast, heart = all_results(output)
    assert list(breast.models) == ["echocare-tiny", "timm:resnet18", "tiny (random weights)"]
    assert [len(trials) for trials in breast.models.values()] == [4, 4, 4]
    assert {name: list(shares) for name, shares in breast.shares.items()} == {
        "echocare-tiny": [0.1, 0.4, 1.0],
        "tiny (random weights)": [0.1, 0.4, 1.0],
    }
    assert breast.metrics() == ["accuracy", "auc"]  # neither the loss nor what no trial has
    assert heart.shares == {} and len(set(breast.colours.values())) == 3


@pytest.mark.parametrize("metric", ["dice", "mae", "bias_ejection_fraction"])
def test_stars_are_those_of_the_t_test(metric):
    random = np.random.default_rng(3)
    trials = {
        name: random.normal(mean, 0.02, 8)
        for name, mean in (("a", 0.8), ("b", 0.805), ("c", 0.7), ("d", 0.83), ("e", 0.715))
    }
    if metric.startswith("bias"):
        trials = {name: values - 0.78 for name, values in trials.items()}
    marks = plots_boxes.compare_with_best(trials, metric)
    costs = {"dice": lambda mean: -mean, "mae": lambda mean: mean, "bias_ejection_fraction": abs}
    best = min(trials, key=lambda name: costs[metric](trials[name].mean()))
    for name, values in trials.items():
        p = stats.ttest_ind(trials[best], values).pvalue
        expected = (
            "best" if name == best else "***" if p < 0.001 else "**" if p < 0.01 else "*" if p < 0.05 else "n.s."
        )
        assert marks[name] == expected
    assert len(set(marks.values())) > 2


def test_a_box_panel_of_little():
    assert plots_boxes.compare_with_best({"a": [0.5], "b": [0.4, 0.3]}, "dice") == {"a": "best", "b": ""}
    assert plots_boxes.compare_with_best({"a": [0.5, 0.6]}, "dice") == {"a": ""}
    colours = {"a": (0, 114, 178), "b": (213, 94, 0)}
    for trials in ({"a": [0.5]}, {"a": [0.5, 0.5, 0.5], "b": [0.4, np.nan]}, {"a": [0.1, 0.2], "b": [np.nan, np.nan]}):
        picture, caption = plots_boxes.boxes_panel("dice", trials, colours)
        assert colours["a"] in {colour for _, colour in picture.getcolors(1 << 20)}  # at least the dots
        assert "a, " in caption and "nan" not in caption and ("±" in caption) == (len(trials["a"]) > 1)
    assert "less is better" not in caption and plots_boxes.boxes_panel("mae", {"a": [3.0]}, colours)[1].startswith(
        "mae"
    )


def test_a_bias_is_best_near_zero_and_ties_have_no_best():
    marks = plots_boxes.compare_with_best({"a": [-9.0, -8.0], "b": [0.5, -0.4], "c": [3.0, 3.1]}, "bias")
    assert marks["b"] == "best" and "best" not in (marks["a"], marks["c"])
    tied = {"a": [0.1, 0.5], "b": [0.3, 0.3], "c": [0.0, 0.2]}
    assert set(plots_boxes.compare_with_best(tied, "dice").values()) == {""}
    colours = dict.fromkeys(tied, (0, 114, 178))
    assert "no single best" in plots_boxes.boxes_panel("dice", tied, colours)[1]


def test_no_panel_for_parameters_and_duplicates(tmp_path):
    for seed in range(2):
        cases, _ = classified(seed, 1.0, count=8)
        surface = 0.5 + seed / 10
        test = {"dice": 0.7, "nsd": surface, "nsd_vein": 0.6, "nsd_2px": surface, "nsd_2px_vein": 0.6}
        test |= {"tolerance_px": 2.0, "tolerance_mm": 0.2, "psnr": surface, "psnr_before": 20.0}
        make_trial(tmp_path, "neck", "a", seed, cases, test)
    (results,) = all_results(tmp_path)
    expected = {"nsd_2px": ("nsd",), "dice": (), "nsd_vein": ("nsd_2px_vein",), "psnr": ()}
    found = plots_boxes.without_duplicates(results, ["nsd_2px"])
    assert found == expected and list(found) == list(expected)


def test_notes_of_a_narrow_sheet_are_wrapped():
    """As long a text takes more lines, and as little of it is lost as on a wide sheet."""
    tile, note = Image.new("RGB", (240, 60), (200, 0, 0)), "some words that say what is drawn here " * 5
    plain = contact_sheet([tile], ["a"], title="title")
    noted = contact_sheet([tile], ["a"], title="title", subtitle=note, footer=note)
    wide = contact_sheet([tile.resize((1800, 60))], ["a"], title="title", subtitle=note)
    assert noted.width == plain.width and noted.height > plain.height + 10 * 24

    def ink(sheet):
        red = np.argwhere((np.asarray(sheet) == (200, 0, 0)).all(2))[0, 0]
        return (np.asarray(sheet.convert("L"))[70 : red - 20] < 180).sum()

    assert ink(noted) == pytest.approx(ink(wide), rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_roc_curve_is_that_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, 60)
    scores = np.round(random.normal(labels), 1)  # ties
    expected = np.stack(oracle_roc(labels, scores, drop_intermediate=False)[:2], axis=1)
    np.testing.assert_allclose(plots_roc.roc_curve(scores, labels), expected)


def test_cutoff_of_validation_on_the_curve():
    random = np.random.default_rng(5)
    parts = [
        (random.normal(labels), labels.astype(bool))
        for labels in (random.integers(0, 2, 50), random.integers(0, 2, 70))
    ]
    trial = plots_roc.OneClass(*parts)
    scores, labels = trial.validation
    cuts = {cut: (scores[labels] >= cut).mean() - (scores[~labels] >= cut).mean() for cut in scores}
    cut = max(cuts, key=lambda value: (round(cuts[value], 12), value))
    test_scores, test_labels = trial.test
    expected = (test_scores[~test_labels] >= cut).mean(), (test_scores[test_labels] >= cut).mean()
    assert plots_roc.cutoff_point(trial) == pytest.approx(expected)
    one_kind = plots_roc.OneClass((scores[labels], labels[labels]), trial.test)
    assert np.isnan(plots_roc.cutoff_point(one_kind)).all()


def test_roc_of_findings_and_of_one_class():
    cases = pd.DataFrame(
        {
            "part": ["validation", "test", "test", "test", "test"],
            "label_0": [1, 1, 0, -1, 0],
            "probability_0": [0.9, 0.8, 0.1, 0.7, np.nan],
            "label_1": [1, 1, 1, 1, 1],
            "probability_1": [0.9, 0.8, 0.1, 0.7, 0.5],
        }
    )
    first, second = (plots_roc.one_class(cases, index) for index in (0, 1))
    assert first.test[0].tolist() == [0.8, 0.1] and first.test[1].tolist() == [True, False]
    colours = {"a": (0, 114, 178)}
    assert plots_roc.roc_panel({"a": [first]}, "finding", colours) is not None
    assert plots_roc.roc_panel({"a": [second]}, "finding", colours) is None  # every case has it


def test_bland_altman_intervals_against_a_loop():
    random = np.random.default_rng(2)
    true = random.uniform(30, 70, 25)
    found = true + random.normal(2, 5, 25)
    low, high = plots_agreement._bounds(found, true)["upper_limit"]
    differences = [a - b for a, b in zip(found, true, strict=True)]
    mean = sum(differences) / 25
    deviation = (sum((value - mean) ** 2 for value in differences) / 24) ** 0.5
    error = deviation * (1 / 25 + 1.96**2 / 48) ** 0.5
    assert (low + high) / 2 == pytest.approx(mean + 1.96 * deviation)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 24) * error)


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0, 5.0], [1.0, 9.0]])
def test_bland_altman_of_little(values):
    true = np.array(values)
    axes = plots_agreement.agreement_axes({"a": (true, true)}, "")
    picture, caption = plots_agreement.agreement_panel(true, true, axes, (0, 114, 178))
    assert picture.size == (560, 420) and caption.startswith("bias 0") and caption.endswith(f"n = {len(values)}")


def test_a_curve_over_steps_that_differ():
    histories = [np.array([(10, 0.2), (20, 0.4), (30, 0.6)]), np.array([(20, 0.6), (30, 1.0), (40, 1.0)])]
    np.testing.assert_allclose(plots_curves._mean_curve(histories), [(20, 0.5), (30, 0.8)])
    assert plots_curves._mean_curve([histories[0], histories[1][2:]]).shape == (0, 2)


def test_median_trial():
    assert median_trial([], [0.3, np.nan, 0.1, 0.2]) == 3
    assert median_trial([], [0.4, 0.1]) == 1
    assert median_trial([], [np.nan, np.nan]) == 0


def test_degenerate_results_draw_what_they_allow(tmp_path):
    """One trial, one class, every value equal, a metric that is nan: nothing is refused."""
    cases, _ = classified(0, 1.0, count=12, classes=2)
    cases["label"] = 1
    cases[["probability_0", "probability_1"]] = 0.5
    cases["device"], cases["age"] = "GE", np.nan
    make_trial(
        tmp_path, "one", "a", 0, cases, {"auc": None, "accuracy": 1.0}, best_metric="auc", history=[{"step": 3}]
    )
    values = pd.DataFrame({"case": ["x", "y"], "group": None, "part": "test", "image": "x.png", "dice": [np.nan, 0.5]})
    make_trial(tmp_path, "two", "a", 0, values, {"dice": 0.5})
    make_trial(tmp_path, "two", "b", 0, values.assign(part="validation"), {"dice": None})
    names = {path.name for path in plots.draw_all(tmp_path)}
    assert {"one_boxes.png", "one_reliability.png", "one_worst_a.png", "two_boxes.png", "two_worst_a.png"} <= names
    assert not {"one_roc.png", "one_adaptation.png", "two_worst_b.png", "two_subgroups.png"} & names


def test_an_overview_shows_the_headline_of_each_task(output, monkeypatch):
    shown, draw = [], plots_boxes.boxes_panel
    monkeypatch.setattr(plots_boxes, "boxes_panel", lambda metric, *rest: shown.append(metric) or draw(metric, *rest))
    every = list(all_results(output))
    known = {results.key: results.metrics() for results in every}
    plots_boxes.overview_sheet(every, {"breast": ["no such", known["breast"][-1]]})
    assert shown == [known["breast"][-1], known["heart"][0]]


def test_worst_cases_by_hand():
    cases, _ = classified(1, 1.0)
    values, name, lower = contact.case_values(cases)
    assert name == "probability of the true class" and not lower
    assert values.tolist() == [row[f"probability_{row['label']}"] for _, row in cases.iterrows()]
    errors, name, lower = contact.case_values(measured(0, 5)[0])
    assert name == "absolute error of ejection_fraction" and lower and (errors >= 0).all()
    findings = pd.DataFrame(
        {"label_0": [1, -1], "probability_0": [0.7, 0.2], "label_1": [0, 1], "probability_1": [0.1, 0.6]}
    )
    np.testing.assert_allclose(contact.case_values(findings)[0], [0.2, 0.4])
    assert contact.case_values(pd.DataFrame({"mre_mm": [np.nan], "mre_px": [2.0]}))[1:] == ("mre_px", True)
    with pytest.raises(ValueError, match="no metric 'dice'"):
        contact.case_values(cases, "dice")
    with pytest.raises(ValueError, match="no metric to rank by"):
        contact.case_values(cases[["case", "part"]])


def test_pictures_of_the_worst_cases(tmp_path):
    """What `keep_worst` drew is shown; else the image in the data folder; else a grey tile."""
    cases, test = classified(2, 1.0, count=20)
    order = contact.case_values(cases)[0][cases["part"] == "test"].sort_values(kind="stable").index
    reds = {int(row): 40 + 10 * rank for rank, row in enumerate(order)}
    kept = contact.keep_worst(cases, lambda row: Image.new("RGB", (90, 60), (reds[row], 0, 0)), tmp_path, count=2)
    assert kept["picture"].notna().sum() == 2 and kept.loc[order[1], "picture"] == "pictures/01.png"
    folder = make_trial(tmp_path / "out", "breast", "a", 0, kept, test, class_names=NAMES)
    (tmp_path / "pictures").rename(folder / "pictures")
    stored = tmp_path / "data" / cases.loc[order[2], "image"]
    stored.parent.mkdir(parents=True)
    Image.new("RGB", (90, 60), (0, 200, 0)).save(stored)
    (results,) = all_results(tmp_path / "out")
    sheet = contact.worst_sheet(results, "a", 4, [tmp_path / "data"])
    counts = {colour: count for count, colour in sheet.getcolors(1 << 24)}
    assert counts[40, 0, 0] == counts[50, 0, 0] == 90 * 60
    assert counts[0, 200, 0] == 360 * 240 and counts[60, 66, 72] > 80_000
    assert (60, 0, 0) not in counts


def test_a_trial_keeps_pictures_with_outlines(tmp_path):
    """The pictures that a trial keeps are those of its worst test cases, with the true outline drawn in."""
    import miniatures
    import run

    data = miniatures.make_miniature("ddti", tmp_path / "ddti")
    line = [
        "--task",
        "ddti",
        "--model",
        "tiny",
        "--data",
        str(data),
        "--trials",
        "1",
        "--epochs",
        "1",
        "--bf16",
        "false",
    ]
    assert run.main([*line, "--image_size", "32", "--no-draw", "--output", str(tmp_path / "out")]) == 0
    (results,) = all_results(tmp_path / "out")
    (trial,) = results.trials
    cases = trial.cases()
    test = cases[cases["part"] == "test"].sort_values("dice", kind="stable")
    assert test["picture"].tolist() == [f"pictures/{rank:02}.png" for rank in range(len(test))]
    assert cases.loc[cases["part"] != "test", "picture"].isna().all()
    for place in test["picture"]:
        with Image.open(trial.folder / place) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        assert max(pixels.shape[:2]) <= 720 and pixels.shape[1] <= 360
        image = pixels[: round(0.6 * len(pixels))]  # above the legend
        assert ((image[..., 2] - image[..., 0]) > 60).sum() > 20, "no true outline"


def test_reliability_bars_end_at_the_accuracy():
    bins = [{"low": 0.0, "high": 0.5, "confidence": 0.4, "accuracy": 0.0, "count": 0}]
    bins.append({"low": 0.5, "high": 1.0, "confidence": 0.7, "accuracy": 0.5, "count": 3})
    pixels = np.asarray(plots_reliability.reliability_panel(bins, (0, 114, 178)))
    chart = Chart(unit_axis("x"), unit_axis("y"), legend=[Entry("a", (0, 0, 0))], size=(460, 440))
    left, top, right, bottom = chart.area
    column = pixels[top:bottom, round(left + 0.51 * (right - left) + 1)]
    filled = np.flatnonzero((column == (178, 213, 232)).all(1) | (column[:, 0] < 150))
    assert filled.min() == pytest.approx((bottom - top) / 2, abs=4)


def test_chart_places_its_drawings():
    chart = Chart(axis_of([0, 10]), axis_of([-1, 1]), size=(400, 300))
    chart.line([(0, 0), (10, 0), (np.nan, 0), (5, 1)], (255, 0, 0))
    chart.points([(5, 1), (np.nan, 0)], (0, 0, 255), radius=4)
    chart.band([0, 5, 10], [-1, np.nan, -1], [-0.5, 0, -0.5], (0, 255, 0), opacity=1)
    pixels = np.asarray(chart.picture()).astype(int)
    left, top, right, bottom = chart.area
    reds = np.argwhere((pixels == (255, 0, 0)).all(2))
    assert np.ptp(reds[:, 0]) <= 2 and reds[:, 0].mean() == pytest.approx((top + bottom) / 2, abs=1)
    assert reds[:, 1].min() == pytest.approx(left, abs=2) and reds[:, 1].max() == pytest.approx(right, abs=2)
    blues = np.argwhere((pixels == (0, 0, 255)).all(2))
    assert blues.mean(0) == pytest.approx((top, (left + right) / 2), abs=1.5)
    greens = np.argwhere((pixels == (0, 255, 0)).all(2))
    assert greens[:, 0].min() == pytest.approx(top + 0.75 * (bottom - top), abs=2)


def test_texts_of_a_chart_stay_inside():
    """Names that are too long are shortened, a legend breaks into rows, ticks whose texts would touch stay bare."""
    names = ["a model with a name that is far longer than there is room for it", "b"]
    legend = [Entry(f"model number {number} of many", (0, 0, 0)) for number in range(6)]
    ticks = Axis(
        0, 100, tuple((float(tick), f"{tick}") for tick in range(0, 101, 2)), "share of the training labels " * 9
    )
    chart = Chart(ticks, names_axis(names), legend=legend, size=(400, 200))
    picture = chart.picture()
    assert picture.width == 400 and picture.height > 200 + 22 * 2
    assert chart.area[0] < 0.5 * 400
    pixels = np.asarray(picture)
    assert (pixels[:, :3] == 255).all() and (pixels[:, -3:] == 255).all()
    below = (pixels[chart.area[3] + 8 : chart.area[3] + 22, chart.area[0] :].min((0, 2)) < 200).astype(int)
    assert (np.diff(below) == 1).sum() < 60  # 51 ticks would have about 90 digits
