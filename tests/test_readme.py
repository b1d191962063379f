"""What the README shows works as printed."""

import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from echocare_hf import EchoCareConfig, EchoCareForSemanticSegmentation, EchoCareImageProcessorPil

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_example_runs(capsys):
    """The block is at most fifteen lines of code, and prints the shapes it promises."""
    block = BLOCKS[0]
    assert sum(bool(line.strip()) for line in block.splitlines()) <= 15
    exec(compile(block, "README.md", "exec"), {})
    assert "(1, 3, 128, 128)" in capsys.readouterr().out


def test_a_fine_tuned_folder_runs_in_the_pipeline(tmp_path, monkeypatch):
    config = EchoCareConfig.preset("tiny", num_labels=2)
    EchoCareForSemanticSegmentation(config).save_pretrained(tmp_path / "lesions")
    EchoCareImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "lesions")
    Image.fromarray(np.full((80, 100), 90, np.uint8)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in BLOCKS[1:] if "pipeline(" in block)
    exec(compile(block, "README.md", "exec"), {})


def test_a_corpus_is_read_as_a_stream(tmp_path, monkeypatch):
    row = {"image": [{"bytes": png(), "path": None}], "node": ["liver"], "id": ["0" * 32]}
    row |= {"labels": [[1]], "source": ["clinic"], "group": [None]}
    (tmp_path / "corpus/data").mkdir(parents=True)
    pq.write_table(pa.table(row), tmp_path / "corpus/data/train-00000-of-00001.parquet")
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in BLOCKS[1:] if "stream(" in block)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["sample"]["node"] == "liver" and names["sample"]["image"].shape == (80, 100, 3)


def png() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((80, 100), 90, np.uint8)).save(content, "PNG")
    return content.getvalue()


def test_it_opens_with_a_picture_and_every_local_link_leads_somewhere():
    assert README.startswith("![")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        path, _, heading = link.partition("#")
        assert (ROOT / path).exists(), link
        titles = (
            re.findall(r"^#+ (.*)$", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE) if heading else []
        )
        assert not heading or heading in [title.lower().replace(" ", "-") for title in titles], link


def test_the_picture_is_smaller_than_a_megabyte():
    assert (ROOT / "docs/images/quickstart.png").stat().st_size < 1_000_000
