"""What the tests of the page share: checkpoints of every task, of which two measure pixels, and files whose truth is known."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "examination"))

from engine_helpers import drawn, measuring_detector, measuring_segmenter, save_checkpoint, save_mp4, save_png

TASKS = ("classification", "segmentation", "detection", "keypoints", "video", "enhancement")
HEIGHT, WIDTH, ELLIPSE, SPACING = 96, 120, (60.0, 48.0, 50.0, 30.0, 0.0), 0.5


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Folders of small checkpoints with random weights, by task."""
    folder = tmp_path_factory.mktemp("checkpoints")
    sizes = {"segmentation": (HEIGHT, WIDTH), "detection": (HEIGHT, WIDTH)}
    return {task: save_checkpoint(folder / task, task, sizes.get(task, (32, 32))) for task in TASKS}


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """Files by name: the same ellipse, 25 mm x 15 mm, as PNG without spacing, as DICOM and as a clip; a text, a damaged file."""
    from echocare_hf.app.examples import write_phantom_dicom
    from echocare_hf.data.phantom import make_phantom

    folder = tmp_path_factory.mktemp("samples")
    still = drawn(HEIGHT, WIDTH, ELLIPSE)
    phantom = replace(make_phantom("tissue_phantom", 3, 32), spacing=(SPACING, SPACING))
    files = {name: folder / name for name in ("still.png", "scan.dcm", "clip.mp4", "notes.txt", "broken.dcm")}
    save_png(files["still.png"], still)
    write_phantom_dicom(files["scan.dcm"], phantom, [still[..., 0]])
    save_mp4(files["clip.mp4"], [still] * 6)
    files["notes.txt"].write_text("no image\n")
    files["broken.dcm"].write_bytes(files["scan.dcm"].read_bytes()[:400])
    return files


@pytest.fixture(scope="module")  # its networks are others meanwhile: no other file of the same process may see that
def analyser(checkpoints):
    """All tasks at once, anatomy by the checkpoint that ships; segmentation and detection measure the bright pixels."""
    from echocare_hf import EchoCareForObjectDetection, EchoCareForSemanticSegmentation
    from echocare_hf.app.analysis import Analyser
    from echocare_hf.app.command import load_with_anatomy
    from echocare_hf.app.limits import Limits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EchoCareForObjectDetection, "forward", measuring_detector)
        patch.setattr(EchoCareForSemanticSegmentation, "forward", measuring_segmenter)
        yield Analyser(load_with_anatomy([str(folder) for folder in checkpoints.values()]), Limits(8, 60))


@pytest.fixture(scope="module")
def page(analyser, samples):
    """A served page with one example, and its address."""
    pytest.importorskip("gradio", reason="Gradio (echocare-hf[demo]) is not installed")
    from echocare_hf.app.examples import Example
    from echocare_hf.app.page import build_page, serve, stop

    page = build_page(analyser, [Example(samples["scan.dcm"], samples["still.png"], "Ellipse")])
    address = serve(page, "127.0.0.1")
    yield page, address
    stop(page)
