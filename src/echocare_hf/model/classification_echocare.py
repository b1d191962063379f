"""EchoCare with a classifier of whole images: one class, several findings, ordered classes, or measured values."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple

from .configuration_echocare import EchoCareConfig
from .encoder_echocare import PRETRAINING_ONLY, EchoCareModel, EchoCarePreTrainedModel
from .label_losses_echocare import label_logits, label_loss, last_layer_size, remember_problem_type
from .pooling_echocare import EchoCareFeatureNorm, pooled_channels, pooled_features


@auto_docstring(custom_intro="Output of EchoCare's image classifier.")
@dataclass
class EchoCareImageClassifierOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is given):
        Cross-entropy, binary cross-entropy or smooth L1, by `config.problem_type`.
    logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`):
        Logits; log-probabilities for ordered classes (their softmax is the probabilities); for a regression the values in the
        targets' unit.
    reshaped_hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
        The encoder's feature maps as `(batch_size, channels, height, width)`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


@auto_docstring(
    custom_intro="""
    EchoCare with a linear layer on the pooled feature: classification of whole images into one class, several findings or ordered
    classes (such as BI-RADS), or regression of measured values, by `config.problem_type`.
    """
)
class EchoCareForImageClassification(EchoCarePreTrainedModel):
    # The losses are plain means: Trainer must divide by the accumulation steps itself.
    accepts_loss_kwargs = False
    _keys_to_ignore_on_load_unexpected = [*PRETRAINING_ONLY, r"embeddings\.mask_token$"]

    def __init__(self, config: EchoCareConfig):
        super().__init__(config)
        self.echocare = EchoCareModel(config, use_mask_token=False)
        channels = pooled_channels(config)
        self.classifier_norm = EchoCareFeatureNorm(channels) if config.classifier_pooling == "all" else None
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(channels, last_layer_size(config))
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
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EchoCareImageClassifierOutput:
        r"""
        labels (`torch.Tensor`, *optional*):
            By `config.problem_type`; what is not known is left out of the loss.

            - `"single_label_classification"` and `"ordinal_classification"`: `(batch_size,)`, the class as a whole number from 0;
              -1 or -100 where not known.
            - `"multi_label_classification"`: `(batch_size, num_labels)`, 1 present, 0 absent, -1 not known.
            - `"regression"`: `(batch_size, num_labels)`, or `(batch_size,)` for one target, in the target's unit; NaN where not known.

            Without a problem type, one label is a regression, whole numbers are classes, floating point is multi-label, and a
            training step notes in the configuration which it was.

        Examples:

        ```python
        >>> import torch
        >>> from echocare_hf import EchoCareConfig, EchoCareForImageClassification

        >>> config = EchoCareConfig.preset("tiny", num_labels=4, problem_type="ordinal_classification")
        >>> model = EchoCareForImageClassification(config).eval()
        >>> outputs = model(torch.rand(2, 3, 128, 128), labels=torch.tensor([0, 3]))
        >>> outputs.logits.exp().sum(-1)  # class probabilities
        tensor([1.0000, 1.0000], grad_fn=<SumBackward1>)
        ```"""
        features, outputs = pooled_features(self.echocare, pixel_values, **kwargs)  # (batch, channels)
        if self.classifier_norm is not None:
            features = self.classifier_norm(features)
        raw = self.classifier(self.dropout(features))  # (batch, outputs of the last layer)
        logits = label_logits(raw, self.config)
        loss = None
        if labels is not None:
            loss = label_loss(logits, labels, self.config)
            remember_problem_type(self, labels)
        return EchoCareImageClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
        )


__all__ = ["EchoCareForImageClassification", "EchoCareImageClassifierOutput"]
