"""What the cards share: the templates beside this file, and parts that are worked out from what was measured."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).with_name("cards")
"""Markdown with braces for what is filled in; `hub_cards/` of the repository shows the same files."""

WATTS_PER_CORE, OVERHEAD, GRAMS_PER_KWH = 12.0, 1.56, 475.0
"""Watts of a busy core of any CPU, how much more a data centre draws than its computers, and grams of CO2 equivalent of a kilowatt hour.

Source: what Green Algorithms (Lannelongue et al. 2021, doi:10.1002/advs.202100707) takes where nothing is known of machine and place, in
data/latest of github.com/GreenAlgorithms/green-algorithms-tool: TDP_cpu.csv ("Any"), defaults_PUE.csv ("Unknown"; Uptime Institute's
survey of 2024) and CI_aggregated.csv ("WORLD"; International Energy Agency, 2019). Its term for memory is left out: how much a machine has
is not recorded.
"""

_Z = 1.959964  # of a 95 % interval

CITATION = """\
The paper: [arXiv 2509.11752](https://arxiv.org/abs/2509.11752).

```bibtex
@misc{echocare2025,
  author        = {Zhang, Hongyuan and Wu, Yuheng and Zhao, Mingyang and others},
  year          = {2025},
  title         = {A Fully Open and Generalizable Foundation Model for Ultrasound Clinical Applications},
  eprint        = {2509.11752},
  archivePrefix = {arXiv},
  url           = {https://arxiv.org/abs/2509.11752}
}
```"""


def fill(template: str, **values: Any) -> str:
    """A template with its braces filled.

    Args:
        template: name of a file in `TEMPLATES`.
        values: one for each brace.
    """
    return (TEMPLATES / template).read_text(encoding="utf-8").format(**values)


def carbon(seconds: float, threads: int, device: str) -> tuple[str, dict[str, Any] | None]:
    """What a training cost in greenhouse gas, estimated of its time.

    Args:
        seconds: that it took.
        threads: of the CPU that it used.
        device: "CPU", or the name of a GPU.

    Returns:
        A paragraph, and the entry `co2_eq_emissions` of the card's metadata; None for a GPU, whose power nobody measured.
    """
    if device != "CPU":
        return (
            f"It ran for {seconds / 3600:.2f} hours on {device}. The power it drew was not measured, so no emission is stated.",
            None,
        )
    hours = seconds / 3600
    grams = hours * threads * WATTS_PER_CORE * OVERHEAD / 1000 * GRAMS_PER_KWH
    many = f"{threads} core{'s' if threads > 1 else ''}"
    text = (
        f"An estimate, not a measurement: {hours:.2f} hours x {many} x {WATTS_PER_CORE:g} W x {OVERHEAD:g} / 1000 x "
        f"{GRAMS_PER_KWH:g} g of CO2 equivalent per kWh = **{grams:.2g} g**. The hours were measured, and all cores are taken to be busy "
        "throughout. The rest is what [Green Algorithms](https://doi.org/10.1002/advs.202100707) takes where machine and place are not "
        f"known: {WATTS_PER_CORE:g} W a core, {OVERHEAD:g} times that with what the data centre needs, the world's average electricity. "
        "Memory, and earlier and failed runs, are not in it."
    )
    entry = {
        "emissions": float(f"{grams:.3g}"),
        "source": "estimate with the defaults of Green Algorithms: hours x cores x "
        f"{WATTS_PER_CORE:g} W x {OVERHEAD:g} x {GRAMS_PER_KWH:g} g/kWh",
        "hardware_used": f"{many} of a CPU",
    }
    return text, entry


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` independent cases (Wilson 1927).

    Args:
        share: 0 to 1.
        count: at least 1.

    Returns:
        Its ends, 0 to 1.
    """
    if not 0 <= share <= 1 or count < 1:
        raise ValueError(f"a share of cases is 0 to 1 of at least one case, got {share} of {count}")
    square = _Z**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def interval_text(
    name: str, value: float | None, count: int | None, measured: Mapping[str, Any] | None, shares: Iterable[str]
) -> str:
    """The 95 % interval of a figure as text, "" where none is known.

    Args:
        name: of the metric.
        value: of the metric.
        count: cases that were measured, None if that is not known.
        measured: intervals that the run worked out itself, `[low, high]` by metric.
        shares: metrics that are a share of cases which were right: theirs follows from the count.
    """
    if measured and measured.get(name):
        low, high = measured[name]
    elif value is not None and count and name in shares:
        low, high = wilson_interval(value, count)
    else:
        return ""
    return f"{low:.3g} to {high:.3g}"


def preprocessing(processor: Mapping[str, Any]) -> str:
    """What an image processor does to an image, step by step, from preprocessor_config.json."""
    size = processor.get("size") or {}
    steps = ["RGB; grey images are repeated to three channels"] if processor.get("do_convert_rgb") else []
    if processor.get("do_resize"):
        how = {
            "squash": "each side resized on its own, the aspect ratio is not kept, nothing is cropped",
            "pad": "the aspect ratio kept, centred on black",
        }[processor.get("resize_mode", "squash")]
        resampling = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic"}.get(
            int(processor.get("resample", 2)), "other"
        )
        steps.append(f"resized to {size['width']}x{size['height']} pixels (width x height), {resampling}: {how}")
    if processor.get("do_rescale"):
        steps.append(f"values times {processor['rescale_factor']:.8g}, which brings 0 to 255 to 0 to 1")
    if processor.get("do_normalize"):
        steps.append(
            f"minus the mean {processor.get('image_mean')}, divided by the standard deviation {processor.get('image_std')}"
        )
    else:
        steps.append("**no mean and standard deviation** are taken off")
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    head = list(columns)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


__all__ = [
    "CITATION",
    "GRAMS_PER_KWH",
    "OVERHEAD",
    "TEMPLATES",
    "WATTS_PER_CORE",
    "carbon",
    "fill",
    "interval_text",
    "preprocessing",
    "table",
    "wilson_interval",
]
