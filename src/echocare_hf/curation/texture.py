"""Numbers that tell ultrasound from other pictures: how steps between pixels differ down and across, how rough, dark and coloured it is.

Sound resolves better along the beam than across it, so speckle is wider than it is high, at every scale; it is never quite smooth; its
steps have no heavy tails as edges of photographs have; most of an image is dark, and nearly all of it is grey.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage

from .channels import brightness, spread

_WORK_SIDE = 256  # pixels, longest side of the reduced image
_BLACK = 8  # grey values up to this one say nothing
_LEAST_PIXELS = 50
_SCALES = 4  # the reduced image and three halvings of it
_PART_SIDE = 32  # pixels of a part at full size, half of it at half size
_PART_SCALES = 3
_FLAT = 50  # added to squared gradients, so that a smooth surface has no direction
_WINDOWS = (2, 6)  # standard deviations in pixels

NAMES = (
    *("variation_10", "variation_50", "variation_90", "grey_10", "grey_50", "grey_90", "skew", "black", "flat"),
    *("coloured", "tinted", "elongation_1", "elongation_2", "elongation_4", "elongation_8"),
    *("slope_2", "slope_4", "slope_8", "heavy_down", "heavy_across", "noise"),
    *("down_1", "across_1", "down_2", "across_2", "diagonal"),
    *(
        f"{name}_{scale}"
        for scale in (1, 2, 4)
        for name in ("parts_10", "parts_30", "parts_50", "parts_spread", "parts_turned", "parts_rough")
    ),
    *(f"{name}_{window}" for window in _WINDOWS for name in ("coherence_50", "coherence_90", "direction")),
)
"""Names of what `texture_of` gives, in its order.

`variation`: quantiles of the logarithm of standard deviation over mean in 5 x 5 pixels. `grey`: quantiles of the brightness, 0 to 1.
`skew`: mean minus median over standard deviation. `black`, `flat`: shares of black pixels, and of 5 x 5 pixels that deviate by less than
1.5 grey levels. `coloured`, `tinted`: shares of pixels whose channels are 40 and 16 grey levels apart. `elongation`: logarithm of the
mean step down over that across, at full, half, quarter and eighth size. `slope`: of the mean step at one size over that at the size
before. `heavy`: of the root mean square over the mean step. `noise`: of the median deviation from the local mean. `down`, `across`,
`diagonal`: correlation of that deviation with itself, so many pixels away. `parts`: quantiles and standard deviation of the
elongation of parts of 32 x 32 pixels of the full size, the share of parts with steps larger across than down, and the standard deviation
of the logarithm of their steps. `coherence`: quantiles of how much the gradients within some pixels have one direction, 0 to 1.
`direction`: mean of their squares across minus down over the sum of both.
"""


def texture_of(pixels: np.ndarray) -> np.ndarray:
    """The texture of an image, float64 `(50,)`, named by `NAMES`; brightness is the largest channel, black pixels are left out.

    Args:
        pixels: uint8 `(height, width, 3)`; reduced to a longest side of 256 pixels if it is larger.
    """
    image = Image.fromarray(brightness(pixels))
    if max(image.size) > _WORK_SIDE:
        image.thumbnail((_WORK_SIDE, _WORK_SIDE), Image.Resampling.BOX)
    light = np.asarray(image, np.float32)
    bright = light > _BLACK
    solid = ndimage.minimum_filter(bright.view(np.uint8), 5).view(bool)
    if solid.sum() < _LEAST_PIXELS:
        solid = np.ones_like(bright)
    mean = ndimage.uniform_filter(light, 5)
    deviation = np.sqrt(np.maximum(ndimage.uniform_filter(light * light, 5) - mean * mean, 0))[solid]
    variation = np.log(np.quantile(deviation / np.maximum(mean[solid], 1), (0.1, 0.5, 0.9)) + 0.005)
    greys = light[bright] / 255 if bright.any() else np.zeros(1, np.float32)
    low, middle, high = np.quantile(greys, (0.1, 0.5, 0.9))
    skew = (greys.mean() - middle) / (greys.std() + 0.01)
    apart = spread(pixels)
    residual = np.where(solid, light - mean, 0)
    scales = list(_scales(light, solid))
    steps = [_steps(values, mask) for values, mask in scales]
    strength = np.log([down + across + 0.2 for down, across, _, _ in steps])
    values = [
        *(*variation, low, middle, high, skew, 1 - bright.mean(), (deviation < 1.5).mean()),
        *((apart >= 40).mean(), (apart >= 16).mean()),
        *(np.log((down + 0.1) / (across + 0.1)) for down, across, _, _ in steps),
        *np.diff(strength),
        *steps[0][2:],
        np.log(np.median(np.abs(residual[solid])) + 0.1),
        *_correlations(residual),
        *(
            value
            for number, scale in enumerate(scales[:_PART_SCALES])
            for value in _parts(*scale, _PART_SIDE >> number)
        ),
        *_coherence(light, solid),
    ]
    return np.array(values, np.float64)


def _scales(light: np.ndarray, solid: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """An image and its mask at full size and halved three times; a mask is what is solid throughout."""
    for scale in range(_SCALES):
        if scale:
            height, width = light.shape[0] // 2 * 2, light.shape[1] // 2 * 2
            if min(height, width) < 4:
                yield light, solid
                continue
            blocks = light[:height, :width].reshape(height // 2, 2, width // 2, 2)
            light = blocks.mean((1, 3))
            solid = np.asarray(solid[:height, :width].reshape(height // 2, 2, width // 2, 2).all((1, 3)))
        yield light, solid


def _steps(light: np.ndarray, solid: np.ndarray) -> tuple[float, float, float, float]:
    """The mean step between solid pixels down and across, and how heavy the tails of both are (0 for steps that are all alike)."""
    down = np.abs(light[1:] - light[:-1])[solid[1:] & solid[:-1]]
    across = np.abs(light[:, 1:] - light[:, :-1])[solid[:, 1:] & solid[:, :-1]]
    means = [float(part.mean()) if part.size else 0.0 for part in (down, across)]
    roots = [float(np.sqrt(np.mean(part * part))) if part.size else 0.0 for part in (down, across)]
    tails = [float(np.log((root + 0.1) / (mean + 0.1))) for root, mean in zip(roots, means, strict=True)]
    return means[0], means[1], tails[0], tails[1]


def _correlations(residual: np.ndarray) -> tuple[float, ...]:
    whole = float((residual * residual).sum()) + 1

    def moved(down: int, across: int) -> float:
        height, width = residual.shape
        one = residual[down:, max(0, across) : width + min(0, across)]
        other = residual[: height - down, max(0, -across) : width - max(0, across)]
        return float((one * other).sum()) / whole

    return moved(1, 0), moved(0, 1), moved(2, 0), moved(0, 2), (moved(1, 1) + moved(1, -1)) / 2


def _parts(light: np.ndarray, solid: np.ndarray, side: int) -> tuple[float, ...]:
    """How the elongation and the strength of steps differ between the parts of an image that are solid to a third or more."""
    if min(light.shape) <= side:
        return (0.0,) * 6
    both = solid[1:, :-1] & solid[:-1, :-1] & solid[:-1, 1:]
    down = _sums(np.abs(light[1:, :-1] - light[:-1, :-1]) * both, side)
    across = _sums(np.abs(light[:-1, 1:] - light[:-1, :-1]) * both, side)
    number = _sums(both.astype(np.float32), side)
    chosen = number > side * side / 3
    if not chosen.any():
        chosen[:] = True
    number = np.maximum(number[chosen], 1)
    down, across = down[chosen] / number + 0.1, across[chosen] / number + 0.1
    elongation = np.log(down / across)
    low, middle, half = np.quantile(elongation, (0.1, 0.3, 0.5))
    return low, middle, half, elongation.std(), (elongation < 0).mean(), np.log(down + across).std()


def _sums(values: np.ndarray, side: int) -> np.ndarray:
    height, width = values.shape[0] // side * side, values.shape[1] // side * side
    return values[:height, :width].reshape(height // side, side, width // side, side).sum((1, 3))


def _coherence(light: np.ndarray, solid: np.ndarray) -> Iterator[float]:
    """For each of `_WINDOWS` quantiles of the coherence of the structure tensor (Bigün, Granlund, 1987) over solid pixels, and the mean
    direction.
    """
    across, down = ndimage.sobel(light, 1), ndimage.sobel(light, 0)
    products = [product * solid for product in (across * across, down * down, across * down)]
    for window in _WINDOWS:
        rows, columns = (_gaussian(side, window) for side in light.shape)
        xx, yy, xy = (rows @ product @ columns.T for product in products)
        whole = (xx + yy + _FLAT)[solid]
        yield from np.quantile(np.hypot(xx - yy, 2 * xy)[solid] / whole, (0.5, 0.9))
        yield ((xx - yy)[solid] / whole).mean()


@lru_cache(64)
def _gaussian(side: int, deviation: int) -> np.ndarray:
    """The Gaussian filter of scipy along a side of so many pixels as a matrix: for wide windows two products of matrices are faster."""
    return ndimage.gaussian_filter1d(np.eye(side, dtype=np.float32), deviation, axis=0)
