"""EchoCare with a decoder that improves the image: denoising, deblurring, one scanner's look to another's."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple

from .configuration_echocare import EchoCareConfig
from .decoder_echocare import EchoCareDenseDecoder
from .dense_losses_echocare import structural_similarity
from .encoder_echocare import PRETRAINING_ONLY, EchoCareModel, EchoCarePreTrainedModel, encode_with_maps
from .kernels_echocare import LEAKY_SLOPE
from .label_losses_echocare import at_least_float32

# Channels and hidden layers of the convolutions at full resolution, which cost most of the head's time.
REFINEMENT_CHANNELS, REFINEMENT_LAYERS = 32, 3
# Standard deviation of the last layer's weights at the start: small, so that an untrained model returns nearly its input.
RESIDUAL_INITIALIZER_RANGE = 1e-3


@auto_docstring(custom_intro="Output of EchoCare's enhancement model: every loss by its name.")
@dataclass
class EchoCareImageToImageOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Mean absolute error plus `config.ssim_loss_weight` times the loss of structural similarity.
    reconstruction (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`):
        The enhanced image on the scale of `pixel_values`, not clamped to it.
    l1_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Mean absolute error over all pixels.
    ssim_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        1 - structural similarity (SSIM), the mean over all images and channels.
    reshaped_hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
        The encoder's feature maps as `(batch_size, channels, height, width)`.
    """

    loss: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    l1_loss: torch.Tensor | None = None
    ssim_loss: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


class EchoCareResidualHead(nn.Module):
    """What to add to each pixel: plain 3x3 convolutions over the image and the decoder's finest map, at full resolution.

    No norms here: how strong the noise is shows in the absolute values, which the decoder's instance norms remove.
    """

    def __init__(self, config: EchoCareConfig, in_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.reduction = nn.Conv2d(in_channels, REFINEMENT_CHANNELS, 1)
        widths = [REFINEMENT_CHANNELS + config.num_channels] + [REFINEMENT_CHANNELS] * REFINEMENT_LAYERS
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[layer], widths[layer + 1], 3, padding=1) for layer in range(REFINEMENT_LAYERS)
        )
        self.output = nn.Conv2d(REFINEMENT_CHANNELS, config.num_channels, 3, padding=1)

    def forward(self, pixel_values: Tensor, feature_map: Tensor) -> Tensor:
        """The residual, of the shape of `pixel_values`.

        Args:
            pixel_values: (batch, num_channels, height, width).
            feature_map: (batch, in_channels, ceil(height / stride), ceil(width / stride)).
        """
        height, width = pixel_values.shape[-2:]
        feature_map = self.reduction(feature_map)
        if self.stride > 1:
            feature_map = F.interpolate(
                feature_map, scale_factor=float(self.stride), mode="bilinear", align_corners=False
            )
        hidden = torch.cat((pixel_values.to(feature_map.dtype), feature_map[..., :height, :width]), 1)
        hidden = hidden.contiguous(memory_format=torch.channels_last)  # CPUs convolve it faster
        for conv in self.convs:
            hidden = F.leaky_relu(conv(hidden), LEAKY_SLOPE)  # (batch, REFINEMENT_CHANNELS, height, width)
        return self.output(hidden)


@auto_docstring(
    custom_intro="""
    EchoCare with a decoder that returns an improved image of the same size: the input plus a learned residual, trained with mean
    absolute error and structural similarity against the image as it should be.
    """
)
class EchoCareForImageToImage(EchoCarePreTrainedModel):
    # The losses are plain means: Trainer must divide by the accumulation steps itself.
    accepts_loss_kwargs = False
    _keys_to_ignore_on_load_unexpected = [*PRETRAINING_ONLY, r"embeddings\.mask_token$"]

    def __init__(self, config: EchoCareConfig):
        super().__init__(config)
        self.echocare = EchoCareModel(config, use_mask_token=False, add_pooling_layer=False)
        self.enhancement_decoder = EchoCareDenseDecoder(config)
        self.enhancement_head = EchoCareResidualHead(
            config, self.enhancement_decoder.channels[0], self.enhancement_decoder.strides[0]
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EchoCareResidualHead):
            for conv in (module.reduction, *module.convs):
                init.kaiming_normal_(conv.weight, a=LEAKY_SLOPE, nonlinearity="leaky_relu")
            init.normal_(module.output.weight, std=RESIDUAL_INITIALIZER_RANGE)

    def get_input_embeddings(self) -> nn.Module:
        return self.echocare.get_input_embeddings()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EchoCareImageToImageOutput:
        r"""
        labels (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`, *optional*):
            The image as it should be, on the scale of `pixel_values`. Structural similarity takes values from 0 to 1, which is what
            the image processor returns without normalisation.

        Examples:

        ```python
        >>> import torch
        >>> from echocare_hf import EchoCareConfig, EchoCareForImageToImage

        >>> model = EchoCareForImageToImage(EchoCareConfig.preset("tiny"))
        >>> clean = torch.rand(2, 3, 128, 128)
        >>> noisy = clean + 0.1 * torch.randn_like(clean)
        >>> outputs = model(noisy, labels=clean)
        >>> outputs.reconstruction.shape
        torch.Size([2, 3, 128, 128])
        ```"""
        outputs, encoder_maps = encode_with_maps(self.echocare, pixel_values, **kwargs)
        assert pixel_values is not None  # the encoder has checked
        maps = self.enhancement_decoder(pixel_values, encoder_maps)
        reconstruction = pixel_values + self.enhancement_head(pixel_values, maps[0])

        loss = l1_loss = ssim_loss = None
        if labels is not None:
            l1_loss, ssim_loss = enhancement_losses(reconstruction, labels)
            loss = l1_loss + self.config.ssim_loss_weight * ssim_loss
        return EchoCareImageToImageOutput(
            loss=loss,
            reconstruction=reconstruction,
            l1_loss=l1_loss,
            ssim_loss=ssim_loss,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
        )


def enhancement_losses(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute error, and 1 - structural similarity.

    Args:
        images, targets: (batch, channels, height, width), values from 0 to 1.

    Returns:
        Two scalars in fp32 at least.

    Raises:
        ValueError: for targets of another type or shape.
    """
    if not targets.is_floating_point():
        raise ValueError(
            f"`labels` are images on the scale of `pixel_values`, got {targets.dtype}: use the image processor's `pixel_values`"
        )
    if targets.shape != images.shape:
        raise ValueError(
            f"`labels` must have the shape of `pixel_values`, {tuple(images.shape)}, got {tuple(targets.shape)}"
        )
    images, targets = at_least_float32(images), at_least_float32(targets.to(images.device))
    return F.l1_loss(images, targets), (1 - structural_similarity(images, targets)).mean()


__all__ = ["EchoCareForImageToImage", "EchoCareImageToImageOutput", "EchoCareResidualHead", "enhancement_losses"]
