"""The card (README.md) of a report generator: what it was trained on, what it scored beside the baselines, good and bad examples."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from echocare_hf.finetuning.card import licence_of

from .evaluation import MAIN_TOKENS
from .languages import metric_language
from .results import GENERATOR

_TEXT = """
# {name}

An [EchoCare](https://arxiv.org/abs/2509.11752) report generator: from the images of an ultrasound examination to a **draft** report in
{languages}, trained on {data}.

```python
from transformers import pipeline

write = pipeline("image-text-to-text", model=".", trust_remote_code=True)
print(write(images=["right.png", "left.png"], text="", return_full_text=False))
```

With the package, sentences are checked against the findings head, and carry their confidence:

```python
from PIL import Image

from echocare_hf.reports import load_generator, write_drafts

model, processor, thresholds = load_generator(".")
images = [[Image.open("right.png").convert("RGB"), Image.open("left.png").convert("RGB")]]
inputs = processor(images=images, {condition}return_tensors="pt")
print(write_drafts(model, processor, inputs, thresholds, max_new_tokens={max_tokens})[0].to_text())
```

## What it is not

It is not a medical device. What it writes is a draft for a clinician, who sees the images. It writes what reports usually say where the
images do not tell it otherwise; **measurements in its text are words, not measurements**: images are resized, and their scale is lost.
It was measured on examinations of the same source as those it learned from, and on no others.

## What it was trained on

{counts}. Organs: {organs}. Languages: {spoken}. Licences: {licences}.{problems}

The parts share no group (patient, examination, clip) where the data name one, and no image twice. Weights were chosen on the validation
part by the mean of ROUGE-L and the F1 of findings; {looked}

| | |
|---|---|
| starts from | {model} |
| schedule | {epochs} epochs, {steps} steps, {minutes:.1f} minutes on {hardware}, {precision} |
| input | up to {images} images a report, RGB, {size} pixels; organ and indication as text |
| decoding | {decoding} |
| tokenizer | byte-level BPE, {vocabulary} tokens, trained on the training reports |
| parameters | {parameters:,} |
| findings | {findings} (rules {rules}; a finding that a report does not mention counts as {unmentioned}) |
| seed | {seed} |
| versions | {versions} |

## What it scored

On the {part} part, beside the report of the training examination with the most similar frozen features, and the report that occurs most
often. A generator that does not beat both is worth nothing.

{table}

{flags}

### Copying

{copying}

`metrics.json` has every value, argument and evaluation. One run, one split: figures of small parts scatter.

## Examples, the bad ones too

{examples}
"""

_LOOKED = {
    "test": "the test part was looked at once.",
    "validation": "there was no test part: the figures below are those by which the weights were chosen, and too good.",
}


def write_report_card(folder: Path, record: dict[str, Any], size: tuple[int, int]) -> None:
    """Writes README.md into `folder`.

    Args:
        folder: with the saved model.
        record: what metrics.json holds.
        size: height and width of the input in pixels.
    """
    arguments = record["arguments"]
    part = "test" if record["test"] else "validation"
    data = f"{arguments['phantoms']} phantom exams" if arguments["phantoms"] else arguments["data"]
    metrics = record[part][GENERATOR]
    header = ModelCardData(
        model_name=arguments["output"],
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        base_model=arguments["model"] if "/" in arguments["model"] else None,
        license=licence_of(record["licences"]),
        language=sorted(record["languages"]),
        tags=["ultrasound", "medical-imaging", "echocare", "report-generation", "custom_code"],
        eval_results=[
            EvalResult(
                task_type="image-text-to-text",
                dataset_type=data,
                dataset_name=data,
                dataset_split=part,
                metric_type=name,
                metric_value=value,
            )
            for name, value in metrics.items()
            if value is not None
        ],
    )
    problems = record["problems"]
    shown = "".join(f"\n- {problem}" for problem in problems[:10])
    threads = f"{record['threads']} thread{'s' if record['threads'] > 1 else ''} of a CPU"
    text = _TEXT.format(
        name=arguments["output"],
        languages=" and ".join(record["languages"]),
        data=data,
        condition=f'organ="{record["organs"][0]}", ' if record["organs"] else "",
        max_tokens=arguments["max_tokens"],
        counts=", ".join(f"{count} {name}" for name, count in record["samples"].items() if count) + " reports",
        organs=", ".join(record["organs"]) or "not stated",
        spoken=", ".join(f"{name} ({count})" for name, count in record["languages"].items()),
        licences=", ".join(f"{name} ({count})" for name, count in record["licences"].items()),
        problems=f"\n\nWhat was left out or changed ({len(problems)}):\n{shown}" if problems else "",
        looked=_LOOKED[part],
        model=f"random weights (preset `{arguments['model']}`)"
        if record["random_weights"]
        else f"`{arguments['model']}`",
        epochs=record["epochs"],
        steps=record["steps"],
        minutes=record["training_seconds"] / 60,
        hardware=threads if record["device"] == "CPU" else record["device"],
        precision=record["precision"],
        images=arguments["max_images"],
        size=f"{size[1]}x{size[0]}",
        decoding=_decoding(arguments),
        vocabulary=record["vocabulary"],
        parameters=record["parameters"],
        findings=", ".join(record["findings"]) or "none",
        rules=record["finding_rules"],
        unmentioned=arguments["unmentioned"],
        seed=arguments["seed"],
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        part=part,
        table=metrics_table(record[part], record["languages"]),
        flags=_flags(metrics),
        copying=_table(record["copying"][part]),
        examples=examples_text(record["examples"]),
    )
    (folder / "README.md").write_text(f"---\n{header.to_yaml()}\n---\n{text}", encoding="utf-8")


def metrics_table(methods: dict[str, dict[str, float | None]], languages: Any) -> str:
    """The figures that reports are compared by, a method a row, as Markdown.

    Args:
        methods: metrics by method.
        languages: of the reports.
    """
    names: list[str] = []
    for language in languages:
        tokenizer = MAIN_TOKENS[metric_language(language)]
        text = [*(f"bleu_{order}_{tokenizer}" for order in range(1, 5)), f"meteor_exact_stem_{tokenizer}"]
        wanted = [*text, f"rouge_l_{tokenizer}", "findings_f1", "findings_accuracy"]
        ending = f"_{language}" if len(languages) > 1 else ""
        known = next(iter(methods.values()))
        names += [name if name in known else name + ending for name in wanted if {name, name + ending} & known.keys()]
    names = [*dict.fromkeys(names), "score"]
    return _table({method: {name: values.get(name) for name in names} for method, values in methods.items()})


def examples_text(examples: list[dict[str, Any]]) -> str:
    """Examples as Markdown: what was written, what the model wrote, what contradicts the findings, numbers and other organs in it."""
    lines = []
    for example in examples:
        draft = example["draft"]
        lines += [
            f"**{example['kind']}**, {example['name']}, ROUGE-L {example['rouge_l_f1']:.2f}",
            "",
            f"- written: {_line(example['written'])}",
            f"- draft: {_line(draft['text']) or '(nothing)'}",
            f"- nearest neighbour: {_line(example['nearest_neighbour'])}",
        ]
        doubts = [
            f"“{_line(sentence['text'])}” ({found['finding']} {found['probability']:.2f})"
            for sentence in draft["sentences"]
            for found in sentence["contradictions"]
        ]
        numbers = [number for sentence in draft["sentences"] for number in sentence["unsupported_numbers"]]
        lines += [f"- flagged: {'; '.join(doubts)}"] if doubts else []
        lines += [f"- numbers that nobody measured: {'; '.join(numbers)}"] if numbers else []
        others = [name for sentence in draft["sentences"] for name in sentence.get("other_organs", [])]
        lines += [f"- other organs: {'; '.join(others)}"] if others else []
        lines.append("")
    return "\n".join(lines)


def _decoding(arguments: dict[str, Any]) -> str:
    """How the reports of the tables were written."""
    if arguments["num_beams"] > 1:
        return f"beam search, {arguments['num_beams']} beams"
    if arguments["candidates"] > 1:
        return f"of {arguments['candidates']} drawn texts the one that the others and the findings head agree with (`write_drafts`)"
    return "the most probable token"


def _flags(metrics: dict[str, float | None]) -> str:
    if "flagged_sentences" not in metrics:
        return "No findings head: sentences are not checked."
    share, precision, recall = (metrics[name] for name in ("flagged_sentences", "flag_precision", "flag_recall"))
    parts = [f"Flagged sentences: {_shown(share)}"]
    parts.append(f"share of the flags where the sentence was wrong: {_shown(precision)}")
    parts.append(f"share of the wrong statements that were flagged: {_shown(recall)}")
    return "; ".join(parts) + f". Area under the curve of the findings head: {_shown(metrics.get('head_auc'))}."


def _table(rows: dict[str, dict[str, float | None]]) -> str:
    names = list(dict.fromkeys(name for values in rows.values() for name in values))
    lines = [["", *(name.replace("_", " ") for name in names)], ["---"] * (1 + len(names))]
    lines += [[method, *(_shown(values.get(name)) for name in names)] for method, values in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _line(text: str) -> str:
    return " / ".join(part for part in text.splitlines() if part).replace("|", "\\|")


__all__ = ["examples_text", "metrics_table", "write_report_card"]
