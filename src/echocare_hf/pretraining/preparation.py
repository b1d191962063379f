"""From a corpus as it lies on the disk to the images of a run: licences, what must not be seen, the held-out part, and memory."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from echocare_hf.data.labelled.fingerprint import grey_values, perceptual_hash, pixel_digest
from echocare_hf.data.labelled.record import Sample
from echocare_hf.data.splits import join_clusters, split_by_group

from .corpus import Corpus
from .images import MemoryImages, shrink

MEMORY_SCALE = 1.5
"""Images in memory have a shorter side of at most this many times the network's input: room for crops."""


@dataclass(frozen=True)
class Prepared:
    """The two parts of a run, and what was left out.

    Attributes:
        train: images to learn from.
        validation: images to look at now and then.
        report: a few lines for people.
    """

    train: Corpus
    validation: Corpus
    report: tuple[str, ...]


def prepare(
    corpus: Corpus,
    *,
    image_size: int,
    licences: Sequence[str] = (),
    exclude: Sequence[str] = (),
    exclude_groups: Sequence[str] = (),
    validation: float = 0.1,
    seed: int = 0,
    memory_mb: int = 4096,
    quiet: bool = False,
) -> Prepared:
    """Chooses and splits the images of a run.

    A corpus that names clusters and splits is believed. Otherwise every image is decoded once: images of one group, with equal pixels or
    of like looks make a cluster; clusters are dealt to training and validation. An image that must not be seen takes its cluster with it.

    Args:
        corpus: all there is.
        image_size: largest side of the network's input in pixels.
        licences: see `Corpus.licensed`.
        exclude: text files of file names, one a line: a whole name, or the end of one from a slash on.
        exclude_groups: text files of groups, one a line: a whole group, or the end of one from a slash on.
        validation: share to hold out where the corpus has no split.
        seed: of the split.
        memory_mb: most memory for decoded images.
        quiet: without a progress bar.

    Raises:
        ValueError: if nothing is left, or a list of what must not be seen matches nothing.
    """
    everything = len(corpus)
    corpus, lines = _licensed(corpus, licences)
    banned = _named(corpus, exclude, [name.partition("#")[0] for name in corpus.names], "file names")
    banned |= _named(corpus, exclude_groups, corpus.groups.tolist(), "groups")
    unclustered = not any(corpus.clusters.tolist())
    arrays, samples = _decode(corpus, image_size, memory_mb, unclustered, quiet)
    if unclustered:
        clusters = np.array([str(cluster) for cluster in join_clusters(samples, True)[0]], object)
    else:
        clusters = np.where(corpus.clusters == "", corpus.names, corpus.clusters)
    lost = set(clusters[banned].tolist())
    kept = np.array([cluster not in lost for cluster in clusters.tolist()], bool)
    if exclude or exclude_groups:
        lines.append(
            f"{banned.sum()} images are named as not to be seen; {(~kept).sum()} left out with what belongs to them"
        )
    if not kept.any():
        raise ValueError("no image is left: all of them are named as not to be seen")
    if arrays is not None:
        corpus = corpus.with_images(MemoryImages(arrays))
        lines.append(f"{sum(array.nbytes for array in arrays) / 2**20:.0f} MiB of decoded images in memory")
    corpus, clusters = corpus.select(kept), clusters[kept]
    held_out = corpus.splits == "validation"
    if not held_out.any():
        held_out = _deal(corpus, clusters, validation, seed)
    train, rest = corpus.select(~held_out), corpus.select(held_out)
    if not len(train):
        raise ValueError("no image is left to train on: the corpus holds a validation part only")
    lines.insert(
        0, f"{everything} images: {len(train)} to train on, {len(rest)} held out, {len(set(clusters))} clusters"
    )
    counts = Counter(train.licences.tolist()).most_common()
    lines.append("licences: " + ", ".join(f"{licence or 'none stated'} {count}" for licence, count in counts))
    return Prepared(train, rest, tuple(lines))


def _licensed(corpus: Corpus, licences: Sequence[str]) -> tuple[Corpus, list[str]]:
    allowed = corpus.licensed(licences)
    if not allowed.any():
        found = ", ".join(sorted({text or "none stated" for text in corpus.licences.tolist()}))
        raise ValueError(
            f"no image has one of the licences {', '.join(licences)}; the corpus has: {found}. State them in a column `licence` of the "
            "table beside the images, or take all images with --licences ''"
        )
    lines = [f"{(~allowed).sum()} images left out for their licence"] if not allowed.all() else []
    return corpus.select(allowed) if lines else corpus, lines


def _named(corpus: Corpus, files: Sequence[str], texts: Sequence[str], what: str) -> np.ndarray:
    """bool (images,): which texts a line of the files names."""
    named = np.zeros(len(corpus), bool)
    for file in files:
        try:
            wanted = {line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines()} - {""}
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: cannot be read as a list of {what} ({error})") from error
        found = np.array([any(end in wanted for end in _ends(text)) for text in texts], bool)
        if wanted and not found.any():
            raise ValueError(
                f"{file}: none of its {len(wanted)} {what} is in the corpus; give paths as the corpus names them"
            )
        named |= found
    return named


def _ends(text: str) -> Iterable[str]:
    """The text, and what follows each of its slashes."""
    yield text
    for place, letter in enumerate(text):
        if letter in "/:":
            yield text[place + 1 :]


def _decode(
    corpus: Corpus, image_size: int, memory_mb: int, fingerprint: bool, quiet: bool
) -> tuple[list[np.ndarray] | None, list[Sample]]:
    """The images for the memory, None if they do not fit; and their fingerprints, if they are wanted."""
    side, budget = round(MEMORY_SCALE * image_size), memory_mb * 2**20
    arrays: list[np.ndarray] | None = [] if len(corpus) * side**2 <= budget else None
    samples: list[Sample] = []
    if arrays is None and not fingerprint:
        return None, []
    used = 0
    for row in tqdm(range(len(corpus)), desc="reading images", unit="image", disable=quiet):
        pixels = corpus.images.read(row)
        if fingerprint:
            grey = pixels[..., 0] if pixels.shape[2] == 1 else grey_values(pixels)
            samples.append(
                Sample(
                    name=str(corpus.names[row]),
                    images=(),
                    group=corpus.groups[row] or None,
                    digests=(pixel_digest(grey),),
                    perceptual_hash=perceptual_hash(grey),
                )
            )
        if arrays is not None:
            arrays.append(shrink(pixels, side))
            used += arrays[-1].nbytes
            if used > budget:
                arrays = None
                if not fingerprint:
                    return None, []
    return arrays, samples


def _deal(corpus: Corpus, clusters: np.ndarray, share: float, seed: int) -> np.ndarray:
    """bool (images,): what is held out, whole clusters, each anatomy node with its share."""
    if len(set(clusters)) < 2:
        raise ValueError(
            f"all images ({len(corpus)}) are of one group or look alike: one part of them has to be held out; add images of another "
            "patient, or state groups in a column `group`"
        )
    samples = [
        Sample(name=str(name), images=(), group=str(cluster), label=int(node) if node >= 0 else None)
        for name, cluster, node in zip(corpus.names, clusters, corpus.nodes, strict=True)
    ]
    parts = split_by_group(samples, (1 - share, share, 0.0), seed, near_duplicates=False)
    held_out = np.zeros(len(corpus), bool)
    held_out[list(parts.validation)] = True
    return held_out
