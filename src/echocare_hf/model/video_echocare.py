"""EchoCare for clips: a transformer over the frames that knows when each was taken, for classification and regression."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple

from .configuration_echocare import EchoCareConfig
from .encoder_echocare import PRETRAINING_ONLY, EchoCareModel, EchoCareModelOutput, EchoCarePreTrainedModel
from .label_losses_echocare import (
    at_least_float32,
    gaussian_regression_loss,
    label_logits,
    label_loss,
    last_layer_size,
    problem_type_of,
    regression_scale,
    remember_problem_type,
)
from .layers_echocare import EchoCareMlp, eager_attention_forward
from .pooling_echocare import EchoCareFeatureNorm, pooled_channels, pooled_features

# What a clip without frame times is taken for, in frames a second.
NOMINAL_FRAME_RATE = 30.0
# Periods of the time encoding in seconds: from two frames of a fast clip to the longest sweeps, evenly spaced on a log scale.
SHORTEST_PERIOD, LONGEST_PERIOD, NUM_PERIODS = 0.04, 60.0, 32
# Where no gradient flows into the encoder, it sees this many frames at a time.
FRAMES_AT_A_TIME = 32
# Smallest spread that a regression may claim, in standard deviations of the target.
MINIMUM_SPREAD = 1e-3


@auto_docstring(custom_intro="Output of EchoCare's clip classifier.")
@dataclass
class EchoCareVideoClassifierOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Cross-entropy, binary cross-entropy, or for a regression the beta-weighted Gaussian negative log likelihood.
    logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`):
        Logits; log-probabilities for ordered classes (their softmax is the probabilities); for a regression the values in the
        targets' unit.
    spread (`torch.FloatTensor` of shape `(batch_size, num_labels)`, *optional*, returned for a regression):
        The standard deviation that the model expects of its error, in the targets' unit.
    frame_weights (`torch.FloatTensor` of shape `(batch_size, frames)`):
        Share of each frame in the pooled feature; they add up to 1, padding has 0.
    hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
        The encoder's feature maps `(frames of all clips, height * width, channels)`; padding frames are not encoded.
    reshaped_hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
        The same maps as `(frames of all clips, channels, height, width)`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    spread: torch.Tensor | None = None
    frame_weights: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


def time_features(seconds: Tensor) -> Tensor:
    """Sines and cosines of a time, with periods from 0.04 to 60 seconds.

    Args:
        seconds: (batch, frames).

    Returns:
        (batch, frames, 2 * NUM_PERIODS), -1 to 1.
    """
    octaves = torch.linspace(math.log(SHORTEST_PERIOD), math.log(LONGEST_PERIOD), NUM_PERIODS, device=seconds.device)
    angles = 2 * math.pi * seconds[..., None] / octaves.exp()  # (batch, frames, periods)
    return torch.cat((angles.sin(), angles.cos()), -1)


class EchoCareTemporalAttention(nn.Module):
    """Self-attention between the frames of a clip."""

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.temporal_num_heads
        self.scaling = (config.temporal_hidden_size // config.temporal_num_heads) ** -0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.qkv = nn.Linear(config.temporal_hidden_size, 3 * config.temporal_hidden_size, bias=config.qkv_bias)
        self.projection = nn.Linear(config.temporal_hidden_size, config.temporal_hidden_size)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, frames, channels) to the same shape; the mask is additive, (batch, 1, frames, frames)."""
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (batch, heads, frames, head channels)
        interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.attention_dropout if self.training else 0.0
        mask = attention_mask.to(query.dtype)
        output, _ = interface(self, query, key, value, mask, dropout=dropout, scaling=self.scaling)
        return self.projection(output.flatten(2))


class EchoCareTemporalLayer(GradientCheckpointingLayer):
    """A pre-norm transformer layer over the frames of a clip."""

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(config.temporal_hidden_size, eps=config.layer_norm_eps)
        self.attention = EchoCareTemporalAttention(config)
        self.layernorm_after = nn.LayerNorm(config.temporal_hidden_size, eps=config.layer_norm_eps)
        self.mlp = EchoCareMlp(config, config.temporal_hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, frames, channels) to the same shape."""
        attended = self.attention(self.layernorm_before(hidden_states), attention_mask)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(hidden_states, self.layernorm_after))


class EchoCareVideoHead(nn.Module):
    """From the pooled features of a clip's frames to one answer: time encoding, transformer, attention pooling, linear layers.

    A linear layer on the frames' features themselves is added to what the transformer says. Without training it adds nothing and all
    frames weigh the same; fine-tuning from a trained encoder starts it as a linear model of the features.

    A clip is a set of frames with their times: the order in which the frames are handed over does not matter.
    """

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        channels = config.temporal_hidden_size
        self.config = config
        features = pooled_channels(config)
        self.feature_norm = EchoCareFeatureNorm(features) if config.classifier_pooling == "all" else None
        self.projection = nn.Linear(features, channels)
        self.time_projection = nn.Linear(2 * NUM_PERIODS, channels, bias=False)
        self.layers = nn.ModuleList(EchoCareTemporalLayer(config) for _ in range(config.temporal_num_layers))
        self.layernorm = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.relevance = nn.Linear(channels, 1, bias=False)
        self.relevance.initializer_std = 0.0  # type: ignore[assignment]
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(channels, last_layer_size(config))
        self.frame_classifier = nn.Linear(features, last_layer_size(config), bias=False)
        self.frame_classifier.initializer_std = 0.0  # type: ignore[assignment]
        is_regression = problem_type_of(config) == "regression"
        self.spread = nn.Linear(channels, last_layer_size(config)) if is_regression else None

    def forward(self, features: Tensor, seconds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """The answer for each clip.

        Args:
            features: (batch, frames, features), as `pooled_features` returns.
            seconds: (batch, frames), time since the clip's first frame.
            mask: (batch, frames), True for frames, False for padding.

        Returns:
            Logits and, for a regression, spread, both (batch, num_labels); frame weights (batch, frames).
        """
        if self.feature_norm is not None:
            features = self.feature_norm(features, mask)
        time = time_features(seconds).to(features.dtype)
        hidden = self.projection(features) + self.time_projection(time)  # (batch, frames, channels)
        frames = features.shape[1]
        attention_mask = torch.zeros(mask.shape, dtype=hidden.dtype, device=hidden.device)
        attention_mask = attention_mask.masked_fill(~mask, torch.finfo(hidden.dtype).min)
        attention_mask = attention_mask[:, None, None, :].expand(-1, 1, frames, -1)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        hidden = self.layernorm(hidden)

        scores = at_least_float32(self.relevance(hidden).squeeze(-1))
        frame_weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)  # (batch, frames)
        shares = frame_weights[..., None].to(hidden.dtype)
        pooled = self.dropout((shares * hidden).sum(1))  # (batch, channels)
        # Scaled, since Adam moves every weight by the same: the sum of a thousand of them would leap.
        linear = self.frame_classifier((shares * features).sum(1)) * features.shape[-1] ** -0.5
        logits = label_logits(self.classifier(pooled) + linear, self.config)
        if self.spread is None:
            return logits, None, frame_weights
        spread = F.softplus(at_least_float32(self.spread(pooled))) + MINIMUM_SPREAD
        return logits, spread * regression_scale(self.config, spread)[1], frame_weights


@auto_docstring(
    custom_intro="""
    EchoCare for clips: the encoder on each frame, a transformer over the frames that knows the time of each, and a classification
    of the whole clip, or a regression that also predicts how far off it may be (`spread`). Any number of frames.
    """
)
class EchoCareForVideoClassification(EchoCarePreTrainedModel):
    # The losses are plain means: Trainer must divide by the accumulation steps itself.
    accepts_loss_kwargs = False
    input_modalities = ("video",)
    _keys_to_ignore_on_load_unexpected = [*PRETRAINING_ONLY, r"embeddings\.mask_token$"]

    def __init__(self, config: EchoCareConfig):
        super().__init__(config)
        self.echocare = EchoCareModel(config, use_mask_token=False)
        self.video_head = EchoCareVideoHead(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EchoCareFeatureNorm):
            module.reset()

    def get_input_embeddings(self) -> nn.Module:
        return self.echocare.get_input_embeddings()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        frame_times: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EchoCareVideoClassifierOutput:
        r"""
        pixel_values (`torch.FloatTensor` of shape `(batch_size, frames, num_channels, height, width)`):
            Clips. Four dimensions, `(frames, num_channels, height, width)`, are one clip: so the video-classification pipeline
            hands over what an image processor made (one clip at a time: leave its `batch_size` at 1).
        frame_times (`torch.Tensor` of shape `(batch_size, frames)`, *optional*):
            When each frame was taken, in milliseconds from any origin; only differences to the clip's earliest frame matter.
            Without it, frames are taken to be 1/30 second apart.
        frame_mask (`torch.BoolTensor` of shape `(batch_size, frames)`, *optional*):
            True for frames, False for padding, whose content and time do not matter. Without it, all are frames.
        labels (`torch.Tensor`, *optional*):
            One class `(batch_size,)`, findings or measured values `(batch_size, num_labels)`, as for
            [`EchoCareForImageClassification`].

        Examples:

        ```python
        >>> import torch
        >>> from echocare_hf import EchoCareConfig, EchoCareForVideoClassification

        >>> config = EchoCareConfig.preset(
        ...     "tiny", num_labels=1, problem_type="regression", regression_mean=[55.0], regression_deviation=[12.0], regression_unit=["%"]
        ... )
        >>> model = EchoCareForVideoClassification(config).eval()
        >>> times = torch.arange(10)[None] * 20.0  # 50 frames a second
        >>> outputs = model(torch.rand(1, 10, 3, 128, 128), frame_times=times)
        >>> outputs.logits.shape, outputs.spread.shape, outputs.frame_weights.shape
        (torch.Size([1, 1]), torch.Size([1, 1]), torch.Size([1, 10]))
        ```"""
        pixel_values, mask = check_clips(pixel_values, frame_mask)
        seconds = clip_seconds(frame_times, mask)
        images = pixel_values.flatten(0, 1)  # (batch * frames, num_channels, height, width)
        real = mask.flatten()
        if frame_mask is None:
            features, outputs = self._encode(images, **kwargs)
        elif torch.compiler.is_compiling():  # a graph of fixed shapes encodes the padding too
            features, outputs = self._encode(images.masked_fill(~real[:, None, None, None], 0), **kwargs)
        else:
            encoded, outputs = self._encode(images[real], **kwargs)
            features = encoded.new_zeros(len(images), encoded.shape[1]).masked_scatter(real[:, None], encoded)
        features = features.unflatten(0, mask.shape)  # (batch, frames, features)
        logits, spread, frame_weights = self.video_head(features, seconds, mask)

        loss = None
        if labels is not None:
            if spread is None:
                loss = label_loss(logits, labels, self.config)
            else:
                deviation = regression_scale(self.config, logits)[1]
                loss = gaussian_regression_loss(logits, spread, labels.to(logits.device), deviation)
            remember_problem_type(self, labels)
        return EchoCareVideoClassifierOutput(
            loss=loss,
            logits=logits,
            spread=spread,
            frame_weights=frame_weights,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
        )

    def _encode(self, images: Tensor, **kwargs) -> tuple[Tensor, EchoCareModelOutput]:
        """The pooled features of (frames, num_channels, height, width), and what else the encoder returns.

        Where nothing has to be kept for a gradient, the frames go through in chunks, which needs the same memory for any number.
        """
        wants_all = any(
            kwargs.get(name) or getattr(self.config, name) for name in ("output_hidden_states", "output_attentions")
        )
        learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.echocare.parameters())
        if wants_all or learns or images.requires_grad or len(images) <= FRAMES_AT_A_TIME:
            return pooled_features(self.echocare, images, **kwargs)
        chunks = [pooled_features(self.echocare, chunk, **kwargs)[0] for chunk in images.split(FRAMES_AT_A_TIME)]
        return torch.cat(chunks), EchoCareModelOutput()


def check_clips(pixel_values: Tensor | None, frame_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The clips with their five dimensions, and the mask of their frames (batch, frames), all True without `frame_mask`.

    Raises:
        ValueError: for missing clips, another number of dimensions, clips without a frame, or a mask of another shape.
    """
    if pixel_values is None:
        raise ValueError("you have to specify `pixel_values`")
    if pixel_values.ndim == 4:
        pixel_values = pixel_values[None]
    if pixel_values.ndim != 5 or not pixel_values.shape[0] or not pixel_values.shape[1]:
        raise ValueError(
            "`pixel_values` must be clips (batch, frames, channels, height, width) or one clip (frames, channels, height, width) of at "
            f"least one frame, got {tuple(pixel_values.shape)}"
        )
    shape = pixel_values.shape[:2]
    if frame_mask is None:
        return pixel_values, torch.ones(shape, dtype=torch.bool, device=pixel_values.device)
    mask = _match_frames(frame_mask, shape, "frame_mask").to(pixel_values.device).bool()
    if not torch.compiler.is_compiling() and not bool(mask.any(1).all()):
        empty = int((~mask.any(1)).nonzero()[0])
        raise ValueError(f"`frame_mask` leaves clip {empty} without a frame: drop the clip or mark its frames True")
    return pixel_values, mask


def clip_seconds(frame_times: Tensor | None, mask: Tensor) -> Tensor:
    """Seconds since the earliest frame of each clip, (batch, frames), fp32, 0 for padding.

    Args:
        frame_times: (batch, frames) in milliseconds; None for frames 1/30 second apart.
        mask: (batch, frames), True for frames.

    Raises:
        ValueError: for times of another shape, or times of frames that are not finite.
    """
    if frame_times is None:
        frame_times = (mask.cumsum(1) - 1) * (1000 / NOMINAL_FRAME_RATE)
    frame_times = _match_frames(frame_times, mask.shape, "frame_times").to(mask.device)
    if not torch.compiler.is_compiling() and not bool(frame_times[mask].isfinite().all()):
        raise ValueError("`frame_times` holds times that are NaN or infinite: give milliseconds, or leave it out")
    # The difference first, in the type the times come in: milliseconds since 1970 do not fit into fp32.
    limits = torch.finfo if frame_times.is_floating_point() else torch.iinfo
    earliest = frame_times.masked_fill(~mask, limits(frame_times.dtype).max).amin(1, keepdim=True)
    return (frame_times - earliest).masked_fill(~mask, 0).float() / 1000


def _match_frames(values: Tensor, shape: torch.Size, name: str) -> Tensor:
    """One value a frame as (batch, frames); those of a single clip may come without the first dimension."""
    if values.ndim == 1 and shape[0] == 1:
        values = values[None]
    if values.shape != shape:
        raise ValueError(f"`{name}` must be (batch, frames), here {tuple(shape)}, got {tuple(values.shape)}")
    return values


__all__ = ["NOMINAL_FRAME_RATE", "EchoCareForVideoClassification", "EchoCareVideoClassifierOutput"]
