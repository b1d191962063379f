"""The plots of a folder of results: box plots, label efficiency, adaptation, ROC, Bland-Altman, reliability, subgroups, worst cases,
and an overview of several tasks.

    python eval/runner/plots.py OUTPUT                    # all that the results allow, as OUTPUT/plots/*.png
    python eval/runner/plots.py OUTPUT --data DATA        # with the images of the worst cases, which lie in DATA
    python eval/runner/plots.py OUTPUT --only roc boxes --tasks ddti

OUTPUT is what eval/run.py was given: <task>/<model>/<seed>/ with metrics.json and cases.parquet. Trials that are not finished are left
out.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path += [str(Path(__file__).resolve().parents[level]) for level in (1, 2)]
from echocare_hf.files import written_beside

if TYPE_CHECKING:
    from PIL import Image

    from runner.plots_results import TaskResults

COUNT = 12
"""Cases on a sheet of worst cases."""
KINDS = (
    "boxes",
    "label_efficiency",
    "adaptation",
    "roc",
    "bland_altman",
    "reliability",
    "subgroups",
    "worst",
    "overview",
)


def draw_all(
    output: Path,
    data: Path | Sequence[Path] | None = None,
    headlines: Mapping[str, Sequence[str]] | None = None,
    kinds: Sequence[str] = KINDS,
    tasks: Sequence[str] | None = None,
    worst: int = COUNT,
) -> list[Path]:
    """Draws what the results of a folder allow.

    Args:
        output: folder of results; the plots are written to `plots/` in it, `<task>_<kind>.png` and alike, over earlier ones;
            of several tasks `overview.png`, the first metric of each.
        data (optional): folder or folders that the images of the cases lie in, for the sheets of worst cases.
        headlines (optional): by task, the metrics that the tables show: first among the box plots, and those of label efficiency, which
            else shows the metric that chose the weights.
        kinds (optional): of `KINDS`.
        tasks (optional): all by default.
        worst (optional): cases on a sheet of worst cases, at least 1.

    Returns:
        The files, in the order of tasks and kinds; a plot that needs what the results do not have is left out.

    Raises:
        ValueError: for a folder without results, an unknown kind or task, or a table of cases that cannot be used.
    """
    from runner.plots_results import all_results  # these load torch and scipy, which --help does without

    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"there are no plots {unknown[0]!r}; choose of {', '.join(KINDS)}")
    if worst < 1:
        raise ValueError(f"a sheet of worst cases has at least 1 case, got {worst}")
    found = list(all_results(output))
    if unknown := sorted(set(tasks or ()) - {results.key for results in found}):
        raise ValueError(f"{output}: holds no results of {unknown[0]}; it has {', '.join(one.key for one in found)}")
    folders = [Path(data)] if isinstance(data, str | Path) else list(data or ())
    (output / "plots").mkdir(exist_ok=True)
    wanted = [results for results in found if not tasks or results.key in tasks]
    written = []
    for name, picture in _pictures(wanted, folders, headlines or {}, kinds, worst):
        path = output / "plots" / f"{name}.png"
        with written_beside(path) as partial:
            picture.save(partial, format="PNG")
        written.append(path)
    return written


def _pictures(
    every: "Sequence[TaskResults]",
    folders: Sequence[Path],
    headlines: Mapping[str, Sequence[str]],
    kinds: Sequence[str],
    worst: int,
) -> Iterator[tuple[str, "Image.Image"]]:
    """Name and picture of every plot of the tasks, then what they have in common."""
    for results in every:
        for name, picture in _of_task(results, folders, headlines.get(results.key, ()), kinds, worst):
            yield f"{results.key}_{name}", picture
    if "overview" in kinds and len(every) > 1:
        from runner.plots_boxes import overview_sheet

        yield "overview", overview_sheet(every, headlines)


def _of_task(
    results: "TaskResults", folders: Sequence[Path], headlines: Sequence[str], kinds: Sequence[str], worst: int
) -> Iterator[tuple[str, "Image.Image"]]:
    """Name and picture of every plot of a task."""
    from runner.contact import worst_sheet
    from runner.plots_agreement import agreement_sheet
    from runner.plots_boxes import boxes_sheets
    from runner.plots_curves import adaptation_chart, efficiency_chart
    from runner.plots_reliability import reliability_sheet
    from runner.plots_roc import roc_sheet
    from runner.plots_subgroups import subgroups_sheet

    sheets = {
        "adaptation": adaptation_chart,
        "roc": roc_sheet,
        "bland_altman": agreement_sheet,
        "reliability": reliability_sheet,
        "subgroups": subgroups_sheet,
    }
    for kind in kinds:
        if kind == "boxes":
            for number, sheet in enumerate(boxes_sheets(results, headlines), 1):
                yield (kind if number == 1 else f"{kind}_{number}"), sheet
        elif kind == "label_efficiency":
            for metric in headlines or _chosen_by(results):
                chart = efficiency_chart(results, metric)
                if chart is not None:
                    yield f"{kind}_{file_name(metric)}", chart
        elif kind == "worst":
            for model, trials in results.models.items():
                sheet = (
                    None if trials[0].record.get("kind") == "floor" else worst_sheet(results, model, worst, folders)
                )
                if sheet is not None:
                    yield f"{kind}_{file_name(model)}", sheet
        elif kind in sheets:
            picture = sheets[kind](results)
            if picture is not None:
                yield kind, picture


def _chosen_by(results: "TaskResults") -> tuple[str, ...]:
    """The metric that chose the weights, else the first one."""
    names = [trial.record.get("best_metric") for trial in results.trials]
    known = [str(name) for name in names if name] or results.metrics()
    return tuple(known[:1])


def file_name(text: str) -> str:
    """A text as part of a file name: letters, digits, points, hyphens and underscores."""
    return re.sub(r"[^\w.-]+", "-", text.replace("/", "--")).strip("-.")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of results, the --output of eval/run.py")
    parser.add_argument("--data", type=Path, nargs="+", help="folders that hold the images of the cases")
    parser.add_argument(
        "--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=f"of {', '.join(KINDS)}"
    )
    parser.add_argument("--tasks", nargs="+", help="names of tasks in OUTPUT; all by default")
    parser.add_argument("--worst", type=int, default=COUNT, help="cases on a sheet of worst cases (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        written = draw_all(
            arguments.output, arguments.data, kinds=arguments.only, tasks=arguments.tasks, worst=arguments.worst
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
