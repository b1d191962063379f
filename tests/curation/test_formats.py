"""Every format of pictures as a source: what is kept looks like the phantom behind it, what is not read is named with the cure."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curation_helpers import phantom, save
from PIL import Image, features

from echocare_hf.curation import CurateOptions, curate

pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")

OPTIONS = CurateOptions(contact_images=0, check_ultrasound=False, find_region=False, remove_text=False, every=2)
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0\0\0\x08meta" + bytes(200)


def grey(number: int) -> np.ndarray:
    return phantom(number)[..., 0]


def encoded(number: int, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey(number)).save(buffer, kind, **options)
    return buffer.getvalue()


def stored(output) -> dict[tuple[str, int], np.ndarray]:
    """The images of a corpus by file and frame."""
    rows = [row for path in sorted((output / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return {
        (row["source_path"], row["frame"]): np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows
    }


def dropped(output) -> dict[str, tuple[str, str, str]]:
    rows = pq.read_table(output / "dropped.parquet").to_pylist()
    return {row["source_path"]: (row["step"], row["reason"], row["detail"]) for row in rows}


@pytest.mark.skipif(not all(map(features.check, ("webp", "jpg_2000", "avif"))), reason="Pillow lacks a decoder")
def test_pictures_of_every_format_come_out_as_they_are(tmp_path):
    root = tmp_path / "source"
    save(root / "0.webp", grey(0), lossless=True)
    save(root / "1.jp2", grey(1))
    save(root / "2.avif", grey(2), quality=100)
    save(root / "3.bmp", grey(3))
    save(root / "4.gif", Image.fromarray(grey(4)))
    save(root / "5.tif", grey(5).astype(np.uint16) * 257)
    save(root / "6.tif", grey(6).astype(np.uint16) * 16)
    save(root / "7.png", grey(7).astype(np.uint16))
    save(root / "8.tif", grey(8).astype(np.float32))
    inverse = Image.fromarray(255 - grey(9)).convert("P")
    inverse.putpalette([level for index in range(256) for level in (255 - index,) * 3])
    save(root / "9.png", inverse)
    alpha = np.dstack([phantom(10), np.where(grey(10) > 0, 255, 0).astype(np.uint8)])
    save(root / "10.png", np.where(alpha[..., 3:] == 0, np.uint8([255, 255, 255, 0]), alpha))
    turned = Image.Exif()
    turned[0x0112] = 8  # to be turned 90 degrees anticlockwise
    save(root / "11.jpg", np.rot90(phantom(11), -1), exif=turned, quality=98)
    (root / "12.HEIC").write_bytes(HEIC)
    (root / "13.jpg").write_bytes(HEIC + b"no copy")
    curate([str(root)], tmp_path / "corpus", OPTIONS)
    kept = stored(tmp_path / "corpus")
    assert {name for name, _ in kept} == {path.name for path in root.iterdir()} - {"12.HEIC", "13.jpg"}
    for (name, _), image in kept.items():
        expected = grey(int(name.partition(".")[0])).astype(int)
        assert image.shape == expected.shape and np.abs(image - expected).mean() < 3, name
    cure = "is a HEIC picture, which is not read; convert it to PNG or JPEG"
    assert dropped(tmp_path / "corpus") == {
        name: ("decode", "unsupported_format", f"{name}: {cure}") for name in ("12.HEIC", "13.jpg")
    }


def test_rows_of_a_shard_without_names_are_told_by_their_bytes(tmp_path):
    kinds = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000"]
    shard = pa.table({"image": [encoded(number, kind) for number, kind in enumerate(kinds)] + [HEIC, b"x" * 200]})
    pq.write_table(shard, tmp_path / "shard.parquet")
    curate([str(tmp_path / "shard.parquet")], tmp_path / "corpus", OPTIONS)
    names = ["0.png", "1.jpg", "2.gif", "3.bmp", "4.tif", "5.webp", "6.jp2"]
    assert sorted(name for name, _ in stored(tmp_path / "corpus")) == [
        f"shard.parquet!/000000{name}" for name in names
    ]
    reasons = {name.rpartition("/")[2]: reason for name, (_, reason, _) in dropped(tmp_path / "corpus").items()}
    assert reasons["0000007.heic"] == "unsupported_format" and reasons["0000008.bin"] == "not_an_image"
