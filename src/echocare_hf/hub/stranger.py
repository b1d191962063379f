"""Loads a published model or data set as a stranger would: in a process of its own, in which this package cannot be imported.

`fresh_process.py` starts it and hands over a JSON object on standard input:

    {"kind": "model", "source": "folder or id", "revision": null, "task": "image-segmentation", "images": [...], "output": "folder"}

The answer is the last line of standard output. It imports nothing of this package.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.modules["echocare_hf"] = None  # type: ignore[assignment]

NUM_VALUES = 5  # of an embedding, that are shown


def try_model(request: dict[str, Any]) -> dict[str, Any]:
    """Loads model, processor and pipeline, and runs the pipeline on the images."""
    import torch
    import transformers

    torch.set_num_threads(max(1, min(2, torch.get_num_threads())))
    source = request["source"]
    options: dict[str, Any] = {"trust_remote_code": True}
    if request["revision"]:
        options["revision"] = request["revision"]
    model, report = getattr(transformers, request["auto_class"]).from_pretrained(
        source, output_loading_info=True, **options
    )
    wrong = {
        name: sorted(map(str, report[name]))[:3]
        for name in ("missing_keys", "mismatched_keys", "unexpected_keys")
        if report[name]
    }
    if wrong:
        raise ValueError(f"its weights do not fit its config.json: {wrong}")
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise ValueError("some of its weights are not finite")
    answer: dict[str, Any] = {
        "model": type(model).__name__,
        "processor": type(
            getattr(transformers, request["processor_class"]).from_pretrained(source, **options)
        ).__name__,
        "results": {},
    }
    del model
    options |= {} if request["infer_task"] else {"task": request["task"]}
    run: Any = transformers.pipeline(model=source, **options, **request["pipeline_options"])
    answer["task"] = run.task
    for number, image in enumerate(request["images"]):
        answer["results"][Path(image).name] = written_down(
            run(image, **request["call_options"]), number, Path(request["output"])
        )
    return answer


def written_down(result: Any, number: int, folder: Path) -> dict[str, Any]:
    """What a pipeline returned, as JSON; pictures become files in `folder`."""
    import numpy as np
    import PIL.Image
    import torch

    if isinstance(result, PIL.Image.Image):
        name = f"{number}.png"
        result.save(folder / name)
        return {"kind": "image", "value": {"image": name}, "sum": int(np.asarray(result, np.int64).sum())}
    if isinstance(result, list) and result and isinstance(result[0], dict):
        if "generated_text" in result[0]:
            return {"kind": "text", "value": result[0]["generated_text"]}
        entries = []
        for place, entry in enumerate(result):
            kept = dict(entry)
            if isinstance(kept.get("mask"), PIL.Image.Image):
                name = f"{number}_{place}.png"
                kept["mask"].save(folder / name)
                kept |= {"mask": name, "pixels": int((np.asarray(kept["mask"]) > 0).sum())}
            entries.append(plain(kept))
        first = entries[0]
        kind = next(
            (kind for key, kind in (("mask", "masks"), ("box", "boxes"), ("x", "points")) if key in first), "labels"
        )
        return {"kind": kind, "value": entries}
    if isinstance(result, list) and not result:
        return {"kind": "nothing", "value": []}
    values = torch.as_tensor(result).float()
    flat = values.flatten()
    if not bool(flat.isfinite().all()):
        raise ValueError("its output holds values that are not finite")
    return {
        "kind": "features",
        "value": {"shape": list(values.shape), "first": flat[:NUM_VALUES].tolist(), "mean": flat.mean().item()},
    }


def plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python's."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value


def try_dataset(request: dict[str, Any]) -> dict[str, Any]:
    """Streams the first row of each split."""
    import datasets

    options = {"revision": request["revision"]} if request["revision"] else {}
    splits = datasets.load_dataset(request["source"], streaming=True, **options)
    rows = {}
    for split, rows_of in splits.items():
        row = next(iter(rows_of), None)
        if row is None:
            raise ValueError(f"its split {split} has no row")
        rows[split] = {"columns": sorted(row), "size": list(row["image"].size), "node": row.get("node")}
    return {"results": rows}


def main() -> None:
    request = json.loads(sys.stdin.read())
    try:
        answer = (try_model if request["kind"] == "model" else try_dataset)(request)
    except Exception as error:  # whatever remote code raises is the answer
        import traceback

        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
    print("\nANSWER " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
