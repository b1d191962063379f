"""How much of a model's speed `echocare predict` keeps, and whether a longer clip needs more memory.

    python eval/speed/predict.py                          # the tiny checkpoint that ships: PNG folder, MP4, DICOM
    python eval/speed/predict.py --preset base --frames 24 --repeats 1 --inputs PNG MP4
    python eval/speed/predict.py --overlays no            # without pictures
    python eval/speed/predict.py memory                   # 100 and 10,000 frames, each in a process of its own

"bare model" is the network alone (for the pretraining checkpoint the encoder and the anatomy classifier) on the same frames,
decoded and resized beforehand, in batches of the same size. "read, then model" decodes, crops and resizes one frame after the other,
then runs the model, in one thread: what a script of ten lines does. "echocare predict" is the whole command in this process:
checkpoint, reading, region, models, familiarity, pictures, tables, pages, DICOM objects. Ratios are to the bare model; aim: 0.85.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid
from timing import interleaved, peak_memory, print_machine, print_table

from echocare_hf import EchoCareConfig, EchoCareForPreTraining, EchoCareImageProcessorPil
from echocare_hf.examination.command import run_command
from echocare_hf.examination.file_folder import Outputs
from echocare_hf.examination.frames import open_frames
from echocare_hf.examination.models import LoadedModel, load_models
from echocare_hf.examination.region import find_region

HEIGHT, WIDTH = 480, 640
SMALL = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "image_size": 32}


def sector_frames(number: int, height: int, width: int) -> list[np.ndarray]:
    """Speckle in a sector that moves from frame to frame, uint8 `(height, width, 3)`; 32 different ones, over and over."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    angle, depth = np.arctan2(x - width / 2, y + 20), np.hypot(x - width / 2, y + 20)
    inside = (np.abs(angle) < 0.6) & (depth < 0.95 * height) & (depth > 60)
    speckle = random.gamma(2.0, 28.0, (height, width)).clip(0, 255)
    different = []
    for shift in range(min(number, 32)):
        grey = (np.roll(speckle, 3 * shift, axis=0) * inside).astype(np.uint8)
        different.append(np.repeat(grey[..., None], 3, 2))
    return [different[index % len(different)] for index in range(number)]


def save_png_folder(folder: Path, frames: Sequence[np.ndarray]) -> Path:
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:05}.png")
    return folder


def save_mp4(path: Path, frames: Sequence[np.ndarray]) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def save_dicom(path: Path, frames: Sequence[np.ndarray]) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (generate_uid() for _ in range(3))
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = "1", "Phantom", "", ""
    dataset.StudyDate = dataset.StudyTime = dataset.StudyID = dataset.AccessionNumber = (
        dataset.ReferringPhysicianName
    ) = ""
    dataset.Modality, dataset.Manufacturer, dataset.SeriesNumber, dataset.InstanceNumber = "US", "Phantom", 1, 1
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = len(frames), *frames[0].shape[:2]
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "MONOCHROME2", 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.FrameTime = 40
    dataset.PixelData = np.stack([frame[..., 0] for frame in frames]).tobytes()
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


SAVED: dict[str, Callable[[Path, Sequence[np.ndarray]], Path]] = {
    "PNG": save_png_folder,
    "MP4": lambda path, frames: save_mp4(path.with_suffix(".mp4"), frames),
    "DICOM": lambda path, frames: save_dicom(path.with_suffix(".dcm"), frames),
}
"""How frames are saved: a folder of images, a clip, a cine."""


def make_checkpoint(folder: Path, preset: str) -> Path:
    """A pretraining checkpoint with random weights."""
    config = EchoCareConfig.preset("tiny", **SMALL) if preset == "small" else EchoCareConfig.preset(preset)
    EchoCareForPreTraining(config).save_pretrained(folder)
    side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
    EchoCareImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


@torch.inference_mode()
def bare(model: LoadedModel, inputs: torch.Tensor) -> None:
    """The network on one batch of resized frames."""
    pooled = model.network.echocare(model.normalize(inputs)).pooler_output
    model.network.anatomy_classifier(pooled)


def read_inputs(model: LoadedModel, given: Path) -> list[torch.Tensor]:
    """The frames of a file, or of all files of a folder, as the model takes them, before normalisation."""
    inputs = []
    for path in sorted(given.iterdir()) if given.is_dir() else [given]:
        with open_frames(path) as source:
            region = None
            for frame in source:
                region = region or find_region([frame.pixels], source.regions)
                inputs.append(model.resize(region.crop(frame.pixels)))
    return inputs


def predict(given: Path, checkpoint: str, batch_size: int, overlays: bool) -> None:
    """The whole command, into a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"batch_size": batch_size, "device": "cpu"}
        outputs = Outputs(overlays=overlays)
        code = run_command(
            [str(given)], [checkpoint], Path(folder) / "out", options, outputs, 0, lambda line: None, print
        )
    if code:
        raise SystemExit("a file failed, so the time says nothing")


def count_work(run: Callable[[], object], spent: list[float]) -> None:
    """Runs it, and adds to a list the CPU seconds that all threads took: these depend less on what else the machine does."""
    start = time.process_time()
    run()
    spent.append(time.process_time() - start)


def measure_speed(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        checkpoint = "echocare-tiny"
        if arguments.preset != "tiny":
            checkpoint = str(make_checkpoint(inputs / "checkpoint", arguments.preset))
        (model,) = load_models([checkpoint], "cpu")
        frames = sector_frames(arguments.frames, HEIGHT, WIDTH)
        print_machine(arguments.threads, arguments.repeats)
        print(
            f"{arguments.preset}, {model.precision}, batch {arguments.batch}, {len(frames)} frames of {WIDTH}x{HEIGHT}"
        )
        for name in arguments.inputs:
            path = SAVED[name](inputs / name.lower(), frames)
            batches = torch.stack(read_inputs(model, path)).split(arguments.batch)

            def run_bare(batches: Sequence[torch.Tensor] = batches) -> None:
                for batch in batches:
                    bare(model, batch)

            def run_in_turn(path: Path = path) -> None:
                for batch in torch.stack(read_inputs(model, path)).split(arguments.batch):
                    bare(model, batch)

            cases = {
                "bare model": run_bare,
                "read, then model": run_in_turn,
                "echocare predict": lambda path=path: predict(
                    path, checkpoint, arguments.batch, arguments.overlays == "yes"
                ),
            }
            spent: dict[str, list[float]] = {case: [] for case in cases}
            timed = {case: partial(count_work, run, spent[case]) for case, run in cases.items()}
            seconds = interleaved(timed, arguments.repeats, name)
            print_table(name, {case: len(frames) / value for case, value in seconds.items()}, "frames/s", "bare model")
            work = {case: 1000 * statistics.median(values[1:]) / len(frames) for case, values in spent.items()}
            print_table(f"{name}, work of all threads", work, "CPU ms a frame", "bare model")


def measure_memory(arguments: argparse.Namespace) -> None:
    """Peak memory of a process that analyses a short clip, and of one that analyses a long one."""
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "checkpoint", "small")
        for number in (100, arguments.long):
            clip = save_mp4(Path(folder) / f"{number}.mp4", sector_frames(number, 240, 320))
            command = [sys.executable, __file__, "one", "--clip", str(clip), "--checkpoint", str(checkpoint)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[number] = float(done.stdout.splitlines()[-1])
    print("\n### Peak memory, a small network, MP4 of 320x240\n\n| frames | MiB | ratio |\n|---|---|---|")
    for number, peak in peaks.items():
        print(f"| {number:,} | {peak:.0f} | {peak / peaks[100]:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="?", choices=("speed", "memory", "one"), default="speed", help="default: %(default)s"
    )
    parser.add_argument("--preset", choices=("tiny", "base", "large"), default="tiny", help="default: %(default)s")
    parser.add_argument("--inputs", nargs="+", choices=SAVED, default=[*SAVED], help="default: all")
    parser.add_argument("--frames", type=int, default=192, help="of each input; default: %(default)s")
    parser.add_argument("--batch", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count; default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch; default: %(default)s")
    parser.add_argument("--overlays", choices=("yes", "no"), default="yes", help="default: %(default)s")
    parser.add_argument("--long", type=int, default=10_000, help="frames of the long clip; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of random weights; default: %(default)s")
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if min(arguments.frames, arguments.batch, arguments.repeats, arguments.threads) < 1 or arguments.long <= 100:
        parser.error("--frames, --batch, --repeats and --threads are at least 1, --long is above 100")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    if arguments.what == "one":
        predict(arguments.clip, arguments.checkpoint, arguments.batch, overlays=True)
        print(peak_memory())
    elif arguments.what == "memory":
        measure_memory(arguments)
    else:
        measure_speed(arguments)


if __name__ == "__main__":
    main()
