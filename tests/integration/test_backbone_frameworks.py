"""EchoCare's encoder inside detection and segmentation models of transformers, through `backbone_config=`."""

import pytest
import torch
from transformers import RTDetrConfig, RTDetrForObjectDetection, UperNetConfig, UperNetForSemanticSegmentation

from echocare_hf import EchoCareBackbone, EchoCareConfig


def backbone_config(**overrides) -> EchoCareConfig:
    """Three stages; maps of stride 4 to 32 with 8 to 64 channels."""
    settings = {
        "image_size": 64,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [1, 1, 2],
        "num_heads": [1, 2, 4],
        "window_size": 4,
        "mask_unit_size": 8,
        "drop_path_rate": 0.0,
    }
    return EchoCareConfig(**{**settings, **overrides})


def upernet() -> UperNetForSemanticSegmentation:
    backbone = backbone_config(out_features=["stem", "stage1", "stage2", "stage3"])
    config = UperNetConfig(
        backbone_config=backbone, hidden_size=16, auxiliary_in_channels=32, auxiliary_channels=8, num_labels=3
    )
    return UperNetForSemanticSegmentation(config)


def rt_detr() -> RTDetrForObjectDetection:
    backbone = backbone_config(out_features=["stage1", "stage2", "stage3"])
    config = RTDetrConfig(
        backbone_config=backbone,
        backbone=None,
        use_timm_backbone=False,
        encoder_in_channels=[16, 32, 64],
        feat_strides=[8, 16, 32],
        encoder_hidden_dim=32,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=32,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_queries=12,
        num_denoising=4,
        freeze_backbone_batch_norms=False,
        num_labels=2,
    )
    return RTDetrForObjectDetection(config)


def segmentation_labels(images: torch.Tensor) -> torch.Tensor:
    return (images.mean(1) * 3).long().clamp(0, 2)


def detection_labels(images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.2, 0.3, 0.2, 0.2]])  # centre and size, in shares of the image
    return [{"class_labels": torch.tensor([0, 1]), "boxes": boxes} for _ in images]


frameworks = pytest.mark.parametrize(
    "build, make_labels", [(upernet, segmentation_labels), (rt_detr, detection_labels)], ids=["upernet", "rt_detr"]
)


@frameworks
def test_trains_through_the_encoder(build, make_labels):
    torch.manual_seed(0)
    model = build().train()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    encoders = [module for module in model.modules() if isinstance(module, EchoCareBackbone)]
    assert len(encoders) == 1
    outputs = model(pixel_values=images, labels=make_labels(images))
    assert torch.isfinite(outputs.loss) and outputs.loss > 0
    outputs.loss.backward()
    for name, parameter in encoders[0].named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_output_shapes(size):
    images = torch.rand(2, 3, *size)
    with torch.inference_mode():
        assert upernet().eval()(images).logits.shape == (2, 3, *size)
        detected = rt_detr().eval()(images)
    assert detected.logits.shape == (2, 12, 2) and detected.pred_boxes.shape == (2, 12, 4)
    assert ((detected.pred_boxes >= 0) & (detected.pred_boxes <= 1)).all()


@frameworks
def test_saved_and_loaded_again_it_gives_the_same(build, make_labels, tmp_path):
    torch.manual_seed(0)
    model = build().eval()
    model.save_pretrained(tmp_path)
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert (
        not report["missing_keys"]
        and not report["unexpected_keys"]
        and isinstance(loaded.config.backbone_config, EchoCareConfig)
    )
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(images).logits, model(images).logits)
