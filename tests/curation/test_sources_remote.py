"""Every kind of source, with real files and real servers on this machine: what is read, under which names, with which labels."""

import functools
import gzip
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curation_helpers import phantom, save
from PIL import Image

from echocare_hf.curation.drops import Drops
from echocare_hf.curation.facts import Facts, read_facts
from echocare_hf.curation.fetched import without_secrets
from echocare_hf.curation.sources import discover, open_source, sort_by_type
from hub_server import serve_hub

pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(phantom(number, 64)).save(buffer, "PNG")
    return buffer.getvalue()


def read(given: str, work: Path) -> dict[str, tuple[bytes, Facts]]:
    """The images of a source by name: their bytes, and what is said of them."""
    source = open_source(given, work)
    drops = Drops(work / "drops")
    files, tables = sort_by_type(discover(source, work, drops), work, drops)
    problems: list[str] = []
    facts = list(read_facts(source.name, source.root, files, tables, source.table, problems))
    assert not problems
    return {file.name: (Path(file.path).read_bytes(), fact) for file, fact in facts}


def make_tree(root: Path) -> dict[str, bytes]:
    """Two organs with a table; returns the images by name."""
    files = {"liver/p1/a.png": png(1), "liver/p2/b.png": png(2), "heart/c.png": png(3)}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "metadata.csv").write_text("file_name,patient,licence\nliver/p1/a.png,one,CC0\nheart/c.png,two,CC0\n")
    return files


def check_tree(found: dict[str, tuple[bytes, Facts]], files: dict[str, bytes], source: str) -> None:
    assert {name: content for name, (content, _) in found.items()} == files
    assert found["liver/p1/a.png"][1].group == f"{source}/one" and found["heart/c.png"][1].licence == "CC0"
    assert ("folder", "liver") in found["liver/p2/b.png"][1].texts


@pytest.fixture
def web(tmp_path):
    """A web server for a folder: its address and the folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    root = tmp_path / "web"
    root.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", root
        server.shutdown()


def test_an_image_and_an_archive_from_the_web(web, tmp_path):
    address, root = web
    (root / "x.png").write_bytes(png(1))
    files = make_tree(tmp_path / "tree")
    with tarfile.open(root / "tree.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "tree", ".")
    assert read(f"{address}/x.png", tmp_path / "work")["x.png"][0] == png(1)
    found = read(f"set={address}/tree.tar.gz?token=secret", tmp_path / "work")
    check_tree({name.removeprefix("tree.tar.gz!/"): entry for name, entry in found.items()}, files, "set")
    (root / "x.png").unlink()
    assert read(f"{address}/x.png", tmp_path / "work")["x.png"][0] == png(1), "it is fetched once"


def test_what_the_web_has_not_is_one_line(web, tmp_path):
    with pytest.raises(
        ValueError, match=r"none\.png: cannot be read .*does not exist.*; check it and your access"
    ) as caught:
        open_source(f"{web[0]}/none.png", tmp_path / "work")
    assert "\n" not in str(caught.value) and not [*(tmp_path / "work/fetched").iterdir()]


def test_secrets_of_a_url_are_not_repeated():
    assert without_secrets("https://me:word@host/a.zip?key=1") == "https://host/a.zip"
    assert without_secrets("s3://bucket/a?.png") == "s3://bucket/a?.png"


def test_a_prefix_and_a_glob_of_s3(bucket, tmp_path):
    files = make_tree(tmp_path / "tree")
    for path in (tmp_path / "tree").rglob("*.*"):
        bucket.upload_file(str(path), "scans", f"us/{path.relative_to(tmp_path / 'tree').as_posix()}")
    bucket.put_object(Bucket="scans", Key="other/d.png", Body=png(4))
    check_tree(read("set=s3://scans/us/", tmp_path / "work"), files, "set")
    check_tree(read("set=s3://scans/us/**", tmp_path / "work"), files, "set")
    livers = read("s3://scans/us/liver/**/*.png", tmp_path / "work")
    assert set(livers) == {"p1/a.png", "p2/b.png"}
    with pytest.raises(ValueError, match=r"s3://scans/us/\*\.dcm: "):
        open_source("s3://scans/us/*.dcm", tmp_path / "work")


def test_large_files_of_s3_are_copied_piece_by_piece(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("echocare_hf.curation.fetched._AT_ONCE_BYTES", 4000)
    monkeypatch.setattr("echocare_hf.curation.fetched._BLOCK", 1500)
    files = {f"{number}.png": png(number) for number in range(3)}
    assert all(len(content) > 1000 for content in files.values())
    for name, content in files.items():
        bucket.put_object(Bucket="scans", Key=name, Body=content)
    assert {name: content for name, (content, _) in read("s3://scans/", tmp_path / "work").items()} == files


def hub_rows(count: int) -> datasets.Dataset:
    """A data set as the Hub has it: images and classes by number."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["liver", "heart"])})
    rows = {"image": [{"bytes": png(n), "path": f"{n}.png"} for n in range(count)], "label": [0, 1, 1][:count]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_a_data_set_of_the_hub_by_its_id(tmp_path, monkeypatch):
    hub_rows(3).to_parquet(tmp_path / "hub/data/train-00000.parquet")
    load, asked = datasets.load_dataset, []

    def from_folder(name, **options):  # the Hub itself is out of reach: its folder is loaded instead
        asked.append((name, options))
        return load("parquet", data_files={"train": str(tmp_path / "hub/data/*.parquet")}, **options)

    monkeypatch.setattr(datasets, "load_dataset", from_folder)
    found = read("somebody/scans:train", tmp_path / "work")
    assert asked == [("somebody/scans", {"split": "train", "streaming": True})]
    assert [content for content, _ in found.values()] == [png(n) for n in range(3)]
    assert [fact.label for _, fact in found.values()] == ["liver", "heart", "heart"]
    with pytest.raises(ValueError, match=r"somebody/scans:test: .*; check the name and the split"):
        open_source("somebody/scans:test", tmp_path / "work")


READ_FROM_HUB = """
import json, sys
from pathlib import Path
from echocare_hf.curation.sources import open_source
source = open_source(sys.argv[1], Path(sys.argv[2]))
files = sorted(file for file in Path(source.root).rglob("*") if file.suffix == ".png")
print(json.dumps([file.read_bytes().hex() for file in files]))
"""


def test_the_real_clients_read_a_data_set_from_a_server_of_the_hubs_protocol(tmp_path):
    hub_rows(3).to_parquet(tmp_path / "hub/datasets/somebody/scans/data/train-00000-of-00001.parquet")
    with serve_hub(tmp_path / "hub") as address:
        environment = {
            **os.environ,
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
        }
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-c", READ_FROM_HUB]
        run = subprocess.run(
            [*command, "somebody/scans:train", str(tmp_path / "work")], env=environment, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr[-2000:]
        assert [bytes.fromhex(one) for one in json.loads(run.stdout)] == [png(number) for number in range(3)]
        run = subprocess.run(
            [*command, "somebody/else", str(tmp_path / "work")], env=environment, capture_output=True, text=True
        )
        assert "somebody/else: is no file or folder here, and no data set of the Hub" in run.stderr


def test_an_id_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise ConnectionError("Couldn't reach 'no/body' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ValueError, match="no/body: is no file or folder here, and no data set of the Hub"):
        open_source("no/body", tmp_path / "work")


def test_classes_of_a_parquet_file_of_datasets_have_names(tmp_path):
    hub_rows(2).to_parquet(tmp_path / "train.parquet")
    found = read(str(tmp_path / "train.parquet"), tmp_path / "work")
    assert [fact.label for _, fact in found.values()] == ["liver", "heart"]


def test_a_webdataset_shard_with_its_side_cars(tmp_path):
    members = {
        "0001.png": png(1),
        "0001.json": json.dumps({"organ": "liver", "patient": 7, "boxes": [[1, 2]]}).encode(),
        "0001.cls": b"benign",
        "0002.left.png": png(2),
        "0002.cls": b"3",
        "0002.txt": b"a cyst in the left lobe\nseen twice",
        "sub/0001.png": png(3),
        "sub/0001.txt": b"a kidney",
        "0003.png": png(4),
    }
    with tarfile.open(tmp_path / "shard-000000.tar", "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    found = {
        name.partition("!/")[2]: fact for name, (_, fact) in read(str(tmp_path / "shard-000000.tar"), tmp_path).items()
    }
    assert set(found) == {name for name in members if name.endswith(".png")}
    assert found["0001.png"].label == "benign" and found["0001.png"].group == "shard-000000/7"
    assert ("organ", "liver") in found["0001.png"].texts
    assert found["0002.left.png"].label == "3" and found["sub/0001.png"].label == "a kidney"
    assert found["0003.png"].label is None


def test_texts_beside_images_in_a_folder_are_no_labels(tmp_path):
    save(tmp_path / "set/a.png", phantom(1, 64))
    (tmp_path / "set/a.txt").write_text("0 0.5 0.5 0.1 0.1")  # boxes, as YOLO has them
    assert read(str(tmp_path / "set"), tmp_path / "work")["a.png"][1].label is None


def test_a_gzipped_image_and_a_nested_archive(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.png.gz").write_bytes(gzip.compress(png(1)))
    shutil.make_archive(str(tmp_path / "inner"), "zip", make_root(tmp_path / "tree"))
    with tarfile.open(tmp_path / "set/outer.tar", "w") as archive:
        archive.add(tmp_path / "inner.zip", "deep/inner.zip")
    found = read(str(tmp_path / "set"), tmp_path / "work")
    assert found["a.png.gz!/a.png"][0] == png(1)
    assert found["outer.tar!/deep/inner.zip!/liver/p1/a.png"][1].group == "set/one", "its own table speaks of it"


def make_root(root: Path) -> str:
    make_tree(root)
    return str(root)


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="bsdtar, which reads rar, is not installed")
def test_a_rar_archive(tmp_path):
    """No free tool writes rar; bsdtar goes by the bytes, here of a 7z archive, and not by the name."""
    (tmp_path / "x.png").write_bytes(png(1))
    subprocess.run(["bsdtar", "--format=7zip", "-cf", "a.rar", "x.png"], cwd=tmp_path, check=True)
    assert read(str(tmp_path / "a.rar"), tmp_path / "work")["a.rar!/x.png"][0] == png(1)


def test_a_manifest_that_points_elsewhere_tells_no_path_of_this_machine(tmp_path):
    save(tmp_path / "elsewhere/a.png", phantom(1, 64))
    save(tmp_path / "lists/b.png", phantom(2, 64))
    listed = [f"{tmp_path}/elsewhere/a.png,liver", "./b.png,heart", "../elsewhere/a.png,kidney"]
    (tmp_path / "lists/list.csv").write_text("\n".join(["image,organ", *listed[:2]]))
    found = read(str(tmp_path / "lists/list.csv"), tmp_path / "work")
    assert set(found) == {"a.png", "b.png"} and found["b.png"][1].texts[0] == ("organ", "heart")
    assert found["a.png"][1].texts[0] == ("organ", "liver")
    (tmp_path / "lists/up.csv").write_text("\n".join(["image,organ", listed[2]]))
    assert set(read(str(tmp_path / "lists/up.csv"), tmp_path / "work")) == {"elsewhere/a.png"}


def test_a_table_speaks_only_of_its_folder_and_is_read_once(tmp_path, monkeypatch):
    """Folders whose names sort between those of a folder and its own: a, a-b, a/c."""
    from echocare_hf.curation import facts

    for name in ("a/1.png", "a/c/2.png", "a-b/3.png", "b/4.png"):
        save(tmp_path / "set" / name, phantom(1, 64))
    for folder, organ in (("", "heart"), ("a", "liver"), ("a/c", "kidney")):
        names = sorted(
            path.relative_to(tmp_path / "set" / folder).as_posix()
            for path in (tmp_path / "set" / folder).rglob("*.png")
        )
        (tmp_path / "set" / folder / "metadata.csv").write_text(
            "\n".join(["file_name,organ", *(f"{n},{organ}" for n in names)])
        )
    opened = []
    plain_read = facts.read_table
    monkeypatch.setattr(facts, "read_table", lambda path: opened.append(path) or plain_read(path))
    found = {name: fact.texts[0][1] for name, (_, fact) in read(str(tmp_path / "set"), tmp_path / "work").items()}
    assert found == {"a/1.png": "liver", "a/c/2.png": "kidney", "a-b/3.png": "heart", "b/4.png": "heart"}
    assert len(opened) == len(set(opened)) == 3


def test_plain_parquet_rows_keep_their_own_labels(tmp_path):
    rows = [{"image": png(1), "label": "cyst"}, {"image": None, "label": "lost"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = read(str(tmp_path / "rows.parquet"), tmp_path / "work")
    assert [fact.label for _, fact in found.values()] == ["cyst"]
