"""Fully sharded runs (FSDP2): checkpoints that do not say how many processes wrote them, and sharding without GPUs for trials.

Checkpoints of a sharded run hold the whole state in the form of any other run, model.safetensors and optimizer.bin. So a run may go on
with another number of processes, sharded or not.
"""

import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.constants import OPTIMIZER_NAME, SAFE_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

OPTIMIZER_FILE = f"{OPTIMIZER_NAME}.bin"


def shard_on_cpu(accelerator: Accelerator) -> None:
    """Makes processes on CPUs shard where the launcher asks for it (`ACCELERATE_USE_FSDP`). Call it before `prepare`.

    Accelerate (1.15, `AcceleratorState`) starts processes on CPUs as DDP, whatever its configuration says; PyTorch shards there as well.
    """
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not asked or accelerator.distributed_type != DistributedType.MULTI_CPU:
        return
    plugin = FullyShardedDataParallelPlugin()  # its values come from the launcher's environment
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    state: Any = AcceleratorState()
    state.fsdp_plugin = plugin
    for shared in (state, PartialState()):
        shared.distributed_type = DistributedType.FSDP


def save_whole(network: nn.Module, optimizer: Optimizer, folder: Path, write: bool) -> None:
    """Gathers the state of a sharded run and writes it as a run without shards does. All processes call it.

    Args:
        network: as prepared.
        optimizer: of the network, not wrapped.
        folder: of the checkpoint.
        write: whether this process writes; one does.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(network, options=options)
    state = get_optimizer_state_dict(network, optimizer, options=options)
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.contiguous() for name, value in weights.items()}, folder / SAFE_WEIGHTS_NAME, {"format": "pt"}
        )
        torch.save(_by_number(state), folder / OPTIMIZER_FILE)


def load_whole(network: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    """Loads a checkpoint into a sharded run. All processes call it and read it, so that what does not fit fails in all.

    Raises:
        RuntimeError, KeyError: if it is of another network.
    """
    options = StateDictOptions(full_state_dict=True, strict=True)
    weights: dict[str, Any] = dict(load_file(folder / SAFE_WEIGHTS_NAME))
    set_model_state_dict(network, weights, options=options)
    state = torch.load(folder / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    set_optimizer_state_dict(network, optimizer, _by_name(state, order), options=options)


def _by_number(state: dict[str, Any]) -> dict[str, Any]:
    """The state of an optimizer with parameters by name, as `Optimizer.state_dict` counts them: group after group."""
    names = [name for group in state["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    return {
        "state": {numbers[name]: values for name, values in state["state"].items()},
        "param_groups": [
            group | {"params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]
        ],
    }


def _by_name(state: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The other way round."""
    return {
        "state": {names[number]: values for number, values in state["state"].items()},
        "param_groups": [
            group | {"params": [names[number] for number in group["params"]]} for group in state["param_groups"]
        ],
    }
