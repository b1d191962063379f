"""Detection of oriented ellipses or boxes: a heat map of centres a class, and at every place the ellipse it belongs to.

Ultrasound data sets are small and hold one or two large objects an image, so the head is dense (CenterNet, TTFNet) rather than a
set predictor: it learns from few images and needs no matching. Every place near a centre votes for the whole ellipse, in the
log-Euclidean form of `ellipses_echocare.py`, where votes can be averaged and near-circles have no angle to get wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple

from .configuration_echocare import EchoCareConfig
from .decoder_echocare import EchoCareDenseDecoder
from .ellipse_refinement_echocare import flat_labels, inside_loss
from .ellipses_echocare import (
    ellipse_bounds,
    ellipse_covariance,
    ellipse_to_log,
    gaussian_divergence,
    log_to_ellipse,
)
from .encoder_echocare import PRETRAINING_ONLY, EchoCareModel, EchoCarePreTrainedModel, encode_with_maps
from .layers_echocare import channel_layer_norm, conv_channels_last

# Pixels per place of the heat map, at least: what lies between the places is the regression's.
HEATMAP_STRIDE = 4
# Spread of the Gaussian around a centre, as a share of the half axes (TTFNet: 0.54 / 3).
CENTRE_SPREAD = 0.2
# Places whose Gaussian is above this learn the ellipse; so a vote stands up to 0.4 half axes from the centre.
VOTE_LEVEL = 0.1
# Half axis that a fresh head predicts, as a share of the image side.
PRIOR_SIZE = 0.15
# Probability of a centre that a fresh head predicts, as its logit (CenterNet).
PRIOR_LOGIT = -2.19
# Exponents of the penalty-reduced focal loss (CornerNet).
FOCUS, PENALTY_REDUCTION = 2, 4
# The root in the shape loss is rounded below this divergence, in nats: about 3 % of the axes.
DIVERGENCE_SOFTENING = 1e-3
SHAPE_LOSS_WEIGHT = 1.0
MASK_LOSS_WEIGHT = 1.0


@auto_docstring(
    custom_intro="Output of EchoCare's detection model: dense maps, which `post_process_*` turns into objects."
)
@dataclass
class EchoCareObjectDetectionOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Sum of the losses below.
    logits (`torch.FloatTensor` of shape `(batch_size, num_labels, rows, columns)`):
        How likely the centre of an object of each class lies at each place, before the sigmoid.
    pred_boxes (`torch.FloatTensor` of shape `(batch_size, num_labels, rows, columns, 5)`):
        The object of each class whose centre is near the place: centre x, centre y, long axis, short axis (full lengths) in pixels
        of the input, and the angle of the long axis in degrees, from +x towards +y, in [0, 180).
    input_sizes (`torch.LongTensor` of shape `(batch_size, 2)`):
        Height and width of the input, in pixels.
    mask_logits (`torch.FloatTensor` of shape `(batch_size, num_labels, height / stride, width / stride)`, *optional*):
        How likely each place of the decoder's finest map lies inside an object of each class, before the sigmoid; of a head for oriented
        boxes with `config.refine_ellipses`.
    heatmap_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Penalty-reduced focal loss of the centres.
    shape_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Loss of centre, size and angle: the root of the Kullback-Leibler divergence between the ellipses as Gaussians.
    mask_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` and `mask_logits` are given):
        Cross-entropy and Dice loss of what lies inside objects.
    reshaped_hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
        The encoder's feature maps as `(batch_size, channels, height, width)`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    input_sizes: torch.Tensor | None = None
    mask_logits: torch.Tensor | None = None
    heatmap_loss: torch.Tensor | None = None
    shape_loss: torch.Tensor | None = None
    mask_loss: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


class EchoCareDetectionHead(nn.Module):
    """All maps of the decoder, brought to one stride and summed, then one convolution each for centres and shapes.

    The coarse maps go in directly, so that a place sees the whole of an object as large as the image. What lies inside an object is
    told by a convolution of the finest map.

    Attributes:
        stride (`int`): pixels of the image per place.
    """

    def __init__(self, config: EchoCareConfig, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        width = config.dense_hidden_size
        self.level = next((i for i, stride in enumerate(strides) if stride >= HEATMAP_STRIDE), len(strides) - 1)
        self.strides = tuple(strides)
        self.stride = strides[self.level]
        self.num_labels: int = config.num_labels or 0
        self.oriented = config.oriented_boxes
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in channels)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.centres = nn.Conv2d(width, self.num_labels, 1)
        # centre x and y, mean log half axis, and the pair that holds elongation and angle (see `ellipse_to_log`)
        self.shapes = nn.Conv2d(width, self.num_labels * (5 if self.oriented else 4), 1)
        refined = config.oriented_boxes and config.refine_ellipses
        self.masks = nn.Conv2d(channels[0], self.num_labels, 1) if refined else None

    def forward(self, feature_maps: Sequence[Tensor], image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The centres and shapes at every place.

        Args:
            feature_maps: the decoder's maps, each (batch, channels, height, width), finest first.
            image_size: height and width of the input, in pixels.

        Returns:
            Logits (batch, num_labels, rows, columns), and ellipses (batch, num_labels, rows, columns, 5) as `ellipse_to_log` has
            them, in pixels of the input; both fp32.
        """
        rows, columns = feature_maps[self.level].shape[-2:]
        parts = []
        for lateral, stride, feature_map in zip(self.laterals, self.strides, feature_maps, strict=True):
            if stride < self.stride:
                feature_map = F.avg_pool2d(feature_map, self.stride // stride, ceil_mode=True, count_include_pad=False)
            part = lateral(feature_map)
            if stride > self.stride:
                part = F.interpolate(
                    part, scale_factor=float(stride // self.stride), mode="bilinear", align_corners=False
                )
            parts.append(part[..., :rows, :columns])
        hidden = channel_layer_norm(torch.stack(parts).sum(0).permute(0, 2, 3, 1))
        hidden = F.gelu(channel_layer_norm(conv_channels_last(self.conv, hidden))).permute(0, 3, 1, 2)
        logits = self.centres(hidden).float()
        shapes = self.shapes(hidden).float().unflatten(1, (self.num_labels, -1)).movedim(2, -1)
        if not self.oriented:
            shapes = F.pad(shapes, (0, 1))
        size, pair = shapes[..., 2:3], shapes[..., 3:]
        size = size + math.log(PRIOR_SIZE * math.sqrt(image_size[0] * image_size[1]))
        # Offsets count half axes, so that they are as easy to learn for a large object as for a small one.
        centres = place_centres(rows, columns, self.stride, shapes.device) + shapes[..., :2] * size.exp()
        return logits, torch.cat((centres, size, pair), -1)


def place_centres(rows: int, columns: int, stride: int, device: torch.device) -> Tensor:
    """The centre of every place of a map, (rows, columns, 2) as x and y in pixels: (i + 0.5) stride."""
    y = (torch.arange(rows, device=device) + 0.5) * stride
    x = (torch.arange(columns, device=device) + 0.5) * stride
    return torch.stack((x.expand(rows, columns), y[:, None].expand(rows, columns)), -1)


def average_votes(logits: Tensor, logs: Tensor) -> Tensor:
    """Each place's ellipse averaged with its eight neighbours', by how likely each is a centre.

    Args:
        logits: (batch, num_labels, rows, columns).
        logs: (batch, num_labels, rows, columns, 5), as `ellipse_to_log` has them.
    """
    weights = logits.sigmoid()[..., None].clamp(min=1e-6)
    votes = torch.cat((logs * weights, weights), -1).movedim(-1, 2).flatten(0, 1)
    sums = F.avg_pool2d(votes, 3, stride=1, padding=1).unflatten(0, logits.shape[:2]).movedim(2, -1)
    return sums[..., :5] / sums[..., 5:]


def check_detection_labels(
    labels: Any, batch: int, num_labels: int, image_size: tuple[int, int], oriented: bool
) -> None:
    """One clear error for labels that the detection loss cannot take.

    Raises:
        ValueError: names the image, counted from 0, and what is wrong with its `class_labels` or `boxes`.
    """
    if not isinstance(labels, (list, tuple)) or len(labels) != batch:
        count = len(labels) if isinstance(labels, (list, tuple)) else type(labels).__name__
        raise ValueError(
            f"`labels` is a list with one dict an image, `class_labels` and `boxes`: {batch} images, got {count}"
        )
    height, width = image_size
    for index, entry in enumerate(labels):
        if not hasattr(entry, "keys") or not {"class_labels", "boxes"} <= set(entry.keys()):
            raise ValueError(f"`labels` of image {index} is a dict with `class_labels` and `boxes`, got {entry!r:.80}")
        classes, boxes = entry["class_labels"], entry["boxes"]
        if not isinstance(classes, Tensor) or not isinstance(boxes, Tensor):
            raise ValueError(
                f"`labels` of image {index} need tensors, got {type(boxes).__name__} and {type(classes).__name__}"
            )
        if boxes.ndim != 2 or boxes.shape[1] != 5 or classes.shape != boxes.shape[:1]:
            raise ValueError(
                f"`labels` of image {index} need boxes (objects, 5) and class_labels (objects,), "
                f"got {tuple(boxes.shape)} and {tuple(classes.shape)}"
            )
        if classes.is_floating_point() or bool(((classes < 0) | (classes >= num_labels)).any()):
            raise ValueError(
                f"`class_labels` of image {index} are whole numbers from 0 to {num_labels - 1}, got {classes.tolist()}"
            )
        if not bool(torch.isfinite(boxes).all()) or not bool((boxes[:, 2:4] > 0).all()):
            raise ValueError(
                f"`boxes` of image {index} are finite with axes above 0 (centre x, centre y, long axis, short axis, angle), "
                f"got {boxes.tolist()}"
            )
        turn = boxes[:, 4].remainder(90)
        if not oriented and bool((torch.minimum(turn, 90 - turn) > 0.01).any()):
            raise ValueError(
                f"`boxes` of image {index} are turned by {boxes[:, 4].tolist()} degrees, but `config.oriented_boxes` is False: give "
                "angles of 0 or 90, or set it to True"
            )
        bounds = ellipse_bounds(boxes)
        if bool(((bounds[:, 2:] <= 0) | (bounds[:, :2] >= bounds.new_tensor((width, height)))).any()):
            raise ValueError(
                f"`boxes` of image {index} lie outside its {height}x{width} pixels (height x width): leave these out, or give them "
                f"in pixels of the model's input, got {boxes.tolist()}"
            )


def centre_gaussians(boxes: Tensor, rows: int, columns: int, stride: int) -> Tensor:
    """A Gaussian around the centre of each box, of its shape: (objects, rows, columns), 1 at the place that holds the centre.

    Its spread is `CENTRE_SPREAD` half axes, and half a place at least. A centre outside the image counts for the place next to it.
    """
    covariance = ellipse_covariance(boxes)[:, None, None] * CENTRE_SPREAD**2  # (objects, 1, 1, 2, 2)
    xx, xy, yy = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    xx, yy = xx + (stride / 2) ** 2, yy + (stride / 2) ** 2
    dx, dy = (place_centres(rows, columns, stride, boxes.device) - boxes[:, None, None, :2].float()).unbind(-1)
    distance = (yy * dx.square() - 2 * xy * dx * dy + xx * dy.square()) / (xx * yy - xy.square())
    gaussians = (-distance / 2).exp()
    column = (boxes[:, 0] / stride).floor().long().clamp(0, columns - 1)
    row = (boxes[:, 1] / stride).floor().long().clamp(0, rows - 1)
    gaussians[torch.arange(len(boxes), device=boxes.device), row, column] = 1
    return gaussians


def centre_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Focal loss of heat maps, in which places near a centre cost less: each image's sum over its centres, meaned over the batch.

    Args:
        logits: (batch, num_labels, rows, columns).
        targets: the same shape, 0 to 1; 1 at the centres alone.

    Source: Law and Deng, CornerNet, eq. 1; Zhou et al., Objects as Points.
    """
    probability = logits.sigmoid()
    is_centre = targets == 1
    found = (1 - probability) ** FOCUS * F.softplus(-logits)
    false_alarm = (1 - targets) ** PENALTY_REDUCTION * probability**FOCUS * F.softplus(logits)
    per_image = torch.where(is_centre, found, false_alarm).sum((1, 2, 3))
    return (per_image / is_centre.sum((1, 2, 3)).clamp(min=1)).mean()


def detection_losses(
    logits: Tensor, logs: Tensor, labels: Sequence[dict[str, Tensor]], stride: int
) -> tuple[Tensor, Tensor]:
    """The losses of the centres and of the shapes.

    Args:
        logits: (batch, num_labels, rows, columns).
        logs: (batch, num_labels, rows, columns, 5), the ellipse at every place, as `ellipse_to_log` has it.
        labels: for each image `class_labels` (objects,) and `boxes` (objects, 5) in pixels of the input.
        stride: pixels per place.

    Returns:
        Two scalars, at least 0: means over the images. The shape loss of an image is the mean over its objects of their votes, each
        weighted by its Gaussian; an image without objects adds 0.
    """
    batch, num_labels, rows, columns = logits.shape
    images, classes, boxes = flat_labels(labels, logits.device)
    counts = torch.bincount(images, minlength=batch)
    gaussians = centre_gaussians(boxes, rows, columns, stride)  # (objects, rows, columns)

    maps = images * num_labels + classes
    targets = logits.new_zeros(batch * num_labels, rows * columns)
    index = maps[:, None].expand(-1, rows * columns)
    targets = targets.scatter_reduce(0, index, gaussians.flatten(1), "amax").view_as(logits)
    heatmap_loss = centre_focal_loss(logits, targets)

    # Where objects of one class overlap, a place belongs to the one whose centre is nearer.
    owned = (gaussians > VOTE_LEVEL) & (gaussians >= targets[images, classes])
    objects, row, column = owned.nonzero(as_tuple=True)
    weights = gaussians[objects, row, column]
    sums = weights.new_zeros(len(boxes)).index_add(0, objects, weights)
    per_image = counts[images[objects]]
    weights = weights / sums[objects] / per_image / batch
    divergence = gaussian_divergence(
        logs[images[objects], classes[objects], row, column], ellipse_to_log(boxes)[objects]
    )
    root = (divergence + DIVERGENCE_SOFTENING).sqrt() - DIVERGENCE_SOFTENING**0.5
    return heatmap_loss, (weights * root).sum()


@auto_docstring(
    custom_intro="""
    EchoCare with a dense detection head for oriented ellipses and boxes: fetal heads, hearts, nodules. The image processor's
    `post_process_oriented_detection` and `post_process_object_detection` turn its output into objects.
    """
)
class EchoCareForObjectDetection(EchoCarePreTrainedModel):
    # The losses are plain means: Trainer must divide by the accumulation steps itself.
    accepts_loss_kwargs = False
    _keys_to_ignore_on_load_unexpected = [*PRETRAINING_ONLY, r"embeddings\.mask_token$"]

    def __init__(self, config: EchoCareConfig):
        super().__init__(config)
        if not config.num_labels:
            raise ValueError("detection needs at least one class: set `num_labels` or `id2label`")
        self.echocare = EchoCareModel(config, add_pooling_layer=False, use_mask_token=False)
        self.detection_decoder = EchoCareDenseDecoder(config)
        self.detection_head = EchoCareDetectionHead(
            config, self.detection_decoder.channels, self.detection_decoder.strides
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # By the layer itself: for code outside transformers, modules without parameters of their own are passed over.
        if module is self.detection_head.centres:
            init.constant_(module.get_parameter("bias"), PRIOR_LOGIT)

    def get_input_embeddings(self) -> nn.Module:
        return self.echocare.get_input_embeddings()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: list[dict[str, torch.Tensor]] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EchoCareObjectDetectionOutput:
        r"""
        labels (`list[dict[str, torch.Tensor]]` of length `batch_size`, *optional*):
            One dict an image: `class_labels` (objects,), whole numbers from 0 to `num_labels - 1`, and `boxes` (objects, 5): centre
            x, centre y, long axis, short axis (full lengths, above 0) and the angle of the long axis in degrees, from +x towards +y,
            all in pixels of `pixel_values`, 0 at the outer edge of the first pixel. An image without objects has boxes (0, 5).
            With `config.oriented_boxes=False` angles are 0 or 90.

        Examples:

        ```python
        >>> import torch
        >>> from echocare_hf import EchoCareConfig, EchoCareForObjectDetection

        >>> model = EchoCareForObjectDetection(EchoCareConfig.preset("tiny", num_labels=1))
        >>> labels = [{"class_labels": torch.tensor([0]), "boxes": torch.tensor([[64.0, 60.0, 70.0, 50.0, 30.0]])}]
        >>> outputs = model(torch.rand(1, 3, 128, 128), labels=labels)
        >>> outputs.logits.shape, outputs.pred_boxes.shape
        (torch.Size([1, 1, 32, 32]), torch.Size([1, 1, 32, 32, 5]))
        ```"""
        outputs, encoder_maps = encode_with_maps(self.echocare, pixel_values, **kwargs)
        assert pixel_values is not None  # the encoder has checked
        height, width = pixel_values.shape[-2:]
        if labels is not None:
            check_detection_labels(
                labels, len(pixel_values), self.detection_head.num_labels, (height, width), self.config.oriented_boxes
            )
        feature_maps = self.detection_decoder(pixel_values, encoder_maps)
        head = self.detection_head
        logits, logs = head(feature_maps, (height, width))
        mask_logits = None if head.masks is None else head.masks(feature_maps[0]).float()

        heatmap_loss = shape_loss = mask_loss = loss = None
        if labels is not None:
            heatmap_loss, shape_loss = detection_losses(logits, logs, labels, head.stride)
            loss = heatmap_loss + SHAPE_LOSS_WEIGHT * shape_loss
            if mask_logits is not None:
                (rows, columns), stride = mask_logits.shape[2:], head.strides[0]
                places = place_centres(rows, columns, stride, mask_logits.device)
                mask_loss = inside_loss(mask_logits, labels, places, stride)
                loss = loss + MASK_LOSS_WEIGHT * mask_loss
        return EchoCareObjectDetectionOutput(
            loss=loss,
            logits=logits,
            pred_boxes=log_to_ellipse(average_votes(logits, logs)),
            input_sizes=torch.tensor([[height, width]], device=logits.device).expand(len(logits), 2),
            mask_logits=mask_logits,
            heatmap_loss=heatmap_loss,
            shape_loss=shape_loss,
            mask_loss=mask_loss,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
        )


__all__ = ["EchoCareForObjectDetection", "EchoCareObjectDetectionOutput"]
