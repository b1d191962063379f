"""How familiar frames are to the models of a run: by the statistics beside each checkpoint, else by those of the one that ships."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from echocare_hf.checkpoints import checkpoint_path

from .familiarity import FILE_NAME, Familiarity, FeatureTap
from .models import LoadedModel, load_model

OWN_RUN_EVERY = 8
"""Of a clip's frames, those that an encoder is run on that is there for familiarity alone."""


@dataclass(eq=False)
class Judgement:
    """How familiar one frame is.

    Attributes:
        score: 0 to 1, how much it looks like ultrasound; None if no gate has seen it.
        warnings: one line each.
    """

    score: float | None = None
    warnings: list[str] = field(default_factory=list)


class Gates:
    """The gates of all models of a run.

    Args:
        models: of the run.

    Attributes:
        extra: a checkpoint that runs for familiarity alone, where no model of the run has statistics that know what is no ultrasound.
        threshold: frames that score less count for nothing in a clip.
        problem: why nothing can be told, in one line; None if it can.
    """

    def __init__(self, models: Sequence[LoadedModel]) -> None:
        self.extra: LoadedModel | None = None
        self.threshold = 0.0
        self.problem: str | None = None
        self._gates: dict[str, Familiarity] = {}
        try:
            for model in models:
                if model.task != "video" and (model.folder / FILE_NAME).is_file():
                    gate = Familiarity.load(model.folder, model.facts.sha256)
                    if gate.is_own:
                        self._gates[model.name] = gate
            if all(gate.ultrasound is None for gate in self._gates.values()):
                shipped = checkpoint_path()
                gate = Familiarity.load(shipped)
                self.extra = load_model(str(shipped), models[0].device, models[0].dtype)
                self._gates[""] = gate
        except ValueError as error:
            self.problem = f"how familiar the image is is not known: {error}"
            self._gates, self.extra = {}, None
        for gate in self._gates.values():
            if gate.ultrasound is not None:
                self.threshold = gate.threshold

    @contextmanager
    def listen(self, model: LoadedModel, judgements: Sequence[Judgement]) -> Iterator[None]:
        """Judges the frames that the model sees meanwhile: one batch, in the order of `judgements`."""
        if model.name not in self._gates:
            yield
            return
        with FeatureTap(model.network) as tap:
            yield
            self._judge(model.name, tap.take(), judgements)

    @torch.inference_mode()
    def run_extra(self, inputs: Tensor, judgements: Sequence[Judgement]) -> None:
        """Judges resized frames, uint8 `(batch, 3, height, width)`, by the checkpoint that runs for this alone."""
        assert self.extra is not None
        with FeatureTap(self.extra.network) as tap:
            self.extra.network.echocare(self.extra.normalize(inputs))
            self._judge("", tap.take(), judgements)

    def _judge(self, name: str, features: np.ndarray, judgements: Sequence[Judgement]) -> None:
        gate = self._gates[name]
        scores, known = gate.score(features), gate.known_score(features)
        for judgement, score, known_score in zip(judgements, scores.tolist(), known.tolist(), strict=True):
            if gate.ultrasound is not None or judgement.score is None:
                judgement.score = score
            # What the checkpoint that ships was trained on says nothing of the models of the run.
            lines = gate.explain(score, known_score if name else 1.0)
            judgement.warnings += [f"{name}: {line}" if name and len(self._gates) > 1 else line for line in lines]


__all__ = ["Gates", "Judgement"]
