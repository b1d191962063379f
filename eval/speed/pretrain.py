"""Speed and memory of pretraining: the loop against its bare step, what hard patches cost, and SimMIM on transformers' Swin.

What is compared takes turns in one process; the tables give medians and ratios. Peak memory is that of a process of its own for each row.
Machines that other work shares give noisy times: quote the ratios.

    python eval/speed/pretrain.py                          # every table, about eight minutes on a core
    python eval/speed/pretrain.py loop --data CORPUS       # on real images; phantoms if it is not given
    python eval/speed/pretrain.py teacher simmim --rounds 9
    python eval/speed/pretrain.py memory --batch 16

loop     training/pretrain.py as it runs, between two of its steps: reading, changing and masking images, step, moving average, log.
         The bare step, which takes turns with it, has its batch and mask in memory: forward, backward, clipping, AdamW.
teacher  the moving average scores the whole image, for hard patch mining.
simmim   SwinForMaskedImageModeling of the same depths and heads, with the same masks, optimizer and batch: once with the same widths,
         which has fewer parameters (no convolutional blocks, one merging less, no anatomy loss), and once with the widths that give it
         about as many. Its window is 4, since transformers (5.23) fails where a map is smaller than the window.
"""

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.state import AcceleratorState
from timing import bf16, interleaved, peak_memory, print_machine, print_table
from torch import Tensor, nn

from echocare_hf import EchoCareConfig, EchoCareForPreTraining
from echocare_hf.inference import bfloat16_is_fast
from echocare_hf.model.losses_echocare import expand_mask
from echocare_hf.pretraining.hard_patches import draw_mask
from echocare_hf.pretraining.network import make_network
from echocare_hf.pretraining.optimization import MovingAverage, adamw
from echocare_hf.pretraining.recipe import Recipe, convert, read_recipe

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("loop", "teacher", "simmim", "memory")
sys.path.insert(0, str(ROOT / "training"))
import pretrain  # noqa: E402

Step = Callable[[], None]


def tiny_recipe(arguments: argparse.Namespace, output: str, **changes: Any) -> Recipe:
    """The recipe of echocare-tiny, short, with nothing but steps: it looks once, at few images, and saves once, at its end."""
    values = read_recipe(ROOT / "training" / "recipes" / "tiny.yaml") | {
        "data": [arguments.data or f"phantoms:{4 * arguments.batch}"],
        "output_dir": output,
        "steps": arguments.rounds + 3,
        "warmup_steps": 1,
        "batch_size": arguments.batch,
        "licences": [],
        "log_every": 1,
        "evaluate_every": 10**6,
        "save_every": 10**6,
        "evaluation_images": 2,
        "probe_images": 0,
        "sample_images": 0,
        "seed": arguments.seed,
    }
    return Recipe(**convert(values | changes, "eval/speed/pretrain.py"))


def random_batch(config: EchoCareConfig, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, mask, anatomy labels and levels of one step."""
    side, units = config.image_size, config.image_size // config.mask_unit_size
    mask = draw_mask(torch.rand(batch, units, units, dtype=torch.float64), config.mask_ratio)
    labels = torch.randint(-1, 2, (batch, config.num_anatomy_nodes))
    return torch.rand(batch, 3, side, side), mask, labels, torch.full((batch, 3), -1)


def optimised(network: nn.Module, recipe: Recipe, loss: Callable[[], Tensor], half: bool) -> Step:
    """One step of an optimizer: forward, backward, clipping, AdamW."""
    optimizer = adamw(network, recipe.learning_rate, recipe.weight_decay)

    def step() -> None:
        with bf16(half):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def bare_step(recipe: Recipe, half: bool) -> Step:
    network = make_network(recipe)
    batch = random_batch(network.model.config, recipe.batch_size)
    return optimised(network, recipe, lambda: network(*batch)["loss"], half)


def run_loop(recipe: Recipe, between: Step | None = None) -> tuple[list[float], list[float]]:
    """Runs training/pretrain.py; seconds of its steps, and of `between`, which is called before each. The first two do not count."""
    loop: list[float] = []
    bare: list[float] = []
    original = pretrain.batches

    def timed(*values: Any, **named: Any) -> Iterator[Any]:
        stream = original(*values, **named)
        while True:
            if between is not None:
                start = time.perf_counter()
                between()
                bare.append(time.perf_counter() - start)
            start = time.perf_counter()
            parts = next(stream, None)
            if parts is None:
                return
            yield parts
            loop.append(time.perf_counter() - start)

    AcceleratorState._reset_state(reset_partial_state=True)  # of a run in another precision
    pretrain.batches = timed
    try:
        with pretrain.StopRequest() as stop, redirect_stdout(io.StringIO()):
            pretrain.pretrain(recipe, stop)
    finally:
        pretrain.batches = original
    return loop[2:-1], bare[2:-2]  # the last step is followed by a look and a checkpoint


def loop_table(arguments: argparse.Namespace) -> None:
    for name, half in precisions():
        with tempfile.TemporaryDirectory() as folder:
            recipe = tiny_recipe(arguments, f"{folder}/run", precision=name)
            loop, bare = run_loop(recipe, bare_step(recipe, half))
        rows = {
            "bare step": arguments.batch / statistics.median(bare),
            "whole loop": arguments.batch / statistics.median(loop),
        }
        print_table(f"Loop, tiny, batch {arguments.batch}, {name}", rows, "images/s", "bare step")


def teacher_cases(recipe: Recipe, half: bool) -> dict[str, Step]:
    """A step without hard patches; one with them, whose mask the teacher chooses by half; and the teacher's pass alone."""
    plain = bare_step(recipe, half)
    network = make_network(Recipe(**{**vars(recipe), "hard_patches": True}))
    pixels, mask, labels, levels = random_batch(network.model.config, recipe.batch_size)
    average = MovingAverage(network)
    noise = torch.rand(mask.shape, dtype=torch.float64)
    drawn = {"mask": mask}
    learn = optimised(network, recipe, lambda: network(pixels, drawn["mask"], labels, levels)["loss"], half)

    def teach() -> None:
        with bf16(half):
            scores = average.network.score_units(pixels)
        drawn["mask"] = draw_mask(noise, network.model.config.mask_ratio, scores, 0.5)

    def both() -> None:
        teach()
        learn()

    return {"step with hard patches": both, "step without": plain, "teacher's pass": teach}


def teacher_table(arguments: argparse.Namespace) -> None:
    for name, half in precisions():
        seconds = interleaved(teacher_cases(tiny_recipe(arguments, "none"), half), arguments.rounds, "teacher")
        print(
            f"\n### Hard patches, tiny, batch {arguments.batch}, {name}\n\n| | seconds | share of the step |\n|---|---|---|"
        )
        for case, value in seconds.items():
            print(f"| {case} | {value:.3f} | {value / seconds['step with hard patches']:.2f} |")


def simmim(config: EchoCareConfig, width: int) -> Any:
    """transformers' masked modelling on a Swin whose first stage is so wide."""
    stride = config.patch_size * 2 ** (len(config.depths) - 1)
    swin = transformers.SwinConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=width,
        depths=list(config.depths),
        num_heads=list(config.num_heads),
        window_size=config.image_size // stride,
        drop_path_rate=config.drop_path_rate,
        encoder_stride=stride,
    )
    return transformers.SwinForMaskedImageModeling(swin)


def simmim_case(name: str, recipe: Recipe, half: bool) -> tuple[Step, int]:
    """A step of `simmim`, `equal`, `l_mim` or `both` (L_MIM and L_HIE), and the number of parameters."""
    config = EchoCareConfig.preset("tiny", **recipe.config, image_size=recipe.schedule().largest_image)
    pixels, mask, labels, _ = random_batch(config, recipe.batch_size)
    if name in ("simmim", "equal"):
        model = simmim(config, config.embed_dim).train()
        if name == "equal":
            wanted = EchoCareForPreTraining(config).num_parameters()
            widths = range(config.embed_dim, 2 * config.embed_dim, config.num_heads[0])
            candidates = [simmim(config, width) for width in widths]
            model = min(candidates, key=lambda one: abs(one.num_parameters() - wanted)).train()
        patches = config.image_size // config.patch_size
        tokens = expand_mask(mask, patches, patches).flatten(1).bool()
        count = model.num_parameters()
        return optimised(model, recipe, lambda: model(pixels, bool_masked_pos=tokens).loss, half), count
    model = EchoCareForPreTraining(config).train()
    given = {"labels": labels} if name == "both" else {}
    return optimised(
        model, recipe, lambda: model(pixels, bool_masked_pos=mask, **given).loss, half
    ), model.num_parameters()


LABELS = {
    "simmim": "SimMIM, same widths",
    "equal": "SimMIM, as many parameters",
    "l_mim": "EchoCare, L_MIM",
    "both": "EchoCare, L_MIM + L_HIE",
}


def simmim_table(arguments: argparse.Namespace) -> None:
    recipe = tiny_recipe(arguments, "none")
    made = {
        f"{label}, {precision}": simmim_case(name, recipe, half)
        for precision, half in precisions()
        for name, label in LABELS.items()
    }
    seconds = interleaved({name: step for name, (step, _) in made.items()}, arguments.rounds, "simmim")
    print(f"\n### Training step, widths of tiny, batch {arguments.batch}\n")
    print(
        "| | M parameters | images/s | ratio to SimMIM of the same widths | of as many parameters |\n|---|---|---|---|---|"
    )
    for name, value in seconds.items():
        peers = [f"{LABELS[peer]}, {name.rsplit(', ', 1)[1]}" for peer in ("simmim", "equal")]
        ratios = " | ".join(f"{seconds[peer] / value:.2f}" for peer in peers)
        print(f"| {name} | {made[name][1] / 1e6:.2f} | {arguments.batch / value:.1f} | {ratios} |")


def run_for_peak(case: str, arguments: argparse.Namespace) -> None:
    """Three steps of one row of the table of memory."""
    name, precision = case.split(":")
    half = precision == "bf16"
    if name == "loop":
        with tempfile.TemporaryDirectory() as folder:
            run_loop(tiny_recipe(arguments, f"{folder}/run", precision=precision, steps=3))
        return
    recipe = tiny_recipe(arguments, "none")
    if name == "teacher":
        step = teacher_cases(recipe, half)["step with hard patches"]
    else:
        step = simmim_case(name, recipe, half)[0]
    for _ in range(3):
        step()


def memory_table(arguments: argparse.Namespace) -> None:
    rows = {
        "loop": "whole loop, its phantoms and a look",
        "teacher": "step with hard patches",
        "simmim": LABELS["simmim"],
        "both": LABELS["both"],
    }
    print(f"\n### Peak memory, tiny, batch {arguments.batch}, whole process\n\n| | precision | MiB |\n|---|---|---|")
    given = [f"--{name}={getattr(arguments, name)}" for name in ("batch", "threads", "seed", "data")]
    for name, label in rows.items():
        for precision, _ in precisions():
            command = [sys.executable, str(Path(__file__).resolve()), "--peak", f"{name}:{precision}", *given]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{label}, {precision}: {done.stderr[-500:]}")
            print(f"| {label} | {precision} | {float(done.stdout.split()[-1]):.0f} |", flush=True)


def precisions() -> list[tuple[str, bool]]:
    return [("fp32", False), ("bf16", True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; default: all")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count; default: %(default)s")
    parser.add_argument("--batch", type=int, default=32, help="images a step; default: %(default)s")
    parser.add_argument("--data", default="", help="corpus for the loop; default: phantoms")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of weights and images; default: %(default)s")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.tables) - set(TABLES))
    if unknown or min(arguments.rounds, arguments.batch, arguments.threads) < 1:
        parser.error(
            f"no such table: {', '.join(unknown)}" if unknown else "--rounds, --batch, --threads are at least 1"
        )
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    if arguments.peak:
        run_for_peak(arguments.peak, arguments)
        print(peak_memory())
        return
    print_machine(arguments.threads, arguments.rounds)
    if not bfloat16_is_fast():
        print("bf16 is emulated on this machine: its rows say nothing about machines that multiply in it")
    tables = {"loop": loop_table, "teacher": teacher_table, "simmim": simmim_table, "memory": memory_table}
    for table in arguments.tables or TABLES:
        tables[table](arguments)


if __name__ == "__main__":
    main()
