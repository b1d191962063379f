"""Trainer that measures the generator by the texts it writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import TrainerCallback

from echocare_hf.finetuning.callbacks import EarlyStop, Progress
from echocare_hf.finetuning.memory import memory_advice
from echocare_hf.finetuning.prepared import PreparedData
from echocare_hf.finetuning.trainer import TaskTrainer, training_arguments
from echocare_hf.metrics.classification import classification_metrics

from .arguments import ReportArguments
from .checking import FindingThresholds
from .draft import DraftReport
from .drafting import encode_inputs, split_inputs, write_drafts
from .evaluation import report_metrics
from .findings import package_rules

PRETRAINED_RATE = 0.2  # learning rate of a trained encoder over that of the rest

SILENT_RATE = 10.0  # the same of what gives the images a scale, where that starts from 0


@dataclass(frozen=True)
class Answers:
    """What the generator says of a part of the data.

    Attributes:
        texts: one a pair.
        probabilities: `(pairs, findings)`, 0 to 1.
    """

    texts: list[str]
    probabilities: np.ndarray


class ReportTrainer(TaskTrainer):
    """`TaskTrainer` whose evaluation writes reports, greedily while it trains."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.model is not None
        # As the run began: by the time of the optimizer, one that goes on has loaded what it had learned.
        self.silent = {
            name
            for name, parameter in self.model.named_parameters()
            if name.startswith("encoder.layernorm.") and not parameter.any()
        }

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self.optimizer is None:
            assert self.model is not None
            options: Any = self.arguments
            rate = options.encoder_rate
            if rate is None:
                rate = PRETRAINED_RATE if self.layer_decay < 1 else 1.0
            groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    factor = rate if name.startswith("encoder.echocare.") else 1.0
                    if name in self.silent:
                        factor = SILENT_RATE
                    decay = 0.0 if parameter.ndim < 2 or "relative_position_bias" in name else options.weight_decay
                    groups.setdefault((factor, decay), []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": parameters, "lr": options.learning_rate * factor, "weight_decay": decay}
                    for (factor, decay), parameters in groups.items()
                ],
                lr=options.learning_rate,
            )
        return self.optimizer

    def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Statistics of features that do not change stay as the head knows them."""
        unwrapped: Any = self.accelerator.unwrap_model(model)
        head, norm = unwrapped.findings_head, unwrapped.encoder.feature_norm
        if norm is not None and head is not None and not head.weight.requires_grad:
            norm.eval()
        return super().compute_loss(model, *args, **kwargs)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Without a warning of output weights that are the embeddings, which a checkpoint holds once."""
        names = [name for name in load_result.missing_keys if not name.endswith("lm_head.weight")]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=names))

    def assess(self, data: Any, last: bool = True) -> tuple[dict[str, float], Any]:
        """Metrics and `Answers` for a `PreparedData`.

        Raises:
            ValueError: out of memory, with what to try.
        """
        with memory_advice(self.task, self.arguments, self.checkpoints):
            loss, probabilities, texts = self._answers(data)
        task: Any = self.task
        found = {"loss": loss, **report_metrics(texts, data.samples)}
        if task.findings:
            targets = np.array([task.targets(pair) for pair in data.samples])
            head = classification_metrics(probabilities, targets, task.findings, "multi_label_classification")
            found |= {f"head_{name}": value for name, value in head.items()}
        if not last:  # not each finding by itself: it would fill the screen
            ends = tuple(f"_{name}{ending}" for name in package_rules().names(None) for ending in ("", "_en", "_zh"))
            found = {name: value for name, value in found.items() if not name.endswith(ends)}
        return found, Answers(texts, probabilities)

    def _answers(self, data: Any) -> tuple[float, np.ndarray, list[str]]:
        """The mean loss, the probabilities of the findings and the greedily written texts."""
        assert self.model is not None
        model: Any = self.model.eval()
        task: Any = self.task
        losses, probabilities, texts = [], [], []
        size = self.args.per_device_eval_batch_size
        for start in tqdm(range(0, len(data), size), desc="writing", unit="batch", leave=False, disable=None):
            examples = [data[row] for row in range(start, min(start + size, len(data)))]
            with torch.inference_mode(), self.accelerator.autocast():
                encoded, inputs = encode_inputs(model, self._prepare_inputs(task.collate(examples)))
                outputs = model(encoder_outputs=encoded, **inputs)
                losses += [float(outputs.loss)] * len(examples)
                if task.findings:
                    probabilities.append(outputs.findings_logits.float().sigmoid().cpu().numpy())
                _, inputs = split_inputs(self._prepare_inputs(task.inputs(examples)))
                sequences = model.generate(encoder_outputs=encoded, **inputs, **greedy(task.options))
            texts += [text.strip() for text in task.report_processor.batch_decode(sequences)]
        return float(np.mean(losses)), np.concatenate(probabilities or [np.zeros((len(data), 0))]), texts

    def drafts(self, data: Any, thresholds: FindingThresholds) -> list[DraftReport]:
        """Checked drafts for a `PreparedData`, with `--num_beams` beams."""
        task: Any = self.task
        model: Any = self.model
        drafts = []
        size = self.args.per_device_eval_batch_size
        for start in tqdm(range(0, len(data), size), desc="drafting", unit="batch", leave=False, disable=None):
            rows = range(start, min(start + size, len(data)))
            pairs = [data.samples[row] for row in rows]
            drafts += write_drafts(
                model.eval(),
                task.report_processor,
                task.inputs([data[row] for row in rows]),
                thresholds,
                [pair.language for pair in pairs],
                [pair.organ for pair in pairs],
                **{**greedy(task.options), "num_beams": task.options.num_beams},
            )
        return drafts


class EvaluateEvery(TrainerCallback):
    """Evaluates and saves after every so many epochs, and where training ends."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(self, args, state, control, **kwargs):
        epoch = round(state.epoch or 0)
        if epoch % self.epochs and epoch < args.num_train_epochs and not control.should_training_stop:
            control.should_evaluate = control.should_save = False


def greedy(options: Any) -> dict[str, Any]:
    """How reports are written while training: the most probable token, to the limit."""
    return {"max_new_tokens": options.max_tokens, "do_sample": False, "num_beams": 1}


def make_trainer(
    task: Any, model: Any, sets: dict[str, PreparedData], arguments: ReportArguments, pretrained: bool, folder: Path
) -> ReportTrainer:
    """What trains the generator and measures it.

    Args:
        task: a `ReportTask`.
        model: the generator.
        sets: with the parts train and validation.
        arguments: of the run.
        pretrained: whether its encoder has trained weights.
        folder: for checkpoints.
    """
    options: Any = arguments
    progress = Progress(arguments.minutes, arguments.cpu_minutes, sets["train"])
    callbacks: list[TrainerCallback] = [progress, EvaluateEvery(arguments.evaluate_every)]
    if arguments.patience:
        callbacks.append(EarlyStop(arguments.patience))
    return ReportTrainer(
        task,
        options,
        progress,
        (),
        0.8 if pretrained else 1.0,
        model=model,
        args=training_arguments(task, options, folder),
        train_dataset=sets["train"],
        eval_dataset=sets["validation"],
        data_collator=task.collate,
        callbacks=callbacks,
    )


__all__ = ["Answers", "ReportTrainer", "make_trainer"]
