"""EchoCare that writes reports: its encoder on the images of an examination, a causal language model, and a head for findings."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, VisionEncoderDecoderModel
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.generation import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.models.vision_encoder_decoder.modeling_vision_encoder_decoder import shift_tokens_right
from transformers.utils import ModelOutput, auto_docstring
from transformers.utils.generic import can_return_tuple

from .configuration_echocare_report import EchoCareReportConfig
from .cross_attention_echocare_report import EchoCareImageAttention
from .encoder_echocare_report import EchoCareReportEncoder, EchoCareReportEncoderOutput
from .findings_echocare_report import UNKNOWN_FINDING, EchoCareFindingTokens, known_findings
from .label_losses_echocare import at_least_float32, multi_label_loss
from .prompts_echocare_report import left_padded, position_ids
from .remote_code_echocare_report import REPORT_AUTO_MAP, SelfContainedReportMixin

# What torch's cross-entropy leaves out.
IGNORED_TOKEN = -100


@auto_docstring(custom_intro="Output of EchoCare's report generator.")
@dataclass
class EchoCareReportOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` or `findings` is given):
        Text loss + `config.findings_loss_weight` * findings loss, of those whose targets are given.
    logits (`torch.FloatTensor` of shape `(batch_size, tokens, vocab_size)`):
        Logits of the token that follows each token of the decoder's input.
    findings_logits (`torch.FloatTensor` of shape `(batch_size, findings)`, *optional*, returned where the model has findings):
        One logit for each of `config.findings`; its sigmoid is the probability that it is present.
    text_loss (`torch.FloatTensor` of shape `()`, *optional*):
        Mean cross-entropy of the tokens.
    findings_loss (`torch.FloatTensor` of shape `()`, *optional*):
        Mean binary cross-entropy of the findings that are known.
    past_key_values (`Cache`, *optional*):
        Keys and values of the tokens so far.
    decoder_hidden_states, decoder_attentions, cross_attentions, encoder_hidden_states, encoder_attentions (`tuple`, *optional*):
        As in transformers, where asked for.
    encoder_last_hidden_state (`torch.FloatTensor` of shape `(batch_size, images * tokens, width)`):
        What the decoder attends to.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    findings_logits: torch.Tensor | None = None
    text_loss: torch.Tensor | None = None
    findings_loss: torch.Tensor | None = None
    past_key_values: Cache | None = None
    decoder_hidden_states: tuple[torch.Tensor, ...] | None = None
    decoder_attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None
    encoder_last_hidden_state: torch.Tensor | None = None
    encoder_hidden_states: tuple[torch.Tensor, ...] | None = None
    encoder_attentions: tuple[torch.Tensor, ...] | None = None


class _DecoderIsFull(StoppingCriteria):
    """Ends a report where the decoder has no place for another token, whatever length was asked for."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs) -> Tensor:
        return input_ids.new_full((len(input_ids),), input_ids.shape[1] >= self.limit, dtype=torch.bool)


class EchoCareForReportGeneration(SelfContainedReportMixin, VisionEncoderDecoderModel):  # type: ignore[misc]
    """Writes the report of an examination from its images, and tells which findings they show.

    A `VisionEncoderDecoderModel` of EchoCare's encoder and any causal language model of transformers; one without cross-attention, such as
    Llama, gets it. A report has one image or several, each marked with its view or not; their order does not matter.
    `EchoCareReportProcessor` prepares the inputs.

    Example:

    ```python
    >>> from echocare_hf import EchoCareForReportGeneration

    >>> texts = ["Liver of normal size. No focal lesion.", "肝脏大小正常。"]
    >>> model, processor = EchoCareForReportGeneration.from_preset("tiny", texts=texts, findings=["focal lesion"])
    >>> inputs = processor(images=[[image_a, image_b], [image_c]], text=texts, organ="liver", return_tensors="pt")
    >>> model(**inputs).loss.backward()
    >>> inputs = processor(images=[[image_a, image_b]], organ="liver", return_tensors="pt")
    >>> processor.batch_decode(model.generate(**inputs, num_beams=3))
    ```"""

    config: EchoCareReportConfig  # type: ignore[assignment]
    config_class = EchoCareReportConfig
    # The losses are plain means: Trainer must divide by the accumulation steps itself.
    accepts_loss_kwargs = False
    _supports_flash_attn = False

    def __init__(self, config: EchoCareReportConfig) -> None:
        if not isinstance(config, EchoCareReportConfig):
            raise ValueError(f"`config` must be an EchoCareReportConfig, got {type(config).__name__}")
        config.tie_word_embeddings = (
            False  # of encoder and decoder; the decoder's own two are its configuration's matter
        )
        # Not the parent's own: it would project the encoder's tokens again for every token that is written.
        super(VisionEncoderDecoderModel, self).__init__(config)
        encoder_config: Any = config.encoder
        decoder_config: Any = config.decoder
        decoder = AutoModelForCausalLM.from_config(decoder_config)
        self.encoder = EchoCareReportEncoder(
            encoder_config, decoder_config.hidden_size, len(config.views), config.encoder_maps
        )
        self.decoder = decoder
        # Where the decoder has no cross-attention of its own.
        self.image_attention = None if _sees_images(decoder) else EchoCareImageAttention(decoder)
        self._can_compile_fullgraph = decoder._can_compile_fullgraph
        features = 2 * self.encoder.image_projection.in_features
        self.findings_head = nn.Linear(features, config.num_findings) if config.num_findings else None
        self.finding_tokens = (
            EchoCareFindingTokens(config.num_findings, decoder_config.hidden_size) if config.finding_tokens else None
        )
        # One configuration each, so that a change reaches the part.
        for part, part_config in ((self.encoder, encoder_config), (decoder, decoder_config)):
            part_config._attn_implementation = part.config._attn_implementation
            part.config = part_config
        self.post_init()

    @classmethod
    def from_preset(cls, name: str = "tiny", texts: Any = None, **kwargs: Any) -> tuple[Any, Any]:
        """A fresh model, in evaluation mode, and its processor with a tokenizer trained on the reports.

        Args:
            name (`str`): `"tiny"`, `"base"` or `"large"`, see `EchoCareReportConfig.preset`.
            texts (`list[str]`): the training reports, in any language; not needed with `tokenizer`.
            findings (`list[str]`, *optional*): names of the findings that the findings head shall tell.
            views (`list[str]`, *optional*): names of the views that images are marked with.
            encoder (`str`, *optional*): a checkpoint whose encoder to start from: a folder, a Hub id, or the bare name of one that comes
                with the package, such as `"echocare-tiny"`. Without it the encoder starts from random weights.
            decoder (`str`, `PreTrainedConfig` or `dict`, *optional*): a pretrained causal language model (folder or Hub id), or the
                configuration of a fresh one. Defaults to a GPT-2 of the preset's size.
            tokenizer (`PreTrainedTokenizerBase` or `str`, *optional*): an existing tokenizer, instead of training one. A pretrained
                decoder brings its own.
            vocab_size (`int`, *optional*, defaults to 8192): most tokens of the trained tokenizer.
            overrides: any value of the configuration, see `EchoCareReportConfig.preset`.

        Returns:
            The model and its `EchoCareReportProcessor`.

        Raises:
            ValueError: for an unknown preset or value, or without reports and tokenizer.
        """
        # Not above: the processor needs a part of transformers that may still be importing this file.
        from .building_echocare_report import build_report_generator

        return build_report_generator(cls, name, texts, **kwargs)

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: str | None = None,
        decoder_pretrained_model_name_or_path: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """The model alone, from a checkpoint of an encoder and one of a decoder with its tokenizer; see `from_preset`."""
        if decoder_pretrained_model_name_or_path is None:
            raise ValueError("`decoder_pretrained_model_name_or_path` is needed; `from_preset` makes a fresh decoder")
        return cls.from_preset(
            kwargs.pop("name", "tiny"),
            encoder=encoder_pretrained_model_name_or_path,
            decoder=decoder_pretrained_model_name_or_path,
            **kwargs,
        )[0]

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        views: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_position_ids: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        labels: torch.Tensor | None = None,
        findings: torch.Tensor | None = None,
        stated_findings: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        image_maps: list[torch.Tensor] | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> EchoCareReportOutput:
        r"""
        pixel_values (`torch.FloatTensor` of shape `(batch_size, images, num_channels, height, width)`):
            The images of each report; four dimensions are one image a report.
        image_mask (`torch.BoolTensor` of shape `(batch_size, images)`, *optional*):
            True for images, False for padding. Without it, all are images.
        views (`torch.LongTensor` of shape `(batch_size, images)`, *optional*):
            View of each image: 0 where not marked, else 1 + its index in `config.views`.
        decoder_input_ids (`torch.LongTensor` of shape `(batch_size, tokens)`, *optional*):
            Prompt and report. Made from `labels` when not given; the start token alone without these.
        decoder_attention_mask (`torch.Tensor` of shape `(batch_size, tokens)`, *optional*):
            0 for padding, at either side.
        decoder_position_ids (`torch.LongTensor` of shape `(batch_size, tokens)`, *optional*):
            Made from the mask when not given.
        decoder_inputs_embeds (`torch.FloatTensor` of shape `(batch_size, tokens, width)`, *optional*):
            Instead of `decoder_input_ids`.
        encoder_outputs (`EchoCareReportEncoderOutput`, *optional*):
            What `model.encoder` returned for the images, which are then not needed.
        labels (`torch.LongTensor` of shape `(batch_size, tokens)`, *optional*):
            The token that follows each token of `decoder_input_ids`; -100 where it does not count (prompt and padding).
        findings (`torch.Tensor` of shape `(batch_size, findings)`, *optional*):
            1 present, 0 absent, between for a soft label; -1, -100 or NaN where not known.
        stated_findings (`torch.Tensor` of shape `(batch_size, findings)`, *optional*):
            What the decoder is told of the findings instead of what the findings head tells, such as a clinician's corrections: as
            `findings`, and the head's own answer where not known. Needs `config.finding_tokens`.
        image_features (`torch.FloatTensor` of shape `(batch_size, images, features)`, *optional*):
            With `image_maps`, what `model.encoder.encode_images` made of the images, which are then not needed.
        image_maps (`list[torch.FloatTensor]` of shape `(batch_size, images, channels, height, width)`, *optional*):
            See `image_features`.
        """
        flags: dict[str, Any] = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        if encoder_outputs is None:
            if image_features is not None:
                flags |= {"image_features": image_features, "image_maps": image_maps}
            encoder_outputs = self.encoder(pixel_values, image_mask, views, **flags)
        elif isinstance(encoder_outputs, tuple):
            encoder_outputs = EchoCareReportEncoderOutput(*encoder_outputs)

        if decoder_input_ids is None and decoder_inputs_embeds is None:
            if labels is not None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            else:
                shape = (len(encoder_outputs.last_hidden_state), 1)
                decoder_input_ids = torch.full(shape, self.config.decoder_start_token_id, device=self.device)
        inputs: Any = decoder_input_ids if decoder_inputs_embeds is None else decoder_inputs_embeds
        of_decoder = {
            key.removeprefix("decoder_"): value for key, value in kwargs.items() if key.startswith("decoder_")
        }
        if decoder_position_ids is None and decoder_attention_mask is not None and decoder_attention_mask.ndim == 2:
            decoder_position_ids = position_ids(decoder_attention_mask)[:, -inputs.shape[1] :]
            if not _takes_position_ids(self.decoder):
                _check_right_padding(self.decoder, decoder_attention_mask)
        if decoder_position_ids is not None and _takes_position_ids(self.decoder):
            of_decoder["position_ids"] = decoder_position_ids

        findings_logits = None if self.findings_head is None else self.findings_head(encoder_outputs.pooler_output)
        memory, memory_mask = self._memory(encoder_outputs, findings_logits, stated_findings)
        of_decoder |= {
            "input_ids": decoder_input_ids,
            "inputs_embeds": decoder_inputs_embeds,
            "attention_mask": decoder_attention_mask,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "return_dict": True,
        }
        of_decoder |= {
            name: value for name, value in flags.items() if name.startswith("output_") and value is not None
        }
        outputs = self._decoded(memory, memory_mask, of_decoder)
        text_loss = None if labels is None else _text_loss(outputs.logits, labels)
        findings_loss = None if findings is None else self._findings_loss(findings_logits, findings)
        loss = text_loss
        if findings_loss is not None:
            weighted = self.config.findings_loss_weight * findings_loss
            loss = weighted if loss is None else loss + weighted
        return EchoCareReportOutput(
            loss=loss,
            logits=outputs.logits,
            findings_logits=findings_logits,
            text_loss=text_loss,
            findings_loss=findings_loss,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.hidden_states,
            decoder_attentions=outputs.attentions,
            cross_attentions=outputs.get("cross_attentions"),
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )

    def _decoded(self, memory: Tensor, mask: Tensor | None, inputs: dict[str, Any]) -> Any:
        """What the decoder returns for its inputs while it sees a memory (batch, tokens, width) and its mask (batch, tokens)."""
        if self.image_attention is None:
            return self.decoder(encoder_hidden_states=memory, encoder_attention_mask=mask, **inputs)
        cache = inputs["past_key_values"]
        if isinstance(cache, EncoderDecoderCache):  # the decoder knows of its own tokens alone
            inputs["past_key_values"] = cache.self_attention_cache
        outputs = self.image_attention.decode(self.decoder, memory, mask, **inputs)
        if isinstance(cache, EncoderDecoderCache):
            outputs.past_key_values = cache
        return outputs

    def _memory(
        self, encoded: EchoCareReportEncoderOutput, logits: Tensor | None, stated: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What the decoder attends to (batch, tokens, width), and its mask: tokens of the images, then of the findings."""
        memory: Any = encoded.last_hidden_state
        if self.finding_tokens is None:
            if stated is not None:
                raise ValueError("`stated_findings` need a model with `finding_tokens` in its configuration")
            return memory, encoded.attention_mask
        # Not to be moved by the text: a head that helps the decoder to learn its reports by heart no longer tells findings.
        told = at_least_float32(logits).sigmoid().detach()  # type: ignore[arg-type]
        if stated is not None:
            if stated.shape != told.shape:
                raise ValueError(f"`stated_findings` must be {tuple(told.shape)}, got {tuple(stated.shape)}")
            stated = stated.to(told.device, told.dtype)
            told = torch.where(known_findings(stated), stated, told)
        tokens = self.finding_tokens(told).to(memory.dtype)  # (batch, findings, width)
        mask = encoded.attention_mask
        if self.training and self.config.image_dropout > 0:
            kept = torch.rand(len(memory), 1, 1, device=memory.device) >= self.config.image_dropout
            memory = memory * kept  # as many tokens as ever: the findings get no larger share of the attention
        if mask is not None:
            mask = torch.cat((mask, mask.new_ones(tokens.shape[:2])), 1)
        return torch.cat((memory, tokens), 1), mask

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EchoCareFindingTokens):
            module.reset()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """The labels (batch, tokens) moved on by one, behind the start token."""
        return shift_tokens_right(labels, self.config.pad_token_id, self.config.decoder_start_token_id)

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self, inputs: Tensor | None = None, generation_config: GenerationConfig | None = None, **kwargs: Any
    ) -> Any:
        """As in transformers, continuing each report's prompt, `decoder_input_ids`; without it, from the start token.

        Prompts of different length may be padded at either side: the result is that of each report alone. A report ends, whatever
        length is asked for, where the decoder has no place for another token; without a length it may grow until there.

        Args:
            inputs: `pixel_values`, as `forward` takes them.
            generation_config: as in transformers.
            kwargs: what `forward` and transformers' `generate` take; `labels` and `findings` are ignored.

        Raises:
            ValueError: for a prompt that leaves the decoder no place.
        """
        for name in ("labels", "findings"):
            kwargs.pop(name, None)
        prompt, mask = kwargs.pop("decoder_input_ids", None), kwargs.pop("decoder_attention_mask", None)
        if prompt is not None:
            prompt, mask = left_padded(prompt, mask, self.config.pad_token_id, self.config.decoder_start_token_id)
            kwargs["decoder_input_ids"] = prompt
            if not bool(mask.all()):
                if not _takes_position_ids(self.decoder):
                    _check_right_padding(self.decoder, mask)
                kwargs["decoder_position_ids"] = position_ids(mask)
                kwargs["decoder_attention_mask"] = mask
        limit = self.config.max_report_length
        if limit is not None:
            length = 1 if prompt is None else prompt.shape[1]
            if length >= limit:
                raise ValueError(f"the prompt has {length} tokens, and the decoder has place for {limit}: shorten it")
            defaults = generation_config or self.generation_config
            lengths = ("max_length", "max_new_tokens", "max_time")
            if not any(kwargs.get(name) or getattr(defaults, name, None) for name in lengths):
                kwargs["max_length"] = limit
            criteria = [*(kwargs.get("stopping_criteria") or []), _DecoderIsFull(limit)]
            kwargs["stopping_criteria"] = StoppingCriteriaList(criteria)
        with _no_padding_warning(self.decoder):
            return super().generate(inputs, generation_config, **kwargs)  # type: ignore[misc]

    def _findings_loss(self, logits: Tensor | None, findings: Tensor) -> Tensor:
        if logits is None:
            raise ValueError("this model has no findings head: name its `findings` in the configuration")
        logits = at_least_float32(logits)
        findings = findings.to(logits.device, logits.dtype)
        findings = findings.masked_fill(~known_findings(findings), UNKNOWN_FINDING)
        positive = logits.new_tensor(self.config.findings_positive_weights or [1.0] * logits.shape[1])
        return multi_label_loss(logits, findings, torch.ones_like(positive), positive)

    def _auto_map_holder(self) -> EchoCareReportConfig:
        return self.config

    def _auto_map(self) -> dict[str, str]:
        return dict(REPORT_AUTO_MAP)


def _text_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens that count; 0, with gradients of 0, where none does."""
    if labels.shape != logits.shape[:2]:
        raise ValueError(
            f"`labels` must be {tuple(logits.shape[:2])} as the decoder's input, got {tuple(labels.shape)}"
        )
    labels = labels.to(logits.device)
    total = F.cross_entropy(
        at_least_float32(logits).flatten(0, 1), labels.flatten(), ignore_index=IGNORED_TOKEN, reduction="sum"
    )
    return total / (labels != IGNORED_TOKEN).sum().clamp(min=1)


@contextmanager
def _no_padding_warning(decoder: nn.Module) -> Iterator[None]:
    """The padding that `generate` puts behind reports that have ended needs no attention mask, and that of prompts has one: no decoder
    warns of either."""
    name = "warn_if_padding_and_no_attention_mask"
    warning = [module for module in decoder.modules() if hasattr(module, name)]
    for module in warning:
        setattr(module, name, _say_nothing)
    try:
        yield
    finally:
        for module in warning:
            module.__dict__.pop(name, None)


def _say_nothing(*inputs: Any, **options: Any) -> None:
    """In the place of a warning."""


def _takes_position_ids(decoder: nn.Module) -> bool:
    return "position_ids" in inspect.signature(decoder.forward).parameters


def _sees_images(decoder: nn.Module) -> bool:
    """Whether a language model has cross-attention."""
    return "encoder_hidden_states" in inspect.signature(decoder.forward).parameters


def _check_right_padding(decoder: nn.Module, mask: Tensor) -> None:
    """Raises a ValueError for padding at the left where the decoder counts it as text."""
    if not bool(mask[:, 0].all()):
        raise ValueError(
            f"{type(decoder).__name__} takes no position ids, so prompts of different length cannot share a batch: "
            "pass one report at a time, or for training set the processor's `padding_side` to 'right'"
        )


__all__ = ["EchoCareForReportGeneration", "EchoCareReportConfig", "EchoCareReportOutput"]
