"""Speed of each head beside the network or filter that it has to stand up to: inference, and a training step.

All models of a table stand in one process and take turns; the tables give medians, and ratios to the reference in fp32. Images are
128x128 with three channels, weights are random.

    python eval/speed/heads.py                                       # the tiny preset, every head
    python eval/speed/heads.py segmentation --preset base --repeats 9
    python eval/speed/heads.py detection keypoints --threads 1

| head | beside |
|---|---|
| segmentation | MONAI's UNet (16 to 256 channels, two residual units) and BasicUNet |
| classification | timm's resnet18, or transformers' network of the same layers |
| detection | an ellipse fitted to the mask of a segmentation network |
| keypoints | the same encoder with one linear layer for the coordinates |
| video | the same encoder on one frame of the clip, and on every frame |
| enhancement | a median filter of 3x3 pixels, and BasicUNet |

Inference is one image (one clip) from tensor to what a user reads: a label map, probabilities, ellipses, points, pixels. A training step
is forward, loss and backward of a batch, both with the loss of EchoCare's head. "packed" is `optimize_for_inference`. Inference in bf16
is autocast, packed models have bf16 weights.

Needs MONAI (`pip install -e ".[dev]"`). Where timm or torchvision (which it needs) is missing, the ResNet-18 is that of transformers.
"""

import argparse
import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from monai.networks.nets import BasicUNet, UNet
from scipy.ndimage import median_filter
from timing import bf16, interleaved, print_machine, print_table
from torch import Tensor, nn
from torch.nn import functional as F

from echocare_hf import (
    EchoCareConfig,
    EchoCareForImageClassification,
    EchoCareForImageToImage,
    EchoCareForKeypointDetection,
    EchoCareForObjectDetection,
    EchoCareForSemanticSegmentation,
    EchoCareForVideoClassification,
    EchoCareImageProcessorPil,
    optimize_for_inference,
)
from echocare_hf.model.dense_losses_echocare import segmentation_losses
from echocare_hf.model.ellipses_echocare import ellipse_from_mask
from echocare_hf.model.enhancement_echocare import enhancement_losses

SIDE = 128
CLASSES = 3
KEYPOINTS = 4
FRAMES = 8
NETWORK = {"spatial_dims": 2, "in_channels": 3}
RESIDUAL_UNET = {**NETWORK, "channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2), "num_res_units": 2}


@dataclass
class Case:
    """One row of a table.

    Attributes:
        model: the network; None for a filter, which is timed as it is.
        predict: from the network and images (batch, 3, 128, 128), or clips, to the prediction.
        loss: from the network and images to the loss; None where nothing is trained.
        echocare: whether the network can be packed.
    """

    model: nn.Module | None
    predict: Callable[[Any, Tensor], object]
    loss: Callable[[Any, Tensor], Tensor] | None = None
    echocare: bool = False


def disc(batch: int) -> Tensor:
    """Masks (batch, 128, 128) of a disc, a fifth of the image: 0 and 1."""
    places = torch.arange(SIDE) - (SIDE - 1) / 2
    inside = places.square()[:, None] + places.square() < 32**2
    return inside.long().expand(batch, -1, -1)


def network_losses(logits: Tensor) -> Tensor:
    """The loss of EchoCare's segmentation head for the logits of any network."""
    return sum(
        segmentation_losses(logits.float(), disc(len(logits)), torch.ones(logits.shape[1]), 255), torch.zeros(())
    )


def segmentation(preset: str) -> dict[str, Case]:
    """Two classes; inference ends in a label map."""
    ours = EchoCareForSemanticSegmentation(EchoCareConfig.preset(preset, num_labels=2))

    def label_map(model: Any, images: Tensor) -> Tensor:
        return model(images).argmax(1)

    def loss(model: Any, images: Tensor) -> Tensor:
        return network_losses(model(images))

    return {
        "MONAI UNet": Case(UNet(**RESIDUAL_UNET, out_channels=2), label_map, loss),
        "MONAI BasicUNet": Case(BasicUNet(**NETWORK, out_channels=2), label_map, loss),
        f"EchoCare {preset}": Case(
            ours,
            lambda model, images: model(images).logits.argmax(1),
            lambda model, images: model(images, labels=disc(len(images))).loss,
            echocare=True,
        ),
    }


def resnet18() -> dict[str, Case]:
    """The reference of classification."""

    def case(network: nn.Module, logits: Callable[[Any], Tensor]) -> Case:
        return Case(
            network,
            lambda model, images: logits(model(images)).softmax(-1),
            lambda model, images: F.cross_entropy(logits(model(images)).float(), class_labels(images)),
        )

    if importlib.util.find_spec("timm") and importlib.util.find_spec("torchvision"):
        import timm

        return {"timm resnet18": case(timm.create_model("resnet18", num_classes=CLASSES), lambda output: output)}
    config = transformers.ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=CLASSES,
    )
    network = transformers.ResNetForImageClassification(config)
    return {"transformers ResNet-18": case(network, lambda output: output.logits)}


def class_labels(images: Tensor) -> Tensor:
    """The classes in turn, (batch,)."""
    return torch.arange(len(images)) % CLASSES


def classification(preset: str) -> dict[str, Case]:
    """Three classes; inference ends in probabilities."""
    ours = EchoCareForImageClassification(
        EchoCareConfig.preset(preset, num_labels=CLASSES, problem_type="single_label_classification")
    )

    return {
        **resnet18(),
        f"EchoCare {preset}": Case(
            ours,
            lambda model, images: model(images).logits.softmax(-1),
            lambda model, images: model(images, labels=class_labels(images)).loss,
            echocare=True,
        ),
    }


def detection(preset: str) -> dict[str, Case]:
    """One ellipse an image.

    Untrained networks find noise. So the reference fits its ellipse to the mask of a disc, and the threshold of EchoCare's head is the
    score of its third best object on another image, as a trained head finds few.
    """
    processor = EchoCareImageProcessorPil(size={"height": SIDE, "width": SIDE})
    box = {"class_labels": torch.tensor([0]), "boxes": torch.tensor([[64.0, 64.0, 70.0, 58.0, 30.0]])}

    def fitted(case: Case) -> Case:
        def predict(model: Any, images: Tensor) -> list[Tensor]:
            case.predict(model, images)
            return [ellipse_from_mask(mask) for mask in disc(len(images))]

        return Case(case.model, predict, case.loss, case.echocare)

    ours = EchoCareForObjectDetection(EchoCareConfig.preset(preset, num_labels=1))
    with torch.inference_mode():
        outputs = ours.eval()(torch.rand(1, 3, SIDE, SIDE))
    threshold = float(processor.post_process_oriented_detection(outputs, threshold=0.0)[0]["scores"][2])
    networks = segmentation(preset)
    return {f"{name} + ellipse": fitted(case) for name, case in networks.items() if name != "MONAI BasicUNet"} | {
        f"EchoCare {preset}": Case(
            ours,
            lambda model, images: processor.post_process_oriented_detection(model(images), threshold=threshold),
            lambda model, images: model(images, labels=[box] * len(images)).loss,
            echocare=True,
        ),
    }


def keypoints(preset: str) -> dict[str, Case]:
    """Four landmarks."""
    processor = EchoCareImageProcessorPil(size={"height": SIDE, "width": SIDE})
    points = torch.tensor([[20.0, 30.0, 2.0], [100.0, 90.0, 2.0], [40.0, 110.0, 2.0], [70.0, 64.0, 2.0]])
    plain = EchoCareConfig.preset(preset, num_labels=2 * KEYPOINTS, problem_type="regression")
    return {
        "same encoder, linear layer": Case(
            EchoCareForImageClassification(plain),
            lambda model, images: model(images).logits.unflatten(-1, (KEYPOINTS, 2)) * SIDE,
            lambda model, images: model(images, labels=(points[:, :2] / SIDE).flatten().expand(len(images), -1)).loss,
            echocare=True,
        ),
        f"EchoCare {preset}": Case(
            EchoCareForKeypointDetection(EchoCareConfig.preset(preset, num_keypoints=KEYPOINTS)),
            lambda model, images: processor.post_process_keypoint_detection(model(images)),
            lambda model, images: model(images, labels=points.expand(len(images), -1, -1)).loss,
            echocare=True,
        ),
    }


def video(preset: str) -> dict[str, Case]:
    """One measured value a clip of eight frames."""
    config = EchoCareConfig.preset(preset, num_labels=1, problem_type="regression")
    single = EchoCareForImageClassification(config)

    def values(clips: Tensor) -> Tensor:
        return torch.linspace(-1, 1, len(clips))[:, None]

    return {
        "same encoder, one frame": Case(
            single,
            lambda model, clips: model(clips[:, 0]).logits,
            lambda model, clips: model(clips[:, 0], labels=values(clips)).loss,
            echocare=True,
        ),
        "same encoder, mean over every frame": Case(
            single,
            lambda model, clips: model(clips.flatten(0, 1)).logits.unflatten(0, clips.shape[:2]).mean(1),
            lambda model, clips: model(clips.flatten(0, 1), labels=values(clips).repeat_interleave(FRAMES, 0)).loss,
            echocare=True,
        ),
        f"EchoCare {preset}": Case(
            EchoCareForVideoClassification(copy.deepcopy(config)),
            lambda model, clips: model(clips).logits,
            lambda model, clips: model(clips, labels=values(clips)).loss,
            echocare=True,
        ),
    }


def enhancement(preset: str) -> dict[str, Case]:
    """Inference ends in pixels, uint8."""
    processor = EchoCareImageProcessorPil(size={"height": SIDE, "width": SIDE})

    def pixels(images: Tensor) -> np.ndarray:
        return (images.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()

    def basic_loss(model: Any, images: Tensor) -> Tensor:
        l1, ssim = enhancement_losses(images + model(images), images)
        return l1 + EchoCareConfig().ssim_loss_weight * ssim

    return {
        "median filter 3x3": Case(None, lambda _, images: median_filter(pixels(images), size=(1, 3, 3, 1))),
        "MONAI BasicUNet": Case(
            BasicUNet(**NETWORK, out_channels=3), lambda model, images: pixels(images + model(images)), basic_loss
        ),
        f"EchoCare {preset}": Case(
            EchoCareForImageToImage(EchoCareConfig.preset(preset)),
            lambda model, images: processor.post_process_image_to_image(model(images)),
            lambda model, images: model(images, labels=images).loss,
            echocare=True,
        ),
    }


HEADS: dict[str, Callable[[str], dict[str, Case]]] = {
    "segmentation": segmentation,
    "classification": classification,
    "detection": detection,
    "keypoints": keypoints,
    "video": video,
    "enhancement": enhancement,
}


def inference_runs(name: str, case: Case, images: Tensor) -> dict[str, Callable[[], object]]:
    """The rows of one case: fp32 and bf16, and packed ones for EchoCare's models."""

    def run(model: Any, half: bool, dtype: torch.dtype = torch.float32) -> object:
        with torch.inference_mode(), bf16(half):
            return case.predict(model, images.to(dtype))

    model = case.model
    if model is None:
        return {f"{name}, uint8": lambda: run(None, False)}
    runs: dict[str, Callable[[], object]] = {
        f"{name}, fp32": lambda: run(model.eval(), False),
        f"{name}, bf16": lambda: run(model.eval(), True),
    }
    if case.echocare:
        packed = optimize_for_inference(copy.deepcopy(model))
        packed_half = optimize_for_inference(copy.deepcopy(model), torch.bfloat16)
        runs[f"{name}, packed, fp32"] = lambda: run(packed, False)
        runs[f"{name}, packed, bf16"] = lambda: run(packed_half, False, torch.bfloat16)
    return runs


def training_runs(name: str, case: Case, images: Tensor) -> dict[str, Callable[[], object]]:
    """The rows of one case: fp32 and bf16 autocast; none where nothing is trained."""
    model, loss_of = case.model, case.loss
    if model is None or loss_of is None:
        return {}

    def step(half: bool) -> None:
        model.train().zero_grad()
        with bf16(half):
            loss = loss_of(model, images)
        loss.backward()

    return {f"{name}, fp32": lambda: step(False), f"{name}, bf16": lambda: step(True)}


def measure(head: str, preset: str, batch: int, repeats: int) -> None:
    """Prints the two tables of a head."""
    cases = HEADS[head](preset)
    print(f"\n## {head.capitalize()}\n")
    for name, case in cases.items():
        if case.model is not None:
            print(
                f"- {name}: {sum(parameter.numel() for parameter in case.model.parameters()) / 1e6:.2f} M parameters"
            )
    clip = (FRAMES,) if head == "video" else ()
    what = f"clips of {FRAMES} frames" if clip else "images"
    for title, make, size in (("Inference", inference_runs, 1), ("Training step", training_runs, batch)):
        images = torch.rand(size, *clip, 3, SIDE, SIDE)
        runs = {row: run for name, case in cases.items() for row, run in make(name, case, images).items()}
        seconds = interleaved(runs, repeats, f"{head}, {title.lower()}")
        unit = "clips/s" if clip else "images/s"
        rates = {name: size / value for name, value in seconds.items()}
        print_table(f"{title}, {head}, {what} of {SIDE}x{SIDE}, batch {size}", rates, unit, next(iter(rates)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", nargs="*", metavar="HEAD", help=f"of {', '.join(HEADS)}; default: all")
    parser.add_argument("--preset", choices=("tiny", "base", "large"), default="tiny", help="default: %(default)s")
    parser.add_argument(
        "--batch", type=int, default=8, help="images or clips of a training step; default: %(default)s"
    )
    parser.add_argument("--repeats", type=int, default=9, help="rounds that count; default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of weights and images; default: %(default)s")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.heads) - set(HEADS))
    if unknown:
        parser.error(f"no such head: {', '.join(unknown)}; choose of {', '.join(HEADS)}")
    if min(arguments.repeats, arguments.threads) < 1 or arguments.batch < 2:
        parser.error("--repeats and --threads are at least 1, --batch at least 2")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    print_machine(arguments.threads, arguments.repeats)
    for head in arguments.heads or HEADS:
        measure(head, arguments.preset, arguments.batch, arguments.repeats)


if __name__ == "__main__":
    main()
