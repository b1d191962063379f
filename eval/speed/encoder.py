"""Speed and memory of the encoder beside MONAI's, which it equals in maths and here in weights.

Both models stand in one process and take turns; the tables give medians, and the ratio to MONAI in fp32. Peak memory is that
of a process of its own for each row. Machines that other work shares give noisy times: quote the ratios.

    python eval/speed/encoder.py                      # every table, about fifteen minutes on two cores
    python eval/speed/encoder.py forward --repeats 9
    python eval/speed/encoder.py training memory
    python eval/speed/encoder.py tiny

Needs MONAI (`pip install -e ".[dev]"`). The table of small models names timm's Swin where timm and torchvision are installed.
"""

import argparse
import copy
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import transformers
from monai.networks.nets.swin_unetr import SwinTransformer
from timing import bf16, interleaved, peak_memory, print_machine, print_table
from torch import Tensor, nn

from echocare_hf import EchoCareConfig, EchoCareForPreTraining, EchoCareModel, optimize_for_inference
from echocare_hf.hub.convert import monai_arguments
from echocare_hf.hub.monai_mapping import to_monai_state
from echocare_hf.model.losses_echocare import anatomy_hierarchy_loss, masked_reconstruction_loss

TABLES = ("forward", "training", "memory", "tiny")
BATCH = 2  # of the training step


class MonaiPreTraining(nn.Module):
    """MONAI's encoder with the released pretraining heads: conv-upsample decoder and two linear layers."""

    def __init__(self, config: EchoCareConfig) -> None:
        super().__init__()
        self.encoder = SwinTransformer(**monai_arguments(config))
        widths = [config.hidden_size]
        for _ in range((config.output_stride - 1).bit_length()):
            widths.append(max(widths[-1] // 2, config.embed_dim))
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.LeakyReLU()]
            layers += [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(widths[-1], config.num_channels, 1))
        self.head = nn.Sequential(
            nn.Linear(config.hidden_size, config.anatomy_hidden_size),
            nn.Linear(config.anatomy_hidden_size, config.num_anatomy_nodes),
        )
        self.mask_token = nn.Parameter(torch.zeros(1, config.embed_dim, 1, 1))
        self.config = config

    def forward(self, pixel_values: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        encoder = self.encoder
        hidden = encoder.patch_embed(pixel_values)
        factor = hidden.shape[-1] // mask.shape[-1]
        patches = mask.repeat_interleave(factor, 1).repeat_interleave(factor, 2)[:, None].type_as(hidden)
        hidden = hidden * (1 - patches) + self.mask_token * patches
        for stage in range(1, 5):
            hidden = getattr(encoder, f"layers{stage}c")[0](hidden.contiguous())
            hidden = getattr(encoder, f"layers{stage}")[0](hidden.contiguous())
        hidden = encoder.proj_out(hidden, True)
        loss = masked_reconstruction_loss(self.decoder(hidden), pixel_values, mask)
        return loss + anatomy_hierarchy_loss(self.head(hidden.mean((2, 3))), labels, self.config.anatomy_tree)


def forward(repeats: int) -> None:
    config = EchoCareConfig.preset("base")
    ours = EchoCareModel(config).eval()
    monai = SwinTransformer(**monai_arguments(config)).eval()
    monai.load_state_dict({k: v for k, v in to_monai_state(ours.state_dict(), config).items() if k != "mask_token"})
    packed = optimize_for_inference(copy.deepcopy(ours))
    half = copy.deepcopy(ours).to(torch.bfloat16)
    packed_half = optimize_for_inference(copy.deepcopy(ours), torch.bfloat16)
    images = torch.rand(1, 3, 256, 256)

    def run(model: nn.Module, autocast: bool = False, dtype: torch.dtype = torch.float32) -> object:
        with torch.inference_mode(), bf16(autocast):
            if isinstance(model, SwinTransformer):
                return model(images.to(dtype))
            return model(images.to(dtype), output_hidden_states=True).reshaped_hidden_states

    for name, model in (("plain", ours), ("packed", packed)):
        worst = max(float((a - b).abs().max()) for a, b in zip(run(monai), run(model), strict=True))  # type: ignore[call-overload]
        print(f"largest difference to MONAI over the five maps, fp32, {name}: {worst:.1e}")
    cases = {
        "MONAI fp32": lambda: run(monai),
        "EchoCare fp32": lambda: run(ours),
        "EchoCare fp32, optimize_for_inference": lambda: run(packed),
        "MONAI bf16 autocast": lambda: run(monai, autocast=True),
        "EchoCare bf16 autocast": lambda: run(ours, autocast=True),
        "EchoCare bf16 weights": lambda: run(half, dtype=torch.bfloat16),
        "EchoCare bf16, optimize_for_inference": lambda: run(packed_half, dtype=torch.bfloat16),
    }
    print_table("Forward, base, 256x256, batch 1", interleaved(cases, repeats, "forward"), "seconds", "MONAI fp32")


def training_case(name: str) -> Callable[[bool], None]:
    """A function that makes one training step (forward and backward) of `monai` or `echocare`, base, in bf16 or fp32."""
    config = EchoCareConfig.preset("base", drop_path_rate=0.0)
    model = (MonaiPreTraining(config) if name == "monai" else EchoCareForPreTraining(config)).train()
    images, mask = torch.rand(BATCH, 3, 256, 256), torch.rand(BATCH, 16, 16) < 0.5
    labels = torch.zeros(BATCH, config.num_anatomy_nodes, dtype=torch.long)

    def step(half: bool) -> None:
        model.zero_grad()
        with bf16(half):
            loss = model(images, mask, labels)
        (loss if isinstance(loss, Tensor) else loss.loss).backward()

    return step


def training(repeats: int) -> None:
    monai, ours = training_case("monai"), training_case("echocare")
    cases = {
        "MONAI fp32": lambda: monai(False),
        "EchoCare fp32": lambda: ours(False),
        "MONAI bf16 autocast": lambda: monai(True),
        "EchoCare bf16 autocast": lambda: ours(True),
    }
    rows = interleaved(cases, repeats, "training step")
    print_table(
        f"Training step, base with its pretraining heads, 256x256, batch {BATCH}", rows, "seconds", "MONAI fp32"
    )


def memory() -> None:
    rows = {}
    for label, name, half in (
        ("MONAI fp32", "monai", ""),
        ("EchoCare fp32", "echocare", ""),
        ("MONAI bf16 autocast", "monai", "half"),
        ("EchoCare bf16 autocast", "echocare", "half"),
    ):
        command = [sys.executable, str(Path(__file__).resolve()), "--peak", f"{name}:{half}"]
        rows[label] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    print(f"\n### Peak memory of two training steps, base, batch {BATCH}, whole process\n")
    print("| | MiB | share of MONAI in the same precision |\n|---|---|---|")
    for label, value in rows.items():
        peer = rows[label.replace("EchoCare", "MONAI")]
        print(f"| {label} | {value:.0f} | {value / peer:.2f} |")


def tiny(repeats: int) -> None:
    config = EchoCareConfig.preset("tiny", drop_path_rate=0.0)
    images = torch.rand(32, 3, 128, 128)
    models: dict[str, nn.Module] = {"EchoCare tiny": EchoCareModel(config)}
    swin = transformers.SwinConfig(
        image_size=128, patch_size=4, embed_dim=24, depths=[2, 2, 2, 2], num_heads=[2, 4, 8, 16], window_size=4
    )
    models["transformers Swin, same widths, window 4"] = transformers.SwinModel(swin)
    if importlib.util.find_spec("timm") and importlib.util.find_spec("torchvision"):
        import timm

        models["timm Swin, same widths, window 4"] = timm.models.SwinTransformer(
            img_size=128,
            patch_size=4,
            embed_dim=24,
            depths=(2, 2, 2, 2),
            num_heads=(2, 4, 8, 16),
            window_size=4,
            num_classes=0,
        )
    else:
        print("\ntimm or torchvision is not installed: no row for timm")
    for name, model in models.items():
        print(f"{name}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")

    def infer(model: nn.Module, half: bool) -> None:
        with torch.inference_mode(), bf16(half):
            model.eval()(images)

    def train(model: nn.Module, half: bool) -> None:
        model.train().zero_grad()
        with bf16(half):
            output = model(images)
        (output if isinstance(output, Tensor) else output.last_hidden_state).float().square().mean().backward()

    for title, run in (("Inference", infer), ("Training step", train)):
        cases = {
            f"{name}, {'bf16' if half else 'fp32'}": (lambda model=model, half=half, run=run: run(model, half))
            for name, model in models.items()
            for half in (False, True)
        }
        seconds = interleaved(cases, repeats, title)
        rows = {name: len(images) / value for name, value in seconds.items()}
        print_table(f"{title}, small encoders, 128x128, batch {len(images)}", rows, "images/s", "EchoCare tiny, fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; default: all")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count; default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of weights and images; default: %(default)s")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.tables) - set(TABLES))
    if unknown or arguments.repeats < 1 or arguments.threads < 1:
        parser.error(f"no such table: {', '.join(unknown)}" if unknown else "--repeats and --threads are at least 1")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    if arguments.peak:
        name, half = arguments.peak.split(":")
        step = training_case(name)
        for _ in range(2):
            step(bool(half))
        print(peak_memory())
        return
    print_machine(arguments.threads, arguments.repeats)
    for table in arguments.tables or TABLES:
        if table == "memory":
            memory()
        else:
            {"forward": forward, "training": training, "tiny": tiny}[table](arguments.repeats)


if __name__ == "__main__":
    main()
