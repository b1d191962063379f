"""What is measured: a benchmark of eval/tasks, or a row of the proxy suite."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import yaml

from echocare_hf.data.labelled import LabelledData
from echocare_hf.finetuning import FinetuneArguments
from echocare_hf.reports.arguments import ReportArguments
from tasks import TASKS, ULTRABENCH

from .headlines import REMARKS, Headline, benchmark_headlines

Arguments = FinetuneArguments | ReportArguments
"""Of fine-tuning, or of the training of a report generator."""


@dataclass(frozen=True)
class Subject:
    """One data set and task.

    Attributes:
        key: name of its folder of results.
        task: the task of fine-tuning that trains on it, or "report".
        title: what a table is called.
        metrics: folders in eval/metrics that are measured beside the task's own metrics.
        headlines: what the tables show, the metric that models are compared by first.
        read: reads the data that `arguments.data` names.
        check: what differs from the paper's counts, in sentences.
        split: how the parts come about.
        floors: methods that learn nothing or next to nothing, measured beside the models.
        paper: what the paper states, by its own name.
        remarks: what a reader of the figures must know.
        options: recipe options of all models.
        scratch: further ones of models with random weights.
    """

    key: str
    task: str
    title: str
    metrics: tuple[str, ...]
    headlines: tuple[Headline, ...]
    read: Callable[[Arguments], LabelledData] = field(repr=False)
    check: Callable[[LabelledData], tuple[str, ...]] = field(repr=False)
    split: str
    floors: tuple[str, ...]
    paper: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()


FLOORS = {
    "classification": ("pixels",),
    "video": ("pixels", "mean"),
    "regression": ("mean",),
    "enhancement": ("filters",),
    "report": ("retrieval", "frequent", "frequent_organ"),
}
"""Floors of a task; which of them serve depends on the labels, see `floors_of`."""


def floors_of(task: str, data: LabelledData) -> tuple[str, ...]:
    """The floors that can be measured on these data: a mean where values are measured, pixels where there is one class an image, filters
    where better images are known, the most frequent report of the organ where there are several."""
    fitting = {
        "retrieval": True,
        "frequent": True,
        "frequent_organ": len({getattr(sample, "organ", "") for sample in data.samples}) > 1,
        "mean": bool(data.target_names),
        "pixels": not data.target_names and not data.multi_label,
        "filters": not data.unpaired,
    }
    return tuple(name for name in FLOORS.get(task, ()) if fitting[name])


def benchmark(key: str, reader_options: Mapping[str, Any]) -> Subject:
    """A benchmark of eval/tasks.

    Args:
        key: its key.
        reader_options: of its own reader, such as `fold`.

    Raises:
        ValueError: for a key that there is not, with those that are spelled like it.
    """
    if own := {"folder", "strict"} & set(reader_options):
        raise ValueError(f"--reader {own.pop()}: is no option of a reader; leave it out")
    known = {**TASKS, **ULTRABENCH}
    if key not in known:
        near = get_close_matches(key.lower(), known, n=3, cutoff=0.4)
        advice = f"did you mean {' or '.join(near)}?" if near else "choose another"
        raise ValueError(f"--task {key}: there is no such benchmark; {advice} There are {', '.join(known)}")
    task = known[key]

    def read(arguments: Arguments) -> LabelledData:
        try:
            return task.read(arguments.data, strict=arguments.strict, **reader_options)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise ValueError(f"--reader: {key} takes no such option ({error})") from error

    return Subject(
        key=key,
        task=task.task,
        title=key,
        metrics=task.metrics,
        headlines=benchmark_headlines(task),
        read=read,
        check=task.check,
        split=task.split,
        floors=FLOORS.get(task.task, ()),
        paper=task.figures,
        remarks=REMARKS.get(key, ()),
    )


def reader_values(pairs: Sequence[str]) -> dict[str, Any]:
    """Options of a reader from `name=value`; values as in YAML, several ones separated by commas.

    Raises:
        ValueError: for text without a `=`, a value that is none in YAML, and a name that is given twice.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--reader {pair}: write name=value, such as fold=2")
        if name in values:
            raise ValueError(f"--reader {pair}: {name} is given twice; give it once")
        values[name] = tuple(text.split(",")) if "," in text or name == "views" else _value(pair, text)
    return values


def _value(pair: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--reader {pair}: {text!r} is no value; write name=value, such as fold=2") from error
