"""The card (README.md) of a folder that `echocare convert` made: says what was checked, and what nobody told us."""

from typing import TYPE_CHECKING

from huggingface_hub import ModelCardData

from ..model.configuration_echocare import EchoCareConfig
from .card_parts import CITATION, fill

if TYPE_CHECKING:
    from .convert import ConversionReport

_DECODER = """
The folder also holds the image decoder of the pretraining. It was known by the shapes of its convolutions; what
stands between them in the authors' code could not be checked. The anatomy classifier is not part of
it and starts untrained:

```python
from transformers import AutoModelForPreTraining

model = AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=True)
```
"""


def conversion_card(result: "ConversionReport", config: EchoCareConfig) -> str:
    """The text of README.md, with YAML front matter.

    Args:
        result: what the conversion found and measured.
        config: of the converted encoder.

    Returns:
        Markdown.
    """
    with_decoder = result.model_class == "EchoCareForPreTraining"
    side = result.monai_image_size
    monai = "not run: MONAI was not installed, or cannot run this model"
    if result.monai_version:
        listed = ", ".join(f"{value:.1e}" for value in result.monai_differences)
        monai = (
            f"MONAI {result.monai_version}, one random {side}x{side} image, float32, CPU: largest absolute "
            f"difference of the five maps {listed}"
        )
    reasons = sorted({entry.note for entry in result.left_out})
    made = [f"`{entry.name}` ({entry.note})" for entry in result.missing]
    header = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-feature-extraction",
        license="unknown",
        tags=["ultrasound", "medical-imaging", "foundation-model", "swin", "echocare", "custom_code"],
    )
    text = fill(
        "converted_card.md",
        preset=f" {result.preset}" if result.preset else "",
        source=result.source,
        summary="The encoder and the image decoder of a checkpoint."
        if with_decoder
        else "The encoder of a checkpoint.",
        date=result.date,
        hidden_size=config.hidden_size,
        maps=", ".join(map(str, config.stage_channels)),
        decoder=_DECODER if with_decoder else "",
        channels="RGB" if config.num_channels == 3 else f"{config.num_channels} channels",
        size="256x256",
        smallest=config.patch_size * 2 ** (config.num_layers - 1) * config.window_size,
        digest=result.source_sha256,
        total=result.num_source_tensors,
        loaded=len(result.loaded),
        checked=len(result.checked),
        left_out=len(result.left_out),
        parameters=result.num_parameters,
        dtype=result.dtype,
        missing=", ".join(made[:3]) + (f" and {len(made) - 3} more" if len(made) > 3 else "") if made else "none",
        identical=result.identical,
        monai=monai,
        versions=", ".join(f"{package} {number}" for package, number in result.versions.items()),
        left_out_note=f" Left out: {'; '.join(reasons)}." if reasons else "",
        citation=CITATION,
    )
    return f"---\n{header.to_yaml()}\n---\n{text}"
