"""Puts a report generator together: encoder, decoder and tokenizer, each fresh or from a checkpoint."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from .configuration_echocare import EchoCareConfig
from .configuration_echocare_report import EchoCareReportConfig
from .encoder_echocare_report import EchoCareReportEncoder
from .image_processing_pil_echocare import EchoCareImageProcessorPil
from .processing_echocare_report import EchoCareReportProcessor
from .tokenizer_echocare_report import INDICATION, ORGAN, REPORT, prepare_report_tokenizer, train_report_tokenizer

# The checkpoints that come with the package lie beside this folder, as in `echocare_hf.checkpoints`.
_SHIPPED = Path(__file__).resolve().parent.parent / "checkpoints"


def build_report_generator(
    model_class: type,
    name: str,
    texts: Any = None,
    *,
    encoder: str | Path | None = None,
    decoder: str | Path | PreTrainedConfig | dict | None = None,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    vocab_size: int = 8192,
    **overrides: Any,
) -> tuple[Any, EchoCareReportProcessor]:
    """The model and its processor; see `EchoCareForReportGeneration.from_preset`."""
    pretrained_decoder = str(decoder) if isinstance(decoder, (str, Path)) else None
    if tokenizer is None and pretrained_decoder is not None:
        tokenizer = pretrained_decoder
    if tokenizer is None and texts is None:
        raise ValueError("give `texts`, the reports to train a tokenizer on, or an existing `tokenizer`")
    if tokenizer is None:
        tokenizer = train_report_tokenizer(texts, vocab_size)
    else:
        if isinstance(tokenizer, (str, Path)):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        tokenizer = prepare_report_tokenizer(tokenizer)

    source = None if encoder is None else _checkpoint(str(encoder))
    if source is not None:
        overrides["encoder"] = _encoder_config(source, overrides)
    if pretrained_decoder is not None:
        overrides["decoder"] = AutoConfig.from_pretrained(pretrained_decoder)
    elif decoder is not None:
        overrides["decoder"] = decoder
    config = EchoCareReportConfig.preset(
        name,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **overrides,
    )
    encoder_config: Any = config.encoder
    model = model_class(config)
    if source is not None:
        model.encoder = EchoCareReportEncoder.from_pretrained(
            source,
            model.encoder.image_projection.out_features,
            len(config.views),
            config.encoder_maps,
            config=encoder_config,
            dtype=torch.float32,
        )
    if pretrained_decoder is not None:
        _load_decoder(model, pretrained_decoder, len(tokenizer))
    processor = EchoCareReportProcessor(
        _image_processor(source, encoder_config), tokenizer, views=config.views, max_length=config.max_report_length
    )
    _suppress_prompt_tokens(model, tokenizer)
    return model.eval(), processor


def _suppress_prompt_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """No report holds a token that only stands in prompts or padding."""
    names = (ORGAN, INDICATION, REPORT, tokenizer.pad_token, tokenizer.bos_token)
    ids = {tokenizer.convert_tokens_to_ids(name) for name in names}
    model.generation_config.suppress_tokens = sorted(ids - {tokenizer.eos_token_id})


def _checkpoint(encoder: str) -> str:
    """The folder of a checkpoint that comes with the package for its bare name, else `encoder` itself."""
    shipped = _SHIPPED / encoder / "config.json"
    return str(shipped.parent) if shipped.is_file() and not Path(encoder).is_dir() else encoder


def _encoder_config(source: str, overrides: dict[str, Any]) -> EchoCareConfig:
    """The checkpoint's configuration, with what of `overrides` is the encoder's, which leaves `overrides`."""
    others = EchoCareReportConfig.__dataclass_fields__
    own = {name for name in EchoCareConfig.__dataclass_fields__ if name not in others}
    changed = {name: overrides.pop(name) for name in list(overrides) if name in own}
    config = EchoCareConfig.from_pretrained(source, **changed)
    if config.model_type != EchoCareConfig.model_type:
        raise ValueError(f"{source} is no EchoCare checkpoint, but {config.model_type!r}")
    return config


def _load_decoder(model: Any, source: str, vocab_size: int) -> None:
    """Puts pretrained weights into the decoder, and room for the tokens that its tokenizer did not have."""
    decoder_config = model.config.decoder
    decoder_config.vocab_size = AutoConfig.from_pretrained(source).vocab_size
    model.decoder = AutoModelForCausalLM.from_pretrained(source, config=decoder_config, dtype=torch.float32)
    if vocab_size != decoder_config.vocab_size:
        model.decoder.resize_token_embeddings(vocab_size)
    decoder_config.vocab_size = vocab_size
    model.decoder.config = decoder_config
    if model.image_attention is not None:
        model.image_attention.attach(model.decoder)


def _image_processor(source: str | None, config: EchoCareConfig) -> Any:
    """The checkpoint's image processor, where it has one; else one for the size that the encoder expects.

    The one without torchvision: transformers asks a stranger's machine for whatever a file of the repository imports.
    """
    if source is not None and (Path(source) / "preprocessor_config.json").is_file():
        return EchoCareImageProcessorPil.from_pretrained(source)
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return EchoCareImageProcessorPil(size={"height": height, "width": width})


__all__ = ["build_report_generator"]
