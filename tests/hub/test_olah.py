"""The pull side through `olah` (MIT), a real mirror of the Hub: it fetches from the server of the tests, the real clients load from it."""

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from publish_helpers import make_model, run_as_stranger
from safetensors.torch import load_file

from echocare_hf.data.phantom import make_phantom
from echocare_hf.hub.publish_folder import open_source, stage
from hub_server import run_hub

OLAH = shutil.which("olah-cli")
pytestmark = pytest.mark.skipif(
    OLAH is None, reason="olah is not installed: pip install olah, and olah-cli on the PATH"
)

START_SECONDS = 180
LOADS = """
import json
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline
name = "org/lesion"
model = AutoModelForSemanticSegmentation.from_pretrained(name, trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=True)
run = pipeline(model=name, trust_remote_code=True)
print(json.dumps({
    "model": type(model).__name__, "module": type(model).__module__.split(".")[0], "task": run.task, "size": processor.size["height"],
    "weights": sum(parameter.double().abs().sum().item() for parameter in model.parameters()), "found": len(run(IMAGE)),
}))
"""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A mirror of a Hub that holds one model; its address, that Hub, and the folder of the model."""
    root = tmp_path_factory.mktemp("olah")
    folder = make_model(root / "lesion")
    place = root / "hub/models/org/lesion"
    place.mkdir(parents=True)
    stage(open_source(str(folder)), place)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with run_hub(root / "hub") as hub:
        behind, own = hub.endpoint.removeprefix("http://"), f"127.0.0.1:{port}"
        command = [OLAH, "--host", "127.0.0.1", "--port", str(port), "--hf-scheme", "http", "--mirror-scheme", "http"]
        command += [
            "--hf-netloc",
            behind,
            "--hf-lfs-netloc",
            behind,
            "--mirror-netloc",
            own,
            "--mirror-lfs-netloc",
            own,
        ]
        command += ["--repos-path", str(root / "repos"), "--log-path", str(root / "logs")]
        with (root / "olah.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                _wait(port, process, root / "olah.log")
                yield f"http://{own}", hub, folder
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()


def _wait(port, process, log):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"olah did not start: {log.read_text()[-2000:]}")


def test_a_stranger_loads_through_the_mirror(mirror, tmp_path):
    from PIL import Image

    address, hub, folder = mirror
    Image.fromarray(make_phantom("kidney", 1, 64).image).save(tmp_path / "image.png")
    patient = {"HF_HUB_DOWNLOAD_TIMEOUT": "120", "HF_HUB_ETAG_TIMEOUT": "120"}
    script = LOADS.replace("IMAGE", repr(str(tmp_path / "image.png")))
    found = run_as_stranger(
        script, tmp_path / "home", HF_ENDPOINT=address, HF_HUB_DISABLE_XET="1", HF_TOKEN="", **patient
    )
    weights = load_file(folder / "model.safetensors")
    assert found["model"] == "EchoCareForSemanticSegmentation" and found["module"] == "transformers_modules"
    assert found["task"] == "image-segmentation" and found["size"] == 64 and found["found"] >= 1
    expected = sum(value.double().abs().sum().item() for value in weights.values())
    assert found["weights"] == pytest.approx(expected, rel=1e-6)
    assert any("model.safetensors" in request for request in hub.requests), (
        "the mirror fetched it from the Hub behind it"
    )
