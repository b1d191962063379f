"""Fine-tunes EchoCare for one of its tasks, on your own images, with transformers' Trainer.

    python training/finetune.py segmentation --data breast_busi --output lesions
    python training/finetune.py classification --data images --label birads --ordinal true --output birads
    python training/finetune.py detection --model lesions --data heads --output heads_found --seed 1
    python training/finetune.py video --data echo --target ef --group patient --output ef

TASK is classification, segmentation, detection, keypoints, video, regression or enhancement. `--data` is a folder with
metadata.csv, a folder of images (class folders, or images and masks), a COCO json, a `datasets` folder or a Hub id; see
`echocare_hf.data.labelled.read_labelled`. Without other flags the values of training/recipes/finetune/TASK.yaml hold; `--recipe FILE`
names another file, and what stands on the command line wins.

What happens, in this order:

  1. The data are read and checked, and split by group (patient, clip, sequence) into train, validation and test.
  2. The model is made from the checkpoint's encoder and a new head, and trained. After each epoch it is measured on the validation part
     at the size of the original images; the best weights are kept.
  3. The test part is looked at once, with these weights.
  4. OUTPUT appears, complete: model, processor, code, card with the figures, metrics.json, predictions.png (best and worst of the
     validation part). It loads with `AutoModelFor...from_pretrained(OUTPUT, trust_remote_code=True)` and `pipeline(...)`.

A run that was cut off goes on where its last epoch ended when the same command is given again. Ctrl-C ends with exit code 130, a wrong
argument or bad data with one line and exit code 2.
"""

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    HfArgumentParser,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import get_last_checkpoint

import echocare_hf
from echocare_hf import EchoCareConfig, EchoCareImageProcessorPil
from echocare_hf.data.augmentation import sample_generator
from echocare_hf.data.labelled import Sample, read_labelled
from echocare_hf.data.splits import split_by_group
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.inference import bfloat16_is_fast
from finetune_card import write_card
from finetune_tasks import TASKS, Task

RECIPES = Path(__file__).resolve().parent / "recipes" / "finetune"
PRESETS = ("tiny", "base", "large")  # random weights; "echocare-tiny" is the checkpoint that ships
CACHE_BYTES = 6e9  # prepared images up to this size are kept in memory


@dataclass
class FinetuneArguments:
    """Every value can stand in a recipe or on the command line."""

    data: str = field(default="", metadata={"help": "folder, file or Hub id of labelled images"})
    output: str = field(default="", metadata={"help": "folder to make; it appears when all is done"})
    model: str = field(
        default="echocare-tiny",
        metadata={"help": "folder or Hub id of an EchoCare checkpoint; tiny, base or large for random weights"},
    )
    seed: int = field(default=0, metadata={"help": "of the weights, the order and the augmentation"})
    split_seed: int | None = field(default=None, metadata={"help": "of the split; --seed if not given"})
    fractions: list[float] = field(
        default_factory=lambda: [0.7, 0.15, 0.15], metadata={"help": "shares of train, validation and test"}
    )

    epochs: int = field(default=30, metadata={"help": "passes over the training part"})
    minutes: float | None = field(
        default=None, metadata={"help": "end the schedule after this time, if it is not through"}
    )
    batch_size: int = field(default=16, metadata={"help": "images a step (clips for video)"})
    accumulation: int = field(default=1, metadata={"help": "batches a step of the optimizer"})
    learning_rate: float = field(default=1e-3, metadata={"help": "highest, of the head"})
    layer_decay: float | None = field(
        default=None,
        metadata={
            "help": "factor of the learning rate per layer below the head; 0.8 for trained weights, 1 for random ones if not given"
        },
    )
    weight_decay: float = field(default=0.05, metadata={"help": "of AdamW"})
    warmup: float = field(default=0.1, metadata={"help": "share of the schedule in which the learning rate rises"})
    patience: int = field(
        default=15, metadata={"help": "epochs without a better validation metric before training ends; 0 for never"}
    )
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradients are clipped to this norm"})
    image_size: int | None = field(
        default=None, metadata={"help": "side of the input in pixels; that of the checkpoint if not given"}
    )
    resize_mode: str = field(default="squash", metadata={"help": "squash or pad"})
    drop_path: float | None = field(
        default=None, metadata={"help": "stochastic depth; that of the checkpoint if not given"}
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "train the head alone"})
    lora_rank: int = field(
        default=0, metadata={"help": "train low-rank adapters of this rank in the encoder (needs peft)"}
    )
    bf16: bool | None = field(
        default=None, metadata={"help": "train in bfloat16; where the machine is fast at it if not given"}
    )
    gradient_checkpointing: bool = field(default=False, metadata={"help": "less memory, slower"})
    resume: bool = field(default=True, metadata={"help": "go on with a run that was cut off"})

    augmentation: float = field(default=1.0, metadata={"help": "strength, 0 for none"})
    flip: bool = field(default=True, metadata={"help": "mirror images left to right"})
    balance_classes: bool = field(default=True, metadata={"help": "weight the loss of each class by how rare it is"})
    ordinal: bool = field(default=False, metadata={"help": "the classes are ordered, such as BI-RADS"})
    deep_supervision: float = field(
        default=0.0, metadata={"help": "weight of the losses on the decoder's coarser maps"}
    )
    num_frames: int = field(default=16, metadata={"help": "most frames of a clip"})
    degradation: float = field(
        default=1.0, metadata={"help": "enhancement without pairs: how much worse images are made"}
    )

    label: str | None = field(default=None, metadata={"help": "column of classes"})
    classes: list[str] | None = field(default=None, metadata={"help": "the classes in their order, and no others"})
    group: str | None = field(default=None, metadata={"help": "column of what must stay together: patient, clip, ..."})
    group_pattern: str | None = field(
        default=None, metadata={"help": "the same as a regular expression on file names"}
    )
    split: str | None = field(default=None, metadata={"help": "column of train, validation, test; 'ignore' for none"})
    mask: str | None = field(default=None, metadata={"help": "column of masks"})
    mask_values: list[str] | None = field(default=None, metadata={"help": "such as 0=background 1=nerve 255=ignore"})
    target: list[str] | None = field(default=None, metadata={"help": "columns of measured values"})
    keypoints: list[str] | None = field(default=None, metadata={"help": "names of the landmarks"})
    sequence: str | None = field(default=None, metadata={"help": "column of the clip that a frame belongs to"})
    metadata: str | None = field(default=None, metadata={"help": "name of the table in the folder"})


# The options of `read_labelled` among them.
READ_OPTIONS = (
    "label",
    "classes",
    "group",
    "group_pattern",
    "split",
    "mask",
    "mask_values",
    "target",
    "keypoints",
    "sequence",
    "metadata",
)


def parse_arguments(argv: Sequence[str]) -> tuple[str, FinetuneArguments]:
    """The task and its arguments: defaults, then the recipe, then the command line."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("task", choices=[*TASKS], metavar="TASK")
    first.add_argument("--recipe", type=Path)
    parser = HfArgumentParser(
        FinetuneArguments,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="finetune.py TASK --data D --output O [options]",
    )
    if not argv or "-h" in argv or "--help" in argv:
        parser.print_help()
        raise SystemExit(0 if argv else 2)
    known, rest = first.parse_known_args(argv)
    recipe = known.recipe or RECIPES / f"{known.task}.yaml"
    try:
        values = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{recipe}: cannot be read as a recipe ({str(error).splitlines()[0]})") from error
    unknown = sorted(set(values) - {entry.name for entry in fields(FinetuneArguments)})
    if unknown:
        raise ValueError(f"{recipe}: unknown value {', '.join(unknown)}; `--help` lists them all")
    parser.set_defaults(**values)
    (arguments,) = parser.parse_args_into_dataclasses(rest)
    for name in ("data", "output"):
        if not getattr(arguments, name):
            raise ValueError(f"--{name} is needed")
    return known.task, arguments


# Data -----------------------------------------------------------------------------------------------------------------


class PreparedData(Dataset):
    """Samples as tensors at the model's input size; kept in memory once prepared, where there is room.

    Args:
        task: what turns a sample into tensors.
        samples: the samples.
        seed: of the augmentation; None for none. Each example has its own random numbers for each epoch, whatever the order.
    """

    def __init__(self, task: Task, samples: Sequence[Sample], seed: int | None) -> None:
        self.task, self.samples, self.seed = task, samples, seed
        self.epoch = 0
        self.items: list[Any] = [None] * len(samples)
        self.keep = True

    def prepare_all(self, name: str) -> "PreparedData":
        """Prepares every sample once, so that a file that fails does so before training."""
        used = 0
        for index in tqdm(range(len(self.samples)), desc=f"reading {name}", unit="image", leave=False):
            item = self.item(index)
            used += sum(value.nbytes for value in item.values() if isinstance(value, torch.Tensor))
            if used * len(self.samples) > CACHE_BYTES * (index + 1) and index >= 8:
                self.keep, self.items = False, [None] * len(self.samples)
                break
        return self

    def item(self, index: int) -> dict[str, Any]:
        if self.items[index] is not None:
            return self.items[index]
        item = self.task.prepare(self.samples[index])
        if self.keep:
            self.items[index] = item
        return item

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = None
        if self.seed is not None and self.task.options.augmentation > 0:
            generator = sample_generator(self.seed, self.epoch, index)
        return self.task.example(self.item(index), generator)


# Model ----------------------------------------------------------------------------------------------------------------


# What the configuration says of a task rather than of the encoder.
HEAD_VALUES = (
    *("id2label", "label2id", "problem_type", "class_weights"),
    *("regression_mean", "regression_deviation", "regression_unit"),
    *("num_keypoints", "keypoint_names", "keypoint_pairs", "oriented_boxes", "deep_supervision_weight"),
)


def load_config(arguments: FinetuneArguments) -> tuple[EchoCareConfig, str | None]:
    """The configuration to start from, and the checkpoint that has the weights; None for random ones."""
    name = arguments.model
    if name in PRESETS:
        return EchoCareConfig.preset(name), None
    if name == "echocare-tiny":
        print(
            "echocare-tiny has no trained weights in this version: the tiny preset starts from random ones", flush=True
        )
        return EchoCareConfig.preset("tiny"), None
    config = transformers.AutoConfig.from_pretrained(name)
    if not isinstance(config, EchoCareConfig):
        raise ValueError(f"{name}: is a {config.model_type} checkpoint; --model takes an EchoCare one")
    return config, name


def make_model(
    task: Task, config: EchoCareConfig, checkpoint: str | None, arguments: FinetuneArguments, train: Sequence[Sample]
) -> Any:
    """The task's head on the checkpoint's encoder."""
    usual = EchoCareConfig()
    for name in HEAD_VALUES:  # what a checkpoint's former task has left there
        setattr(config, name, getattr(usual, name))
    for name, value in task.config_values(train).items():
        setattr(config, name, value)
    config.image_size = list(task.size) if task.size[0] != task.size[1] else task.size[0]
    if arguments.drop_path is not None:
        config.drop_path_rate = arguments.drop_path
    auto_class = getattr(transformers, task.auto_class)
    if checkpoint is None:
        model = auto_class.from_config(config)
    else:
        model = auto_class.from_pretrained(checkpoint, config=config, ignore_mismatched_sizes=True)
    if arguments.lora_rank:
        return with_adapters(model, arguments.lora_rank)
    if arguments.freeze_encoder:
        model.echocare.requires_grad_(False)
    return model


def with_adapters(model: Any, rank: int) -> Any:
    """Low-rank adapters in the linear layers of the encoder; the head is trained whole (LoRA, Hu et al. 2021)."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError("--lora_rank needs peft: pip install peft") from error
    heads: list[str] = []
    for name, child in model.named_children():
        if name != "echocare" and (list(child.parameters()) or list(child.buffers())):
            # peft takes modules that have a forward, which a list of modules has not.
            parts = [f"{name}.{part}" for part, _ in child.named_children()]
            heads += parts if isinstance(child, torch.nn.ModuleList) else [name]
    layers = r"echocare\..*\.(qkv|projection|fc1|fc2|reduction)"
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers, modules_to_save=heads))


def layer_of(name: str, depths: Sequence[int]) -> int:
    """How far up in the model a parameter stands: 0 for the embeddings, then one for each block, highest for the head."""
    total = sum(depths) + 1
    if "echocare.embeddings" in name:
        return 0
    if "echocare.encoder.stages." not in name:
        return total
    place = name.split("echocare.encoder.stages.")[1].split(".")
    below = 1 + sum(depths[: int(place[0])])
    if place[1] == "blocks":
        return below + int(place[2])
    return below if place[1] == "conv_block" else below + depths[int(place[0])] - 1


def parameter_groups(
    model: torch.nn.Module, depths: Sequence[int], arguments: FinetuneArguments, decay: float
) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay: lower layers learn more slowly; biases, norms and tables do not decay."""
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    top = sum(depths) + 1
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim < 2 or "relative_position_bias_table" in name or "mask_token" in name
            groups.setdefault((layer_of(name, depths), plain), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": arguments.learning_rate * decay ** (top - layer),
            "weight_decay": 0.0 if plain else arguments.weight_decay,
        }
        for (layer, plain), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]


# Training -------------------------------------------------------------------------------------------------------------


class Progress(TrainerCallback, ExportableState):
    """How much of the schedule is done: by steps, or by time where that is capped. Survives a resume."""

    def __init__(self, minutes: float | None = None, seconds_done: float = 0.0) -> None:
        self.minutes, self.seconds_done = minutes, seconds_done
        self.total_steps, self.start = 1, time.monotonic()
        self.data: PreparedData | None = None

    def state(self) -> dict[str, Any]:
        return {
            "args": {"minutes": self.minutes, "seconds_done": self.seconds()},
            "attributes": {"seconds_done": self.seconds()},
        }

    def seconds(self) -> float:
        return self.seconds_done + time.monotonic() - self.start

    def share(self, step: int) -> float:
        by_steps = step / self.total_steps
        return min(1.0, max(by_steps, self.seconds() / (60 * self.minutes)) if self.minutes else by_steps)

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.monotonic()

    def on_epoch_begin(self, args, state, control, **kwargs):
        if self.data is not None:
            self.data.epoch = round(state.epoch or 0)

    def on_step_end(self, args, state, control, **kwargs):
        if self.minutes and self.seconds() >= 60 * self.minutes:
            control.should_training_stop = control.should_evaluate = control.should_save = True


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

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self.optimizer is None:
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

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        metrics, _ = self.assess(eval_dataset or self.eval_dataset)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def assess(self, data: PreparedData) -> tuple[dict[str, float], list[Any]]:
        """Metrics and predictions, at the size of the original images."""
        model = self.model.eval()
        predictions: list[Any] = []
        losses = []
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(data), size):
            rows = range(start, min(start + size, len(data)))
            batch = self._prepare_inputs(self.task.collate([data[row] for row in rows]))
            with torch.inference_mode(), self.accelerator.autocast():
                outputs = model(**batch)
            losses += [float(outputs.loss)] * len(rows)
            outputs = type(outputs)(
                **{name: value.cpu() for name, value in outputs.items() if isinstance(value, torch.Tensor)}
            )
            samples, items = [data.samples[row] for row in rows], [data.item(row) for row in rows]
            predictions += self.task.predict(outputs, samples, items)
        metrics = {"loss": float(np.mean(losses)), **self.task.metrics(predictions, data.samples)}
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


def finetune(task_name: str, arguments: FinetuneArguments) -> Path:
    """Does what the head of this file says.

    Returns:
        The folder that was made.

    Raises:
        ValueError: for data or arguments that do not serve, in one line.
    """
    start = time.monotonic()
    output = Path(arguments.output)
    if output.exists():
        raise ValueError(f"{output}: exists already; choose another --output or remove it")
    set_seed(arguments.seed)
    data = read_labelled(arguments.data, task_name, **read_options(arguments))
    print(data.summary(), flush=True)
    split_seed = arguments.seed if arguments.split_seed is None else arguments.split_seed
    split = split_by_group(data.samples, tuple(arguments.fractions), split_seed)
    parts = {name: [data.samples[index] for index in getattr(split, name)] for name in ("train", "validation", "test")}
    print(split.report(), flush=True)
    for name in ("train", "validation"):
        if not parts[name]:
            raise ValueError(f"{arguments.data}: has no {name} part; give it a share with --fractions")

    config, checkpoint = load_config(arguments)
    task = TASKS[task_name](data, make_processor(config, checkpoint, arguments), arguments)
    model = make_model(task, config, checkpoint, arguments, parts["train"])
    sets = {
        name: PreparedData(task, samples, arguments.seed if name == "train" else None).prepare_all(name)
        for name, samples in parts.items()
    }

    work = output.with_name(output.name + ".partial")
    last = open_work_folder(work, task_name, arguments)
    progress = Progress(arguments.minutes)
    progress.data = sets["train"]
    trained = checkpoint is not None
    trainer = TaskTrainer(
        task,
        arguments,
        progress,
        config.depths,
        (0.8 if trained else 1.0) if arguments.layer_decay is None else arguments.layer_decay,
        model=model,
        args=training_arguments(task, arguments, work / "checkpoints"),
        train_dataset=sets["train"],
        eval_dataset=sets["validation"],
        data_collator=task.collate,
        callbacks=[progress, *([EarlyStoppingCallback(arguments.patience)] if arguments.patience else [])],
    )
    train(trainer, last, arguments)

    validation, predictions = trainer.assess(sets["validation"])
    test = trainer.assess(sets["test"])[0] if parts["test"] else {}
    model = trainer.model.merge_and_unload() if arguments.lora_rank else trainer.model
    final = work / "result"
    model.eval().save_pretrained(final)
    task.processor.save_pretrained(final)
    record = {
        "task": task_name,
        "arguments": {**asdict(arguments), "data": Path(arguments.data).name, "output": output.name},
        "samples": {name: len(samples) for name, samples in parts.items()},
        "groups": {name: len({sample.group or sample.name for sample in samples}) for name, samples in parts.items()},
        "licences": data.licences,
        "problems": list(data.problems),
        "epochs": round(trainer.state.epoch or 0, 2),
        "steps": trainer.state.global_step,
        "training_seconds": round(progress.seconds(), 1),
        "total_seconds": round(time.monotonic() - start, 1),
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {
            "echocare_hf": echocare_hf.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "validation": rounded(validation),
        "test": rounded(test),
        "history": [entry for entry in trainer.state.log_history if any(name.startswith("eval_") for name in entry)],
    }
    (final / "metrics.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw_predictions(task, sets["validation"].samples, predictions, validation).save(final / "predictions.png")
    write_card(final, task, record)
    final.replace(output)
    shutil.rmtree(work)
    print(json.dumps({"test": rounded(test)}), flush=True)
    print(f"made {output}: model, card, metrics.json, predictions.png", flush=True)
    return output


def read_options(arguments: FinetuneArguments) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in READ_OPTIONS if getattr(arguments, name) is not None}


def make_processor(config: EchoCareConfig, checkpoint: str | None, arguments: FinetuneArguments) -> Any:
    """The checkpoint's image processor, or a new one, with the size that is asked for."""
    side = arguments.image_size or config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    size = {"height": height, "width": width}
    if checkpoint is None:
        return EchoCareImageProcessorPil(size=size, resize_mode=arguments.resize_mode)
    processor = EchoCareImageProcessorPil.from_pretrained(checkpoint)
    processor.size, processor.resize_mode = transformers.image_utils.SizeDict(**size), arguments.resize_mode
    return processor


def open_work_folder(work: Path, task_name: str, arguments: FinetuneArguments) -> str | None:
    """Makes the folder of an unfinished run, or finds the checkpoint that such a run left.

    Raises:
        ValueError: if the folder is of a run with other arguments.
    """
    told = json.loads(
        json.dumps(
            {"task": task_name, **{name: value for name, value in asdict(arguments).items() if name != "resume"}}
        )
    )
    record = work / "arguments.json"
    if record.is_file() and arguments.resume:
        before = json.loads(record.read_text(encoding="utf-8"))
        changed = sorted(name for name in told if before.get(name) != told[name])
        if changed:
            raise ValueError(
                f"{work}: holds an unfinished run with another {', '.join(changed)}; remove it or give the same arguments"
            )
        shutil.rmtree(work / "result", ignore_errors=True)
        last = get_last_checkpoint(work / "checkpoints") if (work / "checkpoints").is_dir() else None
        if last:
            print(f"going on from {Path(last).name} of an unfinished run", flush=True)
        return last
    shutil.rmtree(work, ignore_errors=True)
    (work / "checkpoints").mkdir(parents=True)
    record.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return None


def train(trainer: TaskTrainer, last: str | None, arguments: FinetuneArguments) -> None:
    """Trains; lack of memory is told in one line with a batch size to try."""
    try:
        trainer.train(resume_from_checkpoint=last)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "allocate" not in str(error):
            raise
        smaller = max(arguments.batch_size // 2, 1)
        raise ValueError(
            f"out of memory with a batch of {arguments.batch_size} at {trainer.task.size[0]}x{trainer.task.size[1]} pixels: try "
            f"--batch_size {smaller} --accumulation {arguments.accumulation * arguments.batch_size // smaller}, "
            "or --gradient_checkpointing true"
        ) from error


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


def rounded(metrics: dict[str, float]) -> dict[str, float | None]:
    """Figures for JSON: five digits, None for what is not defined."""
    return {name: round(float(value), 5) if math.isfinite(value) else None for name, value in metrics.items()}


def main(argv: Sequence[str] | None = None) -> int:
    try:
        task, arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        finetune(task, arguments)
    except ModuleNotFoundError as error:
        print(f'error: {error}; install what is missing with pip install -e ".[all]"', file=sys.stderr)
        return 2
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last epoch", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
