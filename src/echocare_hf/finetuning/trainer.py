"""Trainer with a task's own evaluation, and a schedule that may be capped in time."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState

from echocare_hf.inference import bfloat16_is_fast

from .arguments import FinetuneArguments
from .models import parameter_groups
from .prepared import PreparedData
from .tasks import Task


class Progress(TrainerCallback, ExportableState):
    """How much of the schedule is done: by steps, or by time where that is capped. Survives a resume.

    Args:
        minutes: of the clock on the wall, evaluations included.
        cpu_minutes: of processor time of this process, evaluations not counted: other work on the machine does not shorten it.
        seconds_done: training time of an earlier part of the run, on the clock that counts.
    """

    def __init__(
        self, minutes: float | None = None, cpu_minutes: float | None = None, seconds_done: float = 0.0
    ) -> None:
        if minutes is not None and cpu_minutes is not None:
            raise ValueError("give --minutes or --cpu_minutes, not both")
        self.minutes, self.cpu_minutes, self.seconds_done = minutes, cpu_minutes, seconds_done
        self.clock = time.monotonic if cpu_minutes is None else time.process_time
        self.total_steps, self.start = 1, self.clock()
        self.end: float | None = None
        self.data: PreparedData | None = None

    def state(self) -> dict[str, Any]:
        return {
            "args": {"minutes": self.minutes, "cpu_minutes": self.cpu_minutes, "seconds_done": self.seconds()},
            "attributes": {"seconds_done": self.seconds()},
        }

    def seconds(self) -> float:
        return self.seconds_done + (self.end or self.clock()) - self.start

    def share(self, step: int) -> float:
        cap = self.cpu_minutes or self.minutes
        by_steps = step / self.total_steps
        return min(1.0, max(by_steps, self.seconds() / (60 * cap)) if cap else by_steps)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What happens inside counts only on the clock on the wall."""
        start = self.clock()
        yield
        if self.cpu_minutes is not None:
            self.start += self.clock() - start

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = self.clock()

    def on_train_end(self, args, state, control, **kwargs):
        self.end = self.clock()

    def on_epoch_begin(self, args, state, control, **kwargs):
        if self.data is not None:
            self.data.epoch = round(state.epoch or 0)

    def on_step_end(self, args, state, control, **kwargs):
        if self.share(0) >= 1:
            control.should_training_stop = control.should_evaluate = control.should_save = True


class HeadFirst(TrainerCallback):
    """The encoder stays as it is until a share of the schedule is done: a random head would send it random
    gradients, and without them a step takes half the time.

    Args:
        share: 0 to 1.
        progress: says how much is done.

    Source: Kumar et al. 2022 (LP-FT), for heads that have no linear model to start from.
    """

    def __init__(self, share: float, progress: Progress) -> None:
        self.share, self.progress = share, progress
        self.learns: bool | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        if args.world_size > 1:  # DDP settles at the start which gradients it waits for
            print(
                "note: with several processes the encoder learns from the start, --head_first is left out", flush=True
            )
            self.share = 0.0

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        learns = self.progress.share(state.global_step) >= self.share
        if learns != self.learns:
            self.learns = learns
            model.echocare.requires_grad_(learns)


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
        """Metrics and predictions for a `PreparedData`, at the size of the original images; all metrics if it is the `last` time."""
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
        metrics = {"loss": float(np.mean(losses)), **self.task.metrics(predictions, data.samples, last)}
        return metrics, predictions


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
    """Trains; lack of memory is told in one line with a batch size to try."""
    try:
        trainer.train(resume_from_checkpoint=last)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "allocate" not in str(error):
            raise
        arguments = trainer.arguments
        smaller = max(arguments.batch_size // 2, 1)
        raise ValueError(
            f"out of memory with a batch of {arguments.batch_size} at {trainer.task.size[0]}x{trainer.task.size[1]} pixels: try "
            f"--batch_size {smaller} --accumulation {arguments.accumulation * arguments.batch_size // smaller}, "
            "or --gradient_checkpointing true"
        ) from error
