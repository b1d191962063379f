"""Measures models on a benchmark as the EchoCare paper does: trials over seeds, spreads, tests, tables, plots.

    python eval/run.py --task ddti --model echocare-tiny --data DDTI --trials 20
    python eval/run.py --task busbra --model echocare-tiny tiny timm:resnet18 --data BUSBRA --trials 5 --epochs 20
    python eval/run.py --task camus --model my/folder ORG/NAME hf:ORG/SWIN --data CAMUS --output results --cpu_minutes 30
    python eval/run.py --task ddti --model echocare-tiny --data DDTI --train_share 0.1 0.2 0.4 0.6 0.8 1
    python eval/run.py --task ddti --model lesions --data DDTI --publish lesions    # results into the card of the folder lesions
    python eval/run.py --suite proxy --data DATA --simmim swin --seeds 0 1 2 3 4    # without the benchmarks, on images at hand
    python eval/run.py --suite proxy --table docs/results.md                        # its tables, into the document

--task is a benchmark of eval/tasks; --data is its folder as its authors publish it (docs/benchmarks.md). --model takes any number of

    echocare-tiny, a folder, ORG/NAME   a checkpoint of EchoCare
    tiny, base, large                   EchoCare from random weights
    timm:NAME                           a network of timm, from random weights unless --pretrained
    hf:ORG/NAME, hf:FOLDER              any other backbone of transformers, under the same heads
    pixels, mean, filters, retrieval, frequent, frequent_organ
                                        floors, which are measured besides wherever they serve
    NAME=MODEL                          one of these under another name

Every option of training/finetune.py that is not listed below (--epochs, --minutes, --learning_rate, --image_size, --recipe, ...) goes to
the fine-tuning of every model: the same recipe, the same budget, the same split. The split is the official one; a part that is
missing is dealt out by --split_seed (0), whatever the seed of a trial. Of reports (--task usreport) they are those of training/report.py.

A trial leaves OUTPUT/TASK/MODEL/SEED/ with metrics.json and cases.parquet. A finished trial is not repeated, and one that was cut off
goes on with its last epoch when the same command is given again. OUTPUT gets results.parquet, results.json (tests,
provenance), results.md and plots.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from echocare_hf.finetuning import parse_arguments
from echocare_hf.finetuning.arguments import READ_OPTIONS
from echocare_hf.reports.arguments import parse_report_arguments
from runner.contenders import Contender, contenders
from runner.proxy import ROWS, proxy_subject, put_between_markers, suite_markdown, suite_models
from runner.publish_index import publish, read_card
from runner.session import Session, script_command
from runner.subjects import Arguments, Subject, benchmark, reader_values
from runner.tables import read_results

TRIALS = 5
READ_REPORTS = ("images", "columns", "organ", "language", "phantoms", "languages")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="run.py (--task KEY | --suite proxy) --data DIR [options]",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--task", metavar="KEY", help="a benchmark of eval/tasks")
    what.add_argument("--suite", choices=("proxy",), help="real images at hand in the place of the benchmarks")
    parser.add_argument("--data", help="folder of the benchmark; of --suite, the folder that holds its data sets")
    parser.add_argument("--model", nargs="+", help="see above; echocare-tiny if not given, of --suite its four models")
    parser.add_argument("--trials", type=int, help=f"number of seeds, {TRIALS} if not given; the paper has 20")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, nargs="+", help="the seeds themselves, instead of --trials")
    parser.add_argument("--output", type=Path, default=Path("evaluation"), help="folder of results (evaluation)")
    parser.add_argument("--train_share", type=float, nargs="+", default=[1.0], help="shares of the training labels")
    parser.add_argument(
        "--cpu_minutes", type=float, help="processor time of each training, evaluations not counted; 1 of --suite"
    )
    parser.add_argument(
        "--reader", nargs="+", default=[], metavar="NAME=VALUE", help="of the benchmark's reader, such as fold=2"
    )
    parser.add_argument("--pretrained", action="store_true", help="timm's own weights, which it downloads")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time, each in a process of one thread")
    parser.add_argument(
        "--publish", type=Path, metavar="FOLDER", help="write the results into the card of this model folder"
    )
    parser.add_argument("--draw", action=argparse.BooleanOptionalAction, default=True, help="plots in OUTPUT/plots")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help=f"of --suite: {', '.join(ROWS)}")
    parser.add_argument("--simmim", metavar="FOLDER", help="of --suite: the Swin that eval/simmim.py pretrained")
    parser.add_argument(
        "--table",
        nargs="?",
        const="-",
        metavar="FILE",
        help="only the tables of what is there; into FILE, between its markers",
    )
    parser.add_argument("--only_trials", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser()
    options, recipe = parser.parse_known_args(argv)
    try:
        run(options, recipe, argv)
    except ModuleNotFoundError as error:
        print(f'error: {error}; install what is missing with pip install -e ".[all]"', file=sys.stderr)
        return 2
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this one ended", file=sys.stderr)
        return 130
    return 0


def run(options: argparse.Namespace, recipe: Sequence[str], argv: Sequence[str]) -> None:
    """Does what the head of this file says.

    Raises:
        ValueError: for what does not serve, in one line.
    """
    seeds = _seeds(options)
    subjects = _subjects(options)
    models = options.model or (suite_models(options.simmim) if options.suite else ["echocare-tiny"])
    everyone = contenders(models, _shares(options.train_share), options.pretrained)
    published = _published(options, everyone)
    _check_output(options.output)
    if options.table is None and options.data is None:
        raise ValueError("--data is needed: the folder of the benchmark as its authors publish it")
    entries = {}
    for subject, data in subjects:
        session = _session(options, recipe, argv, subject, data, everyone, seeds)
        if options.table is None:
            session.run(with_floors=not options.only_trials)
        if not options.only_trials:
            entry = session.report()
            if entry is None:
                print(f"{subject.key}: no trial is there yet", flush=True)
            else:
                entries[subject.key] = entry
    if options.only_trials or not entries:
        return
    if options.suite:
        _suite_tables(options, entries)
    if published is not None:
        for key, entry in entries.items():
            count = publish(options.publish, key, entry, published.slug)
            print(f"wrote {count} results on {key} into {options.publish / 'README.md'}", flush=True)
    if options.draw:
        from runner import plots

        drawn = plots.draw_all(
            options.output,
            data=[Path(folder) for _, folder in subjects if folder is not None],
            headlines={key: [head["metric"] for head in entry["headlines"]] for key, entry in entries.items()},
            tasks=list(entries),
        )
        print(f"drew {len(drawn)} plots in {options.output / 'plots'}", flush=True)


def _session(
    options: argparse.Namespace,
    recipe: Sequence[str],
    argv: Sequence[str],
    subject: Subject,
    data: str | None,
    everyone: Sequence[Contender],
    seeds: Sequence[int],
) -> Session:
    minutes = options.cpu_minutes if options.cpu_minutes is not None else 1.0 if options.suite else None
    budget = [] if minutes is None else ["--cpu_minutes", str(minutes)]
    if options.task or subject.task == "report":
        _refuse_reading(recipe, subject.task)

    def arguments_of(one: Contender, seed: int) -> Arguments:
        scratch = subject.scratch if one.is_random(options.pretrained) else ()
        line = [subject.task, "--data", str(data), "--output", str(options.output), "--split_seed", "0"]
        line += ["--strict", "true"] if options.task else []
        line += [*subject.options, *scratch, *budget, *recipe, "--seed", str(seed)]
        if subject.task == "report":
            return parse_report_arguments(line[1:], __doc__)
        return parse_arguments(line, __doc__)[1]

    def command_of(one: Contender, seed: int) -> list[str]:
        chosen = ["--model", f"{one.name}={one.source}", "--train_share", str(one.train_share), "--seeds", str(seed)]
        chosen += ["--rows", subject.key] if options.suite else []
        return script_command(Path(__file__), argv, [*chosen, "--jobs", "1", "--only_trials"])

    return Session(
        subject, everyone, seeds, options.output, arguments_of, command_of, options.jobs, options.pretrained
    )


def _subjects(options: argparse.Namespace) -> list[tuple[Subject, str | None]]:
    """What is measured, and the folder of its data."""
    if options.task:
        for name in ("rows", "simmim"):
            if getattr(options, name):
                raise ValueError(f"--{name} is of --suite proxy; leave it out, or leave --task out")
        if options.table not in (None, "-"):
            raise ValueError("--table FILE is of --suite proxy; of a benchmark, --table writes OUTPUT/results.md")
        return [(benchmark(options.task, reader_values(options.reader)), options.data)]
    if options.reader:
        raise ValueError("--reader is of the benchmarks; leave it out, or name one with --task")
    rows = options.rows or list(ROWS)
    if unknown := [row for row in rows if row not in ROWS]:
        raise ValueError(f"--rows {unknown[0]}: there is no such row; there are {', '.join(ROWS)}")
    subjects = []
    for row in rows:
        folder = None if options.data is None else Path(options.data) / ROWS[row].data
        if folder is not None and not folder.is_dir() and options.table is None:
            raise ValueError(
                f"{folder}: was expected here, for the row {row}; --data is the folder that holds {ROWS[row].data}"
            )
        subjects.append((proxy_subject(row), None if folder is None else str(folder)))
    return subjects


def _seeds(options: argparse.Namespace) -> list[int]:
    if options.seeds and options.trials and not options.only_trials:
        raise ValueError("--seeds and --trials: give one of them")
    seeds = options.seeds or list(
        range(options.seed, options.seed + (TRIALS if options.trials is None else options.trials))
    )
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError("at least one trial is needed, and seeds are different whole numbers from 0 on")
    if options.jobs < 1:
        raise ValueError(f"--jobs is at least 1, not {options.jobs}")
    return seeds


def _shares(given: Sequence[float]) -> list[float]:
    """Shares of the labels, the whole first: it is what models are compared on."""
    if wrong := [share for share in given if not 0 < share <= 1]:
        raise ValueError(f"--train_share is above 0 and at most 1, not {wrong[0]:g}")
    return sorted(set(given), reverse=True)


def _check_output(output: Path) -> None:
    """Tells before the data are read what would end the first trial.

    Raises:
        ValueError: if the folder of results is none, or nothing can be written into it.
    """
    place = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not place.is_dir():
        raise ValueError(f"--output {output}: {place} is a file; choose a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"--output {output}: nothing may be written into {place}; choose another folder")


def _refuse_reading(recipe: Sequence[str], task: str) -> None:
    """A benchmark's own reader knows its files: what `read_labelled` or `read_pairs` is told would change nothing, silently."""
    named = {word.partition("=")[0].removeprefix("--") for word in recipe if word.startswith("--")}
    of_reader = READ_REPORTS if task == "report" else set(READ_OPTIONS) - {"classes"}
    wrong = sorted(named & set(of_reader) - {"strict"})
    if wrong:
        raise ValueError(f"--{wrong[0]}: the reader of a benchmark knows its files; leave it out")


def _published(options: argparse.Namespace, everyone: Sequence[Contender]) -> Contender | None:
    """Whose results go into the card of --publish: the model that is that folder, or the only one.

    Raises:
        ValueError: if the folder has no card that results can be written into, or it is not clear whose results are meant.
    """
    if options.publish is None:
        return None
    read_card(options.publish)
    models = [one for one in everyone if one.kind != "floor" and one.train_share == 1]
    same = [
        one for one in models if Path(one.source).is_dir() and Path(one.source).resolve() == options.publish.resolve()
    ]
    chosen = same or models
    if len(chosen) != 1:
        names = ", ".join(one.name for one in models)
        raise ValueError(
            f"--publish {options.publish}: is none of the models ({names}), so that it is not clear whose results are meant"
        )
    return chosen[0]


def _suite_tables(options: argparse.Namespace, entries: dict[str, Any]) -> None:
    """All rows of the suite that are there: printed, or between the markers of the document that is named."""
    known = read_results(options.output)
    rows = {key: known[key] for key in ROWS if key in known}
    text = suite_markdown(rows)
    if options.table in (None, "-"):
        print(text, flush=True)
    else:
        put_between_markers(text, Path(options.table))
        print(f"wrote the tables of {len(rows)} rows into {options.table}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
