"""Which metrics the tables show, which way is better, and what the paper has beside them."""

from dataclasses import dataclass

from tasks import BenchmarkTask

LOWER = (
    *(
        "mae",
        "mre",
        "mse",
        "rmse",
        "error",
        "niqe",
        "brisque",
        "piqe",
        "frechet",
        "ece",
        "brier",
        "loss",
        "texture_distance",
    ),
    *("standard_error", "mean_absolute_error", "ctr_mae", "circumference_mae"),
)
"""Beginnings of the names of metrics of which less is better."""


@dataclass(frozen=True)
class Headline:
    """A metric in a table.

    Attributes:
        metric: its name in metrics.json.
        paper: the paper's figure for EchoCare in the unit of the metric; None where it has none that can be compared.
        name: the paper's own name for that figure.
    """

    metric: str
    paper: float | None = None
    name: str = ""


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric is better."""
    return metric.startswith(LOWER) or "_mae_" in metric


def direction(metric: str) -> str:
    """Which values of a metric are better, as a table says it."""
    if metric.startswith("bias"):
        return "0 is best"
    return f"{'lower' if lower_is_better(metric) else 'higher'} is better"


_BY_KEY: dict[str, tuple[tuple[str, str], ...]] = {
    # metric -> name in the benchmark's figures
    "thyroid_cineclip": (
        ("auc", "auc"),
        ("f1_validation_cutoff", "f1"),
        ("sensitivity_validation_cutoff", ""),
        ("specificity_validation_cutoff", ""),
        ("sensitivity_test_cutoff_optimistic", ""),
        ("specificity_test_cutoff_optimistic", ""),
    ),
    "ovarian": (
        ("auc", ""),
        ("sensitivity_validation_cutoff", ""),
        ("specificity_validation_cutoff", ""),
        ("sensitivity_test_cutoff_optimistic", ""),
        ("specificity_test_cutoff_optimistic", ""),
    ),
    "busbra": (("macro_f1", "macro_f1"), ("accuracy", "accuracy")),
    "sysu_fll_ceus": (("macro_f1", "macro_f1"), ("accuracy", "accuracy")),
    "focus": (
        ("ap50_rectangle", ""),
        ("ap50_rectangle_cardiac", "ap_cardiac"),
        ("ap50_rectangle_thorax", "ap_thorax"),
        ("ctr_accuracy", "ctr_accuracy"),
    ),
    "thyroid_detection": (("ap50_rectangle", ""), ("ap75_rectangle", ""), ("ap_rectangle", "")),
    "brain_landmarks": (
        ("mre_px", ""),
        ("mse_px2", ""),
        ("sdr_2px", "sdr_2px"),
        ("sdr_4px", "sdr_4px"),
        ("sdr_10px", "sdr_10px"),
    ),
    "camus": (("mae", "mae"), ("standard_error", ""), ("correlation", ""), ("bias", "")),
    "usenhance": (
        ("niqe", "niqe"),
        ("brisque", "brisque"),
        ("piqe", "piqe"),
        ("frechet_distance_echocare-tiny-pooled", ""),  # the paper's FID has Inception's features
        ("psnr", ""),
        ("ssim", ""),
        ("lncc", ""),
    ),
    "usreport": (
        ("bleu_4_characters", ""),
        ("findings_f1", ""),
        ("findings_accuracy", ""),
        ("findings_precision", ""),
        ("findings_recall", ""),
        ("bleu_1_characters", ""),
        ("bleu_2_characters", ""),
        ("bleu_3_characters", ""),
        ("meteor_exact_stem_characters", ""),
        ("rouge_l_characters", ""),
    ),
}
_BY_TASK: dict[str, tuple[tuple[str, str], ...]] = {
    "segmentation": (("dice", ""), ("nsd_2px", "")),
    "classification": (("macro_f1", ""), ("accuracy", ""), ("auc", "")),
}
_IN_UNITS = ("mae", "niqe", "brisque", "piqe")  # figures that are no percentages

REMARKS: dict[str, tuple[str, ...]] = {
    "focus": (
        "The paper states neither the overlap from which its AP counts an object as found nor the formula of its CTR accuracy.",
    ),
    "brain_landmarks": (
        "What the paper calls MSE is no mean of squares in pixels: its SDR at 10 pixels alone forces at least 19.8 square pixels.",
    ),
    "ovarian": ("The figures of the press texts are of other, private data.",),
    "thyroid_detection": ("The figure of the press texts is of other, private data, and not an AP.",),
    "usenhance": (
        "The paper's FID has Inception's features: the Frechet distance of other features cannot stand beside it. NIQE, BRISQUE and PIQE "
        "depend on the size of the images, which the paper does not state.",
    ),
    "usreport": (
        "The paper states gains over SimMIM alone, in points, and neither the tokens nor where findings come from. Here tokens "
        "are characters (jieba's words: all metrics below), findings are read by the package's rule file, and METEOR has no synonyms.",
    ),
}
"""What a reader of a benchmark's figures must know, by its key."""


def benchmark_headlines(task: BenchmarkTask) -> tuple[Headline, ...]:
    """What the table of a benchmark shows."""
    chosen = _BY_KEY.get(task.key) or _BY_TASK[task.task]
    return tuple(
        Headline(metric, _scaled(task.figures[name], name) if name else None, name) for metric, name in chosen
    )


def _scaled(figure: float, name: str) -> float:
    """A figure of the paper as metrics have it: 0 to 1 rather than per cent."""
    return figure if name in _IN_UNITS else figure / 100
