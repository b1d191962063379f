"""Results by device, sex, age, size and whatever else the data say of a case: how large each subgroup is, its metric with an interval,
and whether the subgroups differ by more than chance.

The intervals are bootstrapped over patients (`group`), or over cases where no patient is known. The test permutes which patient belongs to
which subgroup; where images of one patient lie in several subgroups, as with the size of a lesion, it permutes cases and says so: their
likeness makes it a little too ready to find a difference. Subgroups are many and small: p-values are corrected by Holm's method over the
attributes, a subgroup of fewer than ten cases is flagged, and a difference that is not found is not shown to be absent.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[2]))
from eval.statistics import Bootstrap, bootstrap, holm, paired_bootstrap

from .case_metrics import CaseStatistic, trial_statistic, trial_values

SMALL = 10
"""Cases below which a subgroup is flagged."""
MOST_SUBGROUPS = 8
UNKNOWN, OTHER = "unknown", "other"
BANDS: Mapping[str, tuple[float, ...]] = {"age": (18, 40, 60, 80)}
"""Lower ends of the bands of attributes that have usual ones; other numbers are cut into quarters."""
ATTRIBUTES: Mapping[str, str] = {
    "device": "device",
    "probe": "probe",
    "sex": "sex",
    "age": "age (years)",
    "laterality": "side",
    "view": "view",
    "organ": "organ",
    "muscle": "muscle",
    "location": "location",
    "condition": "condition",
    "image_quality": "image quality",
    "birads": "BI-RADS",
    "tirads": "TI-RADS",
    "pathology": "pathology",
    "histology": "histology",
    "composition": "composition",
    "echogenicity": "echogenicity",
    "margins": "margins",
    "calcifications": "calcifications",
    "licence": "licence",
    "size_px": "image size (pixels)",
    "lesion_fraction": "lesion area (share of the image)",
}
"""Columns of a table of cases that make subgroups, and how a table or a plot calls them."""
COLUMNS = (
    *("attribute", "subgroup", "cases", "groups", "metric", "value", "low", "high", "small"),
    *("test", "p", "p_holm", "difference"),
)


def by_subgroup(
    cases: pd.DataFrame | Sequence[pd.DataFrame],
    metric: str,
    attributes: Sequence[str] | None = None,
    *,
    part: str = "test",
    resamples: int = 1_000,
    permutations: int = 1_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """A metric in every subgroup of the cases.

    Args:
        cases (`DataFrame` or a list of them): the table of a trial, a row a case; of several trials on the same cases the mean over the
            trials is measured, which says nothing of how far the trials differ.
        metric (`str`): a column of it (its mean is the metric), or one of `case_metrics.case_statistic`: "accuracy", "auc", "macro_f1",
            "mae_<target>", ...
        attributes (`list[str]`, *optional*): columns to divide by; by default all of `ATTRIBUTES` that the table has.
        part (`str`, *optional*, defaults to `"test"`): of the cases.
        resamples (`int`, *optional*, defaults to 1,000): of the bootstrap.
        permutations (`int`, *optional*, defaults to 1,000): of the test.
        confidence (`float`, *optional*, defaults to 0.95): of the intervals.
        seed (`int`, *optional*, defaults to 0): of both.

    Returns:
        `DataFrame` with `COLUMNS`, a row a subgroup in the order of the attributes: `cases` and `groups` (patients; cases where these are
        not known), `value` with `low` and `high`, `small` (fewer than ten cases), and, the same in all rows of an attribute: `test`
        (what was permuted), `p`, `p_holm`, and `difference` (largest minus smallest value, small subgroups left out). An attribute
        that all cases share has one row and no test. nan where something is not defined. "unknown" are cases without the attribute: shown,
        not tested. Empty without any attribute.

    Raises:
        ValueError: for a metric or an attribute that the table does not have, or without cases.
    """
    trials = [cases] if isinstance(cases, pd.DataFrame) else list(cases)
    of_part = [trial[trial["part"] == part].reset_index(drop=True) for trial in trials]
    if not of_part or of_part[0].empty:
        raise ValueError(f"there are no {part} cases to divide into subgroups")
    chosen, values, statistic = of_part[0], trial_values(of_part, metric), trial_statistic(of_part, metric)
    if attributes is None:
        attributes = [name for name in ATTRIBUTES if name in chosen.columns and chosen[name].notna().any()]
    if absent := [name for name in attributes if name not in chosen.columns]:
        raise ValueError(f"the table of cases has no column {absent[0]!r} to divide by; it has {', '.join(chosen)}")
    groups = group_names(chosen)
    rows, tests = [], []
    for number, attribute in enumerate(attributes):
        labels = subgroup_labels(chosen[attribute], attribute)
        found = []
        for name in dict.fromkeys(labels.cat.categories):
            members = np.flatnonzero(labels == name)
            if not len(members):
                continue
            measured = _interval(statistic, values, members, groups, (resamples, confidence, seed))
            # One patient alone, however many images, tells nothing of other patients.
            low, high = (measured.low, measured.high) if measured.units > 1 else (np.nan, np.nan)
            found.append(
                {
                    "attribute": attribute,
                    "subgroup": name,
                    "cases": len(members),
                    "groups": measured.units,
                    "metric": metric,
                    "value": measured.value,
                    "low": low,
                    "high": high,
                    "small": len(members) < SMALL,
                }
            )
        large = [row["value"] for row in found if not row["small"] and row["subgroup"] != UNKNOWN]
        finite = [value for value in large if np.isfinite(value)]
        difference = max(finite) - min(finite) if len(finite) > 1 else np.nan
        test, p = _permutation_test(statistic, values, labels, groups, permutations, seed + number)
        tests.append(p)
        rows.append([row | {"test": test, "p": p, "difference": difference} for row in found])
    corrected = holm(tests) if tests else []
    return pd.DataFrame(
        [row | {"p_holm": p} for part_rows, p in zip(rows, corrected, strict=True) for row in part_rows],
        columns=list(COLUMNS),
    )


def group_names(cases: pd.DataFrame) -> NDArray[np.str_]:
    """The patient of each case, the case itself where none is known."""
    own = "case " + cases["case"].astype(str)
    if "group" not in cases.columns:
        return own.to_numpy(str)
    return (
        cases["group"]
        .map(lambda name: f"group {name}", na_action="ignore")
        .where(cases["group"].notna(), own)
        .to_numpy(str)
    )


def subgroup_labels(values: pd.Series, attribute: str) -> pd.Series:
    """The subgroup of each case, as ordered categories.

    Numbers with usual bands (`BANDS`) get these, other numbers with more than eight values are cut at their quartiles, fewer stay as they
    are. Of more than eight texts the rarer ones are "other". What is blank is "unknown". Texts that differ in the case of letters or in
    spaces around them are one.

    Args:
        values (`Series`): of the attribute, numbers or texts.
        attribute (`str`): its name.
    """
    known = values.dropna()
    numeric = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    if numeric and attribute in BANDS:
        edges = [-np.inf, *BANDS[attribute], np.inf]
        names = [f"below {edges[1]:g}", *(f"{low:g} to {high - 1:g}" for low, high in pairwise(edges[1:-1]))]
        names.append(f"{edges[-2]:g} or more")
        labels = pd.cut(values, edges, right=False, labels=names)
    elif numeric and known.nunique() > MOST_SUBGROUPS:
        edges = np.unique(np.quantile(known.to_numpy(np.float64), (0, 0.25, 0.5, 0.75, 1)))
        names = [f"{_short(low)} to {_short(high)}" for low, high in pairwise(edges)]
        labels = pd.cut(values, list(edges), include_lowest=True, labels=_distinct(names))
    else:
        texts = values.map(_short, na_action="ignore") if numeric else _one_spelling(values)
        if numeric:
            order = [_short(value) for value in sorted(known.unique())]
        else:
            counts = texts.value_counts()
            kept = set(counts.index[: MOST_SUBGROUPS - 1]) if len(counts) > MOST_SUBGROUPS else set(counts.index)
            texts = texts.where(texts.isna() | texts.isin(kept), OTHER)
            order = sorted(kept) + ([OTHER] if len(counts) > MOST_SUBGROUPS and OTHER not in kept else [])
        labels = pd.Series(pd.Categorical(texts, list(dict.fromkeys(order)), ordered=True), index=values.index)
    if labels.isna().any():
        if UNKNOWN not in labels.cat.categories:
            labels = labels.cat.add_categories([UNKNOWN])
        labels = labels.fillna(UNKNOWN)
    return labels


def _one_spelling(values: pd.Series) -> pd.Series:
    """Texts without spaces around them, missing where nothing is left; of spellings in another case of letters the most frequent one."""
    texts = values.map(lambda value: str(value).strip() or None, na_action="ignore")
    best: dict[str, str] = {}
    for text in sorted(texts.dropna().unique(), key=lambda text: (-int((texts == text).sum()), text)):
        best.setdefault(text.casefold(), text)
    return texts.map(lambda text: best[text.casefold()], na_action="ignore")


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1_000 else f"{value:,.0f}"


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that rounding made equal, told apart by their place."""
    return [name if list(names).count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]


def _interval(
    statistic: CaseStatistic,
    values: NDArray[np.float64] | None,
    members: NDArray[np.int64],
    groups: NDArray[np.str_],
    settings: tuple[int, float, int],
) -> Bootstrap:
    """The bootstrap of a subgroup over whole patients; a mean over cases by their sums, which is quicker.

    Args:
        statistic, values: the metric, see `trial_statistic` and `trial_values`.
        members: rows of the subgroup's cases.
        groups: patient of each row.
        settings: resamples, confidence, seed.
    """
    if values is None:
        return bootstrap(lambda drawn: statistic(members[drawn]), len(members), groups[members], *settings)
    if np.isnan(values[members]).all():
        return Bootstrap(np.nan, np.nan, np.nan, np.nan, 0, len(np.unique(groups[members])))
    return paired_bootstrap(values[members], np.zeros(len(members)), groups[members], *settings)


def _permutation_test(
    statistic: CaseStatistic,
    values: NDArray[np.float64] | None,
    labels: pd.Series,
    groups: NDArray[np.str_],
    permutations: int,
    seed: int,
) -> tuple[str, float]:
    """Whether subgroups differ: what was permuted, and the share of permutations whose subgroups differ at least as much, with the data
    themselves counted; nan where there are not two subgroups.

    The subgroups differ by the sum over them of cases times (metric minus the mean of the metrics so weighted) squared.
    """
    kept = np.flatnonzero((labels != UNKNOWN).to_numpy())
    codes = pd.factorize(labels.iloc[kept])[0]
    number = int(codes.max(initial=-1)) + 1
    if number < 2:
        return "", float("nan")
    _, patients = np.unique(groups[kept], return_inverse=True)
    first = np.unique(patients, return_index=True)[1]
    whole = bool((codes == codes[first][patients]).all())
    units = patients if whole else np.arange(len(kept))
    of_units = codes[first] if whole else codes
    name = "permutation of patients" if whole and len(first) < len(kept) else "permutation of cases"

    def measured(of_cases: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Metric and number of cases of each subgroup; of cases that have a value where the metric is a mean over them."""
        if values is not None:
            there = ~np.isnan(values[kept])
            counts = np.bincount(of_cases[there], minlength=number)
            with np.errstate(invalid="ignore"):
                return np.bincount(of_cases[there], values[kept][there], number) / counts, counts
        members = [kept[of_cases == code] for code in range(number)]
        return np.array([statistic(rows) if len(rows) else np.nan for rows in members]), np.array(
            list(map(len, members))
        )

    def differ(of_cases: NDArray[np.int64]) -> float:
        found, counts = measured(of_cases)
        known = np.isfinite(found)
        if not known.any():
            return 0.0
        mean = (found[known] * counts[known]).sum() / counts[known].sum()
        return float((np.square(found[known] - mean) * counts[known]).sum())

    observed, random = differ(codes), np.random.default_rng(seed)
    drawn = np.array([differ(random.permutation(of_units)[units]) for _ in range(permutations)])
    return name, float((1 + (drawn >= observed - 1e-12 * max(1.0, observed)).sum()) / (permutations + 1))
