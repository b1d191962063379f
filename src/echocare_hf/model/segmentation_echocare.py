"""EchoCare with a decoder that gives every pixel a class."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple

from .configuration_echocare import EchoCareConfig
from .decoder_echocare import EchoCareDenseDecoder
from .dense_losses_echocare import coarser_labels, segmentation_losses
from .encoder_echocare import PRETRAINING_ONLY, EchoCareModel, EchoCarePreTrainedModel, encode_with_maps
from .label_losses_echocare import at_least_float32, class_weight_tensor


@auto_docstring(custom_intro="Output of EchoCare's segmentation model: every loss by its name.")
@dataclass
class EchoCareSemanticSegmenterOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Weighted sum of the losses below.
    logits (`torch.FloatTensor` of shape `(batch_size, num_labels, height, width)`):
        One logit a class and pixel of the input.
    cross_entropy_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Cross-entropy, the mean over all known pixels.
    dice_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        1 - soft Dice, the mean over all images and the foreground classes in each.
    deep_supervision_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        The same weighted sum of the two losses, of the decoder's coarser maps; with `config.deep_supervision_weight` only.
    reshaped_hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
        The encoder's feature maps as `(batch_size, channels, height, width)`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    cross_entropy_loss: torch.Tensor | None = None
    dice_loss: torch.Tensor | None = None
    deep_supervision_loss: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


@auto_docstring(
    custom_intro="""
    EchoCare with a decoder and a linear layer a pixel: semantic segmentation, trained with cross-entropy and Dice. Images may be
    annotated in part: pixels that nobody judged are left out, and so are classes that nobody drew.
    """
)
class EchoCareForSemanticSegmentation(EchoCarePreTrainedModel):
    # The losses are plain means: Trainer must divide by the accumulation steps itself.
    accepts_loss_kwargs = False
    _keys_to_ignore_on_load_unexpected = [*PRETRAINING_ONLY, r"embeddings\.mask_token$", r"^segmentation_deep_heads\."]

    def __init__(self, config: EchoCareConfig):
        super().__init__(config)
        num_labels = config.num_labels or 0
        if num_labels < 2:
            raise ValueError(
                f"segmentation needs the background and at least one structure, got `num_labels` {num_labels}: for one "
                "structure set num_labels=2, class 0 is the background"
            )
        self.echocare = EchoCareModel(config, use_mask_token=False, add_pooling_layer=False)
        self.segmentation_decoder = EchoCareDenseDecoder(config)
        self.segmentation_head = nn.Conv2d(self.segmentation_decoder.channels[0], num_labels, 1)
        if config.deep_supervision_weight > 0:
            # All maps between the finest and the last, which is too coarse for outlines.
            self.segmentation_deep_heads = nn.ModuleList(
                nn.Conv2d(channels, num_labels, 1) for channels in self.segmentation_decoder.channels[1:-1]
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
        annotated_classes: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EchoCareSemanticSegmenterOutput:
        r"""
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*):
            The class of each pixel, 0 (background) to `num_labels - 1`, or `config.semantic_loss_ignore_index` where not known.
        annotated_classes (`torch.BoolTensor` of shape `(batch_size, num_labels)`, *optional*):
            True for the classes that are annotated in an image, for data sets that label only some organs of each image: a class that
            is not annotated may be anywhere in the image's background. All classes when not given.

        Examples:

        ```python
        >>> import torch
        >>> from echocare_hf import EchoCareConfig, EchoCareForSemanticSegmentation

        >>> model = EchoCareForSemanticSegmentation(EchoCareConfig.preset("tiny", num_labels=3))
        >>> labels = torch.randint(0, 3, (2, 128, 128))
        >>> liver_only = torch.tensor([[True, True, True], [True, True, False]])  # the second image has no class 2 drawn
        >>> outputs = model(torch.rand(2, 3, 128, 128), labels=labels, annotated_classes=liver_only)
        >>> outputs.logits.shape
        torch.Size([2, 3, 128, 128])
        ```"""
        outputs, encoder_maps = encode_with_maps(self.echocare, pixel_values, **kwargs)
        assert pixel_values is not None  # the encoder has checked
        maps = self.segmentation_decoder(pixel_values, encoder_maps)
        height, width = pixel_values.shape[-2:]
        logits = self.segmentation_head(maps[0])  # (batch, num_labels, height / stride, width / stride)
        stride = self.segmentation_decoder.strides[0]
        if stride > 1:
            logits = F.interpolate(logits, scale_factor=float(stride), mode="bilinear", align_corners=False)
            logits = logits[..., :height, :width]

        loss = cross_entropy_loss = dice_loss = deep_supervision_loss = None
        if labels is not None:
            loss, cross_entropy_loss, dice_loss = self._losses(logits, labels, annotated_classes)
            if self.config.deep_supervision_weight > 0:
                deep_supervision_loss = self._deep_supervision_loss(maps, labels, annotated_classes)
                loss = loss + self.config.deep_supervision_weight * deep_supervision_loss
        return EchoCareSemanticSegmenterOutput(
            loss=loss,
            logits=logits,
            cross_entropy_loss=cross_entropy_loss,
            dice_loss=dice_loss,
            deep_supervision_loss=deep_supervision_loss,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
        )

    def _losses(
        self, logits: Tensor, labels: Tensor, annotated_classes: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted sum of cross-entropy and Dice loss, and the two."""
        config = self.config
        logits = at_least_float32(logits)
        weights = class_weight_tensor(config, logits)
        ignore_index = config.semantic_loss_ignore_index
        cross_entropy, dice = segmentation_losses(logits, labels, weights, ignore_index, annotated_classes)
        loss = config.cross_entropy_loss_weight * cross_entropy + config.dice_loss_weight * dice
        return loss, cross_entropy, dice

    def _deep_supervision_loss(self, maps: list[Tensor], labels: Tensor, annotated_classes: Tensor | None) -> Tensor:
        """The mean loss of the coarser maps, each counting half of the next finer.

        Source: Isensee et al. 2021, nnU-Net.
        """
        total, share, shares = labels.new_zeros((), dtype=torch.float32), 1.0, 0.0
        levels = zip(self.segmentation_deep_heads, maps[1:-1], self.segmentation_decoder.strides[1:-1], strict=True)
        for head, feature_map, stride in levels:
            loss, _, _ = self._losses(head(feature_map), coarser_labels(labels, stride), annotated_classes)
            total, shares, share = total + share * loss, shares + share, share / 2
        return total / max(shares, 1.0)


__all__ = ["EchoCareForSemanticSegmentation", "EchoCareSemanticSegmenterOutput"]
