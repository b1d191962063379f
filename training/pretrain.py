"""Pretrains EchoCare: masked image modelling and hierarchical anatomy classification, with Accelerate.

    python training/pretrain.py training/recipes/smoke.yaml                                       # two minutes, on phantoms
    python training/pretrain.py training/recipes/tiny.yaml --data CORPUS --output_dir runs/tiny
    torchrun --nproc-per-node 8 training/pretrain.py training/recipes/base.yaml --data CORPUS --output_dir runs/base
    accelerate launch --config_file training/accelerate_configs/fsdp2.yaml training/pretrain.py training/recipes/large.yaml --data CORPUS

RECIPE is a YAML file with values of `echocare_hf.pretraining.recipe.Recipe`; any of them may be overridden on the command line, one
value of `config` as `--config.drop_path_rate 0`. CORPUS is what `echocare curate` makes, a folder with index.csv or metadata.csv, or a
folder of images.

What happens, in this order:

  1. The corpus is read: images under the licences of the recipe, without those that must not be seen, split by group.
  2. Steps: masks are drawn (with `hard_patches`, partly by the moving average of the model), losses, gradients, AdamW, moving average.
  3. Now and then the moving average is looked at on the held-out images: masked error, anatomy accuracy, kNN and linear probe,
     reconstructions as pictures. The best one so far is kept in OUTPUT/best.
  4. OUTPUT/final appears, complete: model, image processor, card, training.json.

A run that was cut off goes on from its last checkpoint when the same command is given again, and ends with the same weights, bit by bit,
on a CPU with the same number of processes. SIGTERM and Ctrl-C save first (exit codes 143 and 130). A wrong value or bad data ends with
one line and exit code 2.
"""

import argparse
import contextlib
import dataclasses
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from tqdm import tqdm
from transformers import HfArgumentParser

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.files import only_run, written_beside
from echocare_hf.pretraining.corpus import read_corpus
from echocare_hf.pretraining.evaluation import Seen, look, pick, probe, summarise
from echocare_hf.pretraining.hard_patches import draw_mask
from echocare_hf.pretraining.network import make_network
from echocare_hf.pretraining.optimization import MovingAverage, adamw
from echocare_hf.pretraining.pictures import draw_samples
from echocare_hf.pretraining.preparation import Prepared, prepare
from echocare_hf.pretraining.publication import save_model
from echocare_hf.pretraining.recipe import Recipe, convert, nearest, read_recipe
from echocare_hf.pretraining.run import (
    RunFolder,
    StopRequest,
    end_process,
    is_lost_process,
    make_accelerator,
    same_everywhere,
    seed_step,
)
from echocare_hf.pretraining.schedule import Moment
from echocare_hf.pretraining.stream import Batch, Changes, StreamImages, batches


def pretrain(recipe: Recipe, stop: StopRequest) -> int:
    """Does what the head of this file says; returns the exit code."""
    recipe.check()
    accelerator = make_accelerator(recipe, Path(recipe.output_dir))
    folder = RunFolder(Path(recipe.output_dir), recipe, accelerator)
    if folder.is_done:
        folder.say(f"{folder.output / 'final'}: is there already")
        return 0

    # The network, what is learnt, and the corpus.
    schedule = recipe.schedule()
    network = make_network(recipe)
    config, branches = network.model.config, network.branches
    data = read_data(recipe, AnatomyTree.from_config(config), schedule.largest_image, accelerator)
    for line in data.report:
        folder.say(line)
    corpus = [len(data.train), data.train.fingerprint()]
    same_everywhere(accelerator, corpus, "corpus")
    average = MovingAverage(network)
    average.network.to(accelerator.device)
    optimizer = adamw(
        network, recipe.learning_rate, recipe.weight_decay, (recipe.betas[0], recipe.betas[1]), recipe.epsilon
    )
    network, optimizer = accelerator.prepare(network, optimizer)
    state: dict[str, Any] = {"seconds": 0.0, "best_loss": math.inf, "corpus": corpus}
    state |= folder.restore(network, optimizer, average)
    if state["corpus"] != corpus:
        counts = f"{state['corpus'][0]} to train on, now {corpus[0]}"
        raise ValueError(
            f"{folder.output}: was run on other images ({counts}); give the same ones, or another --output_dir"
        )

    # The loop.
    images = StreamImages(data.train, Changes.of(recipe), recipe.seed, config.mask_unit_size, branches)
    stream = batches(images, recipe, schedule, state["step"], accelerator.process_index, accelerator.num_processes)
    bar = tqdm(
        total=recipe.steps * recipe.batch_size,
        initial=state["step"] * recipe.batch_size,
        desc="pretraining",
        unit="image",
        smoothing=0.05,
        disable=not accelerator.is_main_process,
    )
    clock = time.monotonic()
    with folder.tracked(recipe, state["step"]), bar:
        for step, parts in enumerate(stream, start=state["step"]):
            now = schedule.at(step)
            for group in optimizer.param_groups:
                group["lr"] = now.learning_rate
            seed_step(recipe.seed, step, accelerator.process_index)
            losses = backward(network, average, parts, now, accelerator)
            norm = float(accelerator.clip_grad_norm_(network.parameters(), recipe.max_grad_norm))
            if not math.isfinite(norm):
                raise ValueError(stopped_by_nan(folder, step, norm, losses, parts, data, accelerator.process_index))
            optimizer.step()
            optimizer.zero_grad()
            average.update(accelerator.unwrap_model(network), now.ema_decay)
            state["step"] = done = step + 1
            bar.update(recipe.batch_size)

            # What is written down, looked at and saved.
            if done % recipe.log_every == 0 or done == recipe.steps:
                values = mean_over_processes(losses, accelerator)
                bar.set_postfix({name: f"{value:.4f}" for name, value in values.items()}, refresh=False)
                entry = {**values, "gradient_norm": norm, **now.as_dict()}
                entry["epoch"] = done * recipe.batch_size / len(data.train)
                folder.log({"step": done, **entry, "images_per_second": round(bar.format_dict["rate"] or 0.0, 2)})
            stopping = stop.agreed(accelerator)
            if done == recipe.steps or (done % recipe.evaluate_every == 0 and not stopping):
                evaluate(recipe, folder, average, data, state, accelerator)
            if stopping or done % recipe.save_every == 0 or done == recipe.steps:
                state["seconds"] += time.monotonic() - clock
                clock = time.monotonic()
                folder.save(network, optimizer, average, state)
            if stopping and done < recipe.steps:
                folder.say(f"asked to stop: saved after step {done}; the same command goes on from there")
                return 128 + stop.signal

    # The result.
    if accelerator.is_main_process:
        final = folder.output / "final"
        save_model(average.network.model, final, recipe, data, state, folder.read_log(), accelerator.mixed_precision)
    folder.say(f"made {folder.output / 'final'}: model, image processor, card, training.json")
    return 0


def backward(
    network: torch.nn.Module, average: MovingAverage, parts: list[Batch], now: Moment, accelerator: Accelerator
) -> dict[str, torch.Tensor]:
    """The gradients of one step, from the parts of its batch; returns the losses, the means over the parts."""
    losses: dict[str, torch.Tensor] = {}
    for number, batch in enumerate(parts, start=1):
        batch = batch.to(accelerator.device)
        scores = None
        if now.hard_share > 0:
            with accelerator.autocast():
                scores = average.network.score_units(batch.pixel_values)
        mask = draw_mask(batch.noise, now.mask_ratio, scores, now.hard_share)
        # Processes exchange their gradients with the last part only.
        with accelerator.no_sync(network) if number < len(parts) else contextlib.nullcontext():
            part_losses = network(batch.pixel_values, mask, batch.labels, batch.levels, batch.branches)
            accelerator.backward(part_losses["loss"] / len(parts))
        for name, value in part_losses.items():
            losses[name] = losses.get(name, 0) + value.detach() / len(parts)
    return losses


def read_data(recipe: Recipe, tree: AnatomyTree, image_size: int, accelerator: Accelerator) -> Prepared:
    """The images to train on and the held-out ones.

    Raises:
        ValueError: if there is no label for a loss that needs them.
    """
    data = prepare(
        read_corpus(recipe.data, tree, recipe.seed),
        image_size=image_size,
        licences=recipe.licences,
        exclude=recipe.exclude,
        exclude_groups=recipe.exclude_groups,
        validation=recipe.validation,
        seed=recipe.seed,
        memory_mb=recipe.memory_mb,
        quiet=not accelerator.is_main_process,
    )
    if (recipe.anatomy_weight or recipe.contrast_weight) and (data.train.nodes < 0).all():
        raise ValueError(
            f"{', '.join(recipe.data)}: no image has an anatomy label; give a column `node`, or set anatomy_weight and contrast_weight "
            "to 0"
        )
    return data


def evaluate(
    recipe: Recipe,
    folder: RunFolder,
    average: MovingAverage,
    data: Prepared,
    state: dict[str, Any],
    accelerator: Accelerator,
) -> None:
    """Looks at the held-out images with the moving average, writes figures and pictures, and keeps the best model."""
    model, step = average.network.model, state["step"]
    values = {"image_size": recipe.schedule().at(max(step - 1, 0)).image_size, "batch_size": recipe.batch_size}
    rows = pick(data.validation, recipe.evaluation_images)
    drawn = set(np.random.default_rng(0).permutation(rows)[: recipe.sample_images].tolist())
    seen: list[Seen] = look(
        model, data.validation, rows, accelerator, mask_ratio=model.config.mask_ratio, drawings=drawn, **values
    )
    figures = summarise(seen, data.validation, recipe.reconstruction_weight, recipe.anatomy_weight)
    if recipe.probe_images:
        learnt = look(model, data.train, pick(data.train, recipe.probe_images), accelerator, masked=False, **values)
        if accelerator.is_main_process:
            figures |= probe(learnt, data.train, seen, data.validation)
    folder.log({"step": step, **{f"validation_{name}": round(value, 5) for name, value in figures.items()}})
    better = figures["loss"] < state["best_loss"]
    state["best_loss"] = min(figures["loss"], state["best_loss"])
    line = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
    folder.say(f"\nstep {step}: {line}{', the best so far' if better else ''}")
    if accelerator.is_main_process:
        if drawn:
            (folder.output / "samples").mkdir(exist_ok=True)
            sheet = draw_samples(seen, data.validation, f"EchoCare pretraining, step {step}", line[:150])
            with written_beside(folder.output / "samples" / f"step-{step:08}.png") as partial:
                sheet.save(partial, "PNG")
        if better:
            save_model(
                model, folder.output / "best", recipe, data, state, folder.read_log(), accelerator.mixed_precision
            )
    accelerator.wait_for_everyone()


def mean_over_processes(losses: dict[str, torch.Tensor], accelerator: Accelerator) -> dict[str, float]:
    values = accelerator.reduce(torch.stack([value.float() for value in losses.values()]), "mean")
    return {name: round(value, 7) for name, value in zip(losses, values.tolist(), strict=True)}


def stopped_by_nan(
    folder: RunFolder,
    step: int,
    norm: float,
    losses: dict[str, torch.Tensor],
    parts: list[Batch],
    data: Prepared,
    rank: int,
) -> str:
    """Saves the batch that led to a gradient that is not finite, and says so."""
    path = folder.output / f"bad-batch-step-{step + 1}-process-{rank}.pt"
    names = [[str(data.train.names[row]) for row in batch.rows.tolist()] for batch in parts]
    kept = f"the batch is in {path}"
    try:
        with written_beside(path) as partial:
            torch.save({"names": names, "losses": losses, "batches": [batch.as_dict() for batch in parts]}, partial)
    except (OSError, RuntimeError) as error:
        kept = f"the batch could not be written to {path} ({' '.join(str(error).split())[:100]})"
    told = ", ".join(f"{name} {float(value):.4g}" for name, value in losses.items())
    # A run that has a checkpoint goes on with its own values only.
    where = "" if folder.checkpoints.is_empty else ", with another --output_dir"
    return f"step {step + 1}: the gradient norm is {norm} ({told}); {kept}. Lower the learning rate, or use precision fp32{where}"


def parse_arguments(argv: Sequence[str]) -> Recipe:
    """The values of a run: defaults, then the recipe, then the command line."""
    parser: Any = OneLineParser(
        Recipe,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="pretrain.py RECIPE [options]",
        allow_abbrev=False,
    )
    if not argv or "-h" in argv or "--help" in argv:
        parser.print_help()
        raise SystemExit(0 if argv else 2)
    if argv[0].startswith("-"):
        raise ValueError(f"{argv[0]}: the recipe comes first, such as training/recipes/tiny.yaml")
    values = read_recipe(Path(argv[0]))
    rest, config = take_config(list(argv[1:]), values.get("config", {}))
    parser.set_defaults(**values | {"config": config})
    recipe, unknown = parser.parse_args_into_dataclasses(rest, return_remaining_strings=True)
    if unknown:
        names = [f"--{entry.name}" for entry in dataclasses.fields(Recipe)]
        raise ValueError(f"unknown option {unknown[0]}{nearest(unknown[0], names)}; `--help` lists all")
    return recipe


def take_config(argv: list[str], config: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What HfArgumentParser does not read: `--config MAPPING` takes the recipe's place, `--config.NAME VALUE` that of one value."""
    parser = OneLineParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    for name in dict.fromkeys(text.partition("=")[0] for text in argv if text.startswith("--config.")):
        parser.add_argument(name)
    known, rest = parser.parse_known_args(argv)
    given: dict[str, Any] = {}
    for name, text in vars(known).items():
        if text is None:
            continue
        try:
            given[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"--{name}: {text!r} cannot be read ({' '.join(str(error).split())})") from error
    if "config" in given:
        config = convert({"config": given.pop("config")}, "command line")["config"]
    return rest, config | {name.removeprefix("config."): value for name, value in given.items()}


class OneLineParser(HfArgumentParser):
    """A wrong option is an error like any other."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see --help)")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        recipe = parse_arguments(sys.argv[1:] if argv is None else argv)
        recipe.check()  # before its folder is made
        is_first = os.environ.get("RANK", "0") == "0"  # of the processes of a run, one holds its lock
        lock = only_run(Path(recipe.output_dir), inside=True) if is_first else contextlib.nullcontext()
        with lock, StopRequest() as stop:
            return pretrain(recipe, stop)
    except (ValueError, OSError, ImportError, yaml.YAMLError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        rank = torch.distributed.get_rank()
        print(
            f"error: process {rank}: another process of this run has ended; its own message says why", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


if __name__ == "__main__":
    end_process(main())
