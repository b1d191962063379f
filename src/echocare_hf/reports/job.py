"""A training run from its arguments: pairs read, checked and split, and the generator that they are for."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed

from echocare_hf.data.splits import share_of, split_by_group
from echocare_hf.finetuning.models import PRESETS
from echocare_hf.finetuning.prepared import PreparedData

from .arguments import ReportArguments
from .generator import open_generator
from .pairs import ReportData, ReportPair, read_pairs
from .phantom_exams import write_phantom_exams
from .task import ReportTask, pair_findings

PARTS = ("train", "validation", "test")


@dataclass
class ReportJob:
    """What a run knows before it trains.

    Attributes:
        arguments: of the run.
        data: what was read, with all problems.
        parts: the pairs of train, validation and test; no group is in two of them.
        sets: the same as tensors.
        task: of fine-tuning.
        model, processor: the generator.
        is_random: whether the encoder starts from random weights.
        is_trained: whether it was one before, with a findings head that has learned.
    """

    arguments: ReportArguments
    data: ReportData
    parts: dict[str, list[ReportPair]]
    sets: dict[str, PreparedData]
    task: ReportTask
    model: Any
    processor: Any
    is_random: bool
    is_trained: bool = False

    def targets(self, part: str) -> np.ndarray:
        """`(pairs, findings)`: 1 present, 0 absent, -1 unknown."""
        rows = [self.task.targets(pair) for pair in self.parts[part]]
        return np.array(rows, dtype=int).reshape(len(rows), len(self.task.findings))


def open_report_job(arguments: ReportArguments, work: Path, data: ReportData | None = None) -> ReportJob:
    """Reads, checks and splits the pairs, makes the generator, and seeds all random numbers.

    Args:
        arguments: of the run.
        work: folder of the unfinished run, where phantom exams are written to.
        data: what was read already, such as a benchmark by its own reader; None to read what the arguments name.

    Raises:
        ValueError: for data or arguments that do not serve, in one line.
    """
    set_seed(arguments.seed)
    if data is None:
        data = _data(arguments, work)
        print(data.summary(), flush=True)
    seed = arguments.seed if arguments.split_seed is None else arguments.split_seed
    # The findings of a report are balanced over the parts like classes.
    names = sorted({name for pair in data.pairs for name, label in pair_findings(pair).items() if label == "present"})
    labelled = [
        replace(pair, label=tuple(int(pair_findings(pair).get(name) == "present") for name in names) or None)
        for pair in data.pairs
    ]
    train, validation, test = arguments.fractions
    split = split_by_group(labelled, (train, validation, test), seed)
    print(split.report(), flush=True)
    parts = {name: [data.pairs[index] for index in getattr(split, name)] for name in PARTS}
    for name in ("train", "validation"):
        if not parts[name]:
            raise ValueError(f"{data.source}: has no {name} part; give it a share with --fractions")
    if arguments.train_share < 1:
        taken = share_of([labelled[row] for row in split.train], arguments.train_share, arguments.seed)
        chosen = {pair.name for pair in taken}
        print(f"{len(chosen)} of {len(parts['train'])} training reports, as --train_share says", flush=True)
        parts["train"] = [pair for pair in parts["train"] if pair.name in chosen]
    model, processor, is_trained = open_generator(arguments, parts["train"])
    data, parts["train"] = _learnable(data, parts["train"], processor, arguments)
    task = ReportTask(data, processor, arguments, model.config.findings or [])
    sets = {
        name: PreparedData(task, pairs, arguments.seed if name == "train" else None).prepare_all(name)
        for name, pairs in parts.items()
    }
    return ReportJob(arguments, data, parts, sets, task, model, processor, arguments.model in PRESETS, is_trained)


def _data(arguments: ReportArguments, work: Path) -> ReportData:
    if arguments.phantoms:
        folder = work / "phantoms"
        if not folder.is_dir():
            size = arguments.image_size or 128
            write_phantom_exams(folder, arguments.phantoms, arguments.seed, arguments.languages, size)
        return replace(read_pairs(folder / "pairs.json"), source=f"{arguments.phantoms} phantom exams")
    return read_pairs(
        arguments.data,
        images=arguments.images,
        columns=arguments.column_names(),
        organ=arguments.organ,
        language=arguments.language,
        strict=arguments.strict,
    )


def _learnable(
    data: ReportData, training: list[ReportPair], processor: Any, arguments: ReportArguments
) -> tuple[ReportData, list[ReportPair]]:
    """The training pairs whose reports fit, and the data with the others among its problems.

    A report that is cut in the middle would teach to end there.

    Raises:
        ValueError: if one does not fit and `--strict` is given, or none fits.
    """
    kept, problems = [], []
    tokenizer = processor.tokenizer
    for pair in training:
        ids = tokenizer(pair.report, add_special_tokens=False)["input_ids"]
        length = len(ids) + 1  # the end token
        if length > arguments.max_tokens:
            problems.append(
                f"{pair.name}: its report has {length} tokens, --max_tokens is {arguments.max_tokens}; give --max_tokens {length} or "
                "shorten it (not learned from)"
            )
            continue
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            problems.append(
                f"{pair.name}: its report holds characters that the tokenizer of {arguments.model} does not know"
            )
        kept.append(pair)
    if problems and (arguments.strict or not kept):
        raise ValueError(f"{data.source}: {problems[0]}")
    for problem in problems:
        print(f"problem: {problem}", flush=True)
    return replace(data, problems=(*data.problems, *problems)), kept


__all__ = ["PARTS", "ReportJob", "open_report_job"]
