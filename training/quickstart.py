"""EchoCare in a few minutes on a laptop: the whole way from raw files to a model in `pipeline()`.

What happens, in this order:

  1. Phantoms (synthetic ultrasound) are written as files, and curated into a corpus as raw clinical files would be; your own images
     (`--data`) with them.
  2. Pretraining goes on from echocare-tiny, the checkpoint that comes with the package, on this corpus (`--model` takes another).
  3. A segmentation and a classification head are fine-tuned, each with its own test part: on your images where they are labelled so,
     else on phantoms.
  4. The pretrained model is measured on phantoms that it has not seen, beside the trivial answers: the mean and the median of the
     visible pixels, and the commonest organ.
  5. All models run on phantoms, on the real DICOM ultrasound that comes with pydicom, and on your own files.
  6. A fresh process that cannot see this package loads both heads through `pipeline()` and must find the same.
  7. OUTPUT gets index.html (one file, opens anywhere), gallery.png, results.json, and the folders pretrained, segmentation and
     classification, ready for the Hub.

Why phantoms: they need no download and no licence. Heads made from them show that the machinery works, and what they say about a real
image means nothing. The page says so too.

    python training/quickstart.py
    python training/quickstart.py --data my_images --output my_gallery
    python training/quickstart.py --model path/to/checkpoint --data scans

A second run goes on where the first one ended: what is in OUTPUT is not made again. A file that cannot be read is named at the end, with
exit code 1; the others are done. A wrong argument ends with one line and exit code 2. Ctrl-C (exit code 130) leaves no half-written
file.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tqdm import tqdm
from transformers import pipeline

import echocare_hf
import finetune
import pretrain
from echocare_hf.checkpoints import find_checkpoint
from echocare_hf.curation import CurateOptions, curate
from echocare_hf.data.labelled import read_labelled
from echocare_hf.data.phantom import PHANTOM_KINDS, Phantom, phantom_corpus
from echocare_hf.data.phantom_folder import write_phantom_folder
from echocare_hf.drawing import draw_gallery
from echocare_hf.drawing_charts import draw_scores
from echocare_hf.drawing_page import gallery_page
from echocare_hf.drawing_predictions import draw_masks
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.files import written_beside
from quickstart_gallery import (
    Picture,
    dicom_examples,
    find_files,
    gallery_item,
    load,
    measure,
    phantom_pictures,
    read_files,
    run,
)

RECIPE = Path(__file__).resolve().parent / "recipes" / "quickstart.yaml"
SEGMENTED = "thyroid"  # the phantom that the segmentation head learns, with its nodule
SEEN = "Some of pydicom's example files are among the images that echocare-tiny was pretrained on."
WARNING = "Fine-tuned on phantoms for less than a minute: what the heads say of a real image means nothing."

# What a machine without the package does: the folder brings its own code.
FRESH = """
import json, sys
sys.modules["echocare_hf"] = None  # an import of it fails, as where it is not installed
from transformers import pipeline
masks = pipeline("image-segmentation", model=sys.argv[1], trust_remote_code=True)(sys.argv[3])
classes = pipeline("image-classification", model=sys.argv[2], trust_remote_code=True, top_k=1000)(sys.argv[3])
areas = {found["label"]: sum(found["mask"].point(bool).histogram()[1:]) for found in masks}
print(json.dumps({"areas": areas, "scores": {found["label"]: found["score"] for found in classes}}))
"""


# 1. Corpus ------------------------------------------------------------------------------------------------------------


def make_corpus(output: Path, arguments: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Phantoms and the user's files, curated; the folder of the corpus and what became of the files."""
    if not (output / "phantoms").is_dir():
        write_phantom_folder(output / "phantoms", arguments.phantoms, 2 * arguments.seed)
    if not (output / SEGMENTED).is_dir():
        write_phantom_folder(output / SEGMENTED, arguments.phantoms // 2, 2 * arguments.seed, kinds=(SEGMENTED,))
    sources = [str(output / "phantoms"), *([str(arguments.data)] if arguments.data else [])]
    corpus = output / "corpus"
    if not (corpus / "manifest.json").is_file():
        with tqdm(desc="curating", unit="job") as bar:
            curate(
                sources,
                corpus,
                CurateOptions(validation=0.1, seed=arguments.seed, contact_images=0, workers=2),
                progress=lambda stage, done, total: bar.set_postfix_str(f"{stage} {done}/{total}"),
            )
    report = json.loads((corpus / "report.json").read_text(encoding="utf-8"))
    return corpus, report


# 2. and 3. Training ---------------------------------------------------------------------------------------------------


def further_pretraining(corpus: Path, output: Path, arguments: argparse.Namespace) -> Path:
    """Some steps of pretraining on the corpus; the folder of the result."""
    folder = output / "pretrained"
    if not (folder / "final" / "config.json").is_file():
        options = {
            "--data": corpus,
            "--output_dir": folder,
            "--initial_weights": arguments.model,
            "--steps": arguments.steps,
            "--warmup_steps": max(arguments.steps // 8, 1),
            "--seed": arguments.seed,
        }
        call(pretrain.main, [str(RECIPE), *(str(part) for option in options.items() for part in option)])
    return folder / "final"


def call(main: Callable[[list[str]], int], arguments: list[str]) -> None:
    """Runs another script, which tells its failures itself.

    Raises:
        KeyboardInterrupt, RuntimeError: if it was stopped, or failed.
    """
    code = main(arguments)
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise RuntimeError(f"a step failed with exit code {code}, see above")


def labels_of(data: Path | None, task: str) -> bool:
    """Whether the user's files have labels for a task."""
    if data is None or not data.is_dir():
        return False
    try:
        return len(read_labelled(data, task).samples) >= 20  # type: ignore[arg-type]
    except ValueError as error:
        print(f"no {task} of your images ({error}): phantoms take their place", flush=True)
        return False


def fine_tune(task: str, phantoms: Path, options: list[str], start: Path, output: Path, arguments: Any) -> Path:
    """One head, on the user's images where they are labelled for it, else on phantoms."""
    folder = output / task
    if not (folder / "metrics.json").is_file():
        data, chosen = (arguments.data, []) if labels_of(arguments.data, task) else (phantoms, options)
        options = ["--data", str(data), "--model", str(start), "--output", str(folder), "--seed", str(arguments.seed)]
        call(finetune.main, [task, *options, "--minutes", str(arguments.minutes), *chosen])
    return folder


# 5. and 6. Use --------------------------------------------------------------------------------------------------------


def overlays(heads: dict[str, Path], pictures: Sequence[Picture]) -> Image.Image:
    """What the fine-tuned heads find in each picture, as `pipeline()` gives it."""
    segment = pipeline("image-segmentation", model=str(heads["segmentation"]))
    classify = pipeline("image-classification", model=str(heads["classification"]), top_k=1000)
    names: dict[int, str] = segment.model.config.id2label
    tiles, captions, sections = [], [], []
    for picture in tqdm(pictures, desc="running the heads", unit="image"):
        image = Image.fromarray(picture.pixels)
        label_map = np.zeros(picture.pixels.shape[:2], dtype=np.uint8)
        for found in segment(image):
            label_map[np.asarray(found["mask"]) > 0] = segment.model.config.label2id[found["label"]]
        scores = {found["label"]: found["score"] for found in classify(image)}
        order = [classify.model.config.id2label[index] for index in range(len(scores))]
        masks = draw_masks(
            picture.pixels, label_map, class_names=[names[index] for index in range(len(names))], side=360
        )
        bars = draw_scores(picture.pixels, [scores[name] for name in order], order, side=360)
        for tile, what in ((masks, "segmentation"), (bars, "classification")):
            tiles.append(tile)
            captions.append(f"{picture.title}\n{what}")
            sections.append(picture.section)
    return contact_sheet(tiles, captions, title="The fine-tuned heads", subtitle=WARNING, sections=sections)


def fresh_process(heads: dict[str, Path], image: Path) -> dict[str, Any]:
    """Loads both heads where the package cannot be imported, and compares what they find with what they find here.

    Raises:
        RuntimeError: if that process fails or finds something else.
    """
    arguments = [str(heads["segmentation"].resolve()), str(heads["classification"].resolve()), str(image.resolve())]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=heads["segmentation"],
    )
    if done.returncode:
        raise RuntimeError(f"the fresh process failed: {done.stderr.strip().splitlines()[-1]}")
    there = json.loads(done.stdout.strip().splitlines()[-1])
    masks = pipeline("image-segmentation", model=arguments[0])(arguments[2])
    classes = pipeline("image-classification", model=arguments[1], top_k=1000)(arguments[2])
    areas = {found["label"]: int((np.asarray(found["mask"]) > 0).sum()) for found in masks}
    if areas != there["areas"]:
        raise RuntimeError(f"the fresh process found masks of {there['areas']} pixels, this one {areas}")
    for found in classes:
        if abs(found["score"] - there["scores"][found["label"]]) > 1e-4:
            raise RuntimeError(f"the fresh process gives {found['label']} {there['scores'][found['label']]:.4f}")
    return there


# 7. Results -----------------------------------------------------------------------------------------------------------


def head_figures(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {
        "data": record["arguments"]["data"],
        "samples": record["samples"],
        "minutes": round(record["training_seconds"] / 60, 2),
        "test": record["test"],
    }


def machine() -> str:
    """CPU and threads, as results name them."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def make_phantoms(count: int, seed: int, size: tuple[int, int]) -> list[Phantom]:
    return list(tqdm(phantom_corpus(count, seed, size), total=count, desc="held-out phantoms", unit="image"))


def quickstart(arguments: argparse.Namespace) -> int:
    """All steps; returns the exit code."""
    start = time.monotonic()
    output: Path = arguments.output
    own_files = [(path, path.name) for path in find_files(arguments.data, arguments.limit)] if arguments.data else []
    load(find_checkpoint(arguments.model))  # a wrong one is told before anything is made
    output.mkdir(parents=True, exist_ok=True)

    corpus, report = make_corpus(output, arguments)
    pretrained = further_pretraining(corpus, output, arguments)
    mask_values = ["0=background", "1=thyroid", "2=nodule"]
    heads = {
        "segmentation": fine_tune(
            "segmentation", output / SEGMENTED, ["--mask_values", *mask_values], pretrained, output, arguments
        ),
        "classification": fine_tune(
            "classification", output / "phantoms", ["--label", "label"], pretrained, output, arguments
        ),
    }

    weights = load(str(pretrained))
    size = (weights.processor.size["height"], weights.processor.size["width"])
    phantoms = make_phantoms(arguments.test_phantoms, 2 * arguments.seed + 1, size)  # training takes the even seeds
    greys = [phantom.image[..., None].repeat(3, -1) for phantom in phantoms]
    held_out = measure(weights, phantoms, run(weights, greys, arguments.seed, "held-out phantoms"))

    examples, example_failures = read_files(dicom_examples(), "Real ultrasound (pydicom's example files)")
    own, own_failures = read_files(own_files, "Your images")
    pictures = own + phantom_pictures(phantoms) + examples
    results = run(weights, [picture.pixels for picture in pictures], arguments.seed, "gallery")
    items = [gallery_item(weights, picture, result) for picture, result in zip(pictures, results, strict=True)]
    sheet = overlays(heads, pictures)
    fresh = fresh_process(heads, next(iter(sorted((output / SEGMENTED / "images").iterdir()))))

    figures = {task: head_figures(folder) for task, folder in heads.items()}
    segmentation, classification = figures["segmentation"]["test"], figures["classification"]["test"]
    told = {
        "Curated": f"{report['kept']} images kept, of {report['found']} files",
        "Reconstruction": f"masked L1 on {held_out['images']} held-out phantoms {held_out['masked_l1']:.4f} (visible median "
        f"{held_out['visible_median_l1']:.4f}, visible mean {held_out['visible_mean_l1']:.4f})",
        "Anatomy": f"organ accuracy {held_out['organ_accuracy']:.2f} (majority {held_out['organ_majority']:.2f})",
        "Segmentation": f"test Dice {segmentation['dice']:.3f} on {figures['segmentation']['samples']['test']} images of "
        f"{figures['segmentation']['data']}",
        "Classification": f"test AUC {classification['auc']:.3f}, accuracy {classification['accuracy']:.2f} on "
        f"{figures['classification']['samples']['test']} images of {figures['classification']['data']}",
        "Fresh process": "a process without this package loads both heads and finds the same",
    }
    failures = own_failures + example_failures
    facts = {
        "seconds": round(time.monotonic() - start, 1),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "echocare_hf": echocare_hf.__version__,
        "seed": arguments.seed,
    }
    record = {
        "model": arguments.model,
        "curation": {"found": report["found"], "kept": report["kept"]},
        "held_out_phantoms": held_out,
        "heads": figures,
        "fresh_process": fresh,
        "images": [
            {
                "title": item.title,
                "section": item.section,
                "details": item.details,
                "masked_l1": round(result.masked_l1, 4),
                "visible_mean_l1": round(result.visible_mean_l1, 4),
                "visible_median_l1": round(result.visible_median_l1, 4),
                "anatomy": [{"name": name, "score": round(score, 4)} for name, score in item.path],
            }
            for item, result in zip(items, results, strict=True)
        ],
        "failures": failures,
        "run": facts,
    }
    page = gallery_page(
        items,
        title="EchoCare: half of the image is hidden, the model paints it and names the anatomy",
        introduction="For each image: what went in, what the model was shown, and its reconstruction (hidden blocks "
        "painted by the model, the rest kept). Below, the anatomy path from region to structure, with scores 0 to 1.",
        notices=[WARNING, SEEN],
        pictures=[
            ("The fine-tuned heads", sheet),
            *(
                (f"{task.capitalize()}: validation part", Image.open(heads[task] / "predictions.png"))
                for task in heads
            ),
        ],
        tables=[
            ("Measured", list(told.items())),
            ("This run", [(name.replace("_", " "), str(value)) for name, value in facts.items()]),
            ("Files that could not be read", [(str(n), line) for n, line in enumerate(failures, start=1)]),
        ],
    )
    footer = f"{told['Reconstruction']}; {told['Anatomy']}"
    gallery = draw_gallery(
        items, title="EchoCare quickstart", subtitle=f"{arguments.model}, then phantoms", footer=footer
    )
    for name, picture in (("gallery.png", gallery), ("heads.png", sheet)):
        with written_beside(output / name) as partial:
            picture.save(partial, "PNG", optimize=True)
    with written_beside(output / "index.html") as partial:
        partial.write_text(page, encoding="utf-8")
    with written_beside(output / "results.json") as partial:
        partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    print("\n" + "\n".join(f"{name}: {line}." for name, line in told.items()))
    print(f"Done in {facts['seconds']:.0f} s. Open {output / 'index.html'}.")
    print(
        f'Use the heads elsewhere: pipeline("image-segmentation", model="{heads["segmentation"]}", trust_remote_code=True).'
    )
    for line in failures:
        print(f"could not read {line}", file=sys.stderr)
    return 1 if failures else 0


def positive(kind: type) -> Any:
    def parse(text: str) -> Any:
        value = kind(text)
        if not value > 0 or value == float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


class OneLineParser(argparse.ArgumentParser):
    """argparse without the usage text in front of an error: one line, exit code 2."""

    def error(self, message: str) -> Any:
        self.exit(2, f"error: {message} (see --help)\n")


def parser() -> argparse.ArgumentParser:
    heading, *rest = (__doc__ or "").split("\n\n")
    parser = OneLineParser(
        description=heading, epilog="\n\n".join(rest), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="your images: a folder (searched through) or one file"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("quickstart_output"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--model", default="echocare-tiny", help="a pretraining checkpoint; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--steps", type=positive(int), default=80, help="pretraining steps; default: %(default)s")
    parser.add_argument(
        "--minutes", type=positive(float), default=0.6, help="cap on the training of each head; default: %(default)s"
    )
    parser.add_argument("--phantoms", type=positive(int), default=220, help="to curate; default: %(default)s")
    parser.add_argument(
        "--limit", type=positive(int), default=24, help="most files of DIR in the gallery; default: %(default)s"
    )
    parser.add_argument(
        "--test-phantoms",
        type=positive(int),
        default=5 * len(PHANTOM_KINDS),
        help="held-out phantoms; default: %(default)s",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        if arguments.seed < 0:
            raise ValueError(f"--seed must be 0 or more, got {arguments.seed}")
        return quickstart(arguments)
    except KeyboardInterrupt:
        print("interrupted: nothing half-written was left; run it again to go on", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
