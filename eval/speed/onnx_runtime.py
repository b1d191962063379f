"""ONNX Runtime beside PyTorch: one exported graph in fp32 and int8, the model as it is, and `optimize_for_inference`.

All stand in one process, take turns and get the same number of threads; the table gives medians, a row a graph and batch. Weights are
those of the checkpoint, or random for a preset. Machines that other work shares give noisy times: with `--processor_time` the table counts
what the processor worked, with one thread the time of a machine that is quiet.

    python eval/speed/onnx_runtime.py                                   # tiny's encoder, 128x128, batch 1 and 8
    python eval/speed/onnx_runtime.py --threads 1 --processor_time      # where other work runs
    python eval/speed/onnx_runtime.py --preset base --batch 1 --side 256 --repeats 3
    python eval/speed/onnx_runtime.py --model runs/lesion --images scans

Needs `pip install -e ".[onnx]"`.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timing import interleaved, print_machine

from echocare_hf import EchoCareConfig, EchoCareImageProcessorPil, EchoCareModel, optimize_for_inference
from echocare_hf.hub.export_onnx import export_onnx, load_checkpoint, open_session, run_session


def cases(model: torch.nn.Module, folder: Path, graph: str, batch: int, side: int) -> dict[str, Callable[[], object]]:
    """What takes turns in a row of the table."""
    inputs = (torch.rand(batch, 3, side, side),)
    packed = optimize_for_inference(copy.deepcopy(model))
    every_map = {"output_hidden_states": True} if graph == "encoder" else {}

    def of_torch(network: torch.nn.Module) -> object:
        with torch.inference_mode():
            return network(*inputs, **every_map)

    rows: dict[str, Callable[[], object]] = {
        "PyTorch fp32": lambda: of_torch(model),
        "PyTorch fp32, optimize_for_inference": lambda: of_torch(packed),
    }
    for name, file in (("fp32", f"{graph}.onnx"), ("int8", f"{graph}_int8.onnx")):
        session = open_session(folder / file)
        rows[f"ONNX Runtime {name}"] = lambda session=session: run_session(session, ("pixel_values",), inputs)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="echocare-tiny", help="a checkpoint of images; default: %(default)s")
    parser.add_argument("--preset", choices=("tiny", "base", "large"), help="random weights instead of --model")
    parser.add_argument("--images", help="images to calibrate int8 on; default: dynamic int8")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="images at a time; default: 1 8")
    parser.add_argument("--side", type=int, default=128, help="pixels; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=9, help="rounds that count; default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--processor_time", action="store_true", help="in place of the clock's")
    parser.add_argument("--seed", type=int, default=0, help="of weights and images; default: %(default)s")
    arguments = parser.parse_args()
    if min(arguments.repeats, arguments.threads, *arguments.batch) < 1 or arguments.side < 8:
        parser.error("--repeats, --threads and --batch are at least 1, --side at least 8")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.model
        if arguments.preset:
            source = str(Path(scratch) / arguments.preset)
            EchoCareModel(EchoCareConfig.preset(arguments.preset)).save_pretrained(source)
            EchoCareImageProcessorPil().save_pretrained(source)
        folder = Path(scratch) / "onnx"
        made = export_onnx(source, folder, int8=True, images=arguments.images)
        model, _, _ = load_checkpoint(source)
        print_machine(arguments.threads, arguments.repeats)
        table: list[tuple[str, dict[str, float]]] = []
        clock = time.process_time if arguments.processor_time else None
        for graph in made:
            if graph.inputs != ["pixel_values"]:
                continue
            network = getattr(model, "echocare", model) if graph.name == "encoder" else model
            for batch in arguments.batch:
                rows = cases(network, folder, graph.name, batch, arguments.side)
                seconds = interleaved(rows, arguments.repeats, f"{graph.name}, batch {batch}", clock)
                what = f"{Path(source).name}, {graph.name}.onnx, {arguments.side}x{arguments.side}, batch {batch}"
                table.append((what, {name: batch / value for name, value in seconds.items()}))
        print_rates(table, "images a second of the processor" if arguments.processor_time else "images a second")
        for graph in made:
            assert graph.int8 is not None
            print(f"\n{graph.name}, int8 ({graph.int8['method']}): {graph.int8['summary']}")


def print_rates(rows: list[tuple[str, dict[str, float]]], unit: str) -> None:
    """One table: rates, and in brackets how many times that of the first column."""
    names = list(rows[0][1])
    print(f"\n| {unit} | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for what, rates in rows:
        first = rates[names[0]]
        cells = [f"{rates[names[0]]:.1f}", *(f"{rates[name]:.1f} ({rates[name] / first:.2f})" for name in names[1:])]
        print(f"| {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
