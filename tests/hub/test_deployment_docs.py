"""docs/deployment.md as printed: its commands in a folder like a clone, its requests to a server with the manners of an endpoint.

What is not run, and why: `pip install` (whether the extra exists is looked at instead), and the cloud itself, whose container
`endpoint_server.py` follows.
"""

import base64
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from publish_helpers import SMALL, running_endpoint

from echocare_hf import (
    EchoCareConfig,
    EchoCareForImageClassification,
    EchoCareForImageToImage,
    EchoCareForObjectDetection,
    EchoCareForSemanticSegmentation,
    EchoCareImageProcessorPil,
    EchoCareModel,
)
from echocare_hf.app.examples import write_phantom_dicom
from echocare_hf.data.phantom import make_phantom

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [line for language, code in BLOCKS if language == "bash" for line in code.strip().splitlines()]
REQUESTS = [code for language, code in BLOCKS if language == "python" and "onnxruntime" not in code]
SLOW = ("echocare-tiny",)  # a minute of one core
HEADS = {
    "image_classification": (EchoCareForImageClassification, {"id2label": {0: "cyst", 1: "mass"}}),
    "image_segmentation": (EchoCareForSemanticSegmentation, {"id2label": {0: "background", 1: "lesion"}}),
    "object_detection": (EchoCareForObjectDetection, {"id2label": {0: "head"}}),
    "image_to_image": (EchoCareForImageToImage, {}),
    "feature_extraction": (EchoCareModel, {}),
}
"""The checkpoint that answers each call of the page; an endpoint has one."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files that the page names: the package's sources, runs/lesion, scans, labelled, scan.png, scan.dcm."""
    folder, random = tmp_path_factory.mktemp("clone"), np.random.default_rng(0)
    (folder / "src").symlink_to(ROOT / "src")
    (folder / "eval").symlink_to(ROOT / "eval")
    torch.manual_seed(0)
    for name, (head, values) in HEADS.items():
        place = folder / ("runs/lesion" if name == "image_classification" else name)
        head(EchoCareConfig(**SMALL, **values)).save_pretrained(place)
        EchoCareImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(place)
    for label, level in (("cyst", 20), ("mass", 160)):
        (folder / "labelled" / label).mkdir(parents=True)
        (folder / "scans").mkdir(exist_ok=True)
        for index in range(6):
            pixels = Image.fromarray((random.integers(0, 60, (40, 48)) + level).astype(np.uint8))
            pixels.save(folder / "labelled" / label / f"{index}.png")
            pixels.save(folder / "scans" / f"{label}_{index}.png")
    phantom = make_phantom("kidney", 1, 64)
    Image.fromarray(phantom.image).save(folder / "scan.png")
    write_phantom_dicom(folder / "scan.dcm", phantom, [phantom.image])
    return folder


def run(command, clone):
    """One command of the page, in the clone."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    done = subprocess.run(
        shlex.split(command), cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_all_commands_are_known():
    """A new one on the page needs a test here."""
    kinds = {" ".join(shlex.split(command)[:2]) for command in COMMANDS}
    assert {kind.split()[0] for kind in kinds} == {"cp", "pip", "echocare"} and len(REQUESTS) == 2
    assert {"echocare export", "pip install"} <= kinds


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("cp ")])
def test_the_files_of_an_endpoint_are_copied(command, clone):
    run(command, clone)
    _, source, target = shlex.split(command)
    assert (clone / target).read_bytes() == (ROOT / source).read_bytes()


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("pip ")])
def test_the_extra_that_is_installed_exists(command):
    (extra,) = re.findall(r"echocare-hf\[(\w+)\]", command)
    assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=pytest.mark.slow if any(word in command for word in SLOW) else ())
        for command in COMMANDS
        if command.startswith("echocare ")
    ],
)
def test_exports(command, clone):
    pytest.importorskip("onnxruntime", reason="onnxruntime (echocare-hf[onnx]) is not installed")
    run(command, clone)
    words = shlex.split(command)
    made = clone / words[words.index("--onnx") + 1]
    listed = re.findall(r"`(\w+\.(?:json|onnx))`", PAGE[PAGE.index("The folder holds") :].split("\n\n")[0])
    assert "encoder.onnx" in listed and all((made / name).is_file() for name in listed)
    if "--int8" in words:
        assert (made / "encoder_int8.onnx").stat().st_size < (made / "encoder.onnx").stat().st_size


@pytest.mark.slow
def test_the_session_that_the_page_shows(clone):
    pytest.importorskip("onnxruntime", reason="onnxruntime (echocare-hf[onnx]) is not installed")
    if not (clone / "tiny-onnx").is_dir():
        run("echocare export echocare-tiny --onnx tiny-onnx --no-check", clone)
    (code,) = (code for language, code in BLOCKS if language == "python" and "onnxruntime" in code)
    said = io.StringIO()
    with contextlib.chdir(clone), contextlib.redirect_stdout(said):
        exec(compile(code, "deployment.md", "exec"), {})
    assert said.getvalue().strip() == re.search(r"print\(.*# (.*)$", code, re.MULTILINE)[1]


@pytest.mark.slow
def test_the_speed_of_onnx_runtime(clone):
    pytest.importorskip("onnxruntime", reason="onnxruntime (echocare-hf[onnx]) is not installed")
    (command,) = re.findall(r"`(python eval/speed/onnx_runtime\.py)`", PAGE)
    said = run(f"{command} --model runs/lesion --batch 1 --side 32 --repeats 1 --threads 1", clone)
    assert "ONNX Runtime int8" in said and "PyTorch fp32" in said


@pytest.fixture(scope="module")
def endpoint(clone):
    """Endpoints of all checkpoints, each with the handler that the page copies."""
    places = [clone / ("runs/lesion" if name == "image_classification" else name) for name in HEADS]
    copies = [shlex.split(command) for command in COMMANDS if command.startswith("cp ")]
    for place in places:
        for _, source, target in copies:
            (place / Path(target).name).write_bytes((ROOT / source).read_bytes())
    with running_endpoint(places) as address:
        yield address


@pytest.mark.parametrize("call", HEADS)
def test_every_call_of_the_client(call, clone, endpoint):
    """The lines of the page with the address of the checkpoint that answers them."""
    (code,) = (code for code in REQUESTS if "InferenceClient" in code)
    head, *calls = code.split("\nclient.")
    (line,) = (each.splitlines()[0] for each in calls if each.startswith(f"{call}("))
    place = "lesion" if call == "image_classification" else call
    head = head.replace("https://<your endpoint>", f"{endpoint}/{place}")
    names = {"base64_text": base64.b64encode((clone / "scan.png").read_bytes()).decode()}
    with contextlib.chdir(clone):
        exec(compile(head, "deployment.md", "exec"), names)
        answer = eval(f"client.{line.split('  #')[0]}", names)
        if call == "image_to_image":
            assert Image.open("enhanced.png").size == Image.open("scan.png").size
    if call == "image_classification":
        assert {one.label for one in answer} == {"cyst", "mass"}
    elif call == "image_segmentation":
        assert answer[0].mask.size == Image.open(clone / "scan.png").size and 0 < answer[0].score <= 1
    elif call == "object_detection":
        assert all(one.score >= 0.5 for one in answer)
    elif call == "feature_extraction":
        assert np.asarray(answer).size == EchoCareConfig(**SMALL).hidden_size


def test_a_dicom_file_goes_as_base64(clone, endpoint, capsys):
    (code,) = (code for code in REQUESTS if "urllib" in code)
    with contextlib.chdir(clone):
        exec(compile(code, "deployment.md", "exec"), {"url": f"{endpoint}/object_detection"})
    assert capsys.readouterr().out.startswith("[")
