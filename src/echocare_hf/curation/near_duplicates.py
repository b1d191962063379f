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
from itertools import combinations, pairwise
from math import comb

import numpy as np

BITS = 64
ALIKE = 12
"""Two images whose raw hashes are near are near-copies only if the hashes of what is stored differ in at most this many bits. Those of
unrelated images differ in 32 on average."""

COMMON = 1_000
"""Raw hashes of which more than this, with different stored ones, agree in the bits of a search are those of a screen: that search leaves
them out."""

_MOST_BLOCKS = 8
_PAIR_BATCH = 250_000  # candidates compared at a time
_SORTED_AT_A_TIME = 131_072  # hashes
_NEAR_BATCH = 262_144  # hashes that are compared with a list at a time
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
    first, stars = _distinct_images(hashes, also)
    pairs = [stars]
    if (distance > 0 or also is not None) and len(first) > 1:
        unique, others = hashes[first], None if also is None else also[first]
        blocks = choose_blocks(len(unique), distance) if blocks is None else blocks
        if blocks <= distance:
            raise ValueError(f"{blocks} blocks cannot find hashes {distance} bits apart; take at least {distance + 1}")
        edges = [BITS * block // blocks for block in range(blocks + 1)]
        for chosen in combinations(range(blocks), blocks - distance):
            mask = sum(((1 << (edges[block + 1] - edges[block])) - 1) << edges[block] for block in chosen)
            for some in _parts(unique, edges[chosen[-1] + 1]):
                apart = None if others is None else others[some]
                found = _equal_under(unique[some], apart, np.uint64(mask), distance)
                pairs += [first[some[pair]] for pair in found if len(pair)]
    return _distinct(np.concatenate(pairs), len(hashes))


def _distinct_images(hashes: np.ndarray, also: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The first image with each hash (each pair of hashes, if there are two), and its pairs `(pairs, 2)` with those equal to it."""
    order = np.argsort(hashes, kind="stable") if also is None else np.lexsort((also, hashes))
    new = hashes[order[1:]] != hashes[order[:-1]]
    if also is not None:
        new |= also[order[1:]] != also[order[:-1]]
    starts = np.flatnonzero(np.r_[True, new]) if len(order) else order
    first = order[starts]  # the sort is stable, so the first of equals comes first
    again = np.flatnonzero(~new) + 1
    leader = first[np.searchsorted(starts, again, "right") - 1]
    return first.astype(_index_type(len(hashes))), np.stack([leader, order[again]], 1)


def _index_type(count: int) -> type[np.signedinteger]:
    return np.int32 if count < 2**31 else np.int64


def _distinct(pairs: np.ndarray, count: int) -> np.ndarray:
    """Pairs of numbers below `count`, the smaller first, sorted, each once: int64 `(pairs, 2)`."""
    keys = np.unique(pairs.min(axis=1).astype(np.int64) * count + pairs.max(axis=1))
    return np.stack(np.divmod(keys, max(1, count)), axis=1)


def near_any(hashes: np.ndarray, targets: np.ndarray, distance: int) -> np.ndarray:
    """Which hashes differ from any of `targets` in at most `distance` bits: bool `(images,)`.

    Args:
        hashes: uint64 `(images,)`.
        targets: uint64 `(targets,)`.
        distance: most bits that may differ, 0 to 8.
    """
    if not 0 <= distance <= 8:
        raise ValueError(f"distance must be 0 to 8 bits, not {distance}")
    found = np.zeros(len(hashes), bool)
    edges = [BITS * block // (distance + 1) for block in range(distance + 2)]
    for start in range(0, len(hashes), _NEAR_BATCH):
        for low, high in pairwise(edges):
            _mark_near(hashes[start : start + _NEAR_BATCH], targets, distance, low, high, found[start:])
    return found


def _mark_near(hashes: np.ndarray, targets: np.ndarray, distance: int, low: int, high: int, found: np.ndarray) -> None:
    """Mark in `found` the hashes near a target with which they share the bits from `low` to `high`."""
    bits = (np.uint64(low), np.uint64((1 << (high - low)) - 1))
    keys, target_keys = ((values >> bits[0]) & bits[1] for values in (hashes, targets))
    order, target_order = np.argsort(keys), np.argsort(target_keys)
    shared, begins = np.unique(target_keys[target_order], return_index=True)
    ordered = keys[order]
    firsts, lasts = np.searchsorted(ordered, shared, "left"), np.searchsorted(ordered, shared, "right")
    ends = np.append(begins[1:], len(targets))
    for first, last, begin_target, end_target in np.stack([firsts, lasts, begins, ends], 1).tolist():
        some = targets[target_order[begin_target:end_target]]
        rows = max(1, _PAIR_BATCH // len(some))
        for begin in range(first, last, rows):
            places = order[begin : min(begin + rows, last)]
            apart = np.bitwise_count(hashes[places, None] ^ some[None])
            found[places] |= (apart <= distance).any(axis=1)


def _parts(hashes: np.ndarray, edge: int) -> Iterator[np.ndarray]:
    """Places of the hashes in parts of about `_SORTED_AT_A_TIME`, told apart by some bits below `edge`: equal ones stay together."""
    bits = min(8, max(0, (len(hashes) // _SORTED_AT_A_TIME).bit_length()))
    if not bits:
        yield np.arange(len(hashes))
        return
    part = np.empty(len(hashes), np.uint8)
    for start in range(0, len(hashes), _SORTED_AT_A_TIME):
        some = slice(start, start + _SORTED_AT_A_TIME)
        part[some] = hashes[some] >> np.uint64(edge - bits) & np.uint64(2**bits - 1)
    for number in range(2**bits):
        yield np.flatnonzero(part == number)


def _equal_under(
    hashes: np.ndarray, others: np.ndarray | None, mask: np.uint64, distance: int
) -> Iterator[np.ndarray]:
    """Pairs `(pairs, 2)` of hashes that are equal in the bits of a mask and near in all; `others` differ in at most `ALIKE`."""
    keys = hashes & mask
    order = np.argsort(keys).astype(_index_type(len(keys)))
    keys = keys[order]
    same = keys[1:] == keys[:-1]
    del keys
    places = np.flatnonzero(np.r_[same, False] | np.r_[False, same])  # what stands in a run of equal keys
    if not places.size:
        return
    starts = np.flatnonzero(~np.r_[False, same][places])
    sizes = np.diff(np.r_[starts, len(places)])
    following = np.repeat(starts + sizes, sizes) - np.arange(len(places)) - 1  # hashes after each one in its run
    if others is not None:
        following[np.repeat(sizes > COMMON, sizes)] = 0
    order = order[places]
    left_places = np.flatnonzero(following)
    totals = np.cumsum(following[left_places])
    for begin, end in _batches(totals):
        left = left_places[begin:end]
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
    """The connected component of each of `count` images: int `(count,)`, the smallest index in it.

    Args:
        count: number of images.
        pairs: int `(pairs, 2)`, indices of images that belong together.
    """
    smallest = np.arange(count, dtype=_index_type(count))
    join(smallest, pairs[:, 0], pairs[:, 1])
    return smallest


def join(smallest: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
    """Put pairs of images into one component each, in place.

    The component of the larger number is hooked to that of the smaller one, and what hangs on it follows, until no pair is apart (Shiloach
    and Vishkin, An O(log n) parallel connectivity algorithm, 1982).

    Args:
        smallest: int `(images,)`, the smallest index in the component of each, as it stands.
        one, other: int `(pairs,)`.
    """
    while True:
        first, second = smallest[one], smallest[other]
        apart = first != second
        if not apart.any():
            return
        one, other, first, second = one[apart], other[apart], first[apart], second[apart]
        np.minimum.at(smallest, np.maximum(first, second), np.minimum(first, second))
        while True:
            further = smallest[smallest]
            if np.array_equal(further, smallest):
                break
            smallest[:] = further


def keep_apart(
    hashes: np.ndarray, raw_hashes: np.ndarray, sizes: np.ndarray, distance: int, pairs: np.ndarray | None = None
) -> np.ndarray:
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
        pairs (optional): of `near_images` for the same images and distance, if they are known.

    Returns:
        int `(images,)`; an image that is its own is kept.
    """
    pairs = near_images(hashes, raw_hashes, distance) if pairs is None else pairs
    kept_for = np.arange(len(hashes), dtype=_index_type(len(hashes)))
    some = np.unique(pairs)  # what is near nothing is kept
    best = kept_for.copy()
    best[some] = some[keep_largest(np.unique(hashes[some], return_inverse=True)[1], sizes[some])]  # among equal hashes
    one, other = best[pairs[:, 0]], best[pairs[:, 1]]
    apart = np.bitwise_count(hashes[one] ^ hashes[other])
    near = (apart <= distance) | (
        (np.bitwise_count(raw_hashes[one] ^ raw_hashes[other]) <= distance) & (apart <= ALIKE)
    )
    near &= one != other
    one, other = _distinct(np.stack([one[near], other[near]], 1), len(hashes)).T
    lefts, rights = np.r_[one, other], np.r_[other, one]
    order = np.argsort(lefts, kind="stable")
    lefts, rights = lefts[order], rights[order]
    nodes, starts = np.unique(lefts, return_index=True)
    stops = np.r_[starts[1:], len(lefts)]
    free = np.ones(len(hashes), bool)
    for place in np.lexsort((nodes, -sizes[nodes].astype(np.int64))).tolist():
        index = nodes[place]
        if free[index]:
            neighbours = rights[starts[place] : stops[place]]
            neighbours = neighbours[free[neighbours]]
            free[neighbours] = False
            kept_for[neighbours] = index
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
