"""The README of an export: what the files are, what goes in, what comes out, how far it is from PyTorch."""

from typing import Any


def readme(record: dict[str, Any], processor: Any, config: Any) -> str:
    """Markdown.

    Args:
        record: what `export.json` holds.
        processor: the image processor of the checkpoint.
        config: the configuration of the checkpoint.
    """
    size = processor.size
    scale = f"values multiplied by {processor.rescale_factor:.6g}" if processor.do_rescale else "values as they are"
    if processor.do_normalize:
        scale += f", minus {processor.image_mean}, divided by {processor.image_std}"
    lines = [
        f"# {record['source']} for ONNX Runtime",
        "",
        f"{record['class']}, opset {record['opset']}, exported {record['date']} with torch {record['torch']}. Not a medical device.",
        "",
        f"Input `pixel_values`: float32, (batch, {config.num_channels}, height, width), any batch and any size from 8 pixels a side;",
        f"trained at {size['height']}x{size['width']}. Preprocessing: RGB, resized ({processor.resize_mode}), {scale}.",
        "`labels.json` says what the numbers of the outputs mean, `export.json` holds every figure below.",
        "",
        "| file | MB | inputs | outputs | largest difference to PyTorch |",
        "|---|---|---|---|---|",
    ]
    for graph in record["graphs"]:
        difference = f"{max(graph['differences'].values()):.1e}" if graph["differences"] else "not checked"
        names = (", ".join(f"`{name}`" for name in graph[key]) for key in ("inputs", "outputs"))
        lines.append(f"| `{graph['name']}.onnx` | {graph['megabytes']:.1f} | {' | '.join(names)} | {difference} |")
    quantized = [graph for graph in record["graphs"] if graph["int8"]]
    if quantized:
        lines += ["", "## int8", ""]
        lines += [
            f"- `{graph['name']}_int8.onnx`, {graph['int8']['megabytes']:.1f} MB, {graph['int8']['method']}: {graph['int8']['summary']}"
            for graph in quantized
        ]
    lines += [
        "",
        "```python",
        "import numpy, onnxruntime",
        'session = onnxruntime.InferenceSession("encoder.onnx")',
        f"pixel_values = numpy.random.rand(1, {config.num_channels}, {size['height']}, {size['width']}).astype(numpy.float32)",
        'outputs = session.run(None, {"pixel_values": pixel_values})',
        "```",
    ]
    return "\n".join(lines) + "\n"
