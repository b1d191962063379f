"""Archives are opened without trust: nothing escapes, nothing explodes, everything good comes out."""

import gzip
import io
import json
import random
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curation_helpers import phantom

from echocare_hf.curation import archives
from echocare_hf.curation.archives import ArchiveError, is_archive, unpack
from echocare_hf.curation.record import FoundFile
from echocare_hf.curation.unpacked import open_container

FILES = {"a/one.png": b"\x89PNG one", "a/b/two.jpg": b"\xff\xd8\xff two", "three.txt": b"text"}


def make_zip(path: Path, files: dict[str, bytes], level: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", level) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def make_parquet(path: Path, images: list[bytes], **columns: list) -> Path:
    pq.write_table(pa.table({"image": images, **columns}), path, compression="zstd")
    return path


def unpacked(path: Path, target: Path) -> dict[str, bytes]:
    target.mkdir()
    members, _ = unpack(path, target)
    return {member.name: member.path.read_bytes() for member in members}


@pytest.mark.parametrize("suffix, mode", [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.xz", "w:xz")])
def test_tar_comes_out_whole(tmp_path, suffix, mode):
    path = make_tar(tmp_path / f"archive{suffix}", FILES, mode)
    assert is_archive(path.name)
    assert unpacked(path, tmp_path / "out") == FILES


def test_zip_and_gz_come_out_whole(tmp_path):
    assert unpacked(make_zip(tmp_path / "archive.zip", FILES), tmp_path / "out") == FILES
    single = tmp_path / "image.png.gz"
    single.write_bytes(gzip.compress(FILES["a/one.png"]))
    assert unpacked(single, tmp_path / "out2") == {"image.png": FILES["a/one.png"]}


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="bsdtar, which reads rar, is not installed")
def test_rar_goes_through_bsdtar(tmp_path):
    path = make_zip(tmp_path / "archive.rar", FILES)  # bsdtar looks at the bytes; no free tool writes rar
    assert unpacked(path, tmp_path / "out") == FILES


def test_rar_without_a_tool_says_which(tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "which", lambda name: None)
    (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x00")
    with pytest.raises(ArchiveError, match="bsdtar") as caught:
        unpack(tmp_path / "a.rar", tmp_path)
    assert caught.value.reason == "no_rar_tool"


def test_a_gzipped_volume_is_no_archive():
    assert not is_archive("brain.nii.gz") and is_archive("brain.gz")


@pytest.mark.parametrize(
    "name", ["../escape.png", "a/../../escape.png", "/etc/escape.png", "..\\escape.png", "C:/escape.png"]
)
@pytest.mark.parametrize("make, suffix", [(make_zip, ".zip"), (make_tar, ".tar")])
def test_a_path_that_escapes_condemns_the_archive(tmp_path, name, make, suffix):
    path = make(tmp_path / f"slip{suffix}", {"good.png": b"1", name: b"2"})
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    with pytest.raises(ArchiveError, match="outside of the archive") as caught:
        unpack(path, target)
    assert caught.value.reason == "unsafe_archive" and str(path) in str(caught.value)
    outside = {place.name for place in tmp_path.rglob("*") if place.is_file()} - {path.name}
    assert outside <= {"good.png"} and not (tmp_path / "deep" / "escape.png").exists()


def test_links_and_devices_are_left_out(tmp_path):
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("soft.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("dev.png", tarfile.CHRTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    (tmp_path / "out").mkdir()
    members, skipped = unpack(path, tmp_path / "out")
    assert members == [] and {name for name, _ in skipped} == {"soft.png", "hard.png", "dev.png"}
    entry = zipfile.ZipInfo("link.png")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    assert unpack(tmp_path / "link.zip", tmp_path / "out")[1][0].name == "link.png"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["x.jpg", "./x.jpg", ".//./x.jpg"])
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_members_of_one_name_are_counted_one_by_one(tmp_path, suffix, second):
    path = tmp_path / f"twice{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.jpg", b"first")
            archive.writestr(second, b"second")
    else:
        for name, content, mode in (("x.jpg", b"first", "w"), (second, b"second", "a")):
            make_tar(path, {name: content}, mode)
    file = FoundFile("s", path.name, str(path), path.stat().st_size)
    files, drops = open_container(file, tmp_path / "work")
    assert [(entry.name, Path(entry.path).read_bytes()) for entry in files] == [(f"{path.name}!/x.jpg", b"first")]
    assert [(drop.name, drop.reason) for drop in drops] == [(f"{path.name}!/x.jpg", "same_name")]
    assert "earlier file of this name" in drops[0].detail
    assert open_container(file, tmp_path / "work") == (files, drops), "found again as it was"


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "gz"])
def test_a_bomb_is_stopped_early(tmp_path, kind):
    zeros = bytes(16 * 1024**2)  # shrinks about a thousand times
    path = tmp_path / f"bomb.{kind}"
    if kind == "zip":
        make_zip(path, {"zeros.bin": zeros}, zipfile.ZIP_DEFLATED)
    elif kind == "gz":
        path.write_bytes(gzip.compress(zeros))
    else:
        make_tar(path, {"zeros.bin": zeros}, "w:gz")
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveError, match="more than 50 times its size"):
        unpack(path, tmp_path / "out")
    written = sum(place.stat().st_size for place in (tmp_path / "out").rglob("*") if place.is_file())
    assert written <= 50 * path.stat().st_size + 1024**2


@pytest.mark.parametrize(
    "limit, match", [("MAX_MEMBERS", "members"), ("MAX_MEMBER_BYTES", "a member of more"), ("MAX_TOTAL_BYTES", "TiB")]
)
def test_each_limit_is_named(tmp_path, monkeypatch, limit, match):
    monkeypatch.setattr(archives, limit, 2)
    with pytest.raises(ArchiveError, match=match) as caught:
        unpack(make_zip(tmp_path / "archive.zip", FILES), tmp_path)
    assert caught.value.reason == "archive_limit" and "unpack it yourself" in str(caught.value)


def test_damage_is_reported(tmp_path):
    path = make_zip(tmp_path / "archive.zip", FILES)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(path, tmp_path)


def test_headers_that_python_stumbles_over_are_damage(tmp_path):
    nameless = make_zip(tmp_path / "a.zip", {"a.png": b"a"})
    nameless.write_bytes(nameless.read_bytes().replace(b"a.png", b"\0.png"))
    cut = tmp_path / "b.tar.gz"
    cut.write_bytes(b"\x1f\x8b\x08\x04" + bytes(6))  # an extra field is announced
    for path in (nameless, cut):
        (tmp_path / path.stem).mkdir()
        with pytest.raises(ArchiveError, match="is a damaged archive") as caught:
            unpack(path, tmp_path / path.stem)
        assert caught.value.reason == "damaged_archive"


@pytest.mark.parametrize("harm", ["bytes", "cut"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_header_does_not_pass_for_the_end_of_a_tar(tmp_path, harm, packed):
    whole = make_tar(tmp_path / "a.tar", {f"{number}.png": bytes(700) for number in range(5)}).read_bytes()
    third = 2 * (512 + 1024)  # a header, and 700 bytes in whole blocks
    content = whole[:third] + b"\xff" * 20 + whole[third + 20 :] if harm == "bytes" else whole[: third + 100]
    path = tmp_path / ("b.tar.gz" if packed else "b.tar")
    path.write_bytes(gzip.compress(content) if packed else content)
    (tmp_path / "target").mkdir()
    with pytest.raises(ArchiveError, match="damaged header") as caught:
        unpack(path, tmp_path / "target")
    assert caught.value.reason == "damaged_archive"


def test_archives_in_archives_and_nothing_half_unpacked(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", FILES).read_bytes()
    path = make_tar(tmp_path / "outer.tar", {"x/inner.zip": inner, "y/photo.png": b"photo"})
    file = FoundFile("source", "outer.tar", str(path), path.stat().st_size)
    files, drops = open_container(file, tmp_path / "work")
    assert {entry.name: Path(entry.path).read_bytes() for entry in files} == {
        "outer.tar!/y/photo.png": b"photo",
        **{f"outer.tar!/x/inner.zip!/{name}": content for name, content in FILES.items()},
    }
    assert not drops and not list((tmp_path / "work").rglob("*.partial"))
    before = {place: place.stat().st_mtime_ns for place in (tmp_path / "work").rglob("*")}
    assert open_container(file, tmp_path / "work")[0] == files  # taken out once
    assert {place: place.stat().st_mtime_ns for place in (tmp_path / "work").rglob("*")} == before


def test_shards_in_archives_are_opened_under_the_same_rules(tmp_path):
    images = [phantom(n, 64).tobytes() for n in range(3)]
    shard = make_parquet(tmp_path / "s.parquet", images, organ=["liver"] * 3).read_bytes()
    path = make_zip(tmp_path / "outer.zip", {"data/s.parquet": shard, "data/cut.tfrecord": b"neither", "a.png": b"a"})
    file = FoundFile("s", "outer.zip", str(path), path.stat().st_size)
    files, drops = open_container(file, tmp_path / "work")
    found = {entry.name.removeprefix("outer.zip!/"): Path(entry.path).read_bytes() for entry in files}
    rows = found.pop("data/s.parquet!/rows.echocare.jsonl").decode().splitlines()
    assert found == {"a.png": b"a", **{f"data/s.parquet!/000000{n}.bin": image for n, image in enumerate(images)}}
    assert [json.loads(row)["organ"] for row in rows] == ["liver"] * 3
    assert [(drop.name, drop.reason) for drop in drops] == [("outer.zip!/data/cut.tfrecord", "damaged_archive")]

    content, name = shard, "s.parquet"
    for level in range(3):
        content, name = make_zip(tmp_path / f"{level}.zip", {name: content}).read_bytes(), f"{level}.zip"
    files, drops = open_container(FoundFile("s", "2.zip", str(tmp_path / "2.zip"), len(content)), tmp_path / "work")
    assert not files and [drop.reason for drop in drops] == ["archive_limit"]
    assert drops[0].name.endswith("!/s.parquet") and "archives deep" in drops[0].detail


def test_a_parquet_bomb_is_stopped_early(tmp_path):
    image = random.Random(0).randbytes(30_000)
    paths = [make_parquet(tmp_path / "repeated.parquet", [image] * 1000)]  # a dictionary has the image once
    paths += [make_parquet(tmp_path / "zeros.parquet", [bytes(8 * 1024**2)])]
    paths += [make_parquet(tmp_path / "text.parquet", [image] * 100, note=["n" * 100_000] * 100)]
    for path in paths:
        file = FoundFile("s", path.name, str(path), path.stat().st_size)
        files, drops = open_container(file, tmp_path / "work")
        assert not files and [(drop.name, drop.reason) for drop in drops] == [(path.name, "archive_limit")]
        assert "more than 50 times its size" in drops[0].detail
    assert not [place for place in (tmp_path / "work").rglob("*") if place.is_file()]


def test_shards_inside_count_for_the_outermost_archive(tmp_path, monkeypatch):
    shard = make_parquet(tmp_path / "s.parquet", [phantom(n, 64).tobytes() for n in range(3)]).read_bytes()
    path = make_zip(tmp_path / "outer.zip", {"1.parquet": shard, "2.parquet": shard})
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2 + 3 + 1)  # two shards, three images and a table
    file = FoundFile("s", "outer.zip", str(path), path.stat().st_size)
    files, drops = open_container(file, tmp_path / "work")
    assert len(files) == 4 and [(drop.name, drop.reason) for drop in drops] == [
        ("outer.zip!/2.parquet", "archive_limit")
    ]
    assert open_container(file, tmp_path / "work") == (files, drops), "what was taken out before counts the same"


def test_too_deep_is_refused(tmp_path):
    content = b"png"
    for level in range(5):
        content = make_zip(tmp_path / f"{level}.zip", {f"{level}.zip" if level else "a.png": content}).read_bytes()
    file = FoundFile("source", "4.zip", str(tmp_path / "4.zip"), len(content))
    files, drops = open_container(file, tmp_path / "work")
    assert not files and [drop.reason for drop in drops] == ["archive_limit"] and "deep" in drops[0].detail


def test_a_bomb_in_layers_is_measured_against_the_outermost_archive(tmp_path):
    content = random.Random(0).randbytes(30_000) + bytes(850_000)
    inner = make_zip(tmp_path / "inner.zip", {"a.png": content}, zipfile.ZIP_DEFLATED).read_bytes()
    path = make_tar(tmp_path / "bomb.tar.xz", {f"{n}.zip": inner for n in range(30)}, "w:xz")
    packed = path.stat().st_size
    assert len(content) < 50 * len(inner) and 30 * len(inner) < 50 * packed < 30 * len(content), (
        "each layer is harmless"
    )
    file = FoundFile("s", "bomb.tar.xz", str(path), packed)
    files, drops = open_container(file, tmp_path / "work")
    assert drops and {drop.reason for drop in drops} == {"archive_limit"} and len(files) + len(drops) == 30
    assert sum(entry.size for entry in files) <= max(50 * packed, archives.RATIO_FLOOR)
    assert open_container(file, tmp_path / "work") == (files, drops), "what was taken out before counts the same"


def test_members_of_inner_archives_count_for_the_outermost(tmp_path, monkeypatch):
    inner = make_zip(tmp_path / "inner.zip", FILES).read_bytes()
    path = make_tar(tmp_path / "outer.tar", {"1.zip": inner, "2.zip": inner})
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2 + len(FILES))
    files, drops = open_container(FoundFile("s", "outer.tar", str(path), 1), tmp_path / "work")
    assert len(files) == len(FILES) and [(drop.name, drop.reason) for drop in drops] == [
        ("outer.tar!/2.zip", "archive_limit")
    ]


def test_no_record_names_a_place_of_this_machine(tmp_path):
    good = make_zip(tmp_path / "good.zip", FILES).read_bytes()
    parts = {
        "slip.zip": make_zip(tmp_path / "slip.zip", {"../x.png": b"1"}).read_bytes(),
        "cut.zip": good[:40],
        "cut.tar.gz": gzip.compress(good)[:20],
        "bomb.gz": gzip.compress(bytes(4 * 1024**2)),
        "empty.zip": make_zip(tmp_path / "empty.zip", {}).read_bytes(),
    }
    make_tar(tmp_path / "outer.tar", parts)
    for name in ("cut.parquet", "cut.tfrecord"):
        (tmp_path / name).write_bytes(b"neither of the two")
    drops = []
    for name in ("outer.tar", "cut.parquet", "cut.tfrecord"):
        drops += open_container(FoundFile("s", name, str(tmp_path / name), 1), tmp_path / "work")[1]
    reasons = {drop.name: drop.reason for drop in drops}
    assert reasons == {
        "outer.tar!/slip.zip": "unsafe_archive",
        "outer.tar!/cut.zip": "damaged_archive",
        "outer.tar!/cut.tar.gz": "damaged_archive",
        "outer.tar!/bomb.gz": "archive_limit",
        "outer.tar!/empty.zip": "no_image_inside",
        "cut.parquet": "damaged_archive",
        "cut.tfrecord": "damaged_archive",
    }
    assert not [drop for drop in drops if str(tmp_path) in drop.detail]
    assert all(drop.detail.startswith(f"{drop.name}: ") for drop in drops if drop.reason != "no_image_inside")


@pytest.mark.parametrize("code", [0, 1])
def test_bsdtar_has_to_end_well(tmp_path, monkeypatch, code):
    make_tar(tmp_path / "part.tar", FILES)
    tool = tmp_path / "bsdtar"
    tool.write_text(f"#!/bin/sh\ncat '{tmp_path}/part.tar'\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(archives.shutil, "which", lambda name: str(tool))
    (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x00")
    if code == 0:
        assert unpacked(tmp_path / "a.rar", tmp_path / "out") == FILES
        return
    with pytest.raises(ArchiveError, match="to its end") as caught:
        unpacked(tmp_path / "a.rar", tmp_path / "out")
    assert caught.value.reason == "damaged_archive"


def test_a_compression_that_python_lacks_is_not_called_encryption(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.png": b"content"})
    content = bytearray(path.read_bytes())
    for start, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # compression method: deflate64
        struct.pack_into("<H", content, content.index(start) + place, 9)
    path.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveError, match="unpack it yourself") as caught:
        unpack(path, tmp_path / "out")
    assert caught.value.reason == "damaged_archive" and "encrypted" not in str(caught.value)


def test_headers_stay_beside_their_data(tmp_path):
    path = make_zip(
        tmp_path / "a.zip",
        {"p1/scan.mhd": b"ElementDataFile = scan.raw", "p1/scan.raw": b"raw", "p2/scan.raw": b"other"},
    )
    (tmp_path / "out").mkdir()
    members = {member.name: member.path for member in unpack(path, tmp_path / "out")[0]}
    assert members["p1/scan.mhd"].parent == members["p1/scan.raw"].parent != members["p2/scan.raw"].parent
    assert members["p1/scan.raw"].name == "scan.raw"


def test_the_index_of_an_unpacked_archive_is_json(tmp_path):
    path = make_zip(tmp_path / "a.zip", FILES)
    open_container(FoundFile("s", "a.zip", str(path), 1), tmp_path / "work")
    (index,) = (tmp_path / "work").rglob(".index.json")
    assert {name for name, _, _ in json.loads(index.read_text())[0]} == set(FILES)
