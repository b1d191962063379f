"""Losses of the heads that answer with a map: cross-entropy and Dice for segmentation, structural similarity for enhancement.

All of them are computed in fp32 at least, whatever the precision of the model, and are zero with gradients of zero where nothing is
known.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .label_losses_echocare import at_least_float32, weighted_mean

# MONAI's `smooth_nr` and `smooth_dr`.
DICE_SMOOTHING = 1e-5
# Wang et al.'s constants: an 11x11 Gaussian window of sigma 1.5 pixels, K1 and K2, for values from 0 to 1.
SSIM_WINDOW, SSIM_SIGMA, SSIM_K1, SSIM_K2 = 11, 1.5, 0.01, 0.03


def segmentation_losses(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor,
    ignore_index: int,
    annotated_classes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Cross-entropy and Dice loss of a segmentation, of images in which only some classes may be annotated.

    Cross-entropy is the mean over all known pixels, weighted by the weight of each pixel's class, as in torch. Dice is

        1 - (2 sum(p t) + 1e-5) / (sum(p) + sum(t) + 1e-5)

    for each image and each foreground class that occurs in its labels, with softmax probabilities p, targets t and sums over the
    known pixels; their mean is weighted by the classes' weights, so that it stays between 0 and 1. With every class in every image
    and no weights this is MONAI's `DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)`. MONAI also counts classes
    that are absent from an image, each with a loss of about 1 and a gradient of about 0; here they are left out, and
    cross-entropy alone acts against false positives there.

    Where a class is not annotated in an image, its pixels are among the background: their probabilities are merged, so that a
    background pixel costs -log(sum of the probabilities of background and all classes that are not annotated), and Dice is taken
    over annotated classes only.

    Args:
        logits: (batch, classes, height, width); class 0 is the background.
        labels: (batch, height, width), whole numbers from 0 to classes - 1, or `ignore_index` where not known.
        class_weights: (classes,), not negative.
        ignore_index: label of pixels that are left out.
        annotated_classes: (batch, classes), True for the classes that are annotated in an image; all when not given. The entry of the
            background does not matter. Pixels whose own class is not annotated count as background.

    Returns:
        Cross-entropy and Dice loss, scalars in fp32 at least.

    Raises:
        ValueError: for labels or annotated classes of another type or shape, or a class that there is not.

    Source: Shi et al. 2021, Marginal loss and exclusion loss for partially supervised multi-organ segmentation (the marginal
    losses); MONAI `DiceCELoss`.
    """
    labels, known = _known_labels(labels, logits, ignore_index)
    log_probabilities = at_least_float32(logits).log_softmax(1)  # (batch, classes, height, width)
    if annotated_classes is None:
        picked = log_probabilities.gather(1, labels[:, None])[:, 0]  # (batch, height, width)
    else:
        merged = _merged_classes(annotated_classes, logits)
        labels = labels.masked_fill(merged.gather(1, labels.flatten(1)).view_as(labels), 0)
        background = log_probabilities.masked_fill(~merged[..., None, None], -torch.inf).logsumexp(1)
        picked = torch.where(labels == 0, background, log_probabilities.gather(1, labels[:, None])[:, 0])
    cross_entropy = weighted_mean(-picked, class_weights[labels] * known)

    classes = torch.arange(1, logits.shape[1], device=logits.device)
    targets = (labels[:, None] == classes[:, None, None]) & known[:, None]  # (batch, classes - 1, height, width)
    probabilities = log_probabilities[:, 1:].exp() * known[:, None]
    overlap = (probabilities * targets).sum((2, 3))  # (batch, classes - 1)
    areas = targets.sum((2, 3))
    dice = 1 - (2 * overlap + DICE_SMOOTHING) / (probabilities.sum((2, 3)) + areas + DICE_SMOOTHING)
    return cross_entropy, weighted_mean(dice, class_weights[1:] * (areas > 0))


def coarser_labels(labels: Tensor, stride: int) -> Tensor:
    """Labels of a map with one cell for `stride` x `stride` pixels: that of the pixel in the middle of each cell.

    Args:
        labels: (batch, height, width).

    Returns:
        (batch, ceil(height / stride), ceil(width / stride)).
    """
    rows, columns = (
        torch.arange(stride // 2, size + stride // 2, stride, device=labels.device).clamp(max=size - 1)
        for size in labels.shape[1:]
    )
    return labels[:, rows[:, None], columns]


def structural_similarity(images: Tensor, targets: Tensor) -> Tensor:
    """Mean structural similarity (SSIM) of each channel of each image.

    Images smaller than the 11x11 window get the largest odd window that fits.

    Args:
        images, targets: (batch, channels, height, width), values from 0 to 1 (others are taken as they are).

    Returns:
        (batch, channels), -1 to 1, in fp32 at least; the mean over all places at which the whole window lies inside the image.

    Source: Wang et al. 2004, Image quality assessment: from error visibility to structural similarity; the same numbers as
    scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)`.
    """
    images, targets = at_least_float32(images), at_least_float32(targets)
    with torch.autocast(images.device.type, enabled=False):  # variances are small differences of large numbers
        statistics = torch.cat((images, targets, images * images, targets * targets, images * targets), 1)
        mean_x, mean_y, mean_xx, mean_yy, mean_xy = _gaussian_means(statistics).chunk(5, 1)
        variances = mean_xx - mean_x * mean_x + mean_yy - mean_y * mean_y
        covariance = mean_xy - mean_x * mean_y
        c1, c2 = SSIM_K1**2, SSIM_K2**2
        luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
        return (luminance * (2 * covariance + c2) / (variances + c2)).mean((2, 3))


def _gaussian_means(maps: Tensor) -> Tensor:
    """Means of (batch, channels, height, width) under the Gaussian window, where it fits."""
    channels = maps.shape[1]
    maps = maps.contiguous(memory_format=torch.channels_last)  # in which one filter a channel is fast
    for axis in (2, 3):
        window = min(SSIM_WINDOW, (maps.shape[axis] - 1) // 2 * 2 + 1)
        offsets = torch.arange(window, device=maps.device, dtype=maps.dtype) - window // 2
        weights = torch.exp(-0.5 * (offsets / SSIM_SIGMA).square())
        weights = (weights / weights.sum()).view(1, 1, *((window, 1) if axis == 2 else (1, window)))
        maps = F.conv2d(maps, weights.expand(channels, -1, -1, -1), groups=channels)
    return maps


def _known_labels(labels: Tensor, logits: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The labels as int64 with 0 where they are not known, and where they are known."""
    batch, classes, height, width = logits.shape
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(
            f"`labels` holds the class of each pixel as a whole number, got {labels.dtype}: use torch.int64"
        )
    if labels.shape != (batch, height, width):
        raise ValueError(
            f"`labels` must be one class a pixel of `pixel_values`, ({batch}, {height}, {width}), got {tuple(labels.shape)}"
        )
    labels = labels.to(logits.device, torch.int64)
    known = labels != ignore_index
    labels = labels.masked_fill(~known, 0)
    if not torch.compiler.is_compiling() and labels.numel():
        for wrong in (int(labels.min()), int(labels.max())):
            if not 0 <= wrong < classes:
                raise ValueError(
                    f"class {wrong} does not exist: `labels` run from 0 to {classes - 1}, or {ignore_index} where not known "
                    "(check `num_labels` and `semantic_loss_ignore_index`)"
                )
    return labels, known


def _merged_classes(annotated_classes: Tensor, logits: Tensor) -> Tensor:
    """(batch, classes), True for the background and for classes that are not annotated."""
    if annotated_classes.shape != logits.shape[:2]:
        raise ValueError(
            f"`annotated_classes` must say of each image which classes are annotated, {tuple(logits.shape[:2])}, got "
            f"{tuple(annotated_classes.shape)}"
        )
    merged = ~annotated_classes.to(logits.device, torch.bool)
    return merged | (torch.arange(logits.shape[1], device=logits.device) == 0)


__all__ = ["coarser_labels", "segmentation_losses", "structural_similarity"]
