"""Images of a benchmark stay out of a corpus however they were altered, and a list matches nothing else."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from curation_helpers import phantom, save
from PIL import Image, ImageEnhance

from echocare_hf.curation import CurateOptions, curate
from echocare_hf.curation.exclude import ExcludeList, read_exclude, write_hashes

pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def on_a_screen(image: Image.Image) -> Image.Image:
    """The image with a margin of black and a line of text in it, as a screenshot has it."""
    screen = Image.new("RGB", (image.width + 90, image.height + 60))
    screen.paste(image, (45, 30))
    screen.paste((255, 255, 255), (4, 4, 40, 8))
    return screen


ALTERED = {
    "the same": lambda image: image,
    "half as large": lambda image: image.resize((image.width // 2, image.height // 2)),
    "larger": lambda image: image.resize((image.width * 7 // 5, image.height * 7 // 5)),
    "JPEG 30": lambda image: recompressed(image, 30),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "darker, smaller, JPEG 60": lambda image: recompressed(
        ImageEnhance.Brightness(image).enhance(0.8).resize((image.width * 3 // 4, image.height * 3 // 4)), 60
    ),
    "screenshot": on_a_screen,
}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """A list of seven images."""
    folder = tmp_path_factory.mktemp("benchmark")
    for number in range(len(ALTERED)):
        save(folder / f"images/{number}.png", phantom(number))
    options = CurateOptions(contact_images=0, near_distance=-1, check_ultrasound=False)
    curate([str(folder / "images")], folder / "checked", options, hashes=folder / "list.txt")
    return folder / "list.txt"


def test_no_altered_image_of_a_benchmark_enters(benchmark, tmp_path):
    for number, alter in enumerate(ALTERED.values()):
        save(tmp_path / f"study/{number}.png", alter(Image.fromarray(phantom(number))).convert("RGB"))
    for number in range(20, 26):
        save(tmp_path / f"study/{number}.png", phantom(number))
    options = CurateOptions(contact_images=0, check_ultrasound=False)
    curate([str(tmp_path / "study")], tmp_path / "corpus", options, exclude=[benchmark])
    dropped = {row["source_path"]: row for row in pq.read_table(tmp_path / "corpus/dropped.parquet").to_pylist()}
    assert {name: row["step"] for name, row in dropped.items()} == {
        f"{n}.png": "excluded" for n in range(len(ALTERED))
    }
    assert dropped["0.png"]["reason"] == "same_pixels" and dropped["1.png"]["reason"] == "looks_the_same"


def test_the_list_is_all_hashes_sorted_and_read_back(benchmark):
    lines = benchmark.read_text().splitlines()
    assert lines == sorted(set(lines)) and sum(line.startswith("pixels:") for line in lines) == len(ALTERED)
    found = read_exclude([benchmark])
    assert {f"pixels:{name}" for name in found.pixel_digests} | {
        f"looks:{int(value):016x}" for value in found.hashes
    } == set(lines)


def test_a_list_without_dropped_images_and_with_digests_that_end_in_zeros(tmp_path):
    digests = ["ab" * 8 + "00" * 8, "00" * 16, "cd" * 16]
    rows = [
        {"step": "nonzero" if n == 2 else None, "pixel_digest": digest, "raw_hash": n, "hash": 2**64 - 1}
        for n, digest in enumerate(digests)
    ]
    import pyarrow as pa

    schema = pa.schema(
        {"step": pa.string(), "pixel_digest": pa.string(), "raw_hash": pa.uint64(), "hash": pa.uint64()}
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "chunk.parquet")
    write_hashes([tmp_path / "chunk.parquet"], tmp_path / "list.txt")
    expected = [f"looks:{n:016x}" for n in (0, 1, 2**64 - 1)] + sorted(f"pixels:{digest}" for digest in digests[:2])
    assert (tmp_path / "list.txt").read_text().splitlines() == expected


def test_a_list_that_is_no_text_is_named(tmp_path):
    (tmp_path / "list.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match=r"list\.png: is no text"):
        read_exclude([tmp_path / "list.png"])


@pytest.mark.parametrize("content", ["", "# of the benchmarks, still to be made\n\n"])
def test_a_list_that_keeps_nothing_out_is_an_error(tmp_path, content):
    (tmp_path / "good.txt").write_text("looks:0123456789abcdef\n")
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(ValueError, match=r"list\.txt: holds no hash, so it would keep nothing out"):
        read_exclude([tmp_path / "good.txt", tmp_path / "list.txt"])


def test_lists_as_windows_writes_them(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbflooks:0123456789ABCDEF\r\npixels:" + b"0" * 32 + b"\r\n")
    found = read_exclude([tmp_path / "list.txt"])
    assert found.hashes.tolist() == [0x0123456789ABCDEF] and found.pixel_digests == {"0" * 32}


def test_what_is_no_hash_names_its_line(tmp_path):
    (tmp_path / "list.txt").write_text("# mine\n\nlooks:0123456789abcdef  # a comment\nlooks:xyz\n")
    with pytest.raises(ValueError, match=r"list\.txt: line 4 is no hash .*make the list with --hashes"):
        read_exclude([tmp_path / "list.txt"])
    assert not ExcludeList() and ExcludeList(hashes=np.array([1], np.uint64))
