"""Streaming what is damaged, missing or remote: rows and shards are skipped and counted, ranks stay equal, errors name the file."""

import functools
import http.server
import re
import shutil
import threading
import warnings
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streaming_helpers import curated, enlarged, ids, reshard, with_column

from echocare_hf.data import stream
from google_server import serve_google
from hub_server import run_hub

QUICK = {"columns": ["id", "image"], "seed": 2}
DAMAGED = (3, 4, 17, 40)


def damaged_rows() -> tuple[pa.Table, set[str]]:
    """48 rows, of which some have no image, half an image, or a text in its place; and the ids of the good ones."""
    table = enlarged(2).slice(0, 48)
    images = table["image"].to_pylist()
    for place, broken in zip(DAMAGED, (None, images[4]["bytes"][:300], b"no image", b""), strict=True):
        images[place] = {"bytes": broken, "path": None}
    good = {name for place, name in enumerate(table["id"].to_pylist()) if place not in DAMAGED}
    return with_column(table, "image", pa.array(images, table.schema.field("image").type)), good


@pytest.fixture
def damaged(tmp_path):
    table, good = damaged_rows()
    return reshard(table, tmp_path / "damaged", shards=2, rows_per_group=10), good


def test_rows_without_a_good_image_are_skipped_and_counted(damaged):
    folder, good = damaged
    images = stream(folder, **QUICK)
    with pytest.warns(UserWarning, match=r"train-0000\d-of-00002.parquet, row group \d, row \d.*is skipped") as record:
        assert set(found := ids(images)) == good and len(found) == len(good)
    assert len(record) == 1
    assert images.skipped == {"undecodable_image": 4, "missing_column": 0, "unreadable_shard": 0}
    assert len(list(stream(folder, columns=["id"]))) == 48


@pytest.mark.filterwarnings("ignore:.*is skipped")
def test_skipped_rows_of_workers_are_counted(damaged):
    folder, good = damaged
    loader = stream(folder, **QUICK, draft=16, transform=_only_id).loader(5, 2)
    assert set(ids(loader)) == good
    assert loader.stream.skipped["undecodable_image"] == 4
    state = loader.state_dict()
    other = stream(folder, **QUICK).loader(5, 2)
    other.load_state_dict(state)
    assert ids(other) == [] and other.stream.skipped["undecodable_image"] == 4


def _only_id(sample):
    return {"id": sample["id"]}


@pytest.mark.filterwarnings("ignore:.*is skipped")
@pytest.mark.parametrize("equal", ["repeat", "drop"])
def test_ranks_stay_equal_with_bad_rows(damaged, equal):
    """A rank makes up for bad rows with good ones of its own, also when it is stopped in the middle of that."""
    folder, good = damaged
    found = []
    for rank in range(5):
        options = {**QUICK, "rank": rank, "world_size": 5, "equal": equal, "transform": _only_id}
        mine = ids(stream(folder, **options))
        found.append(mine)
        for stop in (1, len(mine) - 1, len(mine)):
            broken = stream(folder, **options)
            iterator = iter(broken)
            seen = [next(iterator)["id"] for _ in range(stop)]
            resumed = stream(folder, **options)
            resumed.load_state_dict(broken.state_dict())
            assert seen + ids(resumed) == mine
    assert {len(mine) for mine in found} == {10 if equal == "repeat" else 9}
    assert set().union(*found) <= good
    if equal == "repeat":
        assert set().union(*found) == good


def test_a_corpus_of_bad_rows_ends(tmp_path):
    table = enlarged(1).slice(0, 8)
    table = with_column(
        table, "image", pa.array([{"bytes": b"no", "path": None}] * 8, table.schema.field("image").type)
    )
    folder = reshard(table, tmp_path, 1, 4)
    with pytest.warns(UserWarning, match="is skipped"):
        assert list(stream(folder, **QUICK)) == []
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of 4 rows can be used"):
        list(stream(folder, **QUICK, rank=0, world_size=2))


def test_a_column_that_some_shards_lack(tmp_path):
    folder = reshard(enlarged(1), tmp_path, 2, 10)
    second = folder / "data/train-00001-of-00002.parquet"
    pq.write_table(pq.read_table(second).drop_columns(["node"]), second)
    lacking = pq.read_metadata(second).num_rows
    for options in ({"columns": ["id", "node"]}, {"columns": ["id"], "weights": {"lung": 0.5}}):
        images = stream(folder, **options)
        with pytest.warns(UserWarning, match="00001-of-00002.parquet.*no column 'node'"):
            assert len(ids(images)) == 32 - lacking
        assert images.skipped["missing_column"] == lacking
    assert len(ids(stream(folder, columns=["id"]))) == 32
    with pytest.raises(ValueError, match="has no column 'nodes', nor has another shard"):
        stream(folder, columns=["nodes"])


def test_damaged_shards(tmp_path):
    folder = reshard(enlarged(1), tmp_path, 4, 4)
    shards = sorted((folder / "data").iterdir())
    shards[2].write_bytes(shards[2].read_bytes()[:-200])
    with pytest.raises(
        ValueError, match=rf'{re.escape(shards[2].name)}: the shard cannot be read .*bad_shards="skip"'
    ):
        stream(folder)
    with pytest.warns(UserWarning, match="1 of 4 shards cannot be read and are left out"):
        images = stream(folder, columns=["id"], bad_shards="skip")
    good = [name for shard in shards if shard != shards[2] for name in pq.read_table(shard)["id"].to_pylist()]
    assert sorted(ids(images)) == sorted(good)
    assert [Path(shard).name for shard in images.skipped_shards] == [shards[2].name]
    for shard in shards:
        shard.write_bytes(b"")
    with pytest.raises(ValueError, match="4 of 4 are so"):
        stream(folder, bad_shards="skip")


def test_a_shard_that_vanishes_while_reading(tmp_path):
    folder = reshard(enlarged(1), tmp_path, 3, 4)
    strict, lenient = stream(folder, columns=["id"]), stream(folder, columns=["id"], bad_shards="skip")
    gone = folder / "data/train-00001-of-00003.parquet"
    rows = pq.read_metadata(gone).num_rows
    gone.unlink()
    with pytest.raises(ValueError, match=r"00001-of-00003\.parquet: the shard cannot be read any more"):
        list(strict)
    with pytest.warns(UserWarning, match="00001-of-00003"):
        assert len(ids(lenient)) == 32 - rows
    assert lenient.skipped["unreadable_shard"] == rows


def test_an_error_of_the_transform_is_the_callers():
    def transform(sample):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        next(iter(stream(curated(), transform=transform)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "has no split 'test'; it has train, validation"),
        ({"mode": "YCbCr"}, 'mode is "RGB" or "L"'),
        ({"image_as": "tensor"}, 'image_as is "array", "pil" or "bytes"'),
        ({"draft": 0}, "draft is a side in pixels"),
        ({"equal": "pad"}, "equal must be"),
        ({"bad_shards": "warn"}, "bad_shards must be"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"mixed_groups": 0}, "mixed_groups must be 1 or more"),
        ({"rank": 2, "world_size": 2}, "rank must be 0 to 1"),
        ({"rank": 2}, "together"),
        ({"rank": 0, "world_size": 1000, "equal": "drop"}, "cannot be shared out to 1000 ranks"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        len(stream(curated(), **options))


def test_nothing_there(tmp_path):
    for place in (tmp_path, tmp_path / "none", tmp_path / "none.parquet", "memory://none"):
        with pytest.raises(ValueError, match=r"holds no parquet|nothing in it|no such file"):
            stream(place)
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="holds no parquet files"):
        stream(tmp_path)


# Remote ----------------------------------------------------------------------------------------------


def test_a_corpus_in_any_file_system_of_fsspec(tmp_path):
    folder = reshard(enlarged(1), tmp_path, 3, 4)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/streamed", recursive=True)
    try:
        for place in ("memory://streamed", "memory://streamed/data/*.parquet"):
            remote, local = stream(place, **QUICK), stream(folder, **QUICK)
            assert remote.table.fingerprint == local.table.fingerprint
            assert ids(remote) == ids(local)
        state = remote.state_dict()
        local.load_state_dict(state)  # a run may go on with a copy on disk
    finally:
        memory.rm("/streamed", recursive=True)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with byte ranges, as stores have them, and a record of what was asked for."""

    asked: list[int] = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not path.is_file() or not wanted:
            super().do_GET()
            return
        first, last = int(wanted[1]), int(wanted[2])
        content = path.read_bytes()[first : last + 1]
        self.asked.append(len(content))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{path.stat().st_size}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def served(tmp_path):
    folder = reshard(enlarged(2), tmp_path / "served", 3, 8)
    Handler.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corpus_over_http(served, workers):
    folder, url = served
    expected = ids(
        stream(folder / "data/train-00000-of-00003.parquet", **QUICK, transform=_only_id).loader(4, workers)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        remote = stream(f"{url}/data/train-00000-of-00003.parquet", **QUICK, transform=_only_id)
        assert ids(remote) == ids(stream(folder / "data/train-00000-of-00003.parquet", **QUICK, transform=_only_id))
        assert ids(remote.loader(4, workers)) == expected, "workers start after this process has used the connection"


def test_only_what_is_needed_comes_over_the_line(tmp_path, served):
    """Rows without their images cost a small part of the file."""
    _, url = served
    size = (tmp_path / "served/data/train-00002-of-00003.parquet").stat().st_size
    list(stream(f"{url}/data/train-00002-of-00003.parquet", columns=["image"]))
    whole = sum(Handler.asked)
    assert whole > 0.5 * size
    Handler.asked.clear()
    assert ids(stream(f"{url}/data/train-00002-of-00003.parquet", columns=["id"]))
    assert sum(Handler.asked) < whole


def test_a_corpus_on_s3(bucket):
    pytest.importorskip("s3fs", "2025.1", reason="a recent s3fs, which reads s3:// for datasets, is not installed")
    folder = curated()
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), "scans", f"corpus/{path.relative_to(folder).as_posix()}")
    options = {"columns": ["id", "image"], "storage_options": {"endpoint_url": bucket.meta.endpoint_url}}
    local, remote = (list(stream(place, "train", **options)) for place in (folder, "s3://scans/corpus"))
    assert _same(local, remote) and len(local) > 10


def _same(local: list[dict], remote: list[dict]) -> bool:
    return [sample["id"] for sample in remote] == [sample["id"] for sample in local] and all(
        (one["image"] == other["image"]).all() for one, other in zip(local, remote, strict=True)
    )


def test_a_corpus_in_a_private_repository_of_the_hub(tmp_path, monkeypatch):
    shutil.copytree(curated(), tmp_path / "datasets/org/corpus")
    local = list(stream(curated(), "train", columns=["id", "image"]))
    with run_hub(tmp_path, token="hf_token") as hub:
        hub.repository("datasets", "org/corpus").private = True
        monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.endpoint)
        for place in ("hf://datasets/org/corpus", "hf://datasets/org/corpus@v1/data/train-*.parquet"):
            assert _same(local, list(stream(place, "train", columns=["id", "image"], token="hf_token")))
            loader = stream(place, "train", columns=["id"], token="hf_token", transform=_only_id).loader(4, 2)
            assert ids(loader) == ids(stream(curated(), "train", columns=["id"], transform=_only_id).loader(4, 2))
        assert any("/datasets/org/corpus/resolve/v1/data/train-" in request for request in hub.requests)
        with pytest.raises(ValueError, match="hf://datasets/org/corpus: there is no such folder, or nothing in it"):
            stream("hf://datasets/org/corpus", "train", token=False)


def test_a_corpus_on_google_cloud_storage(tmp_path, monkeypatch):
    monkeypatch.setenv(
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false"
    )  # else it asks Google itself for the kind of bucket
    pytest.importorskip("gcsfs", "2025.1", reason="a recent gcsfs, which reads gs:// for datasets, is not installed")
    shutil.copytree(curated(), tmp_path / "scans/corpus")
    local = list(stream(curated(), "train", columns=["id", "image"]))
    with serve_google(tmp_path) as google:
        options = {"endpoint_url": google.endpoint.rstrip("-/"), "token": "anon"}
        for place in ("gs://scans/corpus", "gs://scans/corpus/data/train-*.parquet"):
            assert _same(local, list(stream(place, "train", columns=["id", "image"], storage_options=options)))
        with pytest.raises(ValueError, match="gs://scans/none: there is no such folder, or nothing in it"):
            stream("gs://scans/none", "train", storage_options=options)
