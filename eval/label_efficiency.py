"""How few labels do: the same task at 10 to 100 % of its training labels, from a pretrained checkpoint and from random weights.

    python eval/label_efficiency.py run --data DATA --output RUNS              # resumable, two runs at a time
    python eval/label_efficiency.py table --output RUNS                        # what is done so far, as Markdown
    python eval/label_efficiency.py plot --output RUNS --picture docs/label_efficiency.png

The split is that of eval/heads.py; of its training part a share is taken, whole groups at a time, of which larger shares hold the smaller.
The seed is that of the share, of weights, order and augmentation. All runs of a task have the same minutes of processor time for training,
whatever their share.

Adaptation speed is how many steps it takes until the validation metric first comes within 1 % of its best (paper, Fig. 5).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from eval.statistics import adaptation_steps

from ablation import METRICS, TASKS, call
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.files import written_beside
from heads import ROWS, cell, command
from runner.plots_curves import efficiency_chart
from runner.plots_results import TaskResults
from runner.store import Trial

SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
SCRATCH = "tiny"  # the preset: random weights


def run_one(task: str, model: str, share: float, seed: int, arguments: argparse.Namespace) -> str:
    """One fine-tuning, unless it is there; returns what to print."""
    output = place(arguments.output, task, model, share) / str(seed)
    label = f"{task} from {model}, {share:.0%}, seed {seed}"
    if (output / "metrics.json").is_file():
        return f"{label}: is there"
    output.parent.mkdir(parents=True, exist_ok=True)
    line = command(ROWS[task], "echocare", seed, arguments.data, output, model)
    line[line.index("--cpu_minutes") + 1] = str(arguments.minutes)
    if problem := call([*line, "--train_share", str(share)], output.with_name(f"{seed}.log")):
        return f"{label}: {problem}"
    return f"{label}: {METRICS[task]} {json.loads((output / 'metrics.json').read_text())['test'][METRICS[task]]:.3f}"


def place(output: Path, task: str, model: str, share: float) -> Path:
    return output / task / Path(model).name / f"{round(100 * share)}"


def collect(arguments: argparse.Namespace) -> dict[tuple[str, str, float], list[dict[str, Any]]]:
    """The records of all runs that are there."""
    return {
        (task, model, share): [
            json.loads(file.read_text())
            for file in sorted(place(arguments.output, task, model, share).glob("*/metrics.json"))
        ]
        for task in TASKS
        for model in arguments.models
        for share in SHARES
    }


def table(arguments: argparse.Namespace) -> str:
    """Mean and standard deviation over the seeds of the test metric, and of the steps of adaptation."""
    records, lines = collect(arguments), []
    for task in TASKS:
        metric = METRICS[task]
        lines += [f"{task}, {metric} of the test part (steps until within 1 % of the best on validation):", ""]
        lines += [f"| from | {' | '.join(f'{share:.0%}' for share in SHARES)} |", "|---" * (len(SHARES) + 1) + "|"]
        for model in arguments.models:
            cells = []
            for share in SHARES:
                runs = records[task, model, share]
                steps = [adaptation_steps(record, metric) for record in runs]
                known = [step for step in steps if step is not None]
                text = cell([record["test"][metric] for record in runs])
                cells.append(f"{text} ({np.mean(known):.0f})" if known else text)
            lines.append(f"| {name_of(model)} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def plot(arguments: argparse.Namespace) -> None:
    """A panel a task: the metric of the test part against the share of the labels."""
    panels = []
    for task in TASKS:
        trials = [
            Trial(arguments.output, {**record, "model": name_of(model), "train_share": share, "seed": seed})
            for (found, model, share), records in collect(arguments).items()
            if found == task
            for seed, record in enumerate(records)
        ]
        chart = efficiency_chart(TaskResults(task, tuple(trials)), METRICS[task])
        if chart is None:
            raise SystemExit(f"error: {arguments.output}: holds no runs of {task} with two shares of the labels")
        panels.append(chart)
    sheet = contact_sheet(panels, [""] * len(panels), title="How few labels do", columns=len(panels))
    with written_beside(arguments.picture) as partial:
        sheet.save(partial, format="png", optimize=True)


def name_of(model: str) -> str:
    return "random weights" if model == SCRATCH else Path(model).name


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "plot"))
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--models", nargs="+", default=["echocare-tiny", SCRATCH], help="as in training/finetune.py")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=1.5, help="processor time of each training")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--picture", type=Path, default=Path("label_efficiency.png"))
    arguments = parser.parse_args(argv)
    if arguments.action == "table":
        print(table(arguments))
        return 0
    if arguments.action == "plot":
        plot(arguments)
        return 0
    if arguments.data is None or not arguments.data.is_dir():
        parser.error("--data names no folder")
    jobs = [
        (task, model, share, seed)
        for seed in arguments.seeds
        for share in SHARES
        for task in TASKS
        for model in arguments.models
    ]
    failed = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done in pool.map(lambda job: run_one(*job, arguments), jobs):
            print(done, flush=True)
            failed += "failed" in done
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
