"""What was found as Markdown, and the files of results: results.parquet, results.json, results.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from echocare_hf.files import written_beside

from .headlines import direction
from .store import Trial, one_at_a_time
from .subjects import Subject
from .summary import long_table, summarize

RESULTS = "results"
FEW = 10
"""Patients below which the table says that a bootstrap is too sure of itself, see `eval.statistics.paired_bootstrap`."""
_AGAIN = "remove it: --table writes it again from the trials of each benchmark"


def write_results(output: Path, subject: Subject, trials: Sequence[Trial]) -> dict[str, Any]:
    """Puts a subject into the three files of results; other subjects that are there stay.

    Returns:
        The entry of the subject in results.json.
    """
    entry = summarize(subject, trials)
    with one_at_a_time(output / RESULTS):
        _add_to_files(output, subject, trials, entry)
    return entry


def _add_to_files(output: Path, subject: Subject, trials: Sequence[Trial], entry: dict[str, Any]) -> None:
    place = output / f"{RESULTS}.json"
    known = read_results(output)
    known[subject.key] = entry
    with written_beside(place) as partial:
        text = json.dumps({"subjects": dict(sorted(known.items()))}, indent=1, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")
    table = output / f"{RESULTS}.parquet"
    rows = long_table(subject, trials)
    if table.is_file():
        try:
            before = pd.read_parquet(table)
            others = before[before["task"] != subject.key]
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).strip().splitlines() or ["it is empty"])[0]
            raise ValueError(f"{table}: cannot be read ({reason}); {_AGAIN}") from error
        rows = pd.concat([others, rows])
    with written_beside(table) as partial:
        rows.sort_values(["task", "model", "train_share", "seed", "part", "metric"]).to_parquet(partial, index=False)
    with written_beside(output / f"{RESULTS}.md") as partial:
        text = "\n\n".join(markdown(key, known[key]) for key in sorted(known))
        partial.write_text(f"{text}\n", encoding="utf-8")


def read_results(output: Path) -> dict[str, Any]:
    """The entries of all subjects in results.json, by key; empty if there is no such file.

    Raises:
        ValueError: if it cannot be read.
    """
    place = output / f"{RESULTS}.json"
    if not place.is_file():
        return {}
    try:
        return dict(json.loads(place.read_text(encoding="utf-8"))["subjects"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{place}: cannot be read ({error or 'it is empty'}); {_AGAIN}") from error


def markdown(key: str, entry: Mapping[str, Any], level: int = 2, details: bool = True) -> str:
    """The tables of a subject.

    Args:
        key: of the subject.
        entry: of results.json.
        level: of the heading.
        details: whether subgroups and all other metrics follow.
    """
    blocks = [f"{'#' * level} {entry['title']}", main_table(entry), *_remarks(entry), _tests(entry), _intervals(entry)]
    blocks += [_calibration(entry)]
    if details:
        blocks += [_subgroups(entry), _worst_texts(entry), _all_metrics(entry), _origin(entry)]
    return "\n\n".join(block for block in blocks if block)


def main_table(entry: Mapping[str, Any]) -> str:
    """A row a model: mean and standard deviation over the trials of the test part; the paper's figures below."""
    names = [head["metric"] for head in entry["headlines"]]
    header = ["model", *(f"{name} ({direction(name)})" for name in names), "trials"]
    rows = []
    for contender in entry["contenders"]:
        cells = [cell(contender["test"].get(name)) for name in names]
        label = f"{contender['name']} (floor)" if contender["kind"] == "floor" else contender["name"]
        rows.append([label, *cells, str(len(contender["seeds"]))])
    if any(head["paper"] is not None for head in entry["headlines"]):
        figures = ["" if head["paper"] is None else f"{head['paper']:.4f}" for head in entry["headlines"]]
        rows.append(["*EchoCare in the paper*", *figures, ""])
    return as_table(header, rows)


def cell(value: Mapping[str, Any] | None) -> str:
    """Mean ± standard deviation, empty where nothing was measured."""
    if value is None or value["mean"] is None:
        return ""
    deviation = value["standard_deviation"]
    return f"{value['mean']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def as_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _remarks(entry: Mapping[str, Any]) -> list[str]:
    sizes = _first_origin(entry)["split_sizes"]
    parts = ", ".join(f"{count} {part}" for part, count in sizes.items())
    lines = [f"Mean ± sample standard deviation over the trials (seeds), test part. Split: {entry['split']}; {parts}."]
    lines += entry["remarks"]
    if entry["differences_from_the_paper"]:
        lines.append("Not as in the paper: " + "; ".join(entry["differences_from_the_paper"]) + ".")
    shown = {head["name"] for head in entry["headlines"]}
    rest = {name: value for name, value in entry["paper"].items() if name not in shown}
    if rest:
        told = ", ".join(f"{name} {value:g}" for name, value in rest.items())
        lines.append(f"The paper states besides, in its own names and points: {told}.")
    if any(name["metric"].startswith("nsd_") for name in entry["headlines"]):
        tolerance = entry["contenders"][0]["test"].get("tolerance_mm")
        known = tolerance is not None and tolerance["mean"] is not None
        in_mm = f"{tolerance['mean']:.3g} mm in the mean" if known else "mm unknown"
        lines.append(f"NSD: tolerance 2 pixels of the original image ({in_mm}); the paper does not state its own.")
    if any("optimistic" in head["metric"] for head in entry["headlines"]):
        lines.append(
            "Youden's cut-off was chosen on the validation part; that of the test part itself is optimistic and named so."
        )
    return ["  \n".join(lines)]


def _tests(entry: Mapping[str, Any]) -> str:
    if not entry["tests_over_trials"]:
        return "  \n".join(f"No tests over trials: {note}." for note in entry["notes"])
    first = entry["tests_over_trials"][0]
    header = [
        "metric",
        f"{first['model']} against",
        "difference",
        "t-test p",
        "after Holm",
        "Wilcoxon p",
        "after Holm",
    ]
    rows = [
        [
            row["metric"],
            row["other"],
            f"{row['difference']:+.4f}",
            f"{p_text(row['t_test']['p'])} {row['t_test']['stars']}".strip(),
            p_text(row["t_test"]["p_holm"]),
            f"{p_text(row['wilcoxon']['p'])} {row['wilcoxon']['stars']}".strip(),
            p_text(row["wilcoxon"]["p_holm"]),
        ]
        for row in entry["tests_over_trials"]
    ]
    names = f"{first['t_test']['name']}; {first['wilcoxon']['name']}, trials paired by seed"
    counts = sorted({row["trials"] for row in entry["tests_over_trials"]})
    trials = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    missing = "".join(f" Not compared: {note}." for note in entry["notes"])
    told = (
        f"Over {trials} trials: {names}; Holm's correction over the models; * p < .05, ** p < .01, *** p < .001. They say how "
        "far a result depends on the seed, not on the patients."
    ) + missing
    return f"{as_table(header, rows)}\n\n{told}"


def _intervals(entry: Mapping[str, Any]) -> str:
    rows = entry["bootstrap_over_cases"]
    if not rows:
        return ""
    header = ["metric of the cases", f"{rows[0]['model']} against", "difference", "95 % interval", "p", "after Holm"]
    lines = [
        [
            row["metric"],
            row["other"],
            _signed(row["difference"]),
            "" if row["low"] is None else f"{_signed(row['low'])} to {_signed(row['high'])}",
            p_text(row["p"]),
            p_text(row.get("p_holm")),
        ]
        for row in rows
    ]
    told = (
        f"Paired bootstrap over the patients (cases where none is known) of the test part, {rows[0]['units']} in all; of each model "
        "the mean over its trials; Holm's correction over the models and floors."
    )
    if 1 < rows[0]["units"] < FEW:
        told += " Of so few the interval is too narrow and p too small."
    return f"{as_table(header, lines)}\n\n{told}"


def _calibration(entry: Mapping[str, Any]) -> str:
    rows = entry["calibration"]
    if not rows:
        return ""
    names = [name for name in rows[0] if name not in ("model", "problems")]
    lines = [[row["model"], *("" if row[name] is None else f"{row[name]:.3f}" for name in names)] for row in rows]
    told = (
        "Temperature fitted on the validation part; errors of the test part before and after, means over the trials."
    )
    return f"{as_table(['model', *names], lines)}\n\n{told}"


def _subgroups(entry: Mapping[str, Any]) -> str:
    rows = entry["subgroups"]
    if not rows:
        return ""
    header = ["subgroup", "cases", "patients", rows[0]["metric"], "95 % interval", "p after Holm"]
    lines = [
        [
            f"{row['attribute']}: {row['subgroup']}{' (few)' if row['small'] else ''}",
            str(row["cases"]),
            str(row["groups"]),
            _number(row["value"]),
            f"{_number(row['low'])} to {_number(row['high'])}" if row["low"] is not None else "",
            p_text(row["p_holm"]),
        ]
        for row in rows
    ]
    return f"Subgroups, {entry['contenders'][0]['name']}, first trial:\n\n{as_table(header, lines)}"


def _worst_texts(entry: Mapping[str, Any]) -> str:
    rows = entry.get("worst_texts")
    if not rows:
        return ""
    lines = [[" ".join(str(row[name]).replace("|", "/").split()) for name in row] for row in rows]
    told = f"The reports that are least like the written ones, {entry['contenders'][0]['name']}, first trial:"
    return f"{told}\n\n{as_table(['case', 'written', 'generated'], lines)}"


def _all_metrics(entry: Mapping[str, Any]) -> str:
    names = dict.fromkeys(name for contender in entry["contenders"] for name in contender["test"])
    header = ["all metrics of the test part", *(contender["name"] for contender in entry["contenders"])]
    rows = [[name, *(cell(contender["test"].get(name)) for contender in entry["contenders"])] for name in names]
    return as_table(header, rows)


def _origin(entry: Mapping[str, Any]) -> str:
    origin = _first_origin(entry)
    days = sorted(each["finished"][:10] for found in entry["provenance"].values() for each in found)
    span = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    machine = origin["machine"]
    hardware = machine["accelerator"] or f"{machine['processor']}, {machine['threads']} thread(s)"
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    return (
        f"{span}, {hardware}, {origin.get('precision', 'fp32')}. Data {origin['data_sha256'][:12]}, split {origin['split_sha256'][:12]}. "
        f"{versions}."
    )


def _first_origin(entry: Mapping[str, Any]) -> dict[str, Any]:
    return next(iter(entry["provenance"].values()))[0]


def p_text(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"
