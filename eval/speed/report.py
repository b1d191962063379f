"""How fast reports are written: tokens and frames a second, beside transformers' own ViT-GPT2 of equal size.

    python eval/speed/report.py                             # tiny
    python eval/speed/report.py --preset base --repeats 3 --tokens 32
    python eval/speed/report.py --batch 4 --images 2

The reference is transformers' `VisionEncoderDecoderModel` of a ViT and the same GPT-2. The ViT has patches of a sixteenth of the image's
side and is as wide as gives it the parameters of EchoCare's encoder most nearly (`sizes` says how near). Both write the same number of
tokens greedily with a cache, for the same number of reports with the same number of images; the ViT, which takes one image a report,
sees the first of several. "frames/s" is the encoder alone on single images, "tokens/s" the decoder alone behind an encoder that has run,
"reports/s" all of it. Models take turns; figures are medians, and quoted are the ratios.
"""

import argparse

import torch
from timing import interleaved, print_machine, print_table
from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig, ViTModel

from echocare_hf import EchoCareForReportGeneration, EchoCareReportConfig

HEAD_WIDTH = 64
REPORT_VOCABULARY = 8192


def millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def vit_of_size(parameters: float, side: int, layers: int = 12) -> ViTConfig:
    """The ViT with about so many million parameters: the depth is given, the width follows."""
    candidates = []
    for heads in range(1, 33):
        width = heads * HEAD_WIDTH
        config = ViTConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            image_size=side,
            patch_size=side // 16,
        )
        with torch.device("meta"):
            size = millions(ViTModel(config, add_pooling_layer=False))
        candidates.append((abs(size - parameters), config))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def build(preset: str) -> dict[str, VisionEncoderDecoderModel]:
    """Both models, by name."""
    torch.manual_seed(0)
    config = EchoCareReportConfig.preset(preset, vocab_size=REPORT_VOCABULARY)
    ours = EchoCareForReportGeneration(config).eval()
    # A tiny ViT of twelve layers would be narrower than one head.
    layers = 4 if preset == "tiny" else 12
    vit = vit_of_size(millions(ours.encoder), config.encoder.image_size, layers)
    decoder = GPT2Config(**{**config.decoder.to_dict(), "is_decoder": True, "add_cross_attention": True})
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    theirs = VisionEncoderDecoderModel(
        VisionEncoderDecoderConfig(encoder=vit.to_dict(), decoder=decoder.to_dict(), **tokens)
    ).eval()
    return {"EchoCare-GPT2": ours, "ViT-GPT2 (transformers)": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", choices=["tiny", "base", "large"])
    parser.add_argument("--batch", type=int, default=4, help="reports at a time")
    parser.add_argument("--images", type=int, default=1, help="images of a report")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a report")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models = build(arguments.preset)
    names = list(models)
    reference = names[1]
    print_machine(arguments.threads, arguments.repeats)
    for name, model in models.items():
        print(
            f"sizes, {name}: encoder {millions(model.encoder):.2f} M, decoder {millions(model.decoder):.2f} M parameters"
        )

    side = models[names[0]].config.encoder.image_size
    images = torch.rand(arguments.batch, arguments.images, 3, side, side)
    inputs = {names[0]: images, reference: images[:, 0]}
    length = {"max_new_tokens": arguments.tokens, "min_new_tokens": arguments.tokens, "do_sample": False}

    def encode(name: str) -> object:
        with torch.inference_mode():
            return models[name].encoder(images[:, 0])

    def write(name: str, **given: object) -> object:
        found = models[name].generate(**given, **length)
        if found.shape != (arguments.batch, arguments.tokens + 1):
            raise RuntimeError(f"{name} wrote {tuple(found.shape)}")
        return found

    with torch.inference_mode():
        encoded = {name: model.encoder(inputs[name]) for name, model in models.items()}
    # `generate` repeats what it is given for beams in place: each call gets a copy.
    cases = {
        "frames/s": (arguments.batch, {name: lambda name=name: encode(name) for name in names}),
        "tokens/s": (
            arguments.batch * arguments.tokens,
            {
                name: lambda name=name: write(name, encoder_outputs=type(encoded[name])(**encoded[name]))
                for name in names
            },
        ),
        "reports/s": (
            arguments.batch,
            {name: lambda name=name: write(name, pixel_values=inputs[name]) for name in names},
        ),
    }
    for unit, (amount, runs) in cases.items():
        seconds = interleaved(runs, arguments.repeats, unit)
        title = f"{arguments.preset}, {unit}, batch {arguments.batch}, {arguments.images} images, {arguments.tokens} tokens"
        print_table(title, {name: amount / value for name, value in seconds.items()}, unit, reference)


if __name__ == "__main__":
    main()
