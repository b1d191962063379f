"""The contact sheet of a run: best and worst predictions, and values over the time of sequences."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from echocare_hf.data.labelled import Sample
from echocare_hf.drawing_sheet import contact_sheet

from .tasks import Task
from .tasks.video import Video

# What decides which weights are kept, in words, with its unit.
HEADLINES = {
    "auc": "AUC {:.3f}",
    "dice": "mean Dice {:.3f}",
    "ap75": "average precision {:.3f} at IoU 0.75",
    "mre": "mean distance of the landmarks {:.2f} {unit}",
    "error": "mean absolute error {:.2f} standard deviations of the training values",
    "psnr": "PSNR {:.2f} dB",
    "texture_distance": "texture distance {:.2f} from good images",
}


def draw_predictions(
    task: Task, samples: Sequence[Sample], predictions: Sequence[Any], metrics: dict[str, float], count: int = 8
) -> Any:
    """A contact sheet with the best and the worst predictions, and with up to `count` charts of values that change within a clip."""
    scored = [
        (*task.score(prediction, sample), row)
        for row, (prediction, sample) in enumerate(zip(predictions, samples, strict=True))
    ]
    ranked = sorted(scored, key=lambda entry: (-entry[0], entry[2]))
    half = min(count, max(len(ranked) // 2, 1))
    chosen = [("Best", entry) for entry in ranked[:half]] + [("Worst", entry) for entry in ranked[half:][-half:]]
    charts = list(islice(task.charts(predictions, samples), count)) if isinstance(task, Video) else []
    return contact_sheet(
        [task.draw(predictions[row], samples[row]) for _, (_, _, row) in chosen] + [chart for chart, _ in charts],
        [caption for _, (_, caption, _) in chosen] + [caption for _, caption in charts],
        sections=[section for section, _ in chosen] + ["Over time"] * len(charts),
        title=f"{task.data.task}: validation images",
        subtitle=f"{headline(task.best_metric, metrics)} over {len(samples)} {'clips' if task.data.task == 'video' else 'images'}",
        footer="Predictions on images that the model was not trained on. Not a medical device.",
    )


def headline(metric: str, metrics: dict[str, float]) -> str:
    """A metric in words with its unit, of which landmarks have one or the other: millimetres where all images tell their scale."""
    return HEADLINES.get(metric, f"{metric} {{:.3f}}").format(
        metrics[metric], unit="mm" if "mre_mm" in metrics else "px"
    )
