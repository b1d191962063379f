"""What a pretraining recipe costs: operations an image, operations of the run, and days on so many GPUs.

    python training/cost.py training/recipes/base.yaml training/recipes/large.yaml

Operations are counted by torch on a network without memory (2 for a multiplication and addition; matrix products and convolutions):
forward once, backward twice that, and the teacher's pass of the encoder where it chooses hard patches. How much of a GPU's peak a run of
this network reaches is not known before it is measured there: the days stand for the shares that are given.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from echocare_hf.pretraining.network import make_network
from echocare_hf.pretraining.recipe import Recipe, read_recipe

PEAKS = {"A100": 312e12, "H100": 989e12}  # dense bf16 operations a second, from NVIDIA's data sheets


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--gpus", nargs="+", type=int, default=[8, 64])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.2, 0.4], help="of the peak that is reached")
    arguments = parser.parse_args(argv)
    try:
        for path in arguments.recipes:
            print_cost(path, arguments.gpus, arguments.shares)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def print_cost(path: Path, gpus: Sequence[int], shares: Sequence[float]) -> None:
    recipe = Recipe(**read_recipe(path))
    schedule = recipe.schedule()
    with torch.device("meta"):
        network = make_network(recipe)
    print(
        f"{path.stem}: {network.model.num_parameters():,} parameters, encoder {network.model.echocare.num_parameters():,}"
    )
    total = 0.0
    places = [place for place, _ in schedule.image_sizes]
    for (start, end), (_, size) in zip(pairwise([*places, 1.0]), schedule.image_sizes, strict=True):
        forward, teacher = count(network, int(size), recipe.hard_patches)
        images = (end - start) * recipe.steps * recipe.batch_size
        total += images * (3 * forward + teacher)
        print(
            f"  {size:.0f} px: forward {forward / 1e9:.1f} GFLOP, step {(3 * forward + teacher) / 1e9:.1f} GFLOP an image"
        )
    print(f"  the run: {recipe.steps:,} steps x {recipe.batch_size} images, {total:.3g} FLOP")
    for name, peak in PEAKS.items():
        for number in gpus:
            days = ", ".join(
                f"{total / (peak * share * number) / 86400:.1f} days at {share:.0%} of the peak" for share in shares
            )
            print(f"  {number} x {name}: {days}")


def count(network: torch.nn.Module, size: int, teacher: bool) -> tuple[float, float]:
    """Operations of a forward pass of one image, and of the teacher's pass."""
    config = network.model.config  # type: ignore[union-attr]
    units = -(-size // config.mask_unit_size)
    with torch.device("meta"), torch.no_grad():
        image, mask = torch.empty(1, 3, size, size), torch.zeros(1, units, units, dtype=torch.bool)
        with FlopCounterMode(display=False) as whole:
            network.model(image, bool_masked_pos=mask)
        with FlopCounterMode(display=False) as encoder:
            network.model.echocare(image)
    return whole.get_total_flops(), encoder.get_total_flops() if teacher else 0


if __name__ == "__main__":
    sys.exit(main())
