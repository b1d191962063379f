"""Scores of anatomy nodes, smoothed over the frames of a clip, and the best path of each frame.

Each frame's score is the mean over all frames with weights exp(-|time difference| / `SMOOTHING_MS`), both ways, so that nothing lags:
one wrong frame does not change the path, and a new view takes over in the middle of the change.
"""

import numpy as np

from echocare_hf.anatomy.tree import AnatomyTree

SMOOTHING_MS = 200.0
"""Time constant of the smoothing."""

LEAST_SCORE = 0.5
"""Smoothed score from which a node is on a path, as in `AnatomyTree.best_path`."""


def smooth_scores(times_ms: np.ndarray, scores: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Weighted means with weights exp(-|time difference| / `SMOOTHING_MS`), by one pass each way.

    Args:
        times_ms: `(frames,)`, ascending.
        scores: `(frames, nodes)`.
        counted: bool `(frames,)`, which frames have a weight.

    Returns:
        float32 `(frames, nodes)`; zeros if no frame counts.
    """
    weights = counted.astype(np.float64)
    values = np.concatenate([scores, np.ones((len(scores), 1), np.float32)], 1) * weights[:, None]
    decay = np.exp(-np.diff(times_ms) / SMOOTHING_MS)
    total = -values
    for order in (range(len(values)), range(len(values) - 1, -1, -1)):
        running, before = np.zeros(values.shape[1]), -1
        for place in order:
            if before >= 0:
                running *= decay[min(place, before)]
            running += values[place]
            total[place] += running
            before = place
    return (total[:, :-1] / np.maximum(total[:, -1:], 1e-30)).astype(np.float32)


def best_paths(
    tree: AnatomyTree, nodes: np.ndarray, scores: np.ndarray, counted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The last node of each frame's best path (`AnatomyTree.best_path`), -1 for none, and its score.

    Args:
        tree: of the nodes.
        nodes: `(nodes,)`, ascending positions in the tree; all others score 0.
        scores: `(frames, nodes)`.
        counted: bool `(frames,)`; other frames have no path.
    """
    deepest, reached = np.full(len(scores), -1), np.zeros(len(scores))
    todo: list[tuple[tuple[int, ...], np.ndarray, np.ndarray]] = [
        (tree.roots, np.flatnonzero(counted), np.full(len(scores), np.inf))
    ]
    column = {int(node): place for place, node in enumerate(nodes)}
    while todo:
        candidates, rows, limit = todo.pop()
        known = [node for node in candidates if node in column]
        if not known or not len(rows):
            continue
        values = scores[rows][:, [column[node] for node in known]]
        choice = values.argmax(1)
        best = np.minimum(limit[rows], values[np.arange(len(rows)), choice])
        limit[rows] = best
        for place, node in enumerate(known):
            own = rows[(choice == place) & (best >= LEAST_SCORE)]
            deepest[own], reached[own] = node, limit[own]
            todo.append((tree.children(node), own, limit))
    return deepest, reached
