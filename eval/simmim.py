"""Pretrains a reference for EchoCare's encoder: SimMIM, transformers' SwinForMaskedImageModeling, of equal size on the same corpus.

    python eval/simmim.py --data CORPUS --output runs/simmim --steps 2000 --batch_size 32          # as many images as EchoCare saw
    python eval/simmim.py --data CORPUS --output runs/simmim --cpu_minutes 44                      # as much processor time
    python eval/run.py --suite proxy --model echocare-tiny hf:runs/simmim/final                    # and measures it

CORPUS is what training/pretrain.py takes: a folder of `echocare curate`, a folder of images, or phantoms:COUNT. What is the same as there:
the images and who is held out, their order, crops, mirroring and brightness, batch, optimizer, learning rate and its schedule, moving
average, all from one recipe (training/recipes/tiny.yaml unless --recipe names another), and how a run is resumed. What is SimMIM's (Xie et
al. 2022): the plain Swin, the linear head, mean absolute error on the hidden pixels alone, images normalised with ImageNet's mean and
deviation, and masks of 60 % of the units. A unit has 16 pixels, because SimMIM's 32 are for images of 192 and more.

The Swin has EchoCare's patch, depths and heads; its width is the one that gives about as many parameters to the encoder, since it has no
convolutional blocks and one merging less. Its window is the side of its last map, as in SimMIM: transformers (5.23) fails where a map is
smaller than the window.

OUTPUT/final is a checkpoint for `transformers` and for `hf:` in eval/run.py: the moving average of the weights, an image processor with
mean and deviation, training.json. A run that was cut off, by SIGKILL too, goes on from its last checkpoint when the same command is given
again; Ctrl-C and SIGTERM save first. With --cpu_minutes the learning rate falls by processor time, or by steps where these end earlier.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from echocare_hf import EchoCareConfig, EchoCareModel
from echocare_hf.anatomy import AnatomyTree
from echocare_hf.pretraining.corpus import read_corpus
from echocare_hf.pretraining.evaluation import pick
from echocare_hf.pretraining.hard_patches import draw_mask
from echocare_hf.pretraining.optimization import MovingAverage, adamw
from echocare_hf.pretraining.preparation import Prepared, prepare
from echocare_hf.pretraining.recipe import Recipe, convert, read_recipe
from echocare_hf.pretraining.run import RunFolder, StopRequest, end_process, make_accelerator, seed_step
from echocare_hf.pretraining.stream import Changes, StreamImages, batches, resize
from runner.simmim_model import SimMIM, encoder_parameters, equal_width, publish, swin_config

RECIPE = Path(__file__).resolve().parents[1] / "training" / "recipes" / "tiny.yaml"
MASK_RATIO, MASK_UNIT = 0.6, 16  # share of the units, and pixels
HELD_OUT_SEED = 0  # of the masks of the held-out images: the same at every look


def pretrain(recipe: Recipe, width: int | None, cpu_minutes: float | None, stop: StopRequest) -> int:
    """Does what the head of this file says; returns the exit code."""
    recipe.check()
    accelerator = make_accelerator(recipe, Path(recipe.output_dir))
    folder = RunFolder(Path(recipe.output_dir), recipe, accelerator)
    if folder.is_done:
        folder.say(f"{folder.output / 'final'}: is there already")
        return 0
    schedule = recipe.schedule()
    side = schedule.largest_image
    config = EchoCareConfig.preset(recipe.preset, **recipe.config, image_size=side)
    torch.manual_seed(recipe.seed)
    network = SimMIM(swin_config(config, side, width or equal_width(config, side)))
    facts = {
        "encoder_parameters": encoder_parameters(network.model.config),
        "echocare_parameters": EchoCareModel(config, use_mask_token=False).num_parameters(),
    }
    folder.say(
        f"a Swin of {network.model.config.embed_dim} channels: {facts['encoder_parameters']:,} parameters in the "
        f"encoder, EchoCare has {facts['echocare_parameters']:,}"
    )
    data = _data(recipe, config, side)
    for line in data.report:
        folder.say(line)
    corpus = [len(data.train), data.train.fingerprint()]
    average = MovingAverage(network)
    average.network.to(accelerator.device)
    optimizer = adamw(
        network, recipe.learning_rate, recipe.weight_decay, (recipe.betas[0], recipe.betas[1]), recipe.epsilon
    )
    network, optimizer = accelerator.prepare(network, optimizer)
    state: dict[str, Any] = {
        "seconds": 0.0,
        "cpu_seconds": 0.0,
        "corpus": corpus,
        "width": width,
        "cpu_minutes": cpu_minutes,
    }
    asked = dict(state)
    state |= folder.restore(network, optimizer, average)
    for name, cure in (("corpus", "images"), ("width", "--width"), ("cpu_minutes", "--cpu_minutes")):
        if state[name] != asked[name]:
            raise ValueError(f"{folder.output}: holds a run with other {cure}; give the same, or another --output")

    images = StreamImages(data.train, Changes.of(recipe), recipe.seed, config.mask_unit_size)
    stream = batches(images, recipe, schedule, state["step"], accelerator.process_index, accelerator.num_processes)
    bar = tqdm(
        total=recipe.steps * recipe.batch_size,
        initial=state["step"] * recipe.batch_size,
        desc="SimMIM",
        unit="image",
        smoothing=0.05,
    )
    clock, processor = time.monotonic(), time.process_time()
    with bar:
        for step, parts in enumerate(stream, start=state["step"]):
            cpu = state["cpu_seconds"] + time.process_time() - processor
            share = max(step / recipe.steps, cpu / (60 * cpu_minutes) if cpu_minutes else 0.0)
            now = schedule.at(min(round(share * recipe.steps), recipe.steps - 1))
            for group in optimizer.param_groups:
                group["lr"] = now.learning_rate
            seed_step(recipe.seed, step, accelerator.process_index)
            loss = torch.zeros(())
            for batch in parts:
                batch = batch.to(accelerator.device)
                part, _ = network(batch.pixel_values, draw_mask(batch.noise, now.mask_ratio))
                accelerator.backward(part / len(parts))
                loss += part.detach().cpu().float() / len(parts)
            norm = float(accelerator.clip_grad_norm_(network.parameters(), recipe.max_grad_norm))
            if not math.isfinite(norm):
                raise ValueError(
                    f"step {step + 1}: the gradient norm is {norm}; lower --learning_rate, or use --precision fp32"
                )
            optimizer.step()
            optimizer.zero_grad()
            average.update(accelerator.unwrap_model(network), now.ema_decay)
            state["step"] = done = step + 1
            bar.update(recipe.batch_size)

            out_of_time = (
                cpu_minutes is not None and state["cpu_seconds"] + time.process_time() - processor >= 60 * cpu_minutes
            )
            finished = done == recipe.steps or out_of_time
            if done % recipe.log_every == 0 or finished:
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                rate = round(bar.format_dict["rate"] or 0.0, 2)
                folder.log(
                    {
                        "step": done,
                        "loss": round(float(loss), 7),
                        "gradient_norm": norm,
                        **now.as_dict(),
                        "images_per_second": rate,
                    }
                )
            stopping = stop.agreed(accelerator)
            state["seconds"], clock = state["seconds"] + time.monotonic() - clock, time.monotonic()
            state["cpu_seconds"], processor = (
                state["cpu_seconds"] + time.process_time() - processor,
                time.process_time(),
            )
            if finished or (done % recipe.evaluate_every == 0 and not stopping):
                error = held_out_error(average.network, data, recipe, accelerator)
                folder.log({"step": done, "validation_masked_error": round(error, 5)})
                folder.say(f"\nstep {done}: masked error of the held-out images {error:.4f}")
                clock, processor = time.monotonic(), time.process_time()  # a look is no training
            if stopping or finished or done % recipe.save_every == 0:
                folder.save(network, optimizer, average, state)
            if finished:
                break
            if stopping:
                folder.say(f"asked to stop: saved after step {done}; the same command goes on from there")
                return 128 + stop.signal

    publish(average.network.model, folder, recipe, data, state | facts)
    folder.say(f"made {folder.output / 'final'}: model, image processor, card, training.json")
    return 0


def _data(recipe: Recipe, config: EchoCareConfig, side: int) -> Prepared:
    return prepare(
        read_corpus(recipe.data, AnatomyTree.from_config(config), recipe.seed),
        image_size=side,
        licences=recipe.licences,
        exclude=recipe.exclude,
        exclude_groups=recipe.exclude_groups,
        validation=recipe.validation,
        seed=recipe.seed,
        memory_mb=recipe.memory_mb,
    )


@torch.inference_mode()
def held_out_error(network: SimMIM, data: Prepared, recipe: Recipe, accelerator: Accelerator) -> float:
    """Mean absolute error of the hidden pixels of held-out images, which are squashed and not changed otherwise; 0 to 1."""
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    rows, side = pick(data.validation, recipe.evaluation_images), recipe.schedule().largest_image
    units = side // int(recipe.config["mask_unit_size"])
    total = 0.0
    for start in range(0, len(rows), recipe.batch_size):
        chosen = rows[start : start + recipe.batch_size]
        pixels = torch.stack([resize(data.validation.images.read(int(row)), side).expand(3, -1, -1) for row in chosen])
        noise = torch.rand(len(chosen), units, units, generator=generator, dtype=torch.float64)
        mask = draw_mask(noise, recipe.schedule().at(0).mask_ratio).to(accelerator.device)
        with accelerator.autocast():
            _, error = network(pixels.to(accelerator.device).float() / 255, mask)
        total += float(error) * len(chosen)
    return total / len(rows)


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe, with what the command line changes and what is SimMIM's."""
    values = read_recipe(arguments.recipe)
    given = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    unit = {"config": dict(values.get("config", {})) | {"mask_unit_size": arguments.mask_unit}}
    kept = {
        "data": arguments.data,
        "output_dir": str(arguments.output),
        "mask_ratio": arguments.mask_ratio,
        "hard_patches": False,
    }
    return Recipe(**convert(values | given | unit | kept, "eval/simmim.py"))


# What the recipe says if it is not given: name and kind of value.
OPTIONS: dict[str, Any] = {
    "steps": int,
    "batch_size": int,
    "image_size": int,
    "learning_rate": float,
    "warmup_steps": int,
    "seed": int,
    "precision": str,
    "save_every": int,
    "evaluate_every": int,
    "workers": int,
    "licences": list,
    "exclude": list,
    "exclude_groups": list,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="corpora, as training/pretrain.py takes them")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the run; one that was cut off goes on there"
    )
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="of training/pretrain.py; default: tiny.yaml")
    parser.add_argument(
        "--mask_ratio", type=float, default=MASK_RATIO, help="share of the units that is hidden; default: %(default)s"
    )
    parser.add_argument(
        "--mask_unit", type=int, default=MASK_UNIT, help="side of a unit in pixels; default: %(default)s"
    )
    parser.add_argument(
        "--width", type=int, help="channels of the first stage; default: for as many parameters as EchoCare's encoder"
    )
    parser.add_argument(
        "--cpu_minutes", type=float, help="end the schedule after so much processor time of this process"
    )
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch; default: %(default)s")
    for name, kind in OPTIONS.items():
        many: dict[str, Any] = {"nargs": "*"} if kind is list else {"type": kind}
        parser.add_argument(f"--{name}", **many, help="as in training/pretrain.py; default: the recipe's")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(max(arguments.threads, 1))
    try:
        if arguments.cpu_minutes is not None and not arguments.cpu_minutes > 0:
            raise ValueError(f"--cpu_minutes is {arguments.cpu_minutes}: give a number above 0")
        with StopRequest() as stop:
            return pretrain(recipe_of(arguments), arguments.width, arguments.cpu_minutes, stop)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


if __name__ == "__main__":
    end_process(main())
