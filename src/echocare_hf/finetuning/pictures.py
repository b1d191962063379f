"""The contact sheet of a run: best and worst predictions."""

from collections.abc import Sequence
from typing import Any

from echocare_hf.data.labelled import Sample
from echocare_hf.drawing_sheet import contact_sheet

from .tasks import Task


def draw_predictions(
    task: Task, samples: Sequence[Sample], predictions: Sequence[Any], metrics: dict[str, float], count: int = 8
) -> Any:
    """A contact sheet with the best and the worst predictions."""
    scored = [
        (*task.score(prediction, sample), row)
        for row, (prediction, sample) in enumerate(zip(predictions, samples, strict=True))
    ]
    ranked = sorted(scored, key=lambda entry: (-entry[0], entry[2]))
    half = min(count, max(len(ranked) // 2, 1))
    chosen = [("Best", entry) for entry in ranked[:half]] + [("Worst", entry) for entry in ranked[half:][-half:]]
    return contact_sheet(
        [task.draw(predictions[row], samples[row]) for _, (_, _, row) in chosen],
        [caption for _, (_, caption, _) in chosen],
        sections=[section for section, _ in chosen],
        title=f"{task.data.task}: validation images",
        subtitle=f"{task.best_metric} {metrics[task.best_metric]:.3f} over {len(samples)} images",
        footer="Predictions on images that the model was not trained on. Not a medical device.",
    )
