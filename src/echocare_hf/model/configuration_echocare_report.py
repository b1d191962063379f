"""The configuration of EchoCare's report generator, and its presets tiny, base and large.

It has the fields of transformers' `VisionEncoderDecoderConfig` without deriving from it: importing that one imports the Auto models,
and this file is imported while the Auto classes are.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.utils import auto_docstring

from .configuration_echocare import EchoCareConfig

# The encoder of a preset is that of `EchoCareConfig.preset`; these are GPT-2 decoders to match. `base` has the width of GPT-2 small and
# half its depth (as DistilGPT2), `large` the width of GPT-2 medium and half its depth.
DECODER_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_positions": 512},
    "base": {"n_embd": 768, "n_layer": 6, "n_head": 12, "n_positions": 1024},
    "large": {"n_embd": 1024, "n_layer": 12, "n_head": 16, "n_positions": 1024},
}

# What the images of one report are commonly told apart by.
DEFAULT_VIEWS = ("longitudinal", "transverse", "oblique", "sagittal", "coronal", "left", "right")

# Tokens of the tokenizers that `train_report_tokenizer` makes; an existing tokenizer keeps its own ids.
PAD_TOKEN_ID, START_TOKEN_ID, END_TOKEN_ID = 0, 1, 2


@auto_docstring(checkpoint="echocare-tiny")
@strict
class EchoCareReportConfig(PreTrainedConfig):
    r"""
    encoder (`EchoCareConfig` or `dict`, *optional*):
        Configuration of the encoder; base when not given.
    decoder (`PreTrainedConfig` or `dict`, *optional*):
        Configuration of the decoder: any causal language model of transformers, with cross-attention, such as GPT-2, BERT or BART, or
        without, such as Llama, OPT or Qwen2, to which it is then added. Defaults to GPT-2.
    encoder_maps (`int`, *optional*, defaults to 2):
        How many of the encoder's feature maps, counted from the last, the decoder attends to.
    views (`list[str]`, *optional*):
        Names of the views that an image can be marked with.
    findings (`list[str]`, *optional*):
        Names of the findings that the findings head tells; without them the model has no such head.
    finding_tokens (`bool`, *optional*, defaults to `False`):
        Whether the decoder attends to what the findings head tells, one token a finding, beside the tokens of the images.
    image_dropout (`float`, *optional*, defaults to 0.0):
        With `finding_tokens`: share of the reports whose decoder sees no image in training, and has the findings alone to go by.
    draft_candidates (`int`, *optional*, defaults to 1):
        How many texts `write_drafts` draws of an examination, to keep the one that the others agree with. `generate` does not read it.
    findings_loss_weight (`float`, *optional*, defaults to 1.0):
        Weight of the findings loss beside the text loss.
    findings_positive_weights (`list[float]`, *optional*):
        For each finding how much more "present" counts than "absent" in the loss; for rare findings the number of reports without it by
        the number with it.

    Example:

    ```python
    >>> from echocare_hf import EchoCareForReportGeneration, EchoCareReportConfig

    >>> config = EchoCareReportConfig.preset("tiny", vocab_size=1000, findings=["cyst", "mass"])
    >>> model = EchoCareForReportGeneration(config)
    ```"""

    model_type = "echocare-report"

    sub_configs_defaults = {
        "decoder": SubConfigSpec(
            config_class=AutoConfig, model_type="gpt2", init_kwargs={"is_decoder": True, "add_cross_attention": True}
        ),
        "encoder": SubConfigSpec(config_class=EchoCareConfig),
    }

    # What Trainer shall not take for predictions.
    keys_to_ignore_at_inference = [
        "text_loss",
        "findings_loss",
        "past_key_values",
        "decoder_hidden_states",
        "decoder_attentions",
        "cross_attentions",
        "encoder_last_hidden_state",
        "encoder_hidden_states",
        "encoder_attentions",
    ]

    encoder: PreTrainedConfig | dict | None = None
    decoder: PreTrainedConfig | dict | None = None
    is_encoder_decoder: bool = True
    encoder_maps: int = 2
    views: list[str] | tuple[str, ...] = DEFAULT_VIEWS
    findings: list[str] | tuple[str, ...] | None = None
    finding_tokens: bool = False
    image_dropout: float | int = 0.0
    draft_candidates: int = 1
    findings_loss_weight: float | int = 1.0
    findings_positive_weights: list[float] | None = None

    def __post_init__(self, **kwargs):
        self.views = list(self.views)
        self.findings = list(self.findings) if self.findings else None
        super().__post_init__(**kwargs)
        self.validate_report()

    def validate_report(self):
        """One message for each way in which the values do not fit together (runs at construction and at save)."""
        if not isinstance(self.encoder, PreTrainedConfig):
            return
        num_maps = len(self.encoder.stage_names)
        if not 1 <= self.encoder_maps <= num_maps:
            raise ValueError(f"`encoder_maps` must lie between 1 and {num_maps}, got {self.encoder_maps}")
        for name in ("views", "findings"):
            values = getattr(self, name) or []
            if len(set(values)) != len(values):
                raise ValueError(f"the names in `{name}` must differ, got {values}")
        if self.finding_tokens and not self.findings:
            raise ValueError("`finding_tokens` needs `findings`, the names of what they stand for")
        if not 0 <= self.image_dropout <= 1:
            raise ValueError(f"`image_dropout` must lie between 0 and 1, got {self.image_dropout}")
        if self.draft_candidates < 1:
            raise ValueError(f"`draft_candidates` must be at least 1, got {self.draft_candidates}")
        if self.findings_loss_weight < 0:
            raise ValueError(f"`findings_loss_weight` must not be negative, got {self.findings_loss_weight}")
        weights = self.findings_positive_weights
        if weights is not None and (len(weights) != self.num_findings or min(weights) < 0):
            raise ValueError(
                f"`findings_positive_weights` must be {self.num_findings} numbers, none negative, got {weights}"
            )

    @property
    def num_findings(self) -> int:
        """Findings that the findings head tells; 0 without one."""
        return len(self.findings or [])

    @property
    def max_report_length(self) -> int | None:
        """The most tokens that the decoder takes, prompt and end token included; None where it knows no limit."""
        return getattr(self.decoder, "max_position_embeddings", None)

    @classmethod
    def from_encoder_decoder_configs(
        cls, encoder_config: PreTrainedConfig, decoder_config: PreTrainedConfig, **kwargs
    ) -> "EchoCareReportConfig":
        """The configuration of these two parts; `kwargs` are its other values. The decoder's gets cross-attention."""
        roles = {"is_decoder": True, "add_cross_attention": True}
        return cls(encoder=encoder_config.to_dict(), decoder={**decoder_config.to_dict(), **roles}, **kwargs)

    @classmethod
    def preset(cls, name: str, vocab_size: int | None = None, **overrides) -> "EchoCareReportConfig":
        """A named configuration.

        Args:
            name (`str`): `"tiny"`, `"base"` or `"large"`.
            vocab_size (`int`, *optional*): tokens of the tokenizer; the decoder's own default when not given.
            overrides: any value of this configuration (`encoder` and `decoder` as configurations or dicts), of the decoder with the
                prefix `decoder_`, or of the encoder, such as `image_size`.

        Raises:
            ValueError: for an unknown preset, or an override that is no field of these configurations.
        """
        if name not in DECODER_PRESETS:
            raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(DECODER_PRESETS)}")
        own_names = {
            *EchoCareReportConfig.__dataclass_fields__,
            "pad_token_id",
            "bos_token_id",
            "eos_token_id",
            "decoder_start_token_id",
        }
        settings = {key: overrides.pop(key) for key in list(overrides) if key in own_names}
        prefix = "decoder_"
        of_decoder = {
            key.removeprefix(prefix): overrides.pop(key) for key in list(overrides) if key.startswith(prefix)
        }
        tokens = {
            "pad_token_id": settings.setdefault("pad_token_id", PAD_TOKEN_ID),
            "bos_token_id": settings.setdefault("bos_token_id", START_TOKEN_ID),
            "eos_token_id": settings.setdefault("eos_token_id", END_TOKEN_ID),
        }
        settings.setdefault("decoder_start_token_id", settings["bos_token_id"])
        encoder = settings.pop("encoder", None)
        if encoder is None:
            encoder = EchoCareConfig.preset(name, **overrides)
        elif overrides:
            raise ValueError(
                f"unknown configuration value {', '.join(map(repr, sorted(overrides)))}: the encoder is given, so set it there"
            )
        decoder = settings.pop("decoder", None)
        if decoder is None:
            decoder = {"model_type": "gpt2", **DECODER_PRESETS[name]}
        decoder = decoder if isinstance(decoder, dict) else decoder.to_dict()
        if vocab_size is not None:
            of_decoder["vocab_size"] = vocab_size
        decoder_config = AutoConfig.for_model(**{**decoder, **tokens})
        if unknown := sorted(key for key in of_decoder if not hasattr(decoder_config, key)):
            raise ValueError(f"the decoder's configuration has no value {', '.join(map(repr, unknown))}")
        roles = {"is_decoder": True, "add_cross_attention": True}
        return cls(
            encoder=encoder, decoder=AutoConfig.for_model(**{**decoder, **tokens, **of_decoder, **roles}), **settings
        )


__all__ = ["DECODER_PRESETS", "DEFAULT_VIEWS", "EchoCareReportConfig"]
