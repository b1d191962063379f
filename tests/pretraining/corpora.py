"""Small corpora for the tests of pretraining: as files with a table, and as parquet shards in the form that `echocare curate` writes."""

import csv
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

SIDE = 80
NODES = ("heart_a4c", "breast", "liver")


def picture(seed: int) -> np.ndarray:
    """Blobs that no other seed has: (SIDE, SIDE) uint8."""
    random = np.random.default_rng(seed)
    places = np.arange(SIDE) + 0.5
    image = random.uniform(0, 40, (SIDE, SIDE))
    for _ in range(4):
        x, y, radius = random.uniform(10, 70), random.uniform(10, 70), random.uniform(5, 25)
        image += 60 * ((places[None] - x) ** 2 + (places[:, None] - y) ** 2 < radius**2)
    return image.clip(0, 255).astype(np.uint8)


def rows_of(count: int) -> list[dict]:
    """Patients of two images each, nodes in turn."""
    return [
        {
            "path": f"images/{index:03}.png",
            "node": NODES[index // 2 % len(NODES)],
            "group": f"p{index // 2}",
            "licence": "CC BY 4.0" if index // 2 % 4 else "CC BY-NC 4.0",
        }
        for index in range(count)
    ]


def write_files(folder: Path, count: int = 24) -> Path:
    (folder / "images").mkdir(parents=True)
    rows = rows_of(count)
    for index, row in enumerate(rows):
        Image.fromarray(picture(index)).save(folder / row["path"])
    write_table(folder, rows)
    return folder


def write_table(folder: Path, rows: list[dict]) -> None:
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_shards(folder: Path, count: int = 24, shards: int = 3, rows_a_group: int = 4) -> Path:
    """The last two patients are held out."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            **{
                name: datasets.Value("string")
                for name in ("id", "node", "group", "cluster", "source", "licence", "split")
            },
            "source_path": datasets.Value("string"),
            "frame": datasets.Value("int32"),
        }
    )
    rows = [
        {
            "image": Image.fromarray(picture(index)),
            "id": f"{index:032x}",
            "node": row["node"],
            "group": row["group"],
            "cluster": f"c{index // 2}",
            "source": "made",
            "licence": row["licence"],
            "split": "validation" if index >= count - 4 else "train",
            "source_path": row["path"],
            "frame": 0,
        }
        for index, row in enumerate(rows_of(count))
    ]
    (folder / "data").mkdir(parents=True)
    for split in ("train", "validation"):
        part = [row for row in rows if row["split"] == split]
        pieces = shards if split == "train" else 1
        for shard in range(pieces):
            table = datasets.Dataset.from_list(part[shard::pieces], features=features)
            table.to_parquet(folder / "data" / f"{split}-{shard:05}-of-{pieces:05}.parquet", batch_size=rows_a_group)
    return folder
