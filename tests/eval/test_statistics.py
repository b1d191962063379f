"""eval/statistics.py against scipy, loops over all cases and published examples."""

import math
import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.append(str(Path(__file__).resolve().parents[2]))
from eval.statistics import (
    adaptation_steps,
    bland_altman,
    bootstrap,
    box_plot,
    compare_models,
    delong_test,
    holm,
    paired_bootstrap,
    spread,
    stars,
    two_sample_t_test,
    wilcoxon_signed_rank,
)

# Peak expiratory flow of 17 people by two meters, in l/min: Bland and Altman 1986, table 1 (first readings).
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI_WRIGHT = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
# Hours of extra sleep after two drugs, of the same ten people: Student 1908.
SLEEP = ([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])


def trials(seed: int, count: int = 20, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.8 + shift, 0.02, count)


def test_spread():
    found = spread([0.5, 0.7, math.nan, 0.9])
    assert (found.mean, found.standard_deviation, found.count) == pytest.approx((0.7, 0.2, 3))
    assert str(found) == "0.7000 ± 0.2000 (n = 3)"
    one = spread([0.5])
    assert one.mean == 0.5 and math.isnan(one.standard_deviation)
    assert math.isnan(spread([]).mean) and spread([math.nan]).count == 0
    with pytest.raises(ValueError, match="list of numbers"):
        spread([[1.0]])


@pytest.mark.parametrize("seed", range(4))
def test_box_plot_is_that_of_a_loop(seed):
    values = np.random.default_rng(seed).standard_t(2, 30)
    found = box_plot([*values, math.nan])
    ranked = sorted(values)

    def quantile(share):
        place = share * (len(ranked) - 1)
        low = math.floor(place)
        return ranked[low] + (place - low) * (ranked[min(low + 1, len(ranked) - 1)] - ranked[low])

    first, median, third = (quantile(share) for share in (0.25, 0.5, 0.75))
    assert (found.first_quartile, found.median, found.third_quartile) == pytest.approx((first, median, third))
    reach = 1.5 * (third - first)
    inside = [value for value in ranked if first - reach <= value <= third + reach]
    assert (found.low_whisker, found.high_whisker) == (inside[0], inside[-1])
    assert list(found.outliers) == [value for value in ranked if value not in inside]


def test_box_plot_at_the_ends():
    same = box_plot([2.0, 2.0, 2.0])
    assert (same.median, same.low_whisker, same.high_whisker, same.outliers) == (2, 2, 2, ())
    assert box_plot([3.0]).third_quartile == 3 and math.isnan(box_plot([]).median)
    few = box_plot([0.0, 0.0, 0.0, 0.0, 100.0])
    assert few.outliers == (100,) and few.high_whisker == few.third_quartile == 0
    # Without a value between the box and the fence, the whisker ends at the box.
    wide = box_plot([0.0, 0.0, 10.0, 10.0, 10.0, 10.0, 10.0, 26.0])
    assert wide.high_whisker >= wide.third_quartile and wide.low_whisker <= wide.first_quartile


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.0009, "***"), (0.001, "**"), (0.0099, "**"), (0.01, "*"), (0.049, "*"), (0.05, ""), (1, ""), (math.nan, "")],
)
def test_stars(p, expected):
    assert stars(p) == expected


def test_t_test_of_students_own_example():
    """Taken as two samples: t = -1.8608, p = 0.0792 (Student) or 0.0794 (Welch)."""
    found = two_sample_t_test(*SLEEP)
    assert (found.statistic, found.p) == pytest.approx((-1.8608, 0.0792), abs=5e-5)
    assert "Student" in found.name and "two-sided" in found.name and found.stars == ""
    welch = two_sample_t_test(*SLEEP, equal_variances=False)
    assert welch.p == pytest.approx(0.0794, abs=5e-5) and "Welch" in welch.name


@pytest.mark.parametrize("seed", range(3))
def test_t_test_by_its_formula(seed):
    first, second = trials(seed, 20, 0.02), trials(seed + 10, 15)
    pooled = (19 * first.var(ddof=1) + 14 * second.var(ddof=1)) / 33
    t = (first.mean() - second.mean()) / math.sqrt(pooled * (1 / 20 + 1 / 15))
    found = two_sample_t_test([*first, math.nan], second)
    assert (found.statistic, found.p) == pytest.approx((t, 2 * stats.t.sf(abs(t), 33)))
    assert found.stars == stars(found.p)


@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("error")
def test_t_test_against_values_that_are_all_equal():
    varying = np.array([0.9, 0.8, 0.7, 0.6, 0.95])
    for constant in (0.9230769, 0.1):
        found = two_sample_t_test(varying, [constant] * 5)
        expected = (varying.mean() - constant) / math.sqrt(varying.var(ddof=1) / 2 * (2 / 5))
        assert found.statistic == pytest.approx(expected, rel=1e-12)
        assert two_sample_t_test([constant] * 5, varying).p == pytest.approx(found.p, rel=1e-12)


def test_t_test_at_the_ends():
    equal = two_sample_t_test([0.5, 0.5], [0.5, 0.5, 0.5])
    assert (equal.statistic, equal.p) == (0, 1)
    apart = two_sample_t_test([0.5, 0.5], [0.6, 0.6])
    assert (apart.statistic, apart.p, apart.stars) == (-math.inf, 0, "***")
    with pytest.raises(ValueError, match=r"at least two trials of each model, got 1 and 2"):
        two_sample_t_test([0.5, math.nan], [0.6, 0.7])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [5, 9])
def test_wilcoxon_over_all_signs(seed, count):
    """The exact p: the share of all sign patterns of the ranks whose sum is as far from the middle."""
    first, second = trials(seed, count, 0.01), trials(seed + 10, count)
    differences = first - second
    ranks = stats.rankdata(abs(differences))
    positive = ranks[differences > 0].sum()
    middle = ranks.sum() / 2
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=count)
    ]
    expected = np.mean([abs(total - middle) >= abs(positive - middle) - 1e-9 for total in sums])
    found = wilcoxon_signed_rank(first, second)
    assert found.p == pytest.approx(expected)
    assert found.statistic == pytest.approx(min(positive, ranks.sum() - positive))
    assert found.name == "Wilcoxon signed-rank test (two-sided)"


def test_five_trials_cannot_be_significant():
    assert wilcoxon_signed_rank(np.arange(5) + 10.0, [0.0, 0.1, 0.3, 0.6, 0.7]).p == pytest.approx(0.0625)


@pytest.mark.filterwarnings("error")
def test_wilcoxon_at_the_ends():
    same = wilcoxon_signed_rank([0.5, 0.6], [0.5, 0.6])
    assert (same.statistic, same.p, same.stars) == (0, 1, "")
    assert wilcoxon_signed_rank([0.5, math.nan, 0.7], [0.4, 0.3, 0.7]).p == 1  # one pair that differs
    with pytest.raises(ValueError, match="in pairs"):
        wilcoxon_signed_rank([0.5], [0.4, 0.3])
    with pytest.raises(ValueError, match="at least one pair"):
        wilcoxon_signed_rank([math.nan], [0.4])


def looped_holm(p_values: list[float], level: float) -> list[bool]:
    """The procedure: from the smallest p on, each is a finding while it is at most level / (number left)."""
    left = sorted(range(len(p_values)), key=lambda index: p_values[index])
    findings = [False] * len(p_values)
    for place, index in enumerate(left):
        if p_values[index] > level / (len(p_values) - place):
            break
        findings[index] = True
    return findings


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    random = np.random.default_rng(0)
    for _ in range(20):
        given = np.round(random.random(6) ** 3, 2)
        for level in (0.01, 0.05, 0.2):
            assert (holm(given) <= level + 1e-12).tolist() == looped_holm(given.tolist(), level + 1e-12)
    for order in permutations(range(3)):
        assert holm(np.array([0.01, 0.02, 0.5])[list(order)]) == pytest.approx(
            np.array([0.03, 0.04, 0.5])[list(order)]
        )
    with_gap = holm([0.01, math.nan, 0.04])
    assert with_gap[[0, 2]] == pytest.approx([0.02, 0.04]) and math.isnan(with_gap[1])
    assert holm([]).size == 0 and holm([0.7, 0.9]).tolist() == [1, 1]
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.5, 1.2])


def test_bootstrap_over_all_draws():
    """Of three cases there are 27 draws: with many resamples the interval has their quantiles."""
    differences = np.array([0.0, 1.0, 5.0])
    means = sorted(np.mean(draw) for draw in product(differences, repeat=3))
    found = paired_bootstrap(differences + 2, [2, 2, 2], resamples=40_000, confidence=0.8)
    assert found.value == pytest.approx(2) and found.units == 3 and found.resamples == 40_000
    shares = np.arange(1, 28) / 27
    assert found.low == pytest.approx(means[np.searchsorted(shares, 0.1)])
    assert found.high == pytest.approx(means[np.searchsorted(shares, 0.9)])
    assert found.p == pytest.approx(2 / 27, abs=0.01)  # one draw of 27 has a mean of 0


def test_bootstrap_agrees_with_scipy():
    random = np.random.default_rng(1)
    first, second = random.normal(0.8, 0.1, 60), random.normal(0.78, 0.1, 60)
    found = paired_bootstrap(first, second, resamples=20_000)
    expected = stats.bootstrap(
        (first - second,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=2e-3)
    assert found == paired_bootstrap(first, second, resamples=20_000)
    assert found != paired_bootstrap(first, second, resamples=20_000, seed=1)


def test_bootstrap_draws_whole_patients():
    """Of two patients with one and three images there are four draws: 1, 1 and 2 (twice), 2."""
    first, groups = [4.0, 0.0, 0.0, 0.0], ["b", "a", "a", "a"]
    found = paired_bootstrap(first, [0.0] * 4, groups, resamples=20_000, confidence=0.4)
    assert found.units == 2 and found.value == 1
    assert (found.low, found.high) == (1, 1)  # half of the draws
    wide = paired_bootstrap(first, [0.0] * 4, groups, confidence=0.6)
    assert (wide.low, wide.high) == (0, 4)
    # Ten copies of each case as one patient say no more than the case.
    random = np.random.default_rng(0)
    scores = random.normal(0.1, 1, 30)
    alone = paired_bootstrap(scores, np.zeros(30))
    copied = paired_bootstrap(scores.repeat(10), np.zeros(300), np.arange(30).repeat(10))
    fooled = paired_bootstrap(scores.repeat(10), np.zeros(300))
    assert (copied.low, copied.high, copied.p) == pytest.approx((alone.low, alone.high, alone.p))
    assert fooled.high - fooled.low < 0.5 * (alone.high - alone.low)


def test_bootstrap_interval_covers_the_true_difference():
    random, covered = np.random.default_rng(0), 0
    for seed in range(200):
        differences = random.normal(0.3, 1, 50)
        found = paired_bootstrap(differences, np.zeros(50), resamples=500, seed=seed)
        covered += found.low <= 0.3 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_bootstrap_of_any_statistic():
    random = np.random.default_rng(4)
    differences = random.normal(0.1, 1, 40)
    groups = random.integers(0, 12, 40)
    found = bootstrap(lambda cases: differences[cases].mean(), 40, groups, resamples=4000)
    expected = paired_bootstrap(differences, np.zeros(40), groups, resamples=4000, seed=5)
    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.04)
    labels = np.array([1, 0, 0, 0])
    partly = bootstrap(lambda cases: math.nan if not labels[cases].any() else 1.0, 4, resamples=1000)
    assert partly.resamples == pytest.approx(1000 * (1 - (3 / 4) ** 4), abs=60)
    never = bootstrap(lambda cases: math.nan, 4, resamples=10)
    assert never.resamples == 0 and math.isnan(never.low) and math.isnan(never.p)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"second": [0.0]}, "in pairs"),
        ({"first": [math.nan, math.nan]}, "at least one pair"),
        ({"groups": ["a"]}, "patient of each of 2 cases"),
        ({"resamples": 0}, "at least 1 resample"),
        ({"confidence": 95}, "between 0 and 1"),
    ],
)
def test_wrong_bootstraps_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(**{"first": [0.1, 0.2], "second": [0.0, 0.1], **changes})
    with pytest.raises(ValueError, match="at least one case"):
        bootstrap(len, 0)


def test_one_case_or_patient_has_no_interval_and_no_p():
    for found in (
        paired_bootstrap([0.9], [0.1], resamples=50),
        paired_bootstrap([0.9, 0.8], [0.1, 0.2], ["a", "a"], resamples=50),
        bootstrap(lambda cases: 1.0, 1, resamples=50),
    ):
        assert found.units == 1 and found.value > 0
        assert math.isnan(found.low) and math.isnan(found.high) and math.isnan(found.p)


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_a_case_whose_patient_is_unknown_stands_for_itself(unknown):
    first, second = [1.0, 2.0, 3.0, 9.0], [0.0, 5.0, 2.0, 1.0]
    found = paired_bootstrap(first, second, ["a", unknown, "a", unknown], resamples=500)
    assert found == paired_bootstrap(first, second, ["group a", "case 1", "group a", "case 3"], resamples=500)
    assert found.units == 3


def test_equal_models_differ_in_nothing():
    values = [0.7, 0.8, 0.9]
    assert two_sample_t_test(values, values).p == wilcoxon_signed_rank(values, values).p == 1
    found = paired_bootstrap(values, values, resamples=50)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_cases_that_one_model_lacks_are_left_out_of_both():
    found = paired_bootstrap([1.0, math.nan, 3.0], [0.0, 5.0, 2.0], ["a", "b", "c"], resamples=50)
    assert (found.value, found.low, found.high, found.units) == (1, 1, 1, 2)


def test_bland_and_altmans_own_example():
    """As published: bias -2.1 l/min, standard deviation 38.8, limits -79.7 and 75.5 (with 2 in the place of 1.96)."""
    found = bland_altman(WRIGHT, MINI_WRIGHT)
    assert found["bias"] == pytest.approx(-2.1, abs=0.05)
    assert found["standard_deviation"] == pytest.approx(38.8, abs=0.05)
    assert found["bias"] - 2 * found["standard_deviation"] == pytest.approx(-79.7, abs=0.1)
    assert found["bias"] + 2 * found["standard_deviation"] == pytest.approx(75.5, abs=0.1)
    assert (found["bias_low"], found["bias_high"]) == pytest.approx((-22.0, 17.8), abs=0.1)  # theirs too
    assert found["upper_limit"] - found["lower_limit"] == pytest.approx(2 * 1.96 * found["standard_deviation"])
    assert found["within_limits"] == pytest.approx(16 / 17) and found["count"] == 17


def test_the_standard_error_of_a_limit_of_agreement():
    """Against 4,000 samples of 30 normal differences."""
    samples = np.random.default_rng(0).normal(0, 1, (4000, 30))
    uppers = [bland_altman(sample, np.zeros(30)) for sample in samples[:1500]]
    limits = [found["upper_limit"] for found in uppers]
    expected = math.sqrt(1 / 30 + 1.96**2 / 58)
    assert np.std(limits) == pytest.approx(expected, rel=0.06)
    assert np.mean([found["limit_standard_error"] for found in uppers]) == pytest.approx(expected, rel=0.03)


def test_agreement_at_the_ends():
    one = bland_altman([5.0, math.nan], [3.0, 2.0])
    assert (one["bias"], one["count"]) == (2, 1) and math.isnan(one["upper_limit"])
    same = bland_altman([1.0, 2.0], [1.0, 2.0])
    assert same["bias"] == same["lower_limit"] == same["upper_limit"] == 0 and same["within_limits"] == 1
    with pytest.raises(ValueError, match="an agreement needs values in pairs"):
        bland_altman([1.0], [1.0, 2.0])


def test_models_are_compared_with_the_best():
    table = {"scratch": trials(0), "echocare": trials(1, shift=0.03), "cnn": trials(2, shift=0.01)}
    found = compare_models(table)
    assert [(row.model, row.other) for row in found] == [("echocare", "cnn"), ("echocare", "scratch")]
    for row in found:
        pair = table[row.model], table[row.other]
        assert row.difference == pytest.approx(pair[0].mean() - pair[1].mean())
        assert row.t_test.p == pytest.approx(stats.ttest_ind(*pair).pvalue)
        assert row.wilcoxon.p == pytest.approx(stats.wilcoxon(*pair).pvalue)
    assert [row.t_test_holm for row in found] == pytest.approx(holm([row.t_test.p for row in found]))
    assert [row.wilcoxon_holm for row in found] == pytest.approx(holm([row.wilcoxon.p for row in found]))
    errors = compare_models(table, lower_is_better=True)
    assert [(row.model, row.other) for row in errors] == [("scratch", "cnn"), ("scratch", "echocare")]
    ours = compare_models(table, model="scratch")
    assert [row.other for row in ours] == ["echocare", "cnn"] and ours[0].difference < 0


@pytest.mark.parametrize(
    ("table", "model", "message"),
    [
        ({"a": [1.0, 2.0]}, None, "at least two models"),
        ({"a": [1.0, 2.0], "b": [1.0]}, None, "equally many trials each, two or more.*a: 2, b: 1"),
        ({"a": [1.0], "b": [1.0]}, None, "two or more"),
        ({"a": [1.0, math.nan], "b": [1.0, 2.0]}, None, "trials of a are nan"),
        ({"a": [1.0, 2.0], "b": [1.0, 2.0]}, "c", "no trials of 'c', only of a, b"),
        ({}, None, "at least two models"),
    ],
)
def test_models_that_cannot_be_compared_are_named(table, model, message):
    with pytest.raises(ValueError, match=message):
        compare_models(table, model)


def test_adaptation_speed():
    history = [
        {"step": 10, "eval_mae": 9.0},
        {"step": 20},
        {"step": 30, "eval_mae": 4.03},
        {"step": 40, "eval_mae": 4.0},
    ]
    assert adaptation_steps({"history": history}, "mae", lower_is_better=True) == 30
    assert adaptation_steps({"history": history}, "mae") == 10
    below_zero = [{"step": 1, "eval_score": -3.0}, {"step": 2, "eval_score": -2.01}, {"step": 3, "eval_score": -2.0}]
    assert adaptation_steps({"history": below_zero}, "score") == 2
    assert adaptation_steps({"history": []}, "mae") is None


def test_delongs_test_is_here_too():
    assert delong_test([0.1, 0.4, 0.35, 0.8], [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).p == 1


def test_pythons_own_statistics_stay_reachable():
    import statistics

    assert statistics.median([1, 2, 9]) == 2


def test_the_folder_on_the_path_does_not_hide_pythons_own_module():
    """What a script of eval/ has: torch's inductor imports `statistics` while transformers is being imported."""
    folder = Path(__file__).resolve().parents[2] / "eval"
    lines = ["import sys", f"sys.path.insert(0, {str(folder)!r})", "import transformers.modeling_utils, statistics"]
    lines.append("print(statistics.__file__, statistics.fmean([1, 2]), statistics.NormalDist().cdf(0))")
    run = subprocess.run([sys.executable, "-c", "; ".join(lines)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == [str(folder / "statistics.py"), "1.5", "0.5"]
