"""What is said of results over trials and over cases: spread, tests by name, intervals, agreement, speed of adaptation.

The paper (section 5) reports mean and standard deviation over 20 trials, box plots with whiskers at 1.5 times the interquartile range, and
two-sample t-tests of the best model against each other one; its figure captions name a Wilcoxon signed-rank test instead. Both are here,
by name. Trials on one test set share its patients: tests over trials say how far a result depends on the seed, not on the patients. That
says `paired_bootstrap`, over cases or over whole patients.

Import it as `eval.statistics`, with the root of the repository on the path. A script of this folder has the folder itself on the path,
where this file stands in the place of Python's own `statistics`, which torch and others import: then it has their names.
"""

if __name__ == "statistics":
    import sysconfig as _sysconfig
    from pathlib import Path as _Path

    _source = _Path(_sysconfig.get_path("stdlib"), "statistics.py")
    exec(compile(_source.read_text(encoding="utf-8"), str(_source), "exec"))

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if __name__ != "statistics":  # else torch is being imported, which the package needs
    from echocare_hf.metrics.roc import delong_test

__all__ = [
    "STARS",
    "Bootstrap",
    "BoxPlot",
    "Comparison",
    "SignificanceTest",
    "Spread",
    "adaptation_steps",
    "bland_altman",
    "bootstrap",
    "box_plot",
    "compare_models",
    "delong_test",
    "holm",
    "paired_bootstrap",
    "spread",
    "stars",
    "two_sample_t_test",
    "wilcoxon_signed_rank",
]

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
"""p-values below which stars are set (paper, section 5)."""
WHISKERS = 1.5  # interquartile ranges
NEAR_BEST = 0.01  # share of the best by which adaptation may fall short
BATCH = 2_000_000  # resampled indices at a time


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (n - 1; nan for one value), and number of the values that are known."""

    mean: float
    standard_deviation: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.standard_deviation:.4f} (n = {self.count})"


@dataclass(frozen=True)
class BoxPlot:
    """Quartiles, ends of the whiskers (the last values within 1.5 interquartile ranges of the box), and values beyond them."""

    median: float
    first_quartile: float
    third_quartile: float
    low_whisker: float
    high_whisker: float
    outliers: tuple[float, ...]


@dataclass(frozen=True)
class SignificanceTest:
    """A test by name: statistic, two-sided p-value, and the stars of the latter."""

    name: str
    statistic: float
    p: float
    stars: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stars", stars(self.p))


@dataclass(frozen=True)
class Bootstrap:
    """A statistic of all cases, the ends of its percentile interval, a two-sided p-value against 0, and what was drawn how often."""

    value: float
    low: float
    high: float
    p: float
    resamples: int
    units: int


@dataclass(frozen=True)
class Comparison:
    """A model against another over the trials of both.

    Attributes:
        model, other (`str`): their names.
        difference (`float`): mean of the model minus mean of the other.
        t_test, wilcoxon (`SignificanceTest`): two-sample t-test, and Wilcoxon's signed-rank test of trials paired by seed.
        t_test_holm, wilcoxon_holm (`float`): their p-values after Holm's correction over all comparisons of the table.
    """

    model: str
    other: str
    difference: float
    t_test: SignificanceTest
    wilcoxon: SignificanceTest
    t_test_holm: float
    wilcoxon_holm: float


def spread(values: ArrayLike) -> Spread:
    """Mean and standard deviation over trials; nan values are left out.

    Raises:
        ValueError: for values that are no list of numbers.
    """
    known = _known(values)
    return Spread(
        float(known.mean()) if known.size else float("nan"),
        float(known.std(ddof=1)) if known.size > 1 else float("nan"),
        known.size,
    )


def box_plot(values: ArrayLike) -> BoxPlot:
    """The numbers of a box plot with whiskers at 1.5 times the interquartile range; nan values are left out.

    Quartiles are interpolated linearly (numpy's default, as in matplotlib's `boxplot_stats`). All nan without values.

    Raises:
        ValueError: for values that are no list of numbers.

    Source: Tukey 1977, Exploratory data analysis; paper, section 5.
    """
    known = np.sort(_known(values))
    if not known.size:
        nan = float("nan")
        return BoxPlot(nan, nan, nan, nan, nan, ())
    first, median, third = np.percentile(known, (25, 50, 75))
    reach = WHISKERS * (third - first)
    inside = known[(known >= first - reach) & (known <= third + reach)]
    # Interpolated quartiles may lie beyond the last value inside; a whisker does not reach into the box.
    low, high = min(inside.min(initial=first), first), max(inside.max(initial=third), third)
    outliers = known[(known < low) | (known > high)]
    return BoxPlot(float(median), float(first), float(third), float(low), float(high), tuple(outliers.tolist()))


def stars(p: float) -> str:
    """`*` for p below 0.05, `**` below 0.01, `***` below 0.001; none otherwise, or if p is nan."""
    return next((text for limit, text in STARS if p < limit), "")


def two_sample_t_test(first: ArrayLike, second: ArrayLike, equal_variances: bool = True) -> SignificanceTest:
    """Whether two models differ in the mean over their trials: two-sided, unpaired.

    Args:
        first (`array` of shape `(n,)`): a value a trial, at least two; nan values are left out.
        second (`array` of shape `(m,)`): likewise.
        equal_variances (`bool`, *optional*, defaults to `True`): Student's test, as the paper's "two-sample t-test"; else Welch's.

    Returns:
        `SignificanceTest`: positive if the first mean is larger. Without any variance, t is 0 and p 1 for equal means, and t infinite and
            p 0 for others.

    Raises:
        ValueError: for fewer than two values of either.
    """
    from scipy.stats import ttest_ind

    name = f"two-sample t-test ({'Student' if equal_variances else 'Welch'}, two-sided)"
    sides = [_known(values) for values in (first, second)]
    if min(map(len, sides)) < 2:
        raise ValueError(f"a {name} needs at least two trials of each model, got {len(sides[0])} and {len(sides[1])}")
    if all(np.ptp(values) == 0 for values in sides):
        difference = float(sides[0][0] - sides[1][0])
        return SignificanceTest(
            name, float(np.sign(difference) * np.inf) if difference else 0.0, 0.0 if difference else 1.0
        )
    # As 0 a constant has no variance by rounding either.
    constant = next((values[0] for values in sides if np.ptp(values) == 0), 0.0)
    found = ttest_ind(*(values - constant for values in sides), equal_var=equal_variances)
    return SignificanceTest(name, float(found.statistic), float(found.pvalue))


def wilcoxon_signed_rank(first: ArrayLike, second: ArrayLike) -> SignificanceTest:
    """Whether two models differ in paired values, such as trials of one seed or scores of one case: two-sided.

    Pairs without a difference are left out (Wilcoxon's own rule). p is exact for at most 50 pairs without ties and at most 13
    with ties, else from the normal distribution, as in scipy. With n pairs it is at least 2 / 2^n: 0.0625 for 5 trials.

    Args:
        first (`array` of shape `(n,)`): values; pairs with a nan are left out.
        second (`array` of shape `(n,)`): of the same trials or cases.

    Returns:
        `SignificanceTest`: the smaller sum of ranks; if no pair differs, 0 and p = 1.

    Raises:
        ValueError: for shapes that differ, or without a pair.
    """
    from scipy.stats import wilcoxon

    name = "Wilcoxon signed-rank test (two-sided)"
    differences = _differences(first, second, f"a {name}")
    if not differences.any():
        return SignificanceTest(name, 0.0, 1.0)
    found = wilcoxon(differences)
    return SignificanceTest(name, float(found.statistic), float(found.pvalue))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values corrected for how many tests there are, so that the chance of any false finding stays below the level.

    Sorted p-values are multiplied by m, m - 1, ..., and none may fall below the one before it.

    Args:
        p_values (`array` of shape `(m,)`): 0 to 1; nan is a test that was not made: it stays nan and does not count.

    Returns:
        `array` of shape `(m,)`: 0 to 1, in the order given.

    Raises:
        ValueError: for values outside 0 to 1.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    given = np.asarray(p_values, dtype=np.float64)
    made = np.flatnonzero(~np.isnan(given))
    if given.ndim != 1 or not ((given[made] >= 0) & (given[made] <= 1)).all():
        raise ValueError("p-values are a list of numbers from 0 to 1, nan where a test was not made")
    order = made[np.argsort(given[made], kind="stable")]
    corrected = np.full_like(given, np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(given[order] * np.arange(len(order), 0, -1)))
    return corrected


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike | None = None,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """How far two models differ in the mean over cases, if the test set had had other cases.

    Args:
        first (`array` of shape `(n,)`): score of each case, such as its Dice; cases with a nan of either model are left out.
        second (`array` of shape `(n,)`): of the other model on the same cases.
        groups (`array` of shape `(n,)`, *optional*): patient of each case: whole patients are drawn, since images of one are not
            independent. A case whose patient is None or nan stands for itself.
        resamples (`int`, *optional*, defaults to 10,000): at least 1.
        confidence (`float`, *optional*, defaults to 0.95): of the percentile interval.
        seed (`int`, *optional*, defaults to 0): of the draws.

    Returns:
        `Bootstrap` of mean(first) - mean(second). With one case or patient interval and p are nan: it tells nothing of others. Of few,
            draws differ too little: in 1,000 simulated samples of normal differences the 95 % interval held the true one in 83 % for
            5 cases, 90 % for 10, 92 % for 20, 93 % for 50; `units` tells how many there are.

    Raises:
        ValueError: for shapes that differ, no case, or settings out of range.

    Source: Efron, Tibshirani 1993, An introduction to the bootstrap; Davison, Hinkley 1997, section 3.8 (clusters), 4.2.3 (p-value).
    """
    differences = _differences(first, second, "a paired bootstrap", keep=True)
    kept = ~np.isnan(differences)
    members = _members(groups, len(differences), kept)
    sums = np.array([differences[cases].sum() for cases in members])
    counts = np.array([len(cases) for cases in members])
    random, drawn = np.random.default_rng(seed), []
    _check_settings(resamples, confidence)
    for size in _batches(resamples, len(members)):
        chosen = random.integers(0, len(members), (size, len(members)))
        drawn.append(sums[chosen].sum(1) / counts[chosen].sum(1))
    return _summarized(float(differences[kept].mean()), np.concatenate(drawn), confidence, len(members))


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    count: int,
    groups: ArrayLike | None = None,
    resamples: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """The interval of any statistic of cases, such as a difference of AUCs or of macro-F1, which are no means over cases.

    Args:
        statistic (`Callable`): gets the indices of the cases that were drawn, some of them more than once, and returns a number; nan
            where it cannot be measured on them, which is left out.
        count (`int`): number of cases, at least 1.
        groups (`array` of shape `(count,)`, *optional*): patient of each case, as in `paired_bootstrap`.
        resamples (`int`, *optional*, defaults to 2,000): at least 1.
        confidence (`float`, *optional*, defaults to 0.95): of the percentile interval.
        seed (`int`, *optional*, defaults to 0): of the draws.

    Returns:
        `Bootstrap`: `resamples` counts those that could be measured; without any, the interval and p are nan.

    Raises:
        ValueError: for settings out of range.
    """
    members = _members(groups, count, np.ones(max(count, 0), dtype=bool))
    _check_settings(resamples, confidence)
    random, drawn = np.random.default_rng(seed), []
    for _ in range(resamples):
        chosen = random.integers(0, len(members), len(members))
        drawn.append(statistic(np.concatenate([members[index] for index in chosen])))
    return _summarized(float(statistic(np.arange(count))), _known(drawn), confidence, len(members))


def bland_altman(predictions: ArrayLike, references: ArrayLike) -> dict[str, float]:
    """Agreement of two measurements of the same cases.

    - `bias`: mean of prediction minus reference, with `bias_low` and `bias_high`, its 95 % interval by Student's t.
    - `standard_deviation`: of the differences (n - 1).
    - `lower_limit`, `upper_limit`: limits of agreement, bias -+ 1.96 standard deviations, between which 95 % of differences lie if they
      are normal; `limit_standard_error`: of either limit, standard deviation times sqrt(1 / n + 1.96^2 / (2 (n - 1))).
    - `within_limits`: share of the differences that do, 0 to 1; `count`: their number.

    The plot has the differences over the means of both.

    Args:
        predictions (`array` of shape `(n,)`): measured values; pairs with a nan are left out.
        references (`array` of shape `(n,)`): true values, in the same unit.

    Returns:
        `dict[str, float]`, in the unit of the values; what needs two cases is nan for one.

    Raises:
        ValueError: for shapes that differ, or without a case.

    Source: Bland, Altman 1986, Statistical methods for assessing agreement between two methods of clinical measurement; 1999, Measuring
    agreement in method comparison studies (standard error of the limits).
    """
    from scipy.stats import t

    differences = _differences(predictions, references, "an agreement")
    count, bias = len(differences), float(differences.mean())
    found = {"bias": bias, "count": float(count)}
    if count < 2:
        names = ("bias_low", "bias_high", "standard_deviation", "lower_limit", "upper_limit", "limit_standard_error")
        return found | dict.fromkeys((*names, "within_limits"), float("nan"))
    deviation = float(differences.std(ddof=1))
    reach = float(t.ppf(0.975, count - 1)) * deviation / np.sqrt(count)
    limits = bias - 1.96 * deviation, bias + 1.96 * deviation
    return found | {
        "bias_low": bias - reach,
        "bias_high": bias + reach,
        "standard_deviation": deviation,
        "lower_limit": limits[0],
        "upper_limit": limits[1],
        "limit_standard_error": float(deviation * np.sqrt(1 / count + 1.96**2 / (2 * (count - 1)))),
        "within_limits": float(((differences >= limits[0]) & (differences <= limits[1])).mean()),
    }


def compare_models(
    trials: Mapping[str, Sequence[float]], model: str | None = None, lower_is_better: bool = False
) -> list[Comparison]:
    """One model against each other one over their trials, by both tests, corrected for the number of others.

    Args:
        trials (`dict[str, list[float]]`): a value a trial of each model, in the order of the seeds; equally many of each, at least two.
        model (`str`, *optional*): the model that is compared; by default the best one, by its mean, as in the paper. Which is the best
            was then chosen on the same values, so that its tests are optimistic.
        lower_is_better (`bool`, *optional*, defaults to `False`): of the metric, such as an error.

    Returns:
        `list[Comparison]`, the best of the other models, the paper's second best, first.

    Raises:
        ValueError: for fewer than two models, a name that there is not, values that are not finite, or trials that cannot be paired.
    """
    counts = {len(values) for values in trials.values()}
    if len(trials) < 2 or len(counts) != 1 or min(counts) < 2:
        told = ", ".join(f"{name}: {len(values)}" for name, values in trials.items())
        raise ValueError(
            f"at least two models with equally many trials each, two or more, can be compared, got {told}"
        )
    table = {name: np.asarray(values, dtype=np.float64) for name, values in trials.items()}
    for name, values in table.items():
        if not np.isfinite(values).all():
            raise ValueError(f"trials of {name} are nan or infinite: a failed trial cannot be paired, run it again")
    sign = -1 if lower_is_better else 1
    ranked = sorted(table, key=lambda name: -sign * table[name].mean())
    model = ranked[0] if model is None else model
    if model not in table:
        raise ValueError(f"there are no trials of {model!r}, only of {', '.join(table)}")
    others = [name for name in ranked if name != model]
    t_tests = [two_sample_t_test(table[model], table[other]) for other in others]
    signed = [wilcoxon_signed_rank(table[model], table[other]) for other in others]
    corrected = [holm([test.p for test in tests]) for tests in (t_tests, signed)]
    return [
        Comparison(
            model,
            other,
            float(table[model].mean() - table[other].mean()),
            t_tests[index],
            signed[index],
            float(corrected[0][index]),
            float(corrected[1][index]),
        )
        for index, other in enumerate(others)
    ]


def adaptation_steps(record: Mapping[str, Any], metric: str, lower_is_better: bool = False) -> int | None:
    """Steps until the validation metric first comes within 1 % of its best (paper, Fig. 5): the speed of adaptation.

    Args:
        record (`dict`): of a run, as training/finetune.py writes it: `history` is a list of `{"step": ..., "eval_<metric>": ...}`.
        metric (`str`): its name without `eval_`.
        lower_is_better (`bool`, *optional*, defaults to `False`): of the metric, such as an error.

    Returns:
        `int | None`: None if it never was a number.
    """
    seen = [(entry["step"], entry.get(f"eval_{metric}")) for entry in record["history"]]
    known = [(step, value) for step, value in seen if value is not None and np.isfinite(value)]
    if not known:
        return None
    sign = -1 if lower_is_better else 1
    best = max(sign * value for _, value in known)
    return int(next(step for step, value in known if sign * value >= best - NEAR_BEST * abs(best)))


def _known(values: ArrayLike) -> NDArray[np.float64]:
    """The values that are not nan.

    Raises:
        ValueError: for values that are no list of numbers.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1:
        raise ValueError(f"values must be a list of numbers, got the shape {found.shape}")
    return found[~np.isnan(found)]


def _differences(first: ArrayLike, second: ArrayLike, what: str, keep: bool = False) -> NDArray[np.float64]:
    """First minus second, without nan unless they are to be kept.

    Raises:
        ValueError: for shapes that differ, or without a pair.
    """
    sides = [np.asarray(values, dtype=np.float64) for values in (first, second)]
    if sides[0].shape != sides[1].shape or sides[0].ndim != 1:
        raise ValueError(f"{what} needs values in pairs, got {sides[0].shape} and {sides[1].shape}")
    found = sides[0] - sides[1]
    if np.isnan(found).all():
        raise ValueError(f"{what} needs at least one pair of values, and there is none")
    return found if keep else found[~np.isnan(found)]


def _members(groups: ArrayLike | None, count: int, kept: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The cases of each group, or each case on its own; only those that are kept.

    Raises:
        ValueError: without a case, or for another number of groups.
    """
    if count < 1:
        raise ValueError("a bootstrap needs at least one case")
    cases = np.flatnonzero(kept)
    if groups is None:
        return list(cases[:, None])
    names = np.asarray(groups)
    if names.shape != (count,):
        raise ValueError(f"`groups` names the patient of each of {count} cases, got {names.shape}")
    given = np.asarray(groups, dtype=object)
    unknown = np.array([name is None or name != name for name in given], dtype=bool)  # nan is not itself
    if unknown.any():
        names = np.array(
            [f"case {case}" if unknown[case] else f"group {name}" for case, name in enumerate(given)], dtype=str
        )
    _, place = np.unique(names[cases], return_inverse=True)
    return [cases[place == index] for index in range(place.max() + 1)]


def _check_settings(resamples: int, confidence: float) -> None:
    """Raises:
    ValueError: for settings out of range.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(f"at least 1 resample and a confidence between 0 and 1, got {resamples} and {confidence}")


def _batches(resamples: int, units: int) -> list[int]:
    """Sizes of batches of resamples that fit into memory."""
    size = max(1, BATCH // units)
    return [min(size, resamples - start) for start in range(0, resamples, size)]


def _summarized(value: float, drawn: NDArray[np.float64], confidence: float, units: int) -> Bootstrap:
    """Percentile interval, and p as twice the smaller share of draws on either side of 0, each counted with the sample itself."""
    if not drawn.size or units < 2:
        return Bootstrap(value, float("nan"), float("nan"), float("nan"), drawn.size, units)
    low, high = np.quantile(drawn, ((1 - confidence) / 2, (1 + confidence) / 2))
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (float(beyond) + 1) / (drawn.size + 1))
    return Bootstrap(value, float(low), float(high), p, drawn.size, units)
