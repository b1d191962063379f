"""Detection of landmarks: one heat map a landmark, read off between the pixels, and whether the landmark is in the image at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple

from .configuration_echocare import EchoCareConfig
from .decoder_echocare import EchoCareDenseDecoder
from .detection_echocare import place_centres
from .encoder_echocare import PRETRAINING_ONLY, EchoCareModel, EchoCarePreTrainedModel, encode_with_maps

# Standard deviation of the Gaussian that a heat map shall show, as a share of the longer image side (one place at least).
TARGET_SPREAD = 0.02
# Radius around the highest place within which a landmark's position is averaged, in standard deviations of that Gaussian.
READING_RADIUS = 4.0
# Weights of the losses beside the heat maps' divergence, which is in nats.
COORDINATE_LOSS_WEIGHT = 5.0
VISIBILITY_LOSS_WEIGHT = 0.1
# How much better (in the loss) the other order of a pair must be before it replaces the order from left to right.
PAIR_ORDER_MARGIN = 0.1
# Two ends of a pair that are read at one place are taken apart where a second peak has at least this share of the first.
SECOND_PEAK = 0.1


@auto_docstring(custom_intro="Output of EchoCare's keypoint model.")
@dataclass
class EchoCareKeypointDetectionOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Weighted sum of the three losses below.
    keypoints (`torch.FloatTensor` of shape `(batch_size, num_keypoints, 2)`):
        x and y of each landmark, in pixels of the input, 0 at the outer edge of the first pixel.
    scores (`torch.FloatTensor` of shape `(batch_size, num_keypoints)`):
        How sure the model is, 0 to 1: the share of the heat map around the landmark, times the probability that it is there.
    heatmaps (`torch.FloatTensor` of shape `(batch_size, num_keypoints, rows, columns)`):
        Probability of each place to hold the landmark; each map sums to 1.
    visibility_logits (`torch.FloatTensor` of shape `(batch_size, num_keypoints)`):
        Whether the landmark is in the image, before the sigmoid.
    input_sizes (`torch.LongTensor` of shape `(batch_size, 2)`):
        Height and width of the input, in pixels.
    heatmap_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Kullback-Leibler divergence of the heat maps from Gaussians around the landmarks, in nats.
    coordinate_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Mean absolute error of the heat maps' expectations, in half sides of the image.
    visibility_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Binary cross-entropy of `visibility_logits`.
    reshaped_hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
        The encoder's feature maps as `(batch_size, channels, height, width)`.
    """

    loss: torch.Tensor | None = None
    keypoints: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    heatmaps: torch.Tensor | None = None
    visibility_logits: torch.Tensor | None = None
    input_sizes: torch.Tensor | None = None
    heatmap_loss: torch.Tensor | None = None
    coordinate_loss: torch.Tensor | None = None
    visibility_loss: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


class EchoCareKeypointHead(nn.Module):
    """A 1x1 convolution on the decoder's finest map for the heat maps, and a linear layer for visibility.

    Whether a landmark is there is read off the whole image's feature and the features where the heat map looks.

    Attributes:
        stride (`int`): pixels of the image per place.
    """

    def __init__(self, config: EchoCareConfig, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.stride = strides[0]
        self.heatmaps = nn.Conv2d(channels[0], config.num_keypoints, 1)
        self.visibility = nn.Linear(channels[0] + config.hidden_size, config.num_keypoints)

    def forward(self, feature_map: Tensor, image_feature: Tensor) -> tuple[Tensor, Tensor]:
        """Heat maps and visibility.

        Args:
            feature_map: (batch, channels, rows, columns).
            image_feature: (batch, hidden_size).

        Returns:
            Log-probabilities (batch, num_keypoints, rows, columns), and logits (batch, num_keypoints); both fp32.
        """
        logits = self.heatmaps(feature_map).float()
        log_maps = logits.flatten(2).log_softmax(-1).view_as(logits)
        with torch.no_grad():
            attention = log_maps.exp().to(feature_map.dtype)
        looked_at = torch.einsum("bkhw,bchw->bkc", attention, feature_map)
        image_feature = image_feature[:, None].expand(-1, looked_at.shape[1], -1)
        features = torch.cat((looked_at, image_feature.to(looked_at.dtype)), -1)  # (batch, keypoints, channels)
        # The layer answers for every landmark from the features of every landmark; only its own are meant.
        visibility = self.visibility(features).diagonal(dim1=1, dim2=2)
        return log_maps, visibility.float()


def target_spread(image_size: tuple[int, int], stride: int) -> float:
    """Standard deviation of the Gaussian around a landmark, in pixels."""
    return max(TARGET_SPREAD * max(image_size), stride)


def _within(places: Tensor, centres: Tensor, radius: float) -> Tensor:
    """Bool (..., rows, columns): the places that lie within `radius` pixels of each centre (..., 2)."""
    dx = places[0, :, 0] - centres[..., None, 0]  # (..., columns)
    dy = places[:, 0, 1] - centres[..., None, 1]  # (..., rows)
    return dx.square()[..., None, :] + dy.square()[..., :, None] <= radius**2


def _read_peak(heatmaps: Tensor, places: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Mean position (..., 2) and share (...) of what lies within `radius` pixels around the highest place of each map.

    Args:
        heatmaps: (..., rows, columns), probabilities.
        places: (rows, columns, 2), x and y of each place in pixels.
    """
    positions = places.flatten(0, 1)[heatmaps.flatten(-2).argmax(-1)]
    # Twice: the window of the second pass stands on the mean of the first, so that the peak's place does not show.
    for _ in range(2):
        window = heatmaps * _within(places, positions, radius)
        share = window.sum((-2, -1))
        positions = expected_position(window, places) / share.clamp(min=1e-12)[..., None]
    return positions, share


def expected_position(heatmaps: Tensor, places: Tensor) -> Tensor:
    """Sum of the places (rows, columns, 2), weighted by the maps (..., rows, columns): (..., 2)."""
    # No matrix product: autocast would round the coordinates to bfloat16.
    x, y = (heatmaps.sum(-2) * places[0, :, 0]).sum(-1), (heatmaps.sum(-1) * places[:, 0, 1]).sum(-1)
    return torch.stack((x, y), -1)


def read_heatmaps(
    heatmaps: Tensor, stride: int, radius: float, pairs: Sequence[Sequence[int]] = ()
) -> tuple[Tensor, Tensor]:
    """The landmarks that heat maps show, between the places: the mean around the highest place (local soft-argmax).

    The mean over the whole map (DSNT), which training uses, would fall between two peaks. The ends of an unordered pair may both show
    both ends; where the two readings coincide, one of them takes the second peak of its map.

    Args:
        heatmaps (`torch.Tensor` of shape `(batch, num_keypoints, rows, columns)`): probabilities, each map summing to 1.
        stride (`int`): pixels per place.
        radius (`float`): of the mean, in pixels.
        pairs (`list[list[int]]`, *optional*): landmarks whose order has no meaning.

    Returns:
        Positions (batch, num_keypoints, 2) as x and y in pixels, and the share of each map within the radius (batch, num_keypoints).
    """
    rows, columns = heatmaps.shape[-2:]
    places = place_centres(rows, columns, stride, heatmaps.device)
    positions, shares = _read_peak(heatmaps, places, radius)
    for pair in pairs:
        both = heatmaps[:, list(pair)]  # (batch, 2, rows, columns)
        first, first_share = positions[:, list(pair)], shares[:, list(pair)]
        second, second_share = _read_peak(both * ~_within(places, first, radius), places, radius)
        coincide = (first[:, 0] - first[:, 1]).norm(dim=-1) <= radius / 2
        # The end whose second peak is stronger, compared with its first, moves there.
        ratio = second_share / first_share.clamp(min=1e-12)
        moves = F.one_hot(ratio.argmax(1), 2).bool() & (coincide & (ratio.amax(1) > SECOND_PEAK))[:, None]
        positions[:, list(pair)] = torch.where(moves[..., None], second, first)
        shares[:, list(pair)] = torch.where(moves, second_share, first_share)
    return positions, shares


def match_keypoint_pairs(keypoints: Tensor, targets: Tensor, pairs: Sequence[Sequence[int]]) -> Tensor:
    """The targets with each unordered pair in the order that lies nearer to the predictions, for measuring errors.

    Args:
        keypoints (`torch.Tensor` of shape `(batch, num_keypoints, 2)`): predicted positions.
        targets (`torch.Tensor` of shape `(batch, num_keypoints, 2 or more)`): true positions first, then anything that goes with them.
        pairs (`list[list[int]]`): landmarks whose order has no meaning.

    Returns:
        `torch.Tensor` of the targets' shape.
    """
    given = (keypoints - targets[..., :2]).norm(dim=-1)
    swapped_targets = _swap_pairs(targets, pairs)
    swapped = (keypoints - swapped_targets[..., :2]).norm(dim=-1)
    return torch.where(_better_swapped(given, swapped, pairs, [0.0] * len(pairs))[..., None], swapped_targets, targets)


def _swap_pairs(values: Tensor, pairs: Sequence[Sequence[int]]) -> Tensor:
    """(batch, num_keypoints, ...) with the two landmarks of every pair in each other's place."""
    order = list(range(values.shape[1]))
    for first, second in pairs:
        order[first], order[second] = second, first
    return values[:, order]


def _better_swapped(
    given: Tensor, swapped: Tensor, pairs: Sequence[Sequence[int]], margins: Sequence[Tensor | float]
) -> Tensor:
    """Bool (batch, num_keypoints): where a pair costs less swapped, by more than its margin; False outside pairs.

    Args:
        given, swapped: (batch, num_keypoints), cost of each landmark in either order; NaN counts as 0.
        margins: for each pair a number or (batch,).
    """
    gain = given.nan_to_num() - swapped.nan_to_num()
    better = torch.zeros_like(gain, dtype=torch.bool)
    for pair, margin in zip(pairs, margins, strict=True):
        better[:, list(pair)] = (gain[:, list(pair)].sum(1) > margin)[:, None]
    return better


def check_keypoint_labels(labels: Tensor, shape: tuple[int, int], image_size: tuple[int, int]) -> None:
    """One clear error for labels that the keypoint loss cannot take.

    Raises:
        ValueError: for another shape, a visibility other than -1, 0, 1 and 2, or a landmark outside the image.
    """
    if not isinstance(labels, Tensor) or labels.shape != (*shape, 3):
        got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"`labels` are (batch, num_keypoints, 3), x, y and visibility: {(*shape, 3)}, got {got}")
    visibility = labels[..., 2].nan_to_num()
    if not bool(torch.isin(visibility, visibility.new_tensor((-1, 0, 1, 2))).all()):
        raise ValueError(
            "the visibility of a landmark is 2 or 1 (labelled), 0 (not labelled) or -1 (not in the image), "
            f"got {sorted(set(visibility.flatten().tolist()) - {-1.0, 0.0, 1.0, 2.0})}"
        )
    height, width = image_size
    # Rounding may put a landmark on the edge a little outside; comparisons with NaN are False.
    outside = (labels[..., :2] < -1) | (labels[..., :2] > labels.new_tensor((width + 1, height + 1)))
    outside = outside.any(-1) & (visibility > 0)
    if bool(outside.any()):
        image, keypoint = outside.nonzero()[0].tolist()
        raise ValueError(
            f"landmark {keypoint} of image {image} lies outside its {height}x{width} pixels (height x width) at "
            f"{labels[image, keypoint, :2].tolist()}: set its visibility to 0 or -1, or give it in pixels of the model's input"
        )


def keypoint_costs(
    log_maps: Tensor, labels: Tensor, stride: int, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """What each landmark's heat map costs, 0 where it is not labelled.

    Args:
        log_maps: (batch, num_keypoints, rows, columns), log-probabilities.
        labels: (batch, num_keypoints, 3), x, y and visibility, without NaN.

    Returns:
        Two tensors (batch, num_keypoints): the divergence of the map from the Gaussian around the landmark, in nats, and the mean
        absolute error of the map's expectation, in half sides of the image.

    Source: Nibali et al., Numerical coordinate regression with convolutional neural networks; its regulariser as a
    Kullback-Leibler divergence, which unlike Jensen-Shannon's keeps its gradient far from the target.
    """
    height, width = log_maps.shape[-2:]
    places = place_centres(height, width, stride, log_maps.device)
    points, located = labels[..., :2], (labels[..., 2] > 0).float()
    # The Gaussian is a product of one over the columns and one over the rows: no map of it is ever made.
    spread = target_spread(image_size, stride)
    columns, rows = (
        (-((line - points[..., axis, None]) ** 2) / (2 * spread**2)).log_softmax(-1)
        for axis, line in enumerate((places[0, :, 0], places[:, 0, 1]))
    )
    entropy = -(columns.exp() * columns).sum(-1) - (rows.exp() * rows).sum(-1)
    cross_entropy = -((log_maps * columns.exp()[..., None, :]).sum(-1) * rows.exp()).sum(-1)
    divergence = cross_entropy - entropy
    half_sides = points.new_tensor((image_size[1], image_size[0])) / 2
    error = ((expected_position(log_maps.exp(), places) - points) / half_sides).abs().mean(-1)
    return divergence * located, error * located


def keypoint_losses(
    log_maps: Tensor,
    visibility_logits: Tensor,
    labels: Tensor,
    stride: int,
    image_size: tuple[int, int],
    pairs: Sequence[Sequence[int]] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of heat maps, coordinates and visibility, each a mean over the landmarks that are labelled.

    A pair without order counts from left to right, so that each of its maps has one thing to show from the first step on; but where
    the model has come to prefer the other order by a clear margin, as it must for pairs that stand upright, that one counts.

    Args:
        log_maps: (batch, num_keypoints, rows, columns), log-probabilities.
        visibility_logits: (batch, num_keypoints).
        labels: (batch, num_keypoints, 3), x, y in pixels and visibility.
        stride: pixels per place.
        image_size: height and width in pixels.
        pairs: landmarks whose order has no meaning.

    Returns:
        Three scalars, at least 0.
    """
    labels = labels.to(log_maps.device, torch.float32)
    unknown = labels.isnan().any(-1, keepdim=True) & (labels[..., 2:] != -1)
    labels = torch.where(unknown, 0.0, labels).nan_to_num()
    divergence, error = keypoint_costs(log_maps, labels, stride, image_size)
    if pairs:
        swapped_labels = _swap_pairs(labels, pairs)
        swapped = keypoint_costs(log_maps, swapped_labels, stride, image_size)
        given_cost, swapped_cost = (
            kl.detach() + COORDINATE_LOSS_WEIGHT * l1.detach() for kl, l1 in ((divergence, error), swapped)
        )
        margins = [
            torch.where(labels[:, pair[0], 0] > labels[:, pair[1], 0], -PAIR_ORDER_MARGIN, PAIR_ORDER_MARGIN)
            for pair in pairs
        ]
        better = _better_swapped(given_cost, swapped_cost, pairs, margins)
        divergence, error = torch.where(better, swapped[0], divergence), torch.where(better, swapped[1], error)
        labels = torch.where(better[..., None], swapped_labels, labels)
    located = (labels[..., 2] > 0).sum().clamp(min=1)
    known = (labels[..., 2] != 0).float()
    visible = F.binary_cross_entropy_with_logits(visibility_logits, (labels[..., 2] > 0).float(), reduction="none")
    return divergence.sum() / located, error.sum() / located, (visible * known).sum() / known.sum().clamp(min=1)


@auto_docstring(
    custom_intro="""
    EchoCare with a heat map for each of `config.num_keypoints` landmarks. The image processor's `post_process_keypoint_detection`
    brings them into pixels of the original image and millimetres.
    """
)
class EchoCareForKeypointDetection(EchoCarePreTrainedModel):
    # The losses are plain means: Trainer must divide by the accumulation steps itself.
    accepts_loss_kwargs = False
    _keys_to_ignore_on_load_unexpected = [*PRETRAINING_ONLY, r"embeddings\.mask_token$"]

    def __init__(self, config: EchoCareConfig):
        super().__init__(config)
        if config.num_keypoints < 1:
            raise ValueError("keypoint detection needs at least one landmark: set `num_keypoints`")
        self.echocare = EchoCareModel(config, add_pooling_layer=False, use_mask_token=False)
        self.keypoint_decoder = EchoCareDenseDecoder(config)
        self.keypoint_head = EchoCareKeypointHead(
            config, self.keypoint_decoder.channels, self.keypoint_decoder.strides
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.echocare.get_input_embeddings()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EchoCareKeypointDetectionOutput:
        r"""
        labels (`torch.FloatTensor` of shape `(batch_size, num_keypoints, 3)`, *optional*):
            x, y and visibility of each landmark. Positions are in pixels of `pixel_values`, 0 at the outer edge of the first pixel.
            Visibility is 2 or 1 for a landmark that is labelled, 0 for one that is not (nothing is learned from it), and -1 for one
            that is known not to be in the image. Apart from -1, a landmark with a NaN among the three counts as not labelled.
            The two landmarks of an entry of `config.keypoint_pairs` may come in either order.

        Examples:

        ```python
        >>> import torch
        >>> from echocare_hf import EchoCareConfig, EchoCareForKeypointDetection

        >>> config = EchoCareConfig.preset("tiny", num_keypoints=2, keypoint_pairs=[[0, 1]])
        >>> model = EchoCareForKeypointDetection(config)
        >>> labels = torch.tensor([[[20.0, 60.0, 2.0], [100.0, 64.0, 2.0]]])
        >>> outputs = model(torch.rand(1, 3, 128, 128), labels=labels)
        >>> outputs.keypoints.shape, outputs.heatmaps.shape
        (torch.Size([1, 2, 2]), torch.Size([1, 2, 64, 64]))
        ```"""
        outputs, encoder_maps = encode_with_maps(self.echocare, pixel_values, **kwargs)
        assert pixel_values is not None  # the encoder has checked
        height, width = pixel_values.shape[-2:]
        if labels is not None:
            check_keypoint_labels(labels, (len(pixel_values), self.config.num_keypoints), (height, width))
        feature_map = self.keypoint_decoder(pixel_values, encoder_maps)[0]
        log_maps, visibility_logits = self.keypoint_head(feature_map, outputs.last_hidden_state.mean(1))  # type: ignore[union-attr]

        stride, pairs = self.keypoint_head.stride, self.config.keypoint_pairs or []
        heatmap_loss = coordinate_loss = visibility_loss = loss = None
        if labels is not None:
            heatmap_loss, coordinate_loss, visibility_loss = keypoint_losses(
                log_maps, visibility_logits, labels, stride, (height, width), pairs
            )
            loss = heatmap_loss + COORDINATE_LOSS_WEIGHT * coordinate_loss + VISIBILITY_LOSS_WEIGHT * visibility_loss
        heatmaps = log_maps.exp()
        with torch.no_grad():
            radius = READING_RADIUS * target_spread((height, width), stride)
            keypoints, shares = read_heatmaps(heatmaps, stride, radius, pairs)
        return EchoCareKeypointDetectionOutput(
            loss=loss,
            keypoints=keypoints,
            scores=shares * visibility_logits.sigmoid(),
            heatmaps=heatmaps,
            visibility_logits=visibility_logits,
            input_sizes=torch.tensor([[height, width]], device=log_maps.device).expand(len(log_maps), 2),
            heatmap_loss=heatmap_loss,
            coordinate_loss=coordinate_loss,
            visibility_loss=visibility_loss,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
        )


__all__ = ["EchoCareForKeypointDetection", "EchoCareKeypointDetectionOutput", "match_keypoint_pairs"]
