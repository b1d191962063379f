"""The segmentation head: its losses beside MONAI and a loop over pixels, its behaviour, and its way back to the original image."""

import unittest

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceCELoss, DiceLoss
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments, pipeline
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil
from transformers.utils.generic import find_labels

from echocare_hf import EchoCareConfig
from echocare_hf.model.dense_losses_echocare import coarser_labels, segmentation_losses
from echocare_hf.model.image_processing_pil_echocare import EchoCareImageProcessorPil as Processor
from echocare_hf.model.segmentation_echocare import EchoCareForSemanticSegmentation, EchoCareSemanticSegmenterOutput
from upstream_mixins import upstream_module

upstream = upstream_module("test_image_processing_common")

both_decoders = pytest.mark.parametrize("decoder", ["unetr", "light"])


def small_config(decoder: str = "light", **overrides) -> EchoCareConfig:
    settings = {
        "image_size": 32,
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "mask_unit_size": 8,
        "drop_path_rate": 0.0,
        "dense_decoder_type": decoder,
        "dense_hidden_size": 16,
        "num_labels": 3,
    }
    return EchoCareConfig(**{**settings, **overrides})


def small_model(decoder: str = "light", seed: int = 0, **overrides) -> EchoCareForSemanticSegmentation:
    torch.manual_seed(seed)
    return EchoCareForSemanticSegmentation(small_config(decoder, **overrides))


def scene(height: int = 32, width: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images with a bright and a grey block each, and their labels (2, height, width)."""
    labels = torch.zeros(2, height, width, dtype=torch.int64)
    labels[0, height // 4 : height // 2, width // 8 : width // 2] = 1
    labels[0, height // 2 + 2 :, width // 2 :] = 2
    labels[1, height // 2 :, : width // 3] = 1
    labels[1, : height // 3, width // 2 :] = 2
    noise = 0.1 * torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(3))
    return torch.tensor([0.1, 0.9, 0.5])[labels][:, None] + noise, labels


def random_batch(classes: int, seed: int = 0, batch: int = 3, height: int = 9, width: int = 7):
    """Logits, and labels in which every class occurs in every image."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, classes, height, width, generator=generator)
    labels = torch.randint(0, classes, (batch, height, width), generator=generator)
    labels[:, 0, :classes] = torch.arange(classes)
    return logits, labels


# --- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4])
def test_losses_are_those_of_monai(classes):
    logits, labels = random_batch(classes)
    cross_entropy, dice = segmentation_losses(logits, labels, torch.ones(classes), 255)
    expected = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)(logits, labels[:, None])
    torch.testing.assert_close(cross_entropy + dice, expected)
    torch.testing.assert_close(cross_entropy, F.cross_entropy(logits, labels))


def test_classes_weigh_as_in_torch_and_dice_stays_between_0_and_1():
    logits, labels = random_batch(4)
    weights = torch.tensor([0.1, 2.0, 0.0, 7.0])
    cross_entropy, dice = segmentation_losses(logits, labels, weights, 255)
    torch.testing.assert_close(cross_entropy, F.cross_entropy(logits, labels, weights))
    each = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, reduction="none")(
        logits, labels[:, None]
    )
    torch.testing.assert_close(dice, (each.flatten(1) * weights[1:]).sum() / (3 * weights[1:].sum()))


def test_a_class_that_is_absent_from_an_image_has_no_part_in_dice():
    logits, labels = random_batch(4)
    labels[0][labels[0] == 3] = 0
    labels[1] = 0
    _, dice = segmentation_losses(logits, labels, torch.ones(4), 255)
    each = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, reduction="none")(
        logits, labels[:, None]
    )
    each = each.flatten(1)  # (images, classes 1 to 3)
    torch.testing.assert_close(dice, torch.cat((each[0, :2], each[2])).mean())


def test_an_image_of_background_alone_has_a_dice_loss_of_zero():
    logits, _ = random_batch(3)
    _, dice = segmentation_losses(logits, torch.zeros(3, 9, 7, dtype=torch.int64), torch.ones(3), 255)
    assert dice == 0


@pytest.mark.parametrize("ignore_index", [255, -1, 1])
def test_ignored_pixels_have_no_part(ignore_index):
    logits, labels = random_batch(3)
    part_logits, part_labels = logits[..., :4], labels[..., :4].clone()
    part_labels[part_labels == ignore_index] = 0
    labels[..., :4] = part_labels
    labels[..., 4:] = ignore_index
    logits.requires_grad_()
    losses = segmentation_losses(logits, labels, torch.ones(3), ignore_index)
    torch.testing.assert_close(losses, segmentation_losses(part_logits, part_labels, torch.ones(3), ignore_index))
    sum(losses).backward()
    assert torch.equal(logits.grad[..., 4:], torch.zeros_like(logits[..., 4:]))
    assert (logits.grad[..., :4] != 0).all()


def test_ignored_pixels_are_those_of_monai():
    logits, labels = random_batch(3)
    generator = torch.Generator().manual_seed(5)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    labels[:, 0, :3] = torch.arange(3)
    cross_entropy, dice = segmentation_losses(logits, labels, torch.ones(3), 255)
    expected = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, ignore_index=255)
    torch.testing.assert_close(dice, expected(logits, labels[:, None]))
    torch.testing.assert_close(cross_entropy, F.cross_entropy(logits, labels, ignore_index=255))


def marginal_losses_pixel_by_pixel(logits, labels, annotated):
    """Cross-entropy and Dice of partly annotated images, written as loops over images, pixels and classes."""
    probabilities = logits.double().softmax(1).numpy()
    batch, classes, height, width = probabilities.shape
    costs, dices = [], []
    for image in range(batch):
        merged = [c for c in range(classes) if c == 0 or not annotated[image, c]]
        overlap, area, size = (dict.fromkeys(range(classes), 0.0) for _ in range(3))
        for y in range(height):
            for x in range(width):
                label = int(labels[image, y, x])
                if label == 255:
                    continue
                place = probabilities[image, :, y, x]
                label = 0 if label in merged else label
                costs.append(-np.log(sum(place[c] for c in merged) if label == 0 else place[label]))
                size[label] += 1
                overlap[label] += place[label]
                for c in range(classes):
                    area[c] += place[c]
        dices += [
            1 - (2 * overlap[c] + 1e-5) / (area[c] + size[c] + 1e-5)
            for c in range(classes)
            if c not in merged and size[c]
        ]
    return np.mean(costs), np.mean(dices)


def test_classes_that_are_not_annotated_merge_with_the_background():
    logits, labels = random_batch(4)
    labels[1, 3] = 255
    annotated = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=torch.bool)
    losses = segmentation_losses(logits, labels, torch.ones(4), 255, annotated)
    expected = marginal_losses_pixel_by_pixel(logits, labels, annotated)
    np.testing.assert_allclose([float(loss) for loss in losses], expected, rtol=1e-5)


def test_with_every_class_annotated_the_losses_are_the_plain_ones():
    logits, labels = random_batch(4)
    plain = segmentation_losses(logits, labels, torch.ones(4), 255)
    annotated = torch.ones(3, 4, dtype=torch.bool)
    torch.testing.assert_close(segmentation_losses(logits, labels, torch.ones(4), 255, annotated), plain)


def test_nothing_is_learned_about_a_class_that_is_not_annotated():
    """On the background, probability may move between background and that class without a cost."""
    logits, labels = random_batch(3)
    labels[labels == 2] = 0
    annotated = torch.tensor([[1, 1, 0]] * 3)
    before = segmentation_losses(logits, labels, torch.ones(3), 255, annotated)
    swapped = segmentation_losses(logits[:, [2, 1, 0]], labels, torch.ones(3), 255, annotated)
    torch.testing.assert_close(swapped, before)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_losses_are_finite_and_in_range_whatever_the_labels(data):
    classes, batch, height, width = (data.draw(st.integers(low, 4)) for low in (2, 1, 1, 1))
    seed = data.draw(st.integers(0, 2**16))
    generator = torch.Generator().manual_seed(seed)
    logits = data.draw(st.sampled_from([1.0, 1e4])) * torch.randn(batch, classes, height, width, generator=generator)
    logits.requires_grad_()
    labels = torch.randint(0, classes + 1, (batch, height, width), generator=generator)
    labels[labels == classes] = 255
    annotated = torch.rand(batch, classes, generator=generator) < 0.5 if data.draw(st.booleans()) else None
    cross_entropy, dice = segmentation_losses(logits, labels, torch.rand(classes, generator=generator), 255, annotated)
    assert cross_entropy > -1e-6 and torch.isfinite(cross_entropy) and 0 <= dice <= 1
    (cross_entropy + dice).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("height, width, stride", [(9, 7, 2), (16, 8, 4), (5, 6, 8), (11, 3, 3)])
def test_coarser_labels_take_the_pixel_in_the_middle_of_each_cell(height, width, stride):
    labels = torch.arange(2 * height * width).view(2, height, width)
    coarse = coarser_labels(labels, stride)
    assert coarse.shape == (2, -(-height // stride), -(-width // stride))
    for row in range(coarse.shape[1]):
        for column in range(coarse.shape[2]):
            y, x = min(row * stride + stride // 2, height - 1), min(column * stride + stride // 2, width - 1)
            assert torch.equal(coarse[:, row, column], labels[:, y, x])


@pytest.mark.parametrize(
    "labels, named, message",
    [
        (torch.full((2, 32, 32), 3), {}, "class 3 does not exist: `labels` run from 0 to 2, or 255"),
        (torch.full((2, 32, 32), -100), {}, "class -100 does not exist"),
        (torch.zeros(2, 16, 16, dtype=torch.int64), {}, r"\(2, 32, 32\), got \(2, 16, 16\)"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.int64), {}, r"\(2, 32, 32\), got \(2, 1, 32, 32\)"),
        (torch.zeros(2, 32, 32), {}, "whole number, got torch.float32"),
        (torch.zeros(2, 32, 32, dtype=torch.int64), {"annotated_classes": torch.ones(3)}, r"\(2, 3\), got \(3,\)"),
    ],
)
def test_wrong_labels_are_one_clear_error(labels, named, message):
    with pytest.raises(ValueError, match=message) as error:
        small_model()(torch.rand(2, 3, 32, 32), labels=labels, **named)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, -1.0, 1.0]])
def test_wrong_class_weights_are_one_clear_error(weights):
    with pytest.raises(ValueError, match="`class_weights` must be 3 numbers"):
        small_model(class_weights=weights)(torch.rand(1, 3, 32, 32), labels=torch.zeros(1, 32, 32, dtype=torch.int64))


def test_one_label_is_refused_and_the_error_names_the_cure():
    with pytest.raises(ValueError, match="set num_labels=2, class 0 is the background"):
        small_model(num_labels=1)


# --- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder, steps", [("unetr", 40), ("light", 120)])
def test_overfits_one_batch(decoder, steps):
    model = small_model(decoder)
    images, labels = scene()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        outputs = model(images, labels=labels)
        outputs.loss.backward()
        optimizer.step()
    assert outputs.dice_loss < 0.2
    assert (outputs.logits.argmax(1) == labels).float().mean() > 0.97


@both_decoders
@pytest.mark.parametrize("deep_supervision_weight", [0.0, 0.5])
def test_gradients_reach_every_parameter(decoder, deep_supervision_weight):
    model = small_model(decoder, deep_supervision_weight=deep_supervision_weight)
    images, labels = scene()
    outputs = model(images, labels=labels)
    outputs.loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert (outputs.deep_supervision_loss is not None) == bool(deep_supervision_weight)
    assert hasattr(model, "segmentation_deep_heads") == bool(deep_supervision_weight)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    weights = {"cross_entropy_loss_weight": 0.3, "dice_loss_weight": 2.0, "deep_supervision_weight": 0.7}
    images, labels = scene()
    outputs = small_model("unetr", **weights)(images, labels=labels)
    expected = 0.3 * outputs.cross_entropy_loss + 2.0 * outputs.dice_loss + 0.7 * outputs.deep_supervision_loss
    torch.testing.assert_close(outputs.loss, expected)


def test_deep_supervision_halves_the_weight_from_map_to_map():
    model = small_model("unetr", deep_supervision_weight=1.0)  # maps of stride 1, 2, 4 and 8
    images, labels = scene()
    maps: list[torch.Tensor] = []
    model.segmentation_decoder.register_forward_hook(lambda module, inputs, outputs: maps.extend(outputs))
    loss = model(images, labels=labels).deep_supervision_loss
    monai = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    finer, coarser = (
        monai(head(feature_map), labels[:, None, offset::stride, offset::stride])
        for head, feature_map, stride, offset in zip(
            model.segmentation_deep_heads, maps[1:3], (2, 4), (1, 2), strict=True
        )
    )
    torch.testing.assert_close(loss, (finer + coarser / 2) / 1.5)


@both_decoders
def test_an_image_that_is_ignored_throughout_gives_a_loss_of_zero_that_can_be_trained_on(decoder):
    model = small_model(decoder, deep_supervision_weight=0.5)
    loss = model(torch.rand(1, 3, 32, 32), labels=torch.full((1, 32, 32), 255)).loss
    assert loss == 0 and loss.requires_grad
    loss.backward()
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@both_decoders
@pytest.mark.parametrize("height, width", [(57, 43), (8, 8), (8, 100), (33, 32)])
def test_any_size_of_image(decoder, height, width):
    model = small_model(decoder, deep_supervision_weight=0.5)
    images, labels = scene(height, width)
    outputs = model(images, labels=labels)
    assert outputs.logits.shape == (2, 3, height, width)
    assert torch.isfinite(outputs.loss) and torch.isfinite(outputs.logits).all()


@both_decoders
@pytest.mark.parametrize("height, width", [(32, 32), (57, 43)])
def test_an_image_gives_the_same_alone_and_in_a_batch(decoder, height, width):
    model = small_model(decoder).eval()
    images, _ = scene(height, width)
    with torch.inference_mode():
        batch = model(images).logits
        for index in range(len(images)):
            alone = model(images[index : index + 1]).logits
            torch.testing.assert_close(alone[0], batch[index], atol=1e-5, rtol=1e-5)


@both_decoders
def test_saved_and_loaded_again_it_gives_the_same(decoder, tmp_path):
    model = small_model(decoder, deep_supervision_weight=0.5).eval()
    images, _ = scene()
    model.save_pretrained(tmp_path)
    loaded, report = EchoCareForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.inference_mode():
        expected = model(images).logits
        assert torch.equal(loaded.eval()(images).logits, expected)
        # The heads of deep supervision serve training only.
        lean, report = EchoCareForSemanticSegmentation.from_pretrained(
            tmp_path, deep_supervision_weight=0.0, output_loading_info=True
        )
        assert not report["missing_keys"] and not report["unexpected_keys"]
        assert torch.equal(lean.eval()(images).logits, expected)


@both_decoders
def test_gradient_checkpointing_changes_nothing(decoder):
    images, labels = scene()
    gradients = []
    for checkpointing in (False, True):
        model = small_model(decoder).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        model(images, labels=labels).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0])


@both_decoders
def test_under_bf16_autocast_the_losses_stay_fp32(decoder):
    model = small_model(decoder, deep_supervision_weight=0.5)
    images, labels = scene()
    expected = model(images, labels=labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images, labels=labels)
    assert outputs.loss.dtype == torch.float32
    torch.testing.assert_close(outputs.loss, expected.loss, atol=0.02, rtol=0.02)
    outputs.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_hidden_states_come_when_asked_for():
    model = small_model().eval()
    images, _ = scene()
    with torch.inference_mode():
        plain = model(images)
        asked = model(images, output_hidden_states=True)
        encoded = model.echocare(images, output_hidden_states=True)
        model.config.output_hidden_states = True
        by_config = model(images)
    assert plain.hidden_states is None and plain.reshaped_hidden_states is None
    for outputs in (asked, by_config):
        torch.testing.assert_close(outputs.hidden_states, encoded.hidden_states)
        torch.testing.assert_close(outputs.reshaped_hidden_states, encoded.reshaped_hidden_states)


def test_attentions_and_tuples_as_in_transformers():
    model = small_model()
    model.set_attn_implementation("eager")
    images, labels = scene()
    outputs = model(images, labels=labels, output_attentions=True)
    assert len(outputs.attentions) == 3
    as_tuple = model(images, labels=labels, return_dict=False)
    torch.testing.assert_close(as_tuple[:2], (outputs.loss, outputs.logits))


# --- training with Trainer -------------------------------------------------------------------------------------------


class Pairs(torch.utils.data.Dataset):
    def __init__(self, partly: bool) -> None:
        self.images, self.labels = scene()
        self.partly = partly

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        extra = {"annotated_classes": torch.tensor([True, True, index == 0])} if self.partly else {}
        return {"pixel_values": self.images[index], "labels": self.labels[index], **extra}


@pytest.mark.parametrize("partly", [False, True])
def test_trainer_finds_labels_loss_and_predictions(partly, tmp_path):
    # Trainer takes every argument with "label" in its name for one without which there is no loss.
    assert find_labels(EchoCareForSemanticSegmentation) == ["labels"]
    seen = {}

    def compute_metrics(prediction):
        seen["predictions"], seen["labels"] = prediction.predictions, prediction.label_ids
        return {}

    arguments = TrainingArguments(str(tmp_path), max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True)
    data = Pairs(partly)
    trainer = Trainer(small_model(), arguments, train_dataset=data, eval_dataset=data, compute_metrics=compute_metrics)
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    assert seen["predictions"].shape == (2, 3, 32, 32) and seen["labels"].shape == (2, 32, 32)


# --- back to the original image --------------------------------------------------------------------------------------


def one_hot_outputs(labels: torch.Tensor, classes: int = 3) -> EchoCareSemanticSegmenterOutput:
    """Logits of a model that is sure of `labels`."""
    return EchoCareSemanticSegmenterOutput(logits=8.0 * F.one_hot(labels, classes).permute(0, 3, 1, 2).float())


class EchoCareSemanticPostProcessingTester(upstream.ImageProcessingTester):
    num_labels = 5

    def prepare_post_process_semantic_segmentation_inputs(self):
        logits = torch.randn(self.batch_size, self.num_labels, 12, 16)
        inputs = {"outputs": EchoCareSemanticSegmenterOutput(logits=logits)}
        return inputs, {"num_labels": self.num_labels, "height": 12, "width": 16}


class EchoCareSemanticPostProcessingTest(upstream.PostProcessSemanticSegmentationTestMixin, unittest.TestCase):
    """transformers' own test, in both resize modes."""

    def setUp(self):
        self.image_processor_tester = EchoCareSemanticPostProcessingTester(self)
        self.image_processing_classes = {"pil": Processor}

    image_processor_dict = {"size": {"height": 18, "width": 20}}


class EchoCarePaddedSemanticPostProcessingTest(EchoCareSemanticPostProcessingTest):
    image_processor_dict = {"size": {"height": 18, "width": 20}, "resize_mode": "pad"}


def test_squashed_images_come_back_as_from_segformer():
    outputs = EchoCareSemanticSegmenterOutput(
        logits=torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    )
    sizes = [(40, 25), (9, 30)]
    expected = SegformerImageProcessorPil().post_process_semantic_segmentation(outputs, sizes)
    for form in (sizes, torch.tensor(sizes)):
        maps = Processor().post_process_semantic_segmentation(outputs, form)
        assert all(torch.equal(*pair) for pair in zip(maps, expected, strict=True))
        assert all(label_map.dtype == torch.int64 for label_map in maps)


@pytest.mark.parametrize("height, width", [(32, 16), (15, 32), (32, 32)])
def test_padding_is_cut_off_exactly(height, width):
    """At a scale of 1 the labels go to the model's input and back without a change."""
    processor = Processor(size={"height": 32, "width": 32}, resize_mode="pad")
    labels = np.random.default_rng(0).integers(0, 3, (height, width))
    features = processor(np.zeros((height, width, 3), np.uint8), labels, return_tensors="pt")
    assert (features["labels"] == 255).sum() == 32 * 32 - height * width
    sure = one_hot_outputs(features["labels"].masked_fill(features["labels"] == 255, 2))
    (label_map,) = processor.post_process_semantic_segmentation(sure, [(height, width)])
    assert np.array_equal(label_map.numpy(), labels)


@pytest.mark.parametrize("resize_mode", ["squash", "pad"])
@pytest.mark.parametrize("height, width", [(100, 60), (40, 120), (64, 64)])
def test_labels_go_to_the_models_input_and_back(resize_mode, height, width):
    processor = Processor(resize_mode=resize_mode)
    size = {"height": 64, "width": 64}  # of the call, not of the processor
    _, labels = scene(height, width)
    images = np.zeros((2, height, width, 3), np.uint8)
    features = processor(images, list(labels.numpy()), size=size, return_tensors="pt")
    sure = one_hot_outputs(features["labels"].masked_fill(features["labels"] == 255, 0))
    maps = processor.post_process_semantic_segmentation(sure, [(height, width)] * 2)
    for label_map, expected in zip(maps, labels, strict=True):
        for label in range(3):
            overlap = ((label_map == label) & (expected == label)).sum()
            assert overlap / ((label_map == label) | (expected == label)).sum() > 0.85


def test_half_precision_logits_and_scores():
    outputs = EchoCareSemanticSegmenterOutput(logits=torch.randn(1, 3, 8, 8).to(torch.bfloat16))
    (result,) = Processor().post_process_semantic_segmentation(outputs, [(20, 10)], return_segmentation_scores=True)
    assert result.segmentation_scores.shape == (3, 20, 10) and result.segmentation_scores.dtype == torch.float32
    assert torch.equal(result.segmentation, result.segmentation_scores.argmax(0))


@pytest.mark.parametrize("sizes, message", [([(4, 4)], "got 1 for 2"), ([(4, 4), (0, 4)], r"got \(0, 4\)")])
def test_wrong_target_sizes_are_one_clear_error(sizes, message):
    with pytest.raises(ValueError, match=message):
        Processor().post_process_semantic_segmentation(one_hot_outputs(torch.zeros(2, 8, 8, dtype=torch.int64)), sizes)


@pytest.mark.parametrize("resize_mode", ["squash", "pad"])
def test_the_stock_pipeline(resize_mode, caplog):
    names = {0: "background", 1: "lesion", 2: "vessel"}
    model = small_model(id2label=names, label2id={name: index for index, name in names.items()}).eval()
    nn.init.normal_(model.segmentation_head.weight, std=5.0)  # so that several classes occur
    processor = Processor(size={"height": 32, "width": 32}, resize_mode=resize_mode)
    segment = pipeline("image-segmentation", model=model, image_processor=processor)
    assert not [record for record in caplog.records if "not supported" in record.message]
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    results = segment(image)
    with torch.inference_mode():
        outputs = model(processor(image, return_tensors="pt")["pixel_values"])
    (expected,) = processor.post_process_semantic_segmentation(outputs, [(50, 70)])
    assert len(results) > 1
    assert {result["label"] for result in results} == {names[int(label)] for label in expected.unique()}
    for result in results:
        mask = np.asarray(result["mask"])
        assert np.array_equal(mask == 255, expected.numpy() == model.config.label2id[result["label"]])
    assert [len(entry) for entry in segment([image, image])] == [len(results)] * 2
