"""A curated corpus, streamed into training: local, remote or from the Hub, shared out to ranks and workers, resumed exactly.

    from echocare_hf.data import stream

    images = stream("corpus", transform=EchoCareImageProcessorPil(), columns=["image", "labels"], weights="balanced")
    for epoch in range(10):
        images.set_epoch(epoch)
        for batch in images.loader(batch_size=64, num_workers=4):
            ...

How the files relate: `files` finds and opens shards, `table` knows their row groups, `weights` how often each image is wanted, `order`
the order of an epoch, `rows` makes samples of a row group, `reader` puts these together, `loader` runs a reader under several workers.
"""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from echocare_hf.anatomy import AnatomyTree

    from .reader import CorpusStream

__all__ = ["stream"]


def stream(
    path_or_id: str | PathLike[str],
    split: str | None = "train",
    *,
    columns: Sequence[str] | None = None,
    transform: Callable[[dict[str, Any]], Any] | None = None,
    image_as: Literal["array", "pil", "bytes"] = "array",
    mode: Literal["RGB", "L"] = "RGB",
    draft: int | tuple[int, int] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    mixed_groups: int = 4,
    weights: Mapping[str | None, float] | Literal["balanced"] | None = None,
    source_weights: Mapping[str, float] | Literal["balanced"] | None = None,
    tree: "AnatomyTree | None" = None,
    rank: int | None = None,
    world_size: int | None = None,
    equal: Literal["repeat", "drop"] | None = "repeat",
    bad_shards: Literal["error", "skip"] = "error",
    name: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> "CorpusStream":
    """Stream the rows of a corpus that `echocare curate` wrote, or of any parquet data set with an `image` column.

    Only row counts are read at once (and, with weights, the columns id, node and source); images come one window of row groups at a
    time. An epoch is a list of positions whose order depends on `seed` and epoch alone. Each rank, and each DataLoader worker of it, reads
    a stretch of that list, so any number of shards fits any number of readers.

    Args:
        path_or_id: a folder, a parquet file or a pattern of them; the same as a URL that fsspec reads (`s3://`, `gs://`, `hf://`, `https://`);
            or the id of a data set on the Hub.
        split: which split, as `datasets.load_dataset` finds it; None for all. A single file or pattern is read whole.
        columns: what a sample holds; None for every column of the first shard.
        transform: called with each sample; an image processor of transformers turns `image` into `pixel_values` (channels, height,
            width). None gives the sample as it is: a dictionary, of which `image` is as `image_as` says, numbers are Python's (nan for
            null), texts are "" for null, and lists are arrays.
        image_as: "array": uint8 (height, width, 3), or (height, width, 1) for mode "L"; "pil": a `PIL.Image.Image`; "bytes": not decoded.
        mode: "RGB" or "L" (grey).
        draft: side in pixels, or (height, width), that is enough: a JPEG at least 2, 4 or 8 times as large on both sides is decoded at
            a half, a quarter or an eighth. The result is at least this large, and not resized further.
        shuffle: whether each epoch has an order of its own; else all have the order of the files.
        seed: of order and sampling, 0 or more.
        mixed_groups: so many row groups are read together, and their rows shuffled among each other, at least 1. They stay in memory,
            encoded.
        weights: how often an epoch shows an image on average, by anatomy node (id, name or alias); counts for all nodes below; the
            weight of the deepest node that has one is taken, else 1. The key None is for images without a node. "balanced": see
            `weights.balanced`.
        source_weights: the same by `source`; both weights multiply.
        tree: of the nodes; None for the package's own.
        rank: of this process, with `world_size`; None for what torch.distributed says, else the variables RANK and WORLD_SIZE.
        world_size: number of processes that share the corpus.
        equal: how all ranks get equally many samples: "repeat" some, or "drop" some (fewer than `world_size` either way). A rank
            also makes up for bad rows with others of its own. None: no sample is repeated or dropped, and ranks may differ.
        bad_shards: "error", or "skip" shards that cannot be read; see `CorpusStream.skipped_shards`.
        name: configuration of a data set on the Hub.
        revision: branch, tag or commit of it.
        token: for private ones.
        storage_options: for the file system of a URL, such as `{"anon": True}`.

    Returns:
        A `CorpusStream`.

    Raises:
        ValueError: if nothing is found, a shard is damaged, no shard has a column, or an argument does not fit; the message names it.
    """
    from .files import ShardAccess, find_shards
    from .reader import CorpusStream, StreamOptions, ranks
    from .rows import Decoder
    from .table import read_table
    from .weights import image_weights

    own, processes = ranks(rank, world_size)
    options = StreamOptions(shuffle, seed, mixed_groups, own, processes, equal, bad_shards)
    decoder = Decoder(image_as, mode, draft)
    access = ShardAccess(token, dict(storage_options or {}))
    shards = find_shards(str(path_or_id), split, access, name=name, revision=revision)
    needed = [] if weights is None else ["node"]
    needed += [] if source_weights is None else ["source"]
    table = read_table(shards, access, columns, needed, skip=bad_shards == "skip")
    expected = image_weights(table, weights, source_weights, tree) if needed else None
    return CorpusStream(table, access, decoder, options, expected, transform)
