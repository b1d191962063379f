"""Fixtures that every test may use."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real ultrasound data that lies beside the repository and is no part of it; skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real ultrasound data (../shared/data) is not on this machine")
    return folder


@pytest.fixture(scope="session")
def discs(tmp_path_factory):
    """Twelve patients with two images each: a bright disc on noise, its mask, box, centre and radius."""
    side, folder = 48, tmp_path_factory.mktemp("discs")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    random = np.random.default_rng(0)
    rows = []
    for index in range(24):
        x, y, radius = random.uniform(18, 30), random.uniform(18, 30), random.uniform(6, 12)
        places = np.arange(side) + 0.5
        inside = (places[None] - x) ** 2 + (places[:, None] - y) ** 2 < radius**2
        image = random.integers(0, 60, (side, side)) + 150 * inside
        Image.fromarray(image.astype(np.uint8)).save(folder / f"images/{index:02}.png")
        Image.fromarray(inside.astype(np.uint8)).save(folder / f"masks/{index:02}.png")
        rows.append(
            {
                "file_name": f"images/{index:02}.png",
                "mask": f"masks/{index:02}.png",
                "patient": f"p{index // 2}",
                "label": "large" if radius > 9 else "small",
                "x0": x - radius,
                "y0": y - radius,
                "x1": x + radius,
                "y1": y + radius,
                "centre_x": x,
                "centre_y": y,
                "radius_mm": radius / 10,
                "pixel_size_mm": 0.1,
                "licence": "CC BY 4.0",
            }
        )
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Ten clips of three frames, five bright and five dark."""
    side, folder, random = 48, tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for label, level in (("bright", 180), ("dark", 60)):
        for clip in range(5):
            (folder / label / f"{label}_{clip}").mkdir(parents=True)
            for frame in range(3):
                image = random.integers(0, 60, (side, side)) + level
                Image.fromarray(image.astype(np.uint8)).save(folder / label / f"{label}_{clip}" / f"{frame}.png")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A small encoder with random weights, saved as a pretraining checkpoint; pools all maps, as tiny does."""
    import torch

    from echocare_hf import EchoCareConfig, EchoCareForPreTraining, EchoCareImageProcessorPil

    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    sizes = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "image_size": 32}
    EchoCareForPreTraining(EchoCareConfig.preset("tiny", **sizes)).save_pretrained(folder)
    EchoCareImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def bucket(monkeypatch):
    """An S3 server (moto) with an empty bucket: a client for it."""
    server_module = pytest.importorskip("moto.server", reason="moto, the S3 server of the tests, is not installed")
    import urllib.request

    import boto3

    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    client.create_bucket(Bucket="scans")
    yield client
    server.stop()
