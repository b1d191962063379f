"""Trainer with a task's own evaluation, and a schedule that may be capped in time."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import ExportableState, ProgressCallback

from echocare_hf.inference import bfloat16_is_fast

from .arguments import FinetuneArguments
from .callbacks import Progress
from .memory import memory_advice
from .models import parameter_groups
from .tasks import Task


class TaskTrainer(Trainer):
    """Trainer with the task's own evaluation, learning rates by layer, and a schedule that may be capped in time."""

    def __init__(
        self,
        task: Task,
        arguments: FinetuneArguments,
        progress: Progress,
        depths: Sequence[int],
        layer_decay: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task, self.arguments, self.progress = task, arguments, progress
        self.depths, self.layer_decay = depths, layer_decay
        self.checkpoints = Path(self.args.output_dir or ".")
        self.unmeasured = False  # whether it was told that the metric that decides is not defined

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self.optimizer is None:
            assert self.model is not None
            groups = parameter_groups(self.model, self.depths, self.arguments, self.layer_decay)
            self.optimizer = torch.optim.AdamW(groups, lr=self.arguments.learning_rate)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        self.progress.total_steps = num_training_steps
        warmup = self.arguments.warmup

        def factor(step: int) -> float:
            share = self.progress.share(step)
            if share < warmup:
                return max(share, 1 / num_training_steps) / warmup
            return 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.create_optimizer(), factor)
        return self.lr_scheduler

    def _load_callback_state(self) -> None:
        """In place: transformers would put new objects there, while this trainer and other callbacks hold these."""
        states: Any = self.state.stateful_callbacks
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                for name, value in states[type(callback).__name__]["attributes"].items():
                    setattr(callback, name, value)

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> tuple[int, int]:
        """Epochs and steps that are done: all of them if the run had ended, by time or patience, when it was cut off."""
        done = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        states: Any = self.state.stateful_callbacks
        ended = resume_from_checkpoint is not None and states["TrainerControl"]["args"]["should_training_stop"]
        return (num_train_epochs, 0) if ended else done

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        with self.progress.pause():
            metrics, _ = self.assess(eval_dataset if eval_dataset is not None else self.eval_dataset, last=False)
        if math.isnan(metrics[self.task.best_metric]) and not self.unmeasured:
            self.unmeasured = True
            print(
                f"note: {self.task.best_metric} is not defined on the validation part, such as where a class is missing: the last weights "
                "are kept rather than the best; give it a larger share with --fractions",
                flush=True,
            )
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def answer(self, model: Any, batch: dict[str, Any]) -> Any:
        """What the model says of a batch, with the loss."""
        return model(**batch)

    def assess(self, data: Any, last: bool = True) -> tuple[dict[str, float], list[Any]]:
        """Metrics and predictions for a `PreparedData`, at the size of the original images; all metrics if it is the `last` time.

        Raises:
            ValueError: out of memory, with what to try.
        """
        with memory_advice(self.task, self.arguments, self.checkpoints):
            predictions, loss = self._predictions(data)
            return {"loss": loss, **self.task.metrics(predictions, data.samples, last)}, predictions

    def _predictions(self, data: Any) -> tuple[list[Any], float]:
        """What the model says of each sample, and the mean loss."""
        assert self.model is not None
        model = self.model.eval()
        predictions: list[Any] = []
        losses = []
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(data), size):
            rows = range(start, min(start + size, len(data)))
            batch = self._prepare_inputs(self.task.collate([data[row] for row in rows]))
            with torch.inference_mode(), self.accelerator.autocast():
                outputs = self.answer(model, batch)
            losses += [float(outputs.loss)] * len(rows)
            outputs = type(outputs)(
                **{name: value.cpu() for name, value in outputs.items() if isinstance(value, torch.Tensor)}
            )
            samples, items = [data.samples[row] for row in rows], [data.item(row) for row in rows]
            predictions += self.task.predict(outputs, samples, items)
        return predictions, float(np.mean(losses))


def training_arguments(task: Task, arguments: FinetuneArguments, folder: Path) -> TrainingArguments:
    use_bf16 = bfloat16_is_fast() if arguments.bf16 is None else arguments.bf16
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=arguments.epochs,
        per_device_train_batch_size=arguments.batch_size,
        per_device_eval_batch_size=2 * arguments.batch_size,
        gradient_accumulation_steps=arguments.accumulation,
        max_grad_norm=arguments.max_grad_norm,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{task.best_metric}",
        greater_is_better=task.greater_is_better,
        bf16=use_bf16,
        use_cpu=not torch.cuda.is_available(),
        activation_checkpointing=arguments.gradient_checkpointing,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=0,
        seed=arguments.seed,
        report_to=[],
    )


def train(trainer: TaskTrainer, last: str | None = None) -> None:
    """Trains.

    Args:
        trainer: of `Job.trainer`.
        last: checkpoint to go on from.

    Raises:
        ValueError: out of memory, with what to try.
    """
    try:
        with memory_advice(trainer.task, trainer.arguments, trainer.checkpoints):
            trainer.train(resume_from_checkpoint=last)
    except BaseException:
        for callback in trainer.callback_handler.callbacks:  # what is said next stands on a line of its own
            if isinstance(callback, ProgressCallback):
                for bar in (callback.prediction_bar, callback.training_bar):
                    if bar is not None:
                        bar.close()
        raise
