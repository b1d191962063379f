"""Gradient accumulation: two batches of 2 update every head's weights as one batch of 4 does; and adapters train in every task.

The oracle of the first is the batch of 4 itself: the losses are means over a batch, so that Trainer has to divide by the number of
batches, which it does for models that say `accepts_loss_kwargs = False`. All images weigh alike here (no class weights, the same number of
landmarks and known pixels in each), without which a mean of means is another number than the mean. The running statistics of
`EchoCareFeatureNorm` depend on the batches by design; `classifier_pooling="last"` has none.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import Trainer, TrainingArguments

import echocare_hf
from echocare_hf import EchoCareConfig
from echocare_hf.finetuning import TASKS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import finetune

SIDE = 32
SIZES = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "image_size": SIDE}
STILL = {"drop_path_rate": 0.0, "classifier_pooling": "last"}  # nothing random, nothing that depends on the batches


def boxes(index):
    """No object, one, two or three in an image: each image counts the same."""
    rows = [[10.0 + 4 * place, 16.0, 9.0, 6.0, 30.0] for place in range(index)]
    return {"class_labels": torch.zeros(index, dtype=torch.long), "boxes": torch.tensor(rows).reshape(-1, 5)}


def masks(index):
    labels = torch.zeros(SIDE, SIDE, dtype=torch.long)
    labels[4 + index : 20, 6:18] = 1
    return labels


HEADS = {  # class, what the configuration says, the labels of image `index`
    "classes": ("EchoCareForImageClassification", {"num_labels": 3}, lambda index: torch.tensor(index % 3)),
    "values": (
        "EchoCareForImageClassification",
        {"num_labels": 1, "problem_type": "regression"},
        lambda index: torch.tensor([index / 2]),
    ),
    "segmentation": ("EchoCareForSemanticSegmentation", {"num_labels": 2, "deep_supervision_weight": 0.5}, masks),
    "detection": ("EchoCareForObjectDetection", {"num_labels": 1}, boxes),
    "keypoints": (
        "EchoCareForKeypointDetection",
        {"num_keypoints": 2},
        lambda index: torch.tensor([[8.0 + index, 9.0, 2.0], [20.0, 25.0 - index, 2.0]]),
    ),
    "clips": ("EchoCareForVideoClassification", {"num_labels": 2}, lambda index: torch.tensor(index % 2)),
    "enhancement": ("EchoCareForImageToImage", {}, lambda index: torch.full((3, SIDE, SIDE), 0.2 * (index + 1))),
}


def collate(examples):
    labels = [example["labels"] for example in examples]
    pixels = torch.stack([example["pixel_values"] for example in examples])
    return {"pixel_values": pixels, "labels": labels if isinstance(labels[0], dict) else torch.stack(labels)}


def update(name, batch_size, folder):
    """How much one step of plain gradient descent over four images changes all weights: one long vector."""
    class_name, values, label = HEADS[name]
    torch.manual_seed(0)
    model = getattr(echocare_hf, class_name)(EchoCareConfig.preset("tiny", **SIZES, **STILL, **values))
    before = torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
    shape = (2, 3, SIDE, SIDE) if name == "clips" else (3, SIDE, SIDE)
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(1))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=4 // batch_size,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        use_cpu=True,
        bf16=False,
        remove_unused_columns=False,
        label_names=["labels"],
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    examples = [{"pixel_values": image, "labels": label(index)} for index, image in enumerate(images)]
    Trainer(model=model, args=arguments, train_dataset=examples, data_collator=collate).train()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]) - before


@pytest.mark.parametrize("name", HEADS)
def test_two_batches_of_2_are_one_of_4(name, tmp_path):
    whole, halves = update(name, 4, tmp_path), update(name, 2, tmp_path)
    assert whole.norm() > 1e-3
    assert (halves - whole).norm() < 1e-3 * whole.norm()


def test_a_head_that_claimed_to_take_loss_arguments_would_learn_twice_as_fast(tmp_path, monkeypatch):
    """Trainer then leaves the division to the model, which has only means."""
    monkeypatch.setattr(echocare_hf.EchoCareForImageToImage, "accepts_loss_kwargs", True)
    whole, halves = update("enhancement", 4, tmp_path), update("enhancement", 2, tmp_path)
    torch.testing.assert_close(halves.norm() / whole.norm(), torch.tensor(2.0), rtol=1e-2, atol=0)


OPTIONS = {
    "classification": ["--label", "label"],
    "segmentation": ["--mask_values", "0=background", "1=disc"],
    "detection": ["--label", "label"],
    "keypoints": ["--keypoints", "centre"],
    "video": ["--num_frames", "2"],
    "regression": ["--target", "radius_mm"],
    "enhancement": [],
}


@pytest.mark.parametrize("task", OPTIONS)
def test_adapters_train_in_every_task(task, discs, clips, checkpoint, tmp_path):
    pytest.importorskip("peft")
    data, output = clips if task == "video" else discs, tmp_path / "out"
    options = ["--model", str(checkpoint), "--epochs", "1", "--batch_size", "4", "--bf16", "false", *OPTIONS[task]]
    options += ["--image_size", str(SIDE), "--lora_rank", "2", "--fractions", "0.6", "0.2", "0.2"]
    options += ["--head_start", "false"]  # it might be kept, and the adapters with nothing learned
    assert finetune.main([task, "--data", str(data), "--output", str(output), *options]) == 0
    assert json.loads((output / "metrics.json").read_text())["steps"] >= 1

    auto_class = getattr(transformers, TASKS[task].auto_class)
    model, info = auto_class.from_pretrained(output, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    before = dict(transformers.AutoModel.from_pretrained(checkpoint).named_parameters())
    changed = {name for name, weight in model.echocare.named_parameters() if not torch.equal(weight, before[name])}
    # The adapters stand at linear layers alone, and are merged into them; all else of the encoder is as it was.
    assert any("qkv.weight" in name for name in changed)
    assert all(name.endswith(".weight") and before[name].ndim >= 2 for name in changed)
