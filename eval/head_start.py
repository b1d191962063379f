"""The start of a head (`echocare_hf.finetuning.head_start`) on people, clips and images that were left out, without any test part.

    python eval/head_start.py linear --data DATA --rows video_timtrack classification_busi
    python eval/head_start.py runs --data DATA --output RUNS --rows video_timtrack --model echocare-tiny     # resumable
    python eval/head_start.py table --output RUNS

`linear` fits the linear model alone to features of training images as they are, and augmented once or more, at every strength, and
measures it on the images as they are. `runs` trains from the start, with one fold left out and others for validation, and `table` gives
what was left out: at the start, after training, by the better of both on validation, and by the rule of `fit`.

Folds are made of the training and validation parts of `--split_seed 0`: of muscle_timtrack each person is one, and the next two people
with a tenth of the images at most are the validation part; of the others five of whole clusters, and the next one is.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from tqdm import tqdm

from echocare_hf.data.labelled import LabelledData, Sample, read_labelled
from echocare_hf.data.splits import join_clusters, split_by_group
from echocare_hf.files import written_beside
from echocare_hf.finetuning import FinetuneArguments, fitting, open_job, parse_arguments, train
from echocare_hf.finetuning.arguments import read_options
from echocare_hf.finetuning.head_start import STRENGTHS, features_of, start_head

ROWS = {
    "video_timtrack": ("video", "muscle_timtrack"),
    "regression_hc18": ("regression", "fetal_head_hc18", "--target", "head_circumference_mm"),
    "classification_pocovid": ("classification", "lung_pocovid"),
    "classification_busi": ("classification", "breast_busi"),
}
PEOPLE = ("video_timtrack",)  # whose folds are people
FOLDS, SHUFFLES = 5, 3


def settings(row: str, options: argparse.Namespace) -> tuple[Any, FinetuneArguments, LabelledData]:
    """Task, arguments and data of a row; of the data what is in no test part."""
    task, folder, *own = ROWS[row]
    line = [task, "--data", str(options.data / folder), "--output", "none", "--split_seed", "0", *own]
    line += ["--model", options.model, "--seed", str(options.seed), "--cpu_minutes", str(options.cpu_minutes)]
    name, arguments = parse_arguments([*line, "--epochs", "1000", "--patience", "0"], __doc__)
    data = read_labelled(arguments.data, name, **read_options(arguments))
    train_part, validation, test = arguments.fractions
    split = split_by_group(data.samples, (train_part, validation, test), 0)
    return name, arguments, replace(data, samples=[data.samples[row] for row in (*split.train, *split.validation)])


def folds_of(samples: Sequence[Sample], people: bool) -> list[int]:
    """The fold of each sample: its person, in alphabetical order, or one of five of whole clusters, balanced as splits are."""
    if people:
        names = sorted({sample.group or sample.name for sample in samples})
        return [names.index(sample.group or sample.name) for sample in samples]
    folds, rest = [FOLDS - 1] * len(samples), list(range(len(samples)))
    for fold in range(FOLDS - 1):
        free = [replace(samples[row], split=None) for row in rest]
        split = split_by_group(free, (1 - 1 / (FOLDS - fold), 0.0, 1 / (FOLDS - fold)), fold)
        for place in split.test:
            folds[rest[place]] = fold
        rest = [rest[place] for place in split.train]
    return folds


def validation_of(fold: int, folds: Sequence[int], people: bool) -> set[int]:
    """The folds that are the validation part where one is left out."""
    if not people:
        return {(fold + 1) % FOLDS}
    small = [one for one in sorted(set(folds)) if one != fold and 10 * folds.count(one) <= len(folds)]
    return set(sorted(small, key=lambda one: (one < fold, one))[:2])


def linear(row: str, options: argparse.Namespace) -> Iterator[str]:
    """Lines of a table: number of augmentations, and the measure at each strength."""
    task, arguments, data = settings(row, options)
    people = row in PEOPLE
    folds = folds_of(data.samples, people)
    parts: list[Any] = ["validation" if one == 0 else "train" for one in folds]  # both are used, in this order
    samples = [replace(sample, split=part) for sample, part in zip(data.samples, parts, strict=True)]
    job = open_job(task, arguments, replace(data, samples=samples))
    model = job.model()
    names = ("train", "validation")
    features = [np.concatenate([features_of(job, model, name) for name in names])]
    for number, name in enumerate(names):
        job.sets[name].seed = options.seed + number
    for epoch in range(max(options.augmented)):
        for name in names:
            job.sets[name].epoch = epoch
        features.append(np.concatenate([features_of(job, model, name, augmented=True) for name in names]))
    items = [job.sets[name].item(place) for name in names for place in range(len(job.sets[name]))]
    labels = np.array([float(item["label"].reshape(-1)[0]) for item in items])
    clusters = np.array(join_clusters([sample for name in names for sample in job.parts[name]], None)[0])
    splits = [
        split
        for seed in range(1 if people else SHUFFLES)
        for split in GroupKFold(
            len(set(clusters)) if people else FOLDS, shuffle=not people, random_state=None if people else seed
        ).split(features[0], labels, clusters)
    ]
    for count in (0, *options.augmented):
        figures = [
            np.mean([_left_out(features[: count + 1], labels, strength, task, *split) for split in splits])
            for strength in STRENGTHS
        ]
        yield f"| {row} | {count} | {' | '.join(f'{figure:.3f}' for figure in figures)} |"


def _left_out(
    features: list[np.ndarray], labels: np.ndarray, strength: float, task: str, known: np.ndarray, out: np.ndarray
) -> float:
    """AUC, or mean absolute error, of the linear model on the images that were left out."""
    images, wanted = np.concatenate([part[known] for part in features]), np.tile(labels[known], len(features))
    mean, deviation = images.mean(0), images.std(0) + 1e-6
    images, new = (images - mean) / deviation, (features[0][out] - mean) / deviation
    if task == "classification":
        classifier = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000).fit(images, wanted)
        shares = classifier.predict_proba(new)
        found = [(labels[out] == kind, shares[:, column]) for column, kind in enumerate(classifier.classes_)]
        return float(np.mean([roc_auc_score(is_it, share) for is_it, share in found if 0 < is_it.sum() < len(out)]))
    centre, spread = wanted.mean(), wanted.std()
    values = Ridge(alpha=1 / strength).fit(images, (wanted - centre) / spread).predict(new) * spread + centre
    return float(np.abs(values - labels[out]).mean())


def run(row: str, options: argparse.Namespace) -> None:
    """Trains with each fold left out in turn, unless that is there."""
    task, arguments, data = settings(row, options)
    people = row in PEOPLE
    folds = folds_of(data.samples, people)
    for fold in tqdm(sorted(set(folds)), desc=row):
        file = options.output / row / Path(options.model).name / f"{options.seed}_{fold}.json"
        if file.is_file():
            continue
        aside = validation_of(fold, folds, people)
        parts = ["test" if one == fold else "validation" if one in aside else "train" for one in folds]
        samples = [replace(sample, split=part) for sample, part in zip(data.samples, parts, strict=True)]  # type: ignore[arg-type]
        job = open_job(task, arguments, replace(data, samples=samples))
        model = job.model()
        record: dict[str, Any] = {"greater_is_better": job.task.greater_is_better, "metric": job.task.best_metric}
        with TemporaryDirectory() as checkpoints:
            start = start_head(job, model)
            trainer = job.trainer(model, Path(checkpoints))
            if start is not None:
                record["start"] = _measured(job, trainer)
            train(trainer)
            record["trained"] = _measured(job, trainer)
            record["kept"] = start is not None and fitting.clearly_better(job, start, trainer)
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(file) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _measured(job: Any, trainer: Any) -> dict[str, dict[str, float]]:
    return {part: trainer.assess(job.sets[part])[0] for part in ("validation", "test")}


def table(output: Path) -> Iterator[str]:
    """Lines of a table: the mean over what was left out of the metric that decides, and of the first mean absolute error."""
    yield "| row, model | metric | folds | start | trained | the better on validation | by the rule |"
    yield "|---|---|---|---|---|---|---|"
    for place in sorted({file.parent for file in output.glob("*/*/*.json")}):
        records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(place.glob("*.json"))]
        metric = records[0]["metric"]
        errors = [name for name in records[0]["trained"]["test"] if name.startswith("mae_")][:1]
        for name in (metric, *errors):
            columns = [chosen(record, metric, name) for record in records]
            means = ["" if column[0] is None else f"{np.mean(column):.3f}" for column in zip(*columns, strict=True)]
            yield f"| {place.parent.name}, {place.name} | {name} | {len(records)} | {' | '.join(means)} |"


def chosen(record: dict[str, Any], metric: str, shown: str) -> tuple[float | None, float, float | None, float | None]:
    """What a metric is on the fold that was left out: at the start, trained, by validation alone, by the rule."""
    trained = record["trained"]["test"][shown]
    if "start" not in record:
        return None, trained, None, None
    start = record["start"]["test"][shown]
    ahead = record["start"]["validation"][metric] - record["trained"]["validation"][metric]
    is_better = ahead > 0 if record["greater_is_better"] else ahead < 0
    return start, trained, start if is_better else trained, start if record["kept"] else trained


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("linear", "runs", "table"))
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--output", type=Path, help="folder of the runs")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--model", default="echocare-tiny", help="as in training/finetune.py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu_minutes", type=float, default=1.0, help="of each training")
    parser.add_argument("--augmented", type=int, nargs="+", default=[1, 2], help="how often each image is augmented")
    options = parser.parse_args(argv)
    for name, needed in (("data", ("linear", "runs")), ("output", ("runs", "table"))):
        value = getattr(options, name)
        if options.action in needed and (value is None or (name == "data" and not value.is_dir())):
            parser.error(f"--{name} names no folder")
    torch.manual_seed(options.seed)
    if options.action == "table":
        print("\n".join(table(options.output)))
    for row in options.rows if options.action != "table" else ():
        if options.action == "runs":
            run(row, options)
        else:
            print("\n".join(linear(row, options)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
