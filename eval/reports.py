"""Report generation against what it must beat: the nearest neighbour on frozen features and the most frequent report, over three seeds.

    python eval/reports.py run --output RUNS --data DATA/lung_pocovid       # resumable: what is there is not made again
    python eval/reports.py table --output RUNS                             # what is done so far, as Markdown, with examples
    python eval/reports.py organs --output RUNS                            # flags of other organs on the written reports, as Markdown

Three sets: phantom exams with template reports in English and in Chinese (two views an exam, see `echocare_hf.reports.phantom_exams`),
and the short texts of a physician on the lung clips of POCOVID-Net (two frames a clip; clips of one source page stay together; their
test part is in no pretraining corpus). The encoder stays as it is. The split is the same for all seeds; the seed is that of weights,
order and augmentation. Every training has a fixed processor time.
"""

import argparse
import csv
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from ablation import call
from echocare_hf.files import written_beside
from echocare_hf.reports.card import examples_text
from echocare_hf.reports.checking import split_sentences
from echocare_hf.reports.other_organs import other_organs
from echocare_hf.reports.pair_images import even_places
from echocare_hf.reports.pairs import read_pairs
from heads import ROOT, cell, parts_of_images
from heads import ROWS as HEADS
from runner.tables import as_table

PHANTOM_SETS = {"phantoms_en": "en", "phantoms_zh": "zh"}
LUNG = "lung_pocovid"
LUNG_ROW = "classification_pocovid"
SETS = (*PHANTOM_SETS, LUNG)
TOKENS = {"phantoms_zh": "characters"}
COLUMNS = ("bleu_1", "bleu_4", "meteor_exact_stem", "rouge_l")
GENERATOR = "generator"
SHOWN_EXAMPLES = 3  # of each kind, of the first seed


def lung_pairs(folder: Path) -> list[dict[str, Any]]:
    """The clips with a physician's text as image-report pairs, two frames each.

    Args:
        folder: with `reports.csv`, `metadata.csv` and `clips.csv`.

    Returns:
        Rows for training/report.py; the image of each by its absolute path. Their split is that of classification_pocovid in
        eval/heads.py, whose test part is in no pretraining corpus; a source page with clips in two parts is in train.

    Raises:
        ValueError: if a table is missing, or an image cannot be read.
    """
    tables = {}
    for name in ("reports", "metadata", "clips"):
        path = folder / f"{name}.csv"
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file; --data names the folder of the lung clips")
        with path.open(newline="", encoding="utf-8-sig") as file:
            tables[name] = list(csv.DictReader(file))
    frames: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in tables["metadata"]:
        frames[row["clip"]].append((int(row["frame"]), row["file_name"]))
    pages = {row["clip"]: row["url"] for row in tables["clips"]}
    parts = parts_of_images(folder.resolve(), HEADS[LUNG_ROW].task)
    rows: list[dict[str, Any]] = []
    for row in tables["reports"]:
        ordered = [name for _, name in sorted(frames[row["clip"]])]
        page = pages.get(row["clip"], "")
        rows.append(
            {
                "name": row["clip"],
                "images": [str((folder / ordered[place]).resolve()) for place in even_places(len(ordered), 2)],
                "report": row["report_md"] or row["report_source"],
                "organ": "lung",
                "group": page if page.startswith("http") else row["clip"],
                "licence": row["licence"],
            }
        )
    of_page: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if unknown := [image for image in row["images"] if image not in parts]:
            raise ValueError(
                f"{unknown[0]}: cannot be read with its class; leave its clip out of {folder / 'reports.csv'}"
            )
        of_page[row["group"]] |= {parts[image] for image in row["images"]}
    for row in rows:
        row["split"], *others = of_page[row["group"]]
        if others:
            row["split"] = "train"
    return rows


def command(name: str, seed: int, output: Path, arguments: argparse.Namespace) -> list[str]:
    """What trains one generator."""
    line = [sys.executable, str(ROOT / "training" / "report.py"), "--output", str(output), "--seed", str(seed)]
    line += ["--model", arguments.model, "--split_seed", "0", "--image_size", str(arguments.image_size)]
    line += ["--epochs", "1000", "--patience", "0", "--bf16", "false"]
    line += ["--cpu_minutes", str(arguments.lung_minutes if name == LUNG else arguments.minutes)]
    line += ["--evaluate_every", str(arguments.evaluate_every * (2 if name == LUNG else 1))]
    if not arguments.train_encoder or name == LUNG:
        line += ["--freeze_encoder", "true"]
    line += ["--max_tokens", "128", "--data", str(arguments.output / "pairs" / name / "pairs.json")]
    return line


def make_pairs(name: str, arguments: argparse.Namespace) -> None:
    """Writes the pairs of a set, unless they are there."""
    from echocare_hf.reports.phantom_exams import write_phantom_exams

    folder = arguments.output / "pairs" / name
    rows = lung_pairs(arguments.data) if name == LUNG else []
    if folder.is_dir():
        if name == LUNG and json.loads((folder / "pairs.json").read_text(encoding="utf-8")) != rows:
            raise ValueError(
                f"{folder}: holds other pairs or another split than {arguments.data} gives; choose another --output"
            )
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    if name in PHANTOM_SETS:
        languages = [PHANTOM_SETS[name]]
        write_phantom_exams(folder, arguments.exams, arguments.exam_seed, languages, arguments.image_size)
        return
    with written_beside(folder) as partial:
        partial.mkdir()
        (partial / "pairs.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


def run_one(name: str, seed: int, arguments: argparse.Namespace) -> str:
    """One training, unless it is there; returns what to print."""
    output = arguments.output / name / str(seed)
    label = f"{name}, seed {seed}"
    if (output / "metrics.json").is_file():
        return f"{label}: is there"
    output.parent.mkdir(parents=True, exist_ok=True)
    if problem := call(command(name, seed, output, arguments), output.with_name(f"{seed}.log")):
        return f"{label}: {problem}"
    record = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    scores = {method: values["score"] for method, values in record["test"].items()}
    return f"{label}: " + ", ".join(f"{method} {score:.3f}" for method, score in scores.items())


def table(output: Path) -> str:
    """Mean and standard deviation over the seeds of the test metrics, copying, flags, and examples, as Markdown."""
    lines: list[str] = []
    for name in SETS:
        files = sorted((output / name).glob("*/metrics.json"))
        if not files:
            continue
        records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        first, tokens = records[0], TOKENS.get(name, "words")
        counts = ", ".join(f"{count} {part}" for part, count in first["samples"].items())
        lines += [
            f"### {name}",
            "",
            f"{counts} reports in {sum(first['groups'].values())} groups; {len(records)} seeds, "
            f"{sum(record['total_seconds'] for record in records) / len(records) / 60:.1f} minutes a run on {first['threads']} thread; "
            f"tokens: {tokens}; rules of findings {first['finding_rules']}.",
            "",
        ]
        titles = [column.replace("_", " ") for column in COLUMNS]
        lines += [f"| method | {' | '.join(titles)} | findings F1 | score |", "|---" * (len(COLUMNS) + 3) + "|"]
        for method in first["test"]:
            values = [record["test"][method] for record in records]
            cells = [cell([value.get(f"{column}_{tokens}") for value in values]) for column in COLUMNS]
            cells += [cell([value.get(column) for value in values]) for column in ("findings_f1", "score")]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        lines += ["", _verdict(records), "", *_copying(records), *_flags(records), ""]
        chosen = [example for kind in ("good", "bad") for example in _of_kind(first["examples"], kind)]
        lines += [f"Examples of the test part, seed {first['arguments']['seed']}:", "", examples_text(chosen)]
    return "\n".join(lines)


def organs_table(output: Path) -> str:
    """How often a written report is flagged for speaking of another organ: under its own organ, where none should be, and under each other
    one of the sets, where all should be; as Markdown."""
    files = {name: output / "pairs" / name / "pairs.json" for name in SETS}
    sets = {name: read_pairs(file).pairs for name, file in files.items() if file.is_file()}
    if not sets:
        raise ValueError(f"{output}: holds no pairs; run them first")
    organs = sorted({pair.organ for pairs in sets.values() for pair in pairs})
    lines = []
    for name, pairs in sets.items():
        for own in sorted({pair.organ for pair in pairs}):
            texts = [
                [pair.report[start:end] for start, end in split_sentences(pair.report)]
                for pair in pairs
                if pair.organ == own
            ]
            flagged = sum(bool(other_organs(sentence, own)) for text in texts for sentence in text)
            shares = [sum(any(other_organs(each, organ) for each in text) for text in texts) for organ in organs]
            cells = [f"{share} of {len(texts)}" for share in shares]
            lines.append([name, own, f"{flagged} of {sum(map(len, texts))}", *cells])
    taken_for = [f"flagged reports, taken for {organ}" for organ in organs]
    return as_table(["reports", "organ", "flagged sentences", *taken_for], lines)


def _of_kind(examples: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The best of the good and the worst of the bad."""
    found = [example for example in examples if example["kind"] == kind]
    return found[:SHOWN_EXAMPLES] if kind == "good" else found[-SHOWN_EXAMPLES:]


def _verdict(records: list[dict[str, Any]]) -> str:
    """In how many runs the generator beats every baseline, on the test part and on the one by which its weights were chosen."""
    wins = {part: sum(_beats_all(record[part]) for record in records) for part in ("test", "validation")}
    chosen = [
        f"{method} {cell([record['validation'][method]['score'] for record in records])}"
        for method in records[0]["validation"]
    ]
    return (
        f"The generator beats every baseline by score in {wins['test']} of {len(records)} runs; on the validation part, by which its "
        f"weights were chosen, in {wins['validation']}: {', '.join(chosen)}."
    )


def _beats_all(methods: dict[str, dict[str, Any]]) -> bool:
    others = [values["score"] for method, values in methods.items() if method != GENERATOR]
    return bool(methods[GENERATOR]["score"] > max(others))


def _copying(records: list[dict[str, Any]]) -> list[str]:
    names = list(records[0]["copying"]["test"][GENERATOR])
    lines = [f"| copying | {' | '.join(name.replace('_', ' ') for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for source in records[0]["copying"]["test"]:
        cells = [cell([record["copying"]["test"][source][name] for record in records]) for name in names]
        lines.append(f"| {source} | {' | '.join(cells)} |")
    return [*lines, ""]


def _flags(records: list[dict[str, Any]]) -> list[str]:
    values = [record["test"][GENERATOR] for record in records]
    if "flagged_sentences" not in values[0]:
        return []
    names = {
        "flagged_sentences": "flagged sentences",
        "flag_precision": "of the flags the sentence was wrong",
        "flag_recall": "of the wrong statements flagged",
        "head_auc": "AUC of the findings head",
    }
    told = [f"{text} {cell([value.get(name) for value in values]) or 'not defined'}" for name, text in names.items()]
    return ["Check against the findings head: " + "; ".join(told) + "."]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "organs"))
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, help="folder of the lung clips; without it only phantom exams are run")
    parser.add_argument("--sets", nargs="+", choices=SETS, help="which ones; all if not given")
    parser.add_argument("--model", default="echocare-tiny", help="as in training/report.py")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--exams", type=int, default=200, help="phantom exams a language")
    parser.add_argument(
        "--exam_seed", type=int, default=0, help="of the phantom exams; another one gives exams never seen"
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="processor time of a training on phantom exams")
    parser.add_argument("--lung_minutes", type=float, default=0.8, help="the same on the lung clips")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--evaluate_every", type=int, default=4, help="epochs; twice as many on the lung clips")
    parser.add_argument(
        "--train_encoder", action="store_true", help="on phantom exams; half as many steps in the same time"
    )
    arguments = parser.parse_args(argv)
    wanted = arguments.sets or (SETS if arguments.data else tuple(PHANTOM_SETS))
    if arguments.action == "run" and LUNG in wanted and arguments.data is None:
        parser.error("--data names no folder of lung clips")
    failed = 0
    try:
        if arguments.action != "run":
            print((table if arguments.action == "table" else organs_table)(arguments.output))
            return 0
        for name in wanted:
            make_pairs(name, arguments)
        for seed in arguments.seeds:
            for name in wanted:
                done = run_one(name, seed, arguments)
                print(done, flush=True)
                failed += "failed" in done
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
