"""The image classifier: its four kinds of problem, their losses against written-out references, and the stock pipeline."""

import copy
import math

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import pipeline

from echocare_hf import EchoCareConfig, EchoCareForPreTraining, EchoCareImageProcessorPil
from echocare_hf.model.classification_echocare import EchoCareForImageClassification
from echocare_hf.model.label_losses_echocare import (
    class_loss,
    label_logits,
    label_loss,
    multi_label_loss,
    ordinal_log_probabilities,
    regression_loss,
)
from echocare_hf.model.pooling_echocare import EchoCareFeatureNorm, pooled_features

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
ORDINAL, REGRESSION = "ordinal_classification", "regression"
SCALE = {"regression_mean": [50.0, -3.0, 0.0], "regression_deviation": [10.0, 0.5, 1.0]}
NAN = float("nan")
# Labels for four images and three labels, of every kind.
LABELS = {
    SINGLE: torch.tensor([2, 0, 1, 2]),
    ORDINAL: torch.tensor([2, 0, 1, 2]),
    MULTI: torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]]),
    REGRESSION: torch.tensor([[40.0, -3.5, 2.0], [62.0, -2.0, 0.5], [55.0, -3.0, -1.0], [48.0, -2.5, 0.0]]),
}
# The same with nothing known.
UNKNOWN = {
    SINGLE: torch.tensor([-100, -1, -1, -100]),
    ORDINAL: torch.tensor([-1, -1, -1, -1]),
    MULTI: -torch.ones(4, 3),
    REGRESSION: torch.full((4, 3), NAN),
}
PROBLEMS = list(LABELS)
POOLINGS = ["last", "all"]


def small_config(problem_type=SINGLE, **overrides) -> EchoCareConfig:
    """Two stages, three blocks, three labels."""
    values = {
        "image_size": 32,
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "mask_unit_size": 8,
        "drop_path_rate": 0.0,
        "anatomy_tree": {"ids": ["root"], "names": ["root"], "parents": [-1]},
        "anatomy_hidden_size": 8,
        "num_labels": 3,
        "problem_type": problem_type,
    }
    if problem_type == REGRESSION:
        values |= SCALE
    return EchoCareConfig(**{**values, **overrides})


def small_model(problem_type=SINGLE, seed=0, **overrides) -> EchoCareForImageClassification:
    torch.manual_seed(seed)
    model = EchoCareForImageClassification(small_config(problem_type, **overrides))
    with torch.no_grad():  # biases too, so that no part of the model is at a neutral value
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 30, 44, generator=torch.Generator().manual_seed(1))


def random(*shape, seed=0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[2, 0, 1, 1], [2, -100, 1, 0]])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.2, 3.0, 1.5], [0.0, 1.0, 2.0]])
def test_single_label_loss_is_the_weighted_cross_entropy_of_torch(labels, weights):
    logits, labels, weights = random(4, 3), torch.tensor(labels), torch.tensor(weights, dtype=torch.float64)
    expected = F.cross_entropy(logits, labels, weights)
    torch.testing.assert_close(class_loss(logits, labels, weights), expected)
    torch.testing.assert_close(class_loss(logits, labels[:, None].int(), weights), expected)
    torch.testing.assert_close(class_loss(logits, labels.masked_fill(labels == -100, -1), weights), expected)


def test_multi_label_loss_is_the_weighted_mean_over_the_known_findings():
    logits, weights = random(3, 2), torch.tensor([0.5, 2.0], dtype=torch.float64)
    present = torch.tensor([3.0, 0.7], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0], [-1.0, 0.3], [0.0, -1.0]])
    total = weight = 0.0
    for image in range(3):
        for finding in range(2):
            label, logit = labels[image, finding].item(), logits[image, finding].item()
            if label != -1:
                probability = 1 / (1 + math.exp(-logit))
                term = -present[finding].item() * label * math.log(probability)
                term -= (1 - label) * math.log(1 - probability)
                total += weights[finding].item() * term
                weight += weights[finding].item()
    assert multi_label_loss(logits, labels.double(), weights, present).item() == pytest.approx(total / weight)


def test_regression_loss_is_smooth_l1_of_standardised_errors_over_the_known_targets():
    values, deviation = 20 * random(3, 2), torch.tensor([10.0, 0.5], dtype=torch.float64)
    labels = torch.tensor([[3.0, -1.0], [NAN, 4.0], [-8.0, NAN]], dtype=torch.float64)
    terms = []
    for value, label, scale in zip(values.flatten(), labels.flatten(), deviation.repeat(3), strict=True):
        if not label.isnan():
            error = abs(value - label).item() / scale.item()
            terms.append(0.5 * error**2 if error < 1 else error - 0.5)
    assert regression_loss(values, labels, deviation).item() == pytest.approx(sum(terms) / len(terms))


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_ordinal_probabilities_are_products_of_conditional_ones(classes):
    raw = 2 * random(5, classes - 1)
    log_probabilities = ordinal_log_probabilities(raw)
    for image in range(5):
        reached = 1.0  # P(y >= k)
        for k in range(classes):
            if k == classes - 1:
                goes_on = 0.0
            else:
                goes_on = 1 / (1 + math.exp(-(raw[image, k].item() + math.log(classes - 1 - k))))
            assert log_probabilities[image, k].exp().item() == pytest.approx(reached * (1 - goes_on))
            reached *= goes_on
    torch.testing.assert_close(log_probabilities.softmax(-1), log_probabilities.exp())
    zeros = ordinal_log_probabilities(torch.zeros(1, classes - 1))
    torch.testing.assert_close(zeros.exp(), torch.full((1, classes), 1 / classes))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=7))
def test_ordinal_probabilities_of_more_fall_with_the_class_for_any_weights(raw):
    log_probabilities = ordinal_log_probabilities(torch.tensor([raw]))
    assert torch.isfinite(log_probabilities).all()
    probabilities = log_probabilities[0].double().exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    above = 1 - probabilities.cumsum(0)
    assert (above.diff() <= 1e-12).all()


def test_ordinal_loss_is_the_likelihood_of_corn():
    """CORN: at every step k, the binary loss of "above k" over the images that have reached k; here a mean over images."""
    config, raw, labels = small_config(ORDINAL, num_labels=4), random(6, 3), torch.tensor([0, 1, 3, 2, 3, 0])
    total = 0.0
    for k in range(3):
        reached = labels >= k
        logits = raw[reached, k] + math.log(3 - k)
        above = (labels[reached] > k).double()
        total += F.binary_cross_entropy_with_logits(logits, above, reduction="sum").item()
    assert label_loss(label_logits(raw, config), labels, config).item() == pytest.approx(total / 6)


@pytest.mark.parametrize("problem", [SINGLE, MULTI, ORDINAL])
def test_class_weights_come_from_the_configuration(problem, images):
    model = small_model(problem, class_weights=[0.1, 1.0, 4.0]).eval()
    outputs = model(images, labels=LABELS[problem])
    weights, labels = torch.tensor([0.1, 1.0, 4.0]), LABELS[problem]
    if problem == MULTI:
        terms = F.binary_cross_entropy_with_logits(outputs.logits, labels, reduction="none")
        weights = weights.expand_as(terms)
    else:
        terms = -outputs.logits.log_softmax(-1)[range(4), labels]
        weights = weights[labels]
    torch.testing.assert_close(outputs.loss, (terms * weights).sum() / weights.sum())


def test_present_findings_may_count_more_than_absent_ones(images):
    model = small_model(MULTI, positive_weights=[1.0, 3.0, 0.5]).eval()
    outputs = model(images, labels=LABELS[MULTI])
    expected = F.binary_cross_entropy_with_logits(
        outputs.logits, LABELS[MULTI], pos_weight=torch.tensor([1.0, 3.0, 0.5])
    )
    torch.testing.assert_close(outputs.loss, expected)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_labels_that_are_not_known_do_not_count(problem, images):
    model = small_model(problem).eval()
    labels = LABELS[problem].clone()
    labels[1:3] = UNKNOWN[problem][1:3]
    partly = model(images, labels=labels).loss
    torch.testing.assert_close(partly, model(images[::3], labels=LABELS[problem][::3]).loss)

    nothing = model(images, labels=UNKNOWN[problem]).loss
    assert nothing.item() == 0
    nothing.backward()
    assert all((parameter.grad == 0).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    "problem, labels, message",
    [
        (SINGLE, torch.tensor([0, 1, 3, 0]), "class 3 does not exist: `labels` run from 0 to 2"),
        (SINGLE, torch.tensor([0, -2, 1, 0]), "class -2 does not exist"),
        (ORDINAL, torch.tensor([0, 1, 3, 0]), "class 3 does not exist"),
        (SINGLE, torch.tensor([0.0, 1.0, 2.0, 0.0]), "whole number"),
        (SINGLE, torch.zeros(4, 3, dtype=torch.long), r"one class an image, \(4,\), got \(4, 3\)"),
        (SINGLE, torch.zeros(3, dtype=torch.long), r"one class an image, \(4,\), got \(3,\)"),
        (MULTI, torch.tensor([[0, 1, 2]] * 4), "1 .present., 0 .absent. or -1 .unknown., got 2"),
        (MULTI, torch.full((4, 3), NAN), "got nan"),
        (MULTI, torch.ones(4, 2), r"\(batch, findings\), here \(4, 3\) .* got \(4, 2\)"),
        (REGRESSION, torch.ones(4), r"\(batch, targets\), here \(4, 3\) .* got \(4,\)"),
        (REGRESSION, torch.full((4, 3), float("inf")), "mark a target that is not known as NaN"),
    ],
)
def test_labels_that_cannot_be_right_are_one_clear_error(problem, labels, message, images):
    with pytest.raises(ValueError, match=message) as error:
        small_model(problem)(images, labels=labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, -1.0, 1.0]])
def test_class_weights_that_do_not_fit_are_one_clear_error(weights, images):
    with pytest.raises(ValueError, match="`class_weights` must be 3 numbers, none negative"):
        small_model(class_weights=weights)(images, labels=LABELS[SINGLE])


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            {"problem_type": REGRESSION, "regression_deviation": [1.0]},
            "`regression_deviation` has 1 values for 3 regression targets",
        ),
        ({"problem_type": REGRESSION, "regression_mean": [1.0]}, "`regression_mean` has 1 values for 3"),
        ({"problem_type": ORDINAL, "num_labels": 1}, "`num_labels` of at least 2, got 1"),
        ({"problem_type": MULTI, "num_labels": 0}, "`num_labels` of at least 1, got 0"),
    ],
)
def test_configurations_that_do_not_fit_are_one_clear_error(overrides, message):
    with pytest.raises(ValueError, match=message):
        EchoCareForImageClassification(small_config(**overrides))


# --- the kind of problem -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "num_labels, labels, expected",
    [
        (3, torch.tensor([0, 1, 2, 0]), SINGLE),
        (3, torch.tensor([0, 1, 2, 0], dtype=torch.int32), SINGLE),
        (3, torch.tensor([[0.0, 1, 1]] * 4), MULTI),
        (1, torch.tensor([0.5, 2.0, 3.0, 1.0]), REGRESSION),
    ],
)
def test_the_kind_of_problem_is_read_off_the_labels_and_noted_in_training_only(num_labels, labels, expected, images):
    model = small_model(None, num_labels=num_labels).eval()
    told = small_model(expected, num_labels=num_labels, regression_mean=None, regression_deviation=None).eval()
    torch.testing.assert_close(model(images, labels=labels).loss, told(images, labels=labels).loss)
    assert model.config.problem_type is None
    model.train()(images)
    assert model.config.problem_type is None
    model(images, labels=labels)
    assert model.config.problem_type == expected


def test_regression_answers_in_the_unit_of_the_target(images):
    plain = small_model(REGRESSION, regression_mean=None, regression_deviation=None).eval()
    scaled = small_model(REGRESSION).eval()
    mean, deviation = torch.tensor(SCALE["regression_mean"]), torch.tensor(SCALE["regression_deviation"])
    with torch.inference_mode():
        standardised = plain(images).logits
        torch.testing.assert_close(scaled(images).logits, standardised * deviation + mean)
        loss = scaled(images, labels=LABELS[REGRESSION]).loss
        torch.testing.assert_close(loss, plain(images, labels=(LABELS[REGRESSION] - mean) / deviation).loss)


# --- what the head sees --------------------------------------------------------------------------------------------------


def test_all_maps_are_pooled_to_their_means_and_maxima(images):
    model = small_model(classifier_pooling="all").eval()
    with torch.inference_mode():
        maps = model.echocare(images, output_hidden_states=True).reshaped_hidden_states
        features, outputs = pooled_features(model.echocare, images)
        expected = [[m[index].numpy() for m in maps] for index in range(len(images))]
        expected = [[m.mean((1, 2)) for m in image] + [m.max((1, 2)) for m in image] for image in expected]
        expected = torch.tensor(np.stack([np.concatenate(image) for image in expected]))
        torch.testing.assert_close(features, expected)
        assert features.shape == (4, 2 * (16 + 32 + 64))
        assert outputs.hidden_states is None and model(images).hidden_states is None
        torch.testing.assert_close(model(images).logits, model.classifier(features / math.sqrt(1 + 1e-5)))


@pytest.mark.parametrize("rows", [1, 4])
def test_running_statistics_are_those_of_all_images_so_far(rows):
    norm = EchoCareFeatureNorm(3).double()
    batches = 5 * random(8, rows, 3) + torch.tensor([100.0, 0.0, -1.0])
    torch.testing.assert_close(norm.eval()(batches[0]), batches[0] / math.sqrt(1 + 1e-5))  # unchanged at first
    norm.train()
    for batch in batches:
        output = norm(batch)
    seen = batches.flatten(0, 1).numpy()
    np.testing.assert_allclose(norm.running_mean, seen.mean(0), rtol=1e-6)
    np.testing.assert_allclose(norm.running_variance, seen.var(0), rtol=1e-6)
    expected = (batches[-1].numpy() - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-5)
    np.testing.assert_allclose(output, expected, rtol=1e-6)
    assert torch.equal(norm.eval()(batches[-1]), output)  # what training saw is what inference sees
    # Later, each batch counts a tenth.
    for _ in range(10):
        norm.train()(batches[0])
    before = norm.running_mean.clone()
    norm(batches[1])
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * batches[1].mean(0))


def test_running_statistics_leave_out_what_is_masked():
    features, mask = random(2, 3, 4), torch.tensor([[True, True, False], [True, False, False]])
    masked, plain = EchoCareFeatureNorm(4).double(), EchoCareFeatureNorm(4).double()
    masked(features, mask)
    plain(features[mask])
    torch.testing.assert_close(dict(masked.named_buffers()), dict(plain.named_buffers()))


def test_an_unknown_pooling_is_one_clear_error():
    with pytest.raises(ValueError, match="`classifier_pooling` is 'last' or 'all', got 'max'"):
        small_config(classifier_pooling="max")


# --- training and saving -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem, pooling", [(SINGLE, "last"), (SINGLE, "all"), (MULTI, "last"), (ORDINAL, "all"), (REGRESSION, "last")]
)
def test_one_batch_can_be_learned(problem, pooling):
    model = small_model(problem, depths=[1, 1], classifier_pooling=pooling)
    images = random(4, 3, 16, 16).float()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first = None
    for _ in range(50):
        loss = model(images, labels=LABELS[problem]).loss
        first = first or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.02 < 0.2 < first


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_gradients_reach_every_parameter(problem, pooling, images):
    model = small_model(problem, classifier_pooling=pooling)
    model(images, labels=LABELS[problem]).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradient_checkpointing_gives_the_same_gradients(pooling, images):
    model = small_model(classifier_pooling=pooling).train()
    start = copy.deepcopy(model.state_dict())

    def gradients():
        model.load_state_dict(start)
        model.zero_grad()
        model(images, labels=LABELS[SINGLE]).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected = gradients()
    model.activation_checkpointing_enable()
    torch.testing.assert_close(gradients(), expected)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_bfloat16_autocast_and_weights(problem, pooling, images):
    model = small_model(problem, classifier_pooling=pooling).eval()
    expected = model(images, labels=LABELS[problem])
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images, labels=LABELS[problem])
    assert outputs.loss.dtype == torch.float32
    torch.testing.assert_close(outputs.loss, expected.loss, atol=0.05, rtol=0.05)
    outputs.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    half = model.to(torch.bfloat16)(images, labels=LABELS[problem])
    torch.testing.assert_close(half.loss, expected.loss, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_saving_and_loading_gives_the_same(problem, pooling, images, tmp_path):
    model = small_model(problem, classifier_pooling=pooling)
    model(images)  # a training batch, whose statistics are saved too
    model.eval()
    model.save_pretrained(tmp_path)
    again = EchoCareForImageClassification.from_pretrained(tmp_path).eval()
    assert again.config.problem_type == problem
    with torch.inference_mode():
        assert torch.equal(again(images).logits, model(images).logits)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_encoder_of_a_pretraining_checkpoint_is_taken_over(pooling, tmp_path):
    pretrained = EchoCareForPreTraining(small_config(classifier_pooling=pooling))
    pretrained.save_pretrained(tmp_path)
    model, info = EchoCareForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert {name.split(".")[0] for name in info["missing_keys"]} <= {"classifier", "classifier_norm"}
    if pooling == "all":
        fresh = EchoCareFeatureNorm(model.classifier.in_features)
        torch.testing.assert_close(dict(model.classifier_norm.named_buffers()), dict(fresh.named_buffers()))
    assert not any(name.startswith("echocare.") for name in info["unexpected_keys"])
    for name, parameter in model.echocare.named_parameters():
        assert torch.equal(parameter, pretrained.echocare.get_parameter(name))


# --- images --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("height, width", [(8, 8), (33, 47), (64, 32), (9, 150)])
def test_any_size_alone_and_in_a_batch(height, width, pooling):
    model = small_model(ORDINAL, classifier_pooling=pooling).eval()
    images = torch.rand(3, 3, height, width)
    with torch.inference_mode():
        batch = model(images).logits
        alone = torch.cat([model(image[None]).logits for image in images])
    assert batch.shape == (3, 3)
    torch.testing.assert_close(batch, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_hidden_states_and_attentions_on_request(pooling, images):
    config = small_config(classifier_pooling=pooling)
    model = EchoCareForImageClassification._from_config(config, attn_implementation="eager").eval()
    outputs = model(images, output_hidden_states=True, output_attentions=True)
    assert len(outputs.hidden_states) == len(outputs.reshaped_hidden_states) == 3
    assert len(outputs.attentions) == 3
    logits, loss = model(images, return_dict=False)[0], model(images, labels=LABELS[SINGLE], return_dict=False)[0]
    assert logits.shape == (4, 3) and loss.ndim == 0


def test_the_graph_compiles_whole(images):
    model = small_model(ORDINAL, depths=[1, 1], use_conv_blocks=False, classifier_pooling="all")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected = copy.deepcopy(model)(images, labels=LABELS[ORDINAL])
    torch.testing.assert_close(compiled(images, labels=LABELS[ORDINAL]).loss, expected.loss)


# --- the stock pipeline --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem, num_labels",
    [(SINGLE, 3), (SINGLE, 2), (MULTI, 3), (MULTI, 1), (ORDINAL, 4), (REGRESSION, 3), (REGRESSION, 1)],
)
def test_the_image_classification_pipeline(problem, num_labels):
    overrides = {"regression_mean": [50.0] * num_labels, "regression_deviation": [10.0] * num_labels}
    names = {index: f"name {index}" for index in range(num_labels)}
    model = small_model(problem, num_labels=num_labels, id2label=names, **overrides).eval()
    processor = EchoCareImageProcessorPil(size={"height": 32, "width": 32})
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    image = PIL.Image.fromarray(pixels)
    answers = pipeline("image-classification", model=model, image_processor=processor)(image)
    with torch.inference_mode():
        logits = model(processor(image, return_tensors="pt")["pixel_values"]).logits[0]
    expected = {
        SINGLE: lambda: logits.softmax(-1),
        MULTI: lambda: logits.sigmoid(),
        ORDINAL: lambda: logits.exp(),
        REGRESSION: lambda: logits,
    }[problem]()
    assert len(answers) == num_labels
    for answer in answers:
        assert answer["score"] == pytest.approx(expected[int(answer["label"][-1])].item(), abs=1e-5)
    if problem in (SINGLE, ORDINAL):
        assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-5)
    if problem == REGRESSION:
        assert all(20 < answer["score"] < 80 for answer in answers)
