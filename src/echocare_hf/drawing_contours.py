"""Outlines of masks as closed polylines."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mask_contours(mask: ArrayLike) -> list[NDArray[np.float64]]:
    """The borders of a mask.

    Every vertex is the middle of an edge between a pixel of the mask and one outside it, so the polyline cuts the corners of the pixels
    and nothing else: marching squares at 0.5. Pixels that touch at a corner only are drawn apart. The image's frame counts as outside.

    Args:
        mask: bool `(height, width)`.

    Returns:
        One array `(n, 2)` for each border, outer ones and holes: vertices (x, y) in order, not repeated at the end, in continuous pixels
        (0 at the outer edge of the first pixel), with the mask on the right-hand side of the direction on the screen.
    """
    inside = np.pad(np.asarray(mask, dtype=bool), 1)
    # A vertex is named by its coordinates times two. In each square of four neighbouring pixel centres a border enters and leaves:
    following: dict[tuple[int, int], tuple[int, int]] = {}
    corners = inside[:-1, :-1], inside[:-1, 1:], inside[1:, 1:], inside[1:, :-1]  # clockwise from the top left
    mixed = np.logical_or.reduce(corners) & ~np.logical_and.reduce(corners)
    middles = (
        (0, -1),
        (1, 0),
        (0, 1),
        (-1, 0),
    )  # of the sides top, right, bottom, left, seen from the square's centre
    for row, column in np.argwhere(mixed):
        square = [bool(corner[row, column]) for corner in corners]
        x, y = 2 * int(column), 2 * int(row)  # the square's centre is a corner between pixels
        for corner in range(4):
            # A run of mask corners, clockwise, begins at `corner`: the border enters by the side before it, leaves by the one after.
            if square[corner] and not square[corner - 1]:
                last = corner
                while square[(last + 1) % 4]:
                    last += 1
                enter, leave = middles[corner - 1], middles[last % 4]
                following[x + leave[0], y + leave[1]] = (x + enter[0], y + enter[1])
    contours = []
    while following:
        start, current = following.popitem()
        vertices = [start]
        while current != start:
            vertices.append(current)
            current = following.pop(current)
        contours.append(np.array(vertices, dtype=float) / 2)
    return contours


__all__ = ["mask_contours"]
