"""The proxy suite: real images at hand in the place of the benchmarks, one row for each type of task, the same budget for each model."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from echocare_hf.data.labelled import LabelledData, read_labelled
from echocare_hf.files import written_beside
from echocare_hf.finetuning import FinetuneArguments
from echocare_hf.finetuning.arguments import read_options
from echocare_hf.reports.arguments import ReportArguments
from echocare_hf.reports.pairs import read_pairs
from heads import ROWS as HEADS
from heads import parts_of_images
from reports import lung_pairs

from .headlines import Headline, direction
from .subjects import FLOORS, Arguments, Subject
from .tables import as_table, cell, markdown, p_text

CNN = "timm:resnet18"
BUDGET = ("--epochs", "1000", "--patience", "0")  # the processor time ends a run
BEGIN, END = "<!-- proxy suite: begin, made by eval/run.py --suite proxy --table -->", "<!-- proxy suite: end -->"


@dataclass(frozen=True)
class ProxyRow:
    """A row of the suite.

    Attributes:
        task: of fine-tuning, or "report".
        data: folder below that of the data sets.
        stands_for: the benchmark that it stands in for, or its type of task.
        headlines: metrics of the table.
        metrics: folders in eval/metrics.
        like: the row of eval/heads.py whose options it takes.
        split_of: the row of eval/heads.py whose split it takes, so that its test part is in no pretraining corpus either; a row that is
            there itself has that split anyway.
        options: further ones of all models.
        scratch: further ones of models with random weights.
        remarks: what a reader must know.
    """

    task: str
    data: str
    stands_for: str
    headlines: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    like: str | None = None
    split_of: str | None = None
    options: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


_AREAS = ("dice", "normalized_surface_dice")
_BOXES = ("ap50_rectangle", "ap75_rectangle")
ROWS = {
    "classification_busi": ProxyRow(
        "classification",
        "breast_busi",
        "busbra",
        ("macro_f1", "accuracy", "auc"),
        ("macro_f1",),
        "classification_busi",
    ),
    "segmentation_busi": ProxyRow(
        "segmentation", "breast_busi", "ddti", ("dice", "nsd_2px"), _AREAS, "segmentation_busi"
    ),
    "detection_busi": ProxyRow(
        "detection",
        "breast_busi",
        "thyroid_detection",
        _BOXES,
        ("oriented_average_precision",),
        "detection_hc18",
        "classification_busi",
    ),
    "segmentation_hc18": ProxyRow(
        "segmentation", "fetal_head_hc18", "abdomenus", ("dice", "nsd_2px"), _AREAS, "segmentation_hc18"
    ),
    "detection_hc18": ProxyRow(
        "detection",
        "fetal_head_hc18",
        "focus",
        (*_BOXES, "circumference_mae_mm"),
        ("oriented_average_precision",),
        "detection_hc18",
    ),
    "keypoints_hc18": ProxyRow(
        "keypoints",
        "fetal_head_hc18",
        "brain_landmarks",
        ("mre_mm", "mse_mm2", "sdr_2mm", "sdr_4mm", "sdr_10mm"),
        ("landmark_error",),
        "keypoints_hc18",
    ),
    "regression_hc18": ProxyRow(
        "regression",
        "fetal_head_hc18",
        "camus, of an image",
        ("mae", "standard_error", "correlation", "bias"),
        ("regression_error",),
        split_of="detection_hc18",
        options=("--target", "head_circumference_mm"),
        remarks=(
            "The network sees pixels and not how many millimetres they have, which differs from image to image.",
        ),
    ),
    "video_pocovid": ProxyRow(
        "video",
        "lung_pocovid",
        "sysu_fll_ceus",
        ("macro_f1", "accuracy", "auc"),
        ("macro_f1",),
        split_of="classification_pocovid",
        options=("--label", "label"),
        remarks=(
            "**Confounded**: the classes come from different scanners and clinics, and raw pixels tell them apart. It proves nothing "
            "about a classifier. Split by clip.",
        ),
    ),
    "video_timtrack": ProxyRow("video", "muscle_timtrack", "camus", ("mae_height_px_orig",), (), "video_timtrack"),
    "segmentation_usgra": ProxyRow(
        "segmentation", "nerve_vessel_usgra", "musv", ("dice", "nsd_2px"), _AREAS, "segmentation_usgra"
    ),
    "report_pocovid": ProxyRow(
        "report",
        "lung_pocovid",
        "usreport, with short texts on clips, two frames each",
        ("findings_f1", "rouge_l_words", "bleu_1_words", "meteor_exact_stem_words"),
        ("report_text", "clinical_findings"),
        options=("--image_size", "128", "--freeze_encoder", "true", "--max_tokens", "128", "--evaluate_every", "8"),
        scratch=("--freeze_encoder", "false"),
        remarks=(
            "A test part of few short texts: differences between models are mostly chance. Pretrained encoders do not learn. Findings are "
            "read by the package's rule file, METEOR has no synonyms, and of several drawn texts the one that agrees most is the report.",
        ),
    ),
    "enhancement_busi": ProxyRow(
        "enhancement",
        "breast_busi",
        "usenhance, with pairs that are made by degrading",
        ("psnr", "ssim", "lncc", "niqe"),
        ("psnr_ssim", "lncc", "niqe", "frechet_distance"),
        "enhancement_busi",
    ),
}
"""Every row by its key."""


def proxy_subject(key: str) -> Subject:
    """A row as a subject, with the options of its row in eval/heads.py."""
    row = ROWS[key]
    like = HEADS[row.like] if row.like is not None else None

    def read(arguments: Arguments) -> LabelledData:
        if isinstance(arguments, ReportArguments):
            return _lung_reports(Path(arguments.data))
        data = read_labelled(arguments.data, row.task, **read_options(arguments))  # type: ignore[arg-type]
        return data if row.split_of is None else _split_like(data, HEADS[row.split_of].task, arguments)

    return Subject(
        key=key,
        task=row.task,
        title=f"{key}: {row.data}, in the place of {row.stands_for}",
        metrics=row.metrics,
        headlines=tuple(Headline(metric) for metric in row.headlines),
        read=read,
        check=lambda data: (),
        split="by group (patient, clip, sequence) where the data name one, else by looks, seed 0",
        floors=FLOORS.get(row.task, ()),
        remarks=row.remarks,
        options=(*BUDGET, *(like.options if like else ()), *row.options),
        scratch=(*(like.scratch if like else ()), *row.scratch),
    )


def _lung_reports(folder: Path) -> LabelledData:
    """The clips with a physician's text as pairs, as eval/reports.py has them."""
    with TemporaryDirectory() as scratch:
        table = Path(scratch) / "pairs.json"
        table.write_text(json.dumps(lung_pairs(folder), ensure_ascii=False), encoding="utf-8")
        found = read_pairs(table)
    return LabelledData(str(folder), "report", found.pairs, problems=found.problems)  # type: ignore[arg-type]


def _split_like(data: LabelledData, task: str, arguments: FinetuneArguments) -> LabelledData:
    """The parts that the same images have when they are read for another task, stated by the samples.

    Raises:
        ValueError: if a sample has images of two parts.
    """
    part_of = parts_of_images(Path(arguments.data), task, arguments.fractions, arguments.split_seed or 0)
    samples = []
    for sample in data.samples:
        stated = {part_of[str(image)] for image in sample.images if str(image) in part_of}
        if len(stated) > 1:
            raise ValueError(f"{sample.name}: its images are in {' and '.join(sorted(stated))} of {task}")
        samples.append(replace(sample, split=next(iter(stated), "train")))
    return replace(data, samples=tuple(samples))


def suite_models(simmim: str | None) -> list[str]:
    """The models of the suite: the shipped checkpoint, its architecture from random weights, a CNN, and a Swin of equal size that was
    pretrained by SimMIM, where its folder is given."""
    models = ["echocare-tiny", "tiny", CNN]
    return [*models, f"SimMIM Swin={simmim}"] if simmim else models


def suite_markdown(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """All rows that there are, for docs/results.md: one table of the first metric of each, then each row.

    Args:
        entries: of results.json, by key.
    """
    rows = {key: entries[key] for key in ROWS if key in entries}
    names = list(dict.fromkeys(found["name"] for entry in rows.values() for found in entry["contenders"]))
    lines = []
    for key, entry in rows.items():
        head = entry["headlines"][0]
        values = {found["name"]: cell(found["test"].get(head["metric"])) for found in entry["contenders"]}
        lines.append(
            [key, f"{head['metric']} ({direction(head['metric'])})", *(values.get(name, "") for name in names)]
        )
    table = as_table(["row", "metric", *names], lines)
    origins = [each for entry in rows.values() for found in entry["provenance"].values() for each in found]
    spans = {each["cpu_minutes"] for each in origins if each.get("cpu_minutes") is not None}
    minutes = spans.pop() if len(spans) == 1 else None
    budget = "a row's budget" if minutes is None else f"{minutes:g} minute{'s' * (minutes != 1)} of processor time"
    told = (
        f"`python eval/run.py --suite proxy`: every model has {budget} for training in each run. One split of each data "
        "set, whose test part is in no pretraining corpus of echocare-tiny; the seed is that of weights, order and augmentation. "
        "Models named with random weights had no pretraining. Floors learn nothing or are a linear model of 32x32 pixels."
    )
    parts = [markdown(key, entry, level=4, details=False) for key, entry in rows.items()]
    return "\n\n".join([told, _where(origins), table, _differences(rows), *parts])


def _differences(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The first model against each other one that learns, in the first metric of each row."""
    first = next(iter(rows.values()))["contenders"][0]["name"]
    compared: list[tuple[str, str, dict[str, str]]] = []
    for key, entry in rows.items():
        metric = entry["headlines"][0]["metric"]
        cases = {
            each["other"]: p_text(each["p_holm"]) for each in entry["bootstrap_over_cases"] if each["metric"] == metric
        }
        cells = {}
        for each in entry["tests_over_trials"]:
            if each["metric"] == metric:
                other, seeds = each["other"], p_text(each["t_test"]["p_holm"])
                cells[other] = f"{each['difference']:+.4f} ({seeds}; {cases.get(other, '-')})"
        compared.append((key, metric, cells))
    others = list(dict.fromkeys(other for _, _, cells in compared for other in cells))
    table = as_table(
        ["row", "metric", *(f"against {other}" for other in others)],
        [[key, metric, *(cells.get(other, "") for other in others)] for key, metric, cells in compared],
    )
    return (
        f"{first} less each other model, in brackets p after Holm's correction: t-test over seeds; bootstrap over patients of the test "
        f"part (- where the metric is none of single cases).\n\n{table}"
    )


def _where(origins: Sequence[Mapping[str, Any]]) -> str:
    days = sorted(each["finished"][:10] for each in origins)
    machine, versions = origins[0]["machine"], origins[0]["versions"]
    hardware = machine["accelerator"] or f"{machine['threads']} thread(s) of {machine['processor']}"
    precision = next((each["precision"] for each in origins if "precision" in each), "fp32")
    return f"{days[0]} to {days[-1]}, {hardware}, {precision}, torch {versions['torch']}, transformers {versions['transformers']}."


def put_between_markers(text: str, document: Path) -> None:
    """Replaces what stands between the markers of a Markdown document.

    Raises:
        ValueError: if the document or its markers are not there.
    """
    if not document.is_file():
        raise ValueError(f"{document}: there is no such document to write the tables into")
    whole = document.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(whole)) != 1:
        raise ValueError(
            f"{document}: was expected to hold these two lines once, between which the tables stand: {BEGIN} and {END}"
        )
    with written_beside(document) as partial:
        partial.write_text(pattern.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", whole), encoding="utf-8")
