"""Near-copies among millions of images: all pairs of 64-bit hashes within a few bits, without comparing all with all.

The 64 bits are cut into blocks. Two hashes that differ in at most d bits leave at least `blocks - d` blocks untouched, so they agree in
all bits of some choice of `blocks - d` blocks. For each such choice the hashes are sorted by those bits; only neighbours with equal bits
are compared. With d = 3 and four blocks that is the banded join on one of four 16-bit bands; with more blocks the keys are longer and
the candidates fewer, at the price of more sorts. The number of blocks is chosen by what both cost for the number of hashes.

An image has two hashes: of the file's image and of the one that is stored, cut to its ultrasound region. Copies are near in the second
unless the region was found otherwise in the copy; then they are near in the first. But the first may show mainly the screen that all
images of a scanner share, so it counts only if the second is not far off (`ALIKE`).

Source: Manku, Jain, Das Sarma, Detecting near-duplicates for web crawling (WWW 2007), section 3. The result is exact.
"""

from collections.abc import Iterator
from itertools import combinations
from math import comb

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

BITS = 64
ALIKE = 12
"""Two images whose raw hashes are near are near-copies only if the hashes of what is stored differ in at most this many bits. Those of
unrelated images differ in 32 on average."""

COMMON = 1_000
"""Raw hashes of which more than this, with different stored ones, agree in the bits of a search are those of a screen: that search leaves
them out."""

_MOST_BLOCKS = 8
_PAIR_BATCH = 4_000_000  # candidates compared at a time
_SORT_COST = 20.0  # of one hash in one sort, in units of comparing one pair


def choose_blocks(count: int, distance: int) -> int:
    """The number of blocks with the least work for `count` hashes, if they were random: sorts and expected candidates."""

    def cost(blocks: int) -> float:
        kept = blocks - distance
        tables = comb(blocks, kept)
        key_bits = BITS * kept / blocks
        return tables * (_SORT_COST * count + count**2 / 2 ** (key_bits + 1))

    return min(range(distance + 1, max(_MOST_BLOCKS, distance + 1) + 1), key=cost)


def near_images(hashes: np.ndarray, raw_hashes: np.ndarray, distance: int) -> np.ndarray:
    """All pairs of near-copies: near in the hashes of what is stored, or in the raw ones and no more than `ALIKE` bits in the others.

    Args:
        hashes: uint64 `(images,)`, of the images as they are stored.
        raw_hashes: uint64 `(images,)`, of the images as they are read.
        distance: most bits that may differ, 0 to 8.

    Returns:
        int64 `(pairs, 2)` as `near_hashes` gives them; of images that are equal in a hash each is paired with the first of them.
    """
    pairs = np.concatenate([near_hashes(hashes, distance), near_hashes(raw_hashes, distance, also=hashes)])
    return _distinct(pairs, len(hashes))


def near_hashes(
    hashes: np.ndarray, distance: int, blocks: int | None = None, also: np.ndarray | None = None
) -> np.ndarray:
    """All pairs of hashes that differ in at most `distance` bits.

    Args:
        hashes: uint64 `(images,)`.
        distance: most bits that may differ, 0 to 8.
        blocks (optional): number of blocks, above `distance`; by default as `choose_blocks` says.
        also (optional): uint64 `(images,)`, hashes that may differ in at most `ALIKE` bits. A search leaves hashes out of
            which more than `COMMON` are equal in its bits.

    Returns:
        int64 `(pairs, 2)`, the smaller index first, sorted, each pair once. Of images with equal hashes (both, if there are two) each is
        paired with the first of them only, and with nothing that this one is not paired with: their number may be large, and they are
        joined all the same.

    Raises:
        ValueError: if `distance` is not 0 to 8, or there are too few blocks.
    """
    if not 0 <= distance <= 8:
        raise ValueError(f"distance must be 0 to 8 bits, not {distance}")
    hashes = np.ascontiguousarray(hashes, np.uint64)
    order = np.lexsort((hashes,) if also is None else (also, hashes))
    new = hashes[order[1:]] != hashes[order[:-1]]
    if also is not None:
        new |= also[order[1:]] != also[order[:-1]]
    starts = np.flatnonzero(np.r_[True, new]) if len(order) else order
    first = order[starts]  # the sort is stable, so the first of equals comes first
    pairs = [np.stack([first.repeat(np.diff(np.r_[starts, len(order)])), order], 1)]
    pairs[0] = pairs[0][pairs[0][:, 0] != pairs[0][:, 1]]
    unique, others = hashes[first], None if also is None else also[first]
    if (distance > 0 or also is not None) and len(unique) > 1:
        blocks = choose_blocks(len(unique), distance) if blocks is None else blocks
        if blocks <= distance:
            raise ValueError(f"{blocks} blocks cannot find hashes {distance} bits apart; take at least {distance + 1}")
        edges = [BITS * block // blocks for block in range(blocks + 1)]
        for chosen in combinations(range(blocks), blocks - distance):
            mask = sum(((1 << (edges[block + 1] - edges[block])) - 1) << edges[block] for block in chosen)
            pairs += [first[found] for found in _equal_under(unique, others, np.uint64(mask), distance)]
    return _distinct(np.concatenate(pairs), len(hashes))


def _distinct(pairs: np.ndarray, count: int) -> np.ndarray:
    """Pairs of numbers below `count`, the smaller first, sorted, each once: int64 `(pairs, 2)`."""
    keys = np.unique(pairs.min(axis=1) * count + pairs.max(axis=1))
    return np.stack(np.divmod(keys, max(1, count)), axis=1)


def near_any(hashes: np.ndarray, targets: np.ndarray, distance: int) -> np.ndarray:
    """Which hashes differ from any of `targets` in at most `distance` bits: bool `(images,)`.

    Args:
        hashes: uint64 `(images,)`.
        targets: uint64 `(targets,)`.
        distance: most bits that may differ, 0 to 8.
    """
    unique, inverse = np.unique(np.concatenate([hashes, targets]).astype(np.uint64), return_inverse=True)
    wanted = np.zeros(len(unique), bool)
    wanted[inverse[len(hashes) :]] = True
    pairs = near_hashes(unique, distance)
    found = wanted.copy()
    found[pairs[wanted[pairs[:, 1]], 0]] = True
    found[pairs[wanted[pairs[:, 0]], 1]] = True
    return found[inverse[: len(hashes)]]


def _equal_under(
    hashes: np.ndarray, others: np.ndarray | None, mask: np.uint64, distance: int
) -> Iterator[np.ndarray]:
    """Pairs `(pairs, 2)` of hashes that are equal in the bits of a mask and near in all; `others` differ in at most `ALIKE`."""
    keys = hashes & mask
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sizes = np.diff(np.r_[starts, len(ordered)])
    ends = np.repeat(starts + sizes, sizes)  # of the run that each hash stands in
    following = ends - np.arange(len(ordered)) - 1  # hashes after it in its run
    if others is not None:
        following[np.repeat(sizes > COMMON, sizes)] = 0
    places = np.flatnonzero(following)
    if not places.size:
        return
    totals = np.cumsum(following[places])
    for begin, end in _batches(totals):
        left = places[begin:end]
        counts = following[left]
        lefts = np.repeat(left, counts)
        offsets = np.arange(len(lefts)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        one, other = order[lefts], order[lefts + offsets]
        near = np.bitwise_count(hashes[one] ^ hashes[other]) <= distance
        if others is not None:
            near &= np.bitwise_count(others[one] ^ others[other]) <= ALIKE
        yield np.stack([one[near], other[near]], 1)


def _batches(totals: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut a running total into pieces of about `_PAIR_BATCH`, each with at least one entry."""
    begin, done = 0, 0
    while begin < len(totals):
        end = max(begin + 1, int(np.searchsorted(totals, done + _PAIR_BATCH, side="right")))
        yield begin, end
        begin, done = end, int(totals[end - 1])


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """The connected component of each of `count` images: int64 `(count,)`, the smallest index in it.

    Args:
        count: number of images.
        pairs: int `(pairs, 2)`, indices of images that belong together.
    """
    if count == 0:
        return np.empty(0, np.int64)
    graph = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    number, labels = connected_components(graph, directed=False)
    smallest = np.full(number, count, np.int64)
    np.minimum.at(smallest, labels, np.arange(count))
    return smallest[labels]


def keep_apart(hashes: np.ndarray, raw_hashes: np.ndarray, sizes: np.ndarray, distance: int) -> np.ndarray:
    """For each image the one that is kept for it: no two kept ones are near, and whatever is dropped is near the one kept for it.

    Of images that are stored with equal hashes the largest stands for all.

    Images are visited from the largest to the smallest, the first among equals first; one is kept unless it is near a kept one. In a group
    of copies of one image that leaves the largest. In a chain, such as the frames of a slow sweep, each near the next but the ends
    far apart, it leaves the frames that differ, where keeping one of each connected component would leave a single frame.

    Args:
        hashes: uint64 `(images,)`, of the images as they are stored.
        raw_hashes: uint64 `(images,)`, of the images as they are read.
        sizes: `(images,)`, what is larger is kept.
        distance: most bits in which near hashes differ, 0 to 8.

    Returns:
        int64 `(images,)`; an image that is its own is kept.
    """
    _, inverse = np.unique(hashes, return_inverse=True)
    best = keep_largest(inverse, sizes)  # among equal hashes
    leaders = np.flatnonzero(best == np.arange(len(hashes)))
    pairs = leaders[near_images(hashes[leaders], raw_hashes[leaders], distance)]
    neighbours: dict[int, list[int]] = {}
    for one, other in pairs.tolist():
        neighbours.setdefault(one, []).append(other)
        neighbours.setdefault(other, []).append(one)
    kept_for = np.arange(len(hashes))
    free = dict.fromkeys(neighbours, True)
    for index in sorted(neighbours, key=lambda place: (-sizes[place], place)):
        if free[index]:
            for other in neighbours[index]:
                if free[other]:
                    free[other] = False
                    kept_for[other] = index
    return kept_for[best]


def keep_largest(component: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """For each image the largest one of its component, the first among equals.

    Args:
        component: of `components`.
        sizes: `(count,)`, what is larger is kept.

    Returns:
        int64 `(count,)`; an image that is its own is kept.
    """
    order = np.lexsort((np.arange(len(sizes)), -np.asarray(sizes, np.float64), component))
    grouped = component[order]
    firsts = np.r_[True, grouped[1:] != grouped[:-1]] if len(order) else np.empty(0, bool)
    kept = np.empty(len(order), np.int64)
    kept[order] = order[np.flatnonzero(firsts)][np.cumsum(firsts) - 1]
    return kept
