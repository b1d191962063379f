"""`echocare export --onnx`: a checkpoint as ONNX graphs for any batch and image size, compared with PyTorch before anything is kept."""

import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig

from ..checkpoints import find_checkpoint
from ..files import written_beside
from ..model import modeling_echocare as models
from ..model.image_processing_pil_echocare import EchoCareImageProcessorPil

TOLERANCE = 1e-4
"""Largest difference between an output of the graph and of PyTorch, as a share of the value where that is above 1."""
LOWEST_OPSET, HIGHEST_OPSET = 20, 23
RECORD = "export.json"
_LARGEST_FILE = 1_900_000_000  # bytes; a protobuf ends at 2 GiB, beyond which weights go to a file of their own


@dataclass
class ExportedGraph:
    """One graph of an export.

    Attributes:
        name: file name without ".onnx".
        inputs, outputs: names, in order.
        megabytes: size of the file.
        differences: for each output the largest difference to PyTorch over all inputs that were tried; empty without a check.
        sizes: batch, height and width of these inputs.
        int8: what the int8 graph costs, see `export_onnx_int8`; None without one.
    """

    name: str
    inputs: list[str]
    outputs: list[str]
    megabytes: float
    differences: dict[str, float] = field(default_factory=dict)
    sizes: list[list[int]] = field(default_factory=list)
    int8: dict[str, Any] | None = None


def export_onnx(
    folder: str | Path,
    output: str | Path,
    *,
    int8: bool = False,
    opset: int = LOWEST_OPSET,
    check: bool = True,
    images: str | Path | None = None,
    data: str | Path | None = None,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> list[ExportedGraph]:
    """Exports the encoder (`encoder.onnx`: every map and the pooled feature) and the head of a checkpoint (`model.onnx`).

    Args:
        folder: a checkpoint of any head but the report generator, or the bare name of one that ships.
        output: the folder to make; an earlier export there is replaced.
        int8: also write `*_int8.onnx`, and measure what they cost.
        opset: of ONNX, 20 to 23.
        check: run the graphs beside PyTorch, on several batches and sizes.
        images: a folder of images to calibrate and compare the int8 graphs on; phantoms if not given.
        data: labelled data to measure the fp32 and int8 graphs on.
        seed: of the inputs of the check.
        report: takes one line of text at a time.

    Returns:
        What was made, also in `export.json` of the folder.

    Raises:
        ImportError: if onnx, onnxruntime or onnxscript is missing.
        ValueError: for a checkpoint that cannot be exported, or a graph that differs from PyTorch; nothing is written then.
    """
    require_onnx()
    from .export_onnx_graphs import GRAPHS, EncoderGraph, Graph

    output = Path(output)
    if not LOWEST_OPSET <= opset <= HIGHEST_OPSET:
        raise ValueError(f"--opset {opset}: the graphs need opset {LOWEST_OPSET} to {HIGHEST_OPSET}")
    if (images or data) and not int8:
        raise ValueError("--images and --data measure what int8 costs: give --int8 too")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output}: is a file; give a folder to write to")
    if output.is_dir() and any(output.iterdir()) and not (output / RECORD).is_file():
        raise ValueError(f"{output}: holds other files than an earlier export; choose another folder")
    model, processor, source = load_checkpoint(folder)
    if source.resolve() == output.resolve():
        raise ValueError(f"{output}: is the checkpoint itself; choose another folder")
    graphs: dict[str, tuple[Graph, Any]] = {"encoder": (EncoderGraph(encoder_of(model)), encoder_of(model))}
    if type(model) in GRAPHS:
        graphs["model"] = (GRAPHS[type(model)](model), model)

    made: list[ExportedGraph] = []
    output.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(output) as partial:
        partial.mkdir()
        for name, (graph, original) in graphs.items():
            path = partial / f"{name}.onnx"
            report(f"exporting {name}.onnx")
            write_graph(graph, path, opset)
            one = ExportedGraph(name, list(graph.input_names), list(graph.output_names), _megabytes(path))
            made.append(one)
            if check:
                check_graph(graph, original, path, one, seed)
                report(
                    f"{name}.onnx: at most {max(one.differences.values()):.1e} from PyTorch on {len(one.sizes)} inputs"
                )
            if int8:
                from .export_onnx_int8 import quantize

                one.int8 = quantize(graph, original, path, processor, images, data)
                report(
                    f"{name}_int8.onnx: {one.int8['megabytes']:.1f} MB of {one.megabytes:.1f}; {one.int8['summary']}"
                )
        model.config.save_pretrained(partial)
        processor.save_pretrained(partial)
        _drop_code(partial)
        write_labels(model.config, partial / "labels.json")
        record = {"source": source.name, "class": type(model).__name__, "opset": opset, "date": str(date.today())}
        record |= {"torch": torch.__version__, "checked": check, "graphs": [asdict(one) for one in made]}
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        from .export_onnx_readme import readme

        (partial / "README.md").write_text(readme(record, processor, model.config), encoding="utf-8")
    report(f"made {output}: {', '.join(sorted(path.name for path in output.iterdir()))}")
    return made


def require_onnx() -> None:
    """Raises ImportError with the cure if a package that exports need is missing."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            __import__(name)
        except ImportError as error:
            raise ImportError(f"{name} is not installed: pip install 'echocare-hf[onnx]'", name=name) from error


def load_checkpoint(folder: str | Path) -> tuple[Any, Any, Path]:
    """The model in fp32, its image processor, and the folder."""
    place = Path(find_checkpoint(str(folder)))
    if not (place / "config.json").is_file():
        raise ValueError(f"{folder}: is no folder with a config.json; give a checkpoint that save_pretrained made")
    config = AutoConfig.from_pretrained(place)
    name = (config.architectures or ["none"])[0]
    if config.model_type != "echocare" or not hasattr(models, name):
        raise ValueError(
            f"{folder}: is a checkpoint of {name}, which cannot be exported; encoder and heads of EchoCare can"
        )
    try:
        model = getattr(models, name).from_pretrained(place, dtype=torch.float32).eval()
        processor = EchoCareImageProcessorPil.from_pretrained(place)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]})") from error
    if name == "EchoCareBackbone":
        model = model.echocare
    return model, processor, place


def encoder_of(model: Any) -> Any:
    return getattr(model, "echocare", model)


def write_graph(graph: Any, path: Path, opset: int) -> None:
    """Writes one graph; batch and image size are free."""
    import onnx

    from .export_onnx_ops import TRANSLATIONS

    example = graph.example()
    free = torch.export.Dim.DYNAMIC
    shapes = (tuple(dict.fromkeys(axes, free) for axes in graph.dynamic),) if graph.symbolic else None  # of *inputs
    with torch.no_grad(), _quiet():
        program = torch.export.export(
            graph, example, dynamic_shapes=shapes, strict=False, prefer_deferred_runtime_asserts_over_guards=True
        )
        exported = torch.onnx.export(
            program,
            example,
            dynamo=True,
            opset_version=opset,
            input_names=list(graph.input_names),
            output_names=list(graph.output_names),
            custom_translation_table=TRANSLATIONS,
            verbose=False,
            optimize=graph.symbolic,  # else it would compute with the sizes of the example
        )
        assert exported is not None
        proto = exported.model_proto
    fold_transposes(proto)
    name_sizes(proto, graph)
    if proto.ByteSize() > _LARGEST_FILE:
        onnx.save(proto, path, save_as_external_data=True, location=path.name + ".data")
    else:
        onnx.save(proto, path)


def fold_transposes(proto: Any) -> None:
    """Stores the weights of linear layers as matrix products take them: quantisation passes over those that a node transposes first."""
    from onnx import numpy_helper

    weights = {one.name: one for one in proto.graph.initializer}
    readers = Counter(name for node in proto.graph.node for name in node.input)
    for node in [node for node in proto.graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        weight = weights[node.input[0]]
        order = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), None)
        values = np.ascontiguousarray(numpy_helper.to_array(weight).transpose(order))
        proto.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        proto.graph.node.remove(node)
        if readers[weight.name] == 1:
            proto.graph.initializer.remove(weight)
        readers[weight.name] -= 1


def name_sizes(proto: Any, graph: Any) -> None:
    """Gives the free sizes of inputs their names, and those of outputs too."""
    names: dict[str, str] = {}
    for value, axes in zip(proto.graph.input, graph.dynamic, strict=True):
        for axis, name in axes.items():
            size = value.type.tensor_type.shape.dim[axis]
            if size.dim_param:
                names[size.dim_param] = name
            size.dim_param = name
    for value in proto.graph.output:
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_param:
                size.dim_param = names.get(size.dim_param, f"{value.name}_{axis}")
            elif not graph.symbolic and axis != 1:
                size.dim_param = f"{value.name}_{axis}" if axis else "batch"
    del proto.graph.value_info[:]  # sizes in between: of the example, or under their old names


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of packages that are not installed and of its own deprecations."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def open_session(path: Path, threads: int | None = None) -> Any:
    """An ONNX Runtime session on the CPU; `threads` as PyTorch has them if not given."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_session(session: Any, names: tuple[str, ...], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    found = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    return [torch.from_numpy(np.asarray(value)) for value in found]


def check_graph(graph: Any, model: Any, path: Path, made: ExportedGraph, seed: int) -> None:
    """Runs a graph beside PyTorch, on noise and on phantoms, and notes the differences.

    Raises:
        ValueError: if one is above `TOLERANCE`.
    """
    session = open_session(path)
    for inputs in check_inputs(graph, seed):
        shape = list(inputs[0].shape)
        made.sizes.append([shape[0], *shape[-2:]])
        found = run_session(session, graph.input_names, inputs)
        with torch.inference_mode():
            expected = graph.expected(model, inputs, found)
        for name, one, other in zip(graph.output_names, found, expected, strict=True):
            if one.shape != other.shape:
                raise ValueError(
                    f"{made.name}.onnx gives {name} as {tuple(one.shape)}, PyTorch as {tuple(other.shape)}; nothing was written"
                )
        found, expected = graph.comparable(found), graph.comparable(expected)
        for name, one, other in zip(graph.output_names, found, expected, strict=True):
            one, other = one.double(), other.double()
            difference = float(((one - other).abs() / other.abs().clamp(min=1)).amax()) if one.numel() else 0.0
            made.differences[name] = max(made.differences.get(name, 0.0), difference)
            if not difference <= TOLERANCE:
                size = "x".join(map(str, shape))
                raise ValueError(
                    f"{made.name}.onnx differs from PyTorch by {difference:.1e} in {name} for an input of {size}, more than "
                    f"{TOLERANCE:.0e}; nothing was written"
                )


def check_inputs(graph: Any, seed: int) -> list[tuple[Tensor, ...]]:
    """Inputs of several batches and sizes: noise, phantoms, none of the size that the graph was traced with."""
    from ..data.phantom import PHANTOM_KINDS, make_phantom

    side, generator = graph.config.image_size, torch.Generator().manual_seed(seed)
    half = max(side // 2, 16)
    sizes = [(1, side, side), (2, half + 5, side), (3, 8, 8), (1, 61, half + 31)]
    inputs = [torch.rand(batch, graph.config.num_channels, *size, generator=generator) for batch, *size in sizes]
    for number, (height, width) in enumerate(((side, side), (max(half, 32) + 3, max(half, 32) + 21))):
        kind = PHANTOM_KINDS[(seed + number) % len(PHANTOM_KINDS)]
        pixels = make_phantom(kind, seed + number, (height, width)).image
        image = torch.from_numpy(pixels).float() / 255
        inputs.append(image.expand(1, graph.config.num_channels, -1, -1).contiguous())
    return [graph.inputs_of(images) for images in inputs]


def write_labels(config: Any, path: Path) -> None:
    """What the numbers of the outputs mean: classes, landmarks, units, nodes of the anatomy tree."""
    labels: dict[str, Any] = {"classes": {str(index): name for index, name in config.id2label.items()}}
    labels |= {
        "problem_type": config.problem_type,
        "units": config.regression_unit,
        "keypoints": config.keypoint_names,
    }
    labels |= {"anatomy": config.anatomy_tree, "maps": config.stage_names}
    path.write_text(
        json.dumps({k: v for k, v in labels.items() if v}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _drop_code(folder: Path) -> None:
    """ONNX Runtime needs no Python files, and the folder is no checkpoint."""
    for path in folder.glob("*.py"):
        path.unlink()
    for path in (folder / "config.json", folder / "preprocessor_config.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        for name in ("auto_map", "custom_pipelines"):
            settings.pop(name, None)
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _megabytes(path: Path) -> float:
    return sum(each.stat().st_size for each in path.parent.glob(path.name + "*")) / 1e6
