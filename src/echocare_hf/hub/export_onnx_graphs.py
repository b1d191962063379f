"""EchoCare's models as they are exported: tensors in, a tuple of named tensors out, no branch on batch or size."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model import modeling_echocare as models
from ..model.detection_echocare import average_votes, place_centres
from ..model.ellipses_echocare import ellipse_covariance, log_to_ellipse
from ..model.encoder_echocare import EchoCareModel, EchoCarePreTrainedModel
from ..model.keypoints_echocare import READING_RADIUS, TARGET_SPREAD, read_heatmaps, target_spread
from ..model.label_losses_echocare import label_logits
from ..model.layers_echocare import EchoCarePatchEmbeddings, EchoCarePatchMerging, EchoCareWindowAttention
from ..model.losses_echocare import coherent_anatomy_scores
from .export_onnx_ops import SizeOperators

# Image side that the detection head runs with in the graph, see `DetectionGraph`.
REFERENCE_SIDE = 256
_OPERATORS = torch.ops.echocare_onnx


class _WindowAttention(nn.Module):
    def __init__(self, attention: EchoCareWindowAttention) -> None:
        super().__init__()
        weight = attention.qkv.weight.detach().clone()
        bias = torch.zeros(len(weight)) if attention.qkv.bias is None else attention.qkv.bias.detach().clone()
        channels = weight.shape[1]
        weight[:channels] *= attention.scaling
        bias[:channels] *= attention.scaling
        self.qkv_weight, self.qkv_bias = nn.Parameter(weight.t().contiguous()), nn.Parameter(bias)
        self.bias_table = attention.relative_position_bias_table
        self.projection = attention.projection
        self.sizes = (attention.num_heads, attention.window_size, attention.window_size // 2 * attention.shifted)

    def forward(self, hidden_states: Tensor, norm: nn.Module) -> tuple[Tensor, None]:
        weights = (self.qkv_weight, self.qkv_bias, self.bias_table)
        return self.projection(_OPERATORS.window_attention(norm(hidden_states), *weights, *self.sizes)), None


class _PatchMerging(nn.Module):
    def __init__(self, merging: EchoCarePatchMerging) -> None:
        super().__init__()
        self.norm, self.reduction = merging.norm, merging.reduction

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.reduction(self.norm(_OPERATORS.neighbours(hidden_states)))


class _PatchEmbeddings(nn.Module):
    def __init__(self, embeddings: EchoCarePatchEmbeddings) -> None:
        super().__init__()
        self.projection, self.patch_size = embeddings.projection, embeddings.patch_size

    def forward(self, pixel_values: Tensor) -> Tensor:
        # What hangs over the last whole patch is left out by the convolution, so the padding need not depend on the size.
        pixel_values = F.pad(pixel_values, (0, self.patch_size - 1, 0, self.patch_size - 1))
        return self.projection(pixel_values).permute(0, 2, 3, 1)


_REPLACEMENTS: dict[type, Any] = {
    EchoCareWindowAttention: _WindowAttention,
    EchoCarePatchMerging: _PatchMerging,
    EchoCarePatchEmbeddings: _PatchEmbeddings,
}


def exportable(model: EchoCarePreTrainedModel) -> EchoCarePreTrainedModel:
    """A copy of a model, in fp32 and evaluation mode, whose size-dependent layers are the operators of `export_onnx_ops`."""
    model = copy.deepcopy(model).float().eval().requires_grad_(False)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) in _REPLACEMENTS:
                setattr(module, name, _REPLACEMENTS[type(child)](child).requires_grad_(False))
    return model


class Graph(nn.Module):
    """What is exported of one kind of model.

    Attributes:
        input_names, output_names: of the ONNX graph. Output names are those of the model's own output class.
        dynamic: for each input the names of its dimensions that may have any size.
        symbolic: whether sizes stand in the computation outside the operators of `export_onnx_ops`, so that tracing must follow them
            symbolically, which takes ten times as long. Without, the first dimension of an output is the batch, those from the third on
            are sizes.
    """

    input_names: tuple[str, ...] = ("pixel_values",)
    output_names: tuple[str, ...]
    dynamic: tuple[dict[int, str], ...] = ({0: "batch", 2: "height", 3: "width"},)
    symbolic = True
    run: Callable[..., tuple[Tensor, ...]]
    """From the inputs to the outputs, in the order of `output_names`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = exportable(model)
        self.config = model.config

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        with SizeOperators():
            return self.run(*inputs)

    def encode(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """All maps, (batch, channels, height, width)."""
        encoder: Any = getattr(self.model, "echocare", self.model)
        _, maps = encoder.encoder(encoder.embeddings.patch_embeddings(pixel_values), True)
        return tuple(feature_map.permute(0, 3, 1, 2) for feature_map in maps)

    def pool(self, maps: tuple[Tensor, ...]) -> Tensor:
        """What `pooled_features` makes of the maps."""
        if self.config.classifier_pooling == "last":
            return maps[-1].mean((2, 3))
        return torch.cat([*(m.mean((2, 3)) for m in maps), *(m.amax((2, 3)) for m in maps)], -1)

    def example(self) -> tuple[Tensor, ...]:
        """Inputs to trace with: their sizes are in the graph nowhere."""
        return (torch.rand(2, self.config.num_channels, 132, 100),)

    def inputs_of(self, images: Tensor) -> tuple[Tensor, ...]:
        """The inputs of the graph for images (batch, channels, height, width)."""
        return (images,)

    def expected(self, model: Any, inputs: tuple[Tensor, ...], found: list[Tensor]) -> list[Tensor]:
        """What the model itself returns for the inputs, in the order of `output_names`; `found` is what the graph returned."""
        outputs = model(**dict(zip(self.input_names, inputs, strict=True)))
        return [outputs[name] for name in self.output_names]

    def comparable(self, outputs: list[Tensor]) -> list[Tensor]:
        """The outputs in a form in which close answers have close numbers."""
        return outputs


class EncoderGraph(Graph):
    """All feature maps and the pooled feature."""

    symbolic = False

    def __init__(self, model: EchoCareModel) -> None:
        super().__init__(model)
        self.output_names = (*model.config.stage_names, "pooler_output")

    def run(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        maps = self.encode(pixel_values)
        return *maps, maps[-1].mean((2, 3))

    def expected(self, model: Any, inputs: tuple[Tensor, ...], found: list[Tensor]) -> list[Tensor]:
        maps = model(*inputs, output_hidden_states=True).reshaped_hidden_states
        return [*maps, maps[-1].mean((2, 3))]  # many heads build their encoder without a pooling layer


class AnatomyGraph(Graph):
    output_names = ("anatomy_logits", "anatomy_scores")
    symbolic = False

    def run(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        logits = self.model.anatomy_classifier(self.encode(pixel_values)[-1].mean((2, 3)))
        return logits, coherent_anatomy_scores(logits, self.model.anatomy_ancestors)


class ClassificationGraph(Graph):
    output_names = ("logits",)
    symbolic = False

    def run(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        features = self.pool(self.encode(pixel_values))
        if self.model.classifier_norm is not None:
            features = self.model.classifier_norm(features)
        return (label_logits(self.model.classifier(features), self.config),)


class SegmentationGraph(Graph):
    output_names = ("logits",)

    def run(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.segmentation_decoder(pixel_values, self.encode(pixel_values))
        logits = self.model.segmentation_head(maps[0])
        stride = self.model.segmentation_decoder.strides[0]
        if stride > 1:
            logits = F.interpolate(logits, scale_factor=float(stride), mode="bilinear", align_corners=False)
            logits = logits[..., : pixel_values.shape[2], : pixel_values.shape[3]]
        return (logits,)


class DetectionGraph(Graph):
    """The head takes logarithms of the image's size as a number, which a graph for any size cannot: it runs as if for `REFERENCE_SIDE`,
    and what differs, the size of the prior, is put right here."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        masks = () if self.model.detection_head.masks is None else ("mask_logits",)
        self.output_names = ("logits", "pred_boxes", "input_sizes", *masks)

    def run(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        head = self.model.detection_head
        maps = self.model.detection_decoder(pixel_values, self.encode(pixel_values))
        logits, logs = head(maps, (REFERENCE_SIDE, REFERENCE_SIDE))
        sizes = image_size(pixel_values)
        growth = sizes.float().log().mean() - math.log(REFERENCE_SIDE)
        places = place_centres(logits.shape[2], logits.shape[3], head.stride, logits.device)
        centres = places + (logs[..., :2] - places) * growth.exp()
        logs = torch.cat((centres, logs[..., 2:3] + growth, logs[..., 3:]), -1)
        boxes = log_to_ellipse(average_votes(logits, logs))
        masks = () if head.masks is None else (head.masks(maps[0]),)
        return logits, boxes, sizes[None].expand(pixel_values.shape[0], 2), *masks

    def comparable(self, outputs: list[Tensor]) -> list[Tensor]:
        """Ellipses as centre and covariance over the long half axis, both in pixels: the angle of a near-circle means nothing."""
        logits, boxes, *others = outputs
        covariance = ellipse_covariance(boxes).flatten(-2) / (boxes[..., 2:3] / 2).clamp(min=1e-6)
        return [logits, torch.cat((boxes[..., :2], covariance), -1), *others]


class KeypointGraph(Graph):
    output_names = ("keypoints", "scores", "heatmaps", "visibility_logits", "input_sizes")

    def run(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        head, encoder_maps = self.model.keypoint_head, self.encode(pixel_values)
        feature_map = self.model.keypoint_decoder(pixel_values, encoder_maps)[0]
        log_maps, visibility_logits = head(feature_map, encoder_maps[-1].mean((2, 3)))
        heatmaps, sizes = log_maps.exp(), image_size(pixel_values)
        radius: Any = READING_RADIUS * (TARGET_SPREAD * sizes.amax(0).float()).clamp(min=head.stride)
        keypoints, shares = read_heatmaps(heatmaps, head.stride, radius, self.config.keypoint_pairs or [])
        scores = shares * visibility_logits.sigmoid()
        return keypoints, scores, heatmaps, visibility_logits, sizes[None].expand(pixel_values.shape[0], 2)

    def expected(self, model: Any, inputs: tuple[Tensor, ...], found: list[Tensor]) -> list[Tensor]:
        """Places and scores as PyTorch reads them off the graph's heat maps: of two equal peaks either may be the highest."""
        outputs = super().expected(model, inputs, found)
        stride = self.model.keypoint_head.stride
        radius = READING_RADIUS * target_spread((inputs[0].shape[2], inputs[0].shape[3]), stride)
        keypoints, shares = read_heatmaps(found[2], stride, radius, self.config.keypoint_pairs or [])
        return [keypoints, shares * found[3].sigmoid(), *outputs[2:]]

    def comparable(self, outputs: list[Tensor]) -> list[Tensor]:
        """Heat maps as shares of their highest place: the probabilities of a large map are all small."""
        keypoints, scores, heatmaps, *others = outputs
        return [keypoints, scores, heatmaps / heatmaps.amax((2, 3), keepdim=True), *others]


class EnhancementGraph(Graph):
    output_names = ("reconstruction",)

    def run(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.enhancement_decoder(pixel_values, self.encode(pixel_values))
        return (pixel_values + self.model.enhancement_head(pixel_values, maps[0]),)


class VideoGraph(Graph):
    """Clips with the time of each frame in milliseconds; `frame_mask` is False for padding."""

    input_names = ("pixel_values", "frame_times", "frame_mask")
    dynamic = (
        {0: "batch", 1: "frames", 3: "height", 4: "width"},
        {0: "batch", 1: "frames"},
        {0: "batch", 1: "frames"},
    )

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        spread = () if model.video_head.spread is None else ("spread",)
        self.output_names = ("logits", *spread, "frame_weights")

    def run(self, pixel_values: Tensor, frame_times: Tensor, frame_mask: Tensor) -> tuple[Tensor, ...]:
        images = pixel_values.flatten(0, 1)
        features = self.pool(self.encode(images)).view(*frame_mask.shape, -1)
        later = frame_times.masked_fill(~frame_mask, torch.finfo(frame_times.dtype).max)
        seconds = (frame_times - later.amin(1, keepdim=True)).masked_fill(~frame_mask, 0) / 1000
        logits, spread, weights = self.model.video_head(features, seconds, frame_mask)
        return (logits, weights) if spread is None else (logits, spread, weights)

    def example(self) -> tuple[Tensor, ...]:
        times = torch.arange(3.0).expand(2, 3) * 40
        return torch.rand(2, 3, self.config.num_channels, 132, 100), times, torch.ones(2, 3, dtype=torch.bool)

    def inputs_of(self, images: Tensor) -> tuple[Tensor, ...]:
        """Clips of four frames, each image fading, 50 frames a second; the last frame is padding."""
        clips = torch.stack([images * share for share in (1.0, 0.8, 0.6, 0.4)], 1)
        mask = torch.tensor([True, True, True, False]).expand(len(images), 4).contiguous()
        return clips, (torch.arange(4.0) * 20).expand(len(images), 4).contiguous(), mask


def image_size(pixel_values: Tensor) -> Tensor:
    """Height and width as a tensor (2,)."""
    return torch.stack([torch.full((), side, dtype=torch.long) for side in pixel_values.shape[-2:]])


GRAPHS: dict[type, type[Graph]] = {
    models.EchoCareForPreTraining: AnatomyGraph,
    models.EchoCareForImageClassification: ClassificationGraph,
    models.EchoCareForSemanticSegmentation: SegmentationGraph,
    models.EchoCareForObjectDetection: DetectionGraph,
    models.EchoCareForKeypointDetection: KeypointGraph,
    models.EchoCareForVideoClassification: VideoGraph,
    models.EchoCareForImageToImage: EnhancementGraph,
}
"""The graph of each head; `EncoderGraph` is that of the encoder."""
