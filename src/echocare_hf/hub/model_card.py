"""The card (README.md) of a folder that `echocare convert` made: says what was checked, and what nobody told us."""

from typing import TYPE_CHECKING

from ..model.configuration_echocare import EchoCareConfig

if TYPE_CHECKING:
    from .convert import ConversionReport


_CARD = """\
---
library_name: transformers
pipeline_tag: image-feature-extraction
license: unknown
tags:
- ultrasound
- medical-imaging
- foundation-model
- swin
- echocare
- custom_code
---

# EchoCare{preset}, converted from `{source}`

{summary} Converted by `echocare convert` on {date}. The architecture is that of EchoCare (arXiv 2509.11752), an
ultrasound foundation model. Whether these weights are those that EchoCare's authors released, the SHA-256 below tells:
compare it with that of the file they published.

## How to use it

```python
from transformers import AutoImageProcessor, AutoModel
from PIL import Image

folder = "."  # this folder, or its id on the Hub
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()

inputs = processor(Image.open("image.png"), return_tensors="pt")
outputs = model(**inputs, output_hidden_states=True)
outputs.pooler_output           # (1, {hidden_size})
outputs.reshaped_hidden_states  # {maps} channels, each (1, channels, height, width)
```
{decoder}
## Preprocessing

{channels}, {size} pixels (squashed, not cropped), values in [0, 1] (divided by 255), **no mean and standard
deviation**: the preprocessing of the released encoder. The model takes any size from 8 pixels a side. Below
{smallest} pixels MONAI's implementation takes the wrong position biases on its last map, this one the right ones,
so the two differ there.

## What was checked

| | |
|---|---|
| source | `{source}` |
| SHA-256 of the source | `{digest}` |
| tensors in the source | {total}: {loaded} loaded, {checked} checked and not stored, {left_out} left out |
| parameters loaded | {parameters:,} ({dtype}) |
| tensors made, because the source lacks them | {missing} |
| read back from this folder, equal to the source bit by bit | {identical} of {loaded} |
| beside MONAI's `SwinTransformer`, same weights | {monai} |
| versions | {versions} |

`conversion.json` lists every tensor.{left_out_note}

## What was not checked

- **The licence of the weights is unknown.** A checkpoint carries none; ask its authors before you use it for anything
  but looking at it. This conversion grants no rights. (The code files in this folder are Apache-2.0.)
- How well these weights do on any task: nothing was measured here.
- What they were trained on; see the paper for what its authors say. It is no medical device.

## Citation

The paper: [arXiv 2509.11752](https://arxiv.org/abs/2509.11752).

```bibtex
@misc{{echocare2025,
  author        = {{Zhang, Hongyuan and Wu, Yuheng and Zhao, Mingyang and others}},
  year          = {{2025}},
  title         = {{A Fully Open and Generalizable Foundation Model for Ultrasound Clinical Applications}},
  eprint        = {{2509.11752}},
  archivePrefix = {{arXiv}},
  url           = {{https://arxiv.org/abs/2509.11752}}
}}
```
"""

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
    return _CARD.format(
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
    )
