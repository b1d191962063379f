"""The clip classifier: frames with their times, padding, long clips, regression with a spread, and the stock pipeline."""

import copy
import math

import numpy as np
import pytest
import torch
from transformers import pipeline

from echocare_hf import EchoCareConfig, EchoCareForPreTraining, EchoCareImageProcessorPil
from echocare_hf.model.label_losses_echocare import class_loss, gaussian_regression_loss
from echocare_hf.model.video_echocare import (
    FRAMES_AT_A_TIME,
    NOMINAL_FRAME_RATE,
    NUM_PERIODS,
    EchoCareForVideoClassification,
    time_features,
)

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
ORDINAL, REGRESSION = "ordinal_classification", "regression"
NAN = float("nan")
LABELS = {
    SINGLE: torch.tensor([2, 0]),
    ORDINAL: torch.tensor([1, 2]),
    MULTI: torch.tensor([[1.0, 0, 1], [0, 1, 0]]),
    REGRESSION: torch.tensor([[40.0, -3.5, 2.0], [62.0, -2.0, 0.5]]),
}
PROBLEMS = list(LABELS)
POOLINGS = ["last", "all"]


def small_config(problem_type=SINGLE, **overrides) -> EchoCareConfig:
    """Two stages, three blocks, two temporal layers, three labels."""
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
        "temporal_hidden_size": 16,
        "temporal_num_heads": 2,
        "num_labels": 3,
        "problem_type": problem_type,
    }
    if problem_type == REGRESSION:
        values |= {"regression_mean": [50.0, -3.0, 0.0], "regression_deviation": [10.0, 0.5, 1.0]}
    return EchoCareConfig(**{**values, **overrides})


def small_model(problem_type=SINGLE, seed=0, **overrides) -> EchoCareForVideoClassification:
    torch.manual_seed(seed)
    model = EchoCareForVideoClassification(small_config(problem_type, **overrides))
    with torch.no_grad():  # no part of the model at a neutral value
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for parameter in model.video_head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def random_clips(*shape, seed=1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def clips() -> torch.Tensor:
    return random_clips(2, 5, 3, 24, 20)


@pytest.fixture
def times() -> torch.Tensor:
    """Milliseconds, unevenly spaced."""
    return torch.tensor([[0.0, 20, 45, 60, 130], [0.0, 33, 66, 500, 510]])


def answer(model, *args, **kwargs):
    with torch.inference_mode():
        return model(*args, **kwargs)


# --- losses ----------------------------------------------------------------------------------------------------------


def test_gaussian_loss_without_beta_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    values, labels = (torch.randn(6, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    spread = torch.rand(6, 2, generator=generator, dtype=torch.float64) + 0.1
    ones = torch.ones(2, dtype=torch.float64)
    expected = torch.nn.GaussianNLLLoss()(values, labels, spread.square())
    torch.testing.assert_close(gaussian_regression_loss(values, spread, labels, ones, beta=0), expected)
    # The same in another unit: the loss is one of standardised values.
    deviation = torch.tensor([10.0, 0.5], dtype=torch.float64)
    scaled = gaussian_regression_loss(values * deviation, spread * deviation, labels * deviation, deviation, beta=0)
    torch.testing.assert_close(scaled, expected)
    # Targets that are not known do not count.
    labels[1, 0] = labels[4, 1] = NAN
    known = ~labels.isnan()
    expected = torch.nn.GaussianNLLLoss()(values[known], labels[known], spread[known].square())
    torch.testing.assert_close(gaussian_regression_loss(values, spread, labels, ones, beta=0), expected)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_weighs_gradients_by_a_power_of_the_variance(beta):
    """Of the mean: error * var^(beta - 1), so that at beta 1 a wide spread takes nothing from the mean's gradient."""
    values = torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64, requires_grad=True)
    spread = torch.tensor([[0.5], [3.0], [1.5]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0.0], [5.0], [-1.5]], dtype=torch.float64)
    gaussian_regression_loss(values, spread, labels, torch.ones(1, dtype=torch.float64), beta).backward()
    for index in range(3):
        value, width, label = values[index].item(), spread[index].item(), labels[index].item()
        weight = width ** (2 * beta) / 3
        assert values.grad[index].item() == pytest.approx(weight * (value - label) / width**2)
        assert spread.grad[index].item() == pytest.approx(weight * (1 / width - (value - label) ** 2 / width**3))


def test_gaussian_loss_is_least_at_the_mean_and_deviation_of_the_targets():
    labels = 3 + 2 * torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    value, log_spread = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([value, log_spread], lr=0.05)
    for _ in range(400):
        loss = gaussian_regression_loss(
            value.expand(500, 1), log_spread.exp().expand(500, 1), labels, torch.tensor([2.0])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert value.item() == pytest.approx(labels.mean().item(), abs=0.02)
    assert log_spread.exp().item() == pytest.approx(labels.std(correction=0).item(), rel=0.02)


def test_losses_of_the_model_are_those_of_its_outputs(clips):
    labels = LABELS[REGRESSION].clone()
    labels[0, 1] = NAN
    outputs = answer(small_model(REGRESSION).eval(), clips, labels=labels)
    deviation = torch.tensor([10.0, 0.5, 1.0])
    torch.testing.assert_close(
        outputs.loss, gaussian_regression_loss(outputs.logits, outputs.spread, labels, deviation)
    )
    outputs = answer(small_model(ORDINAL).eval(), clips, labels=LABELS[ORDINAL])
    torch.testing.assert_close(outputs.loss, class_loss(outputs.logits, LABELS[ORDINAL], torch.ones(3)))
    torch.testing.assert_close(outputs.logits.exp().sum(-1), torch.ones(2))
    assert outputs.spread is None


def test_mean_and_spread_are_in_the_unit_of_the_target(clips):
    plain = answer(small_model(REGRESSION, regression_mean=None, regression_deviation=None).eval(), clips)
    scaled = answer(small_model(REGRESSION).eval(), clips)
    mean, deviation = torch.tensor([50.0, -3.0, 0.0]), torch.tensor([10.0, 0.5, 1.0])
    torch.testing.assert_close(scaled.logits, plain.logits * deviation + mean)
    torch.testing.assert_close(scaled.spread, plain.spread * deviation)
    assert (scaled.spread > 0).all()


# --- time ------------------------------------------------------------------------------------------------------------


def test_time_features_are_sines_and_cosines_of_known_periods():
    seconds = torch.tensor([[0.0, 0.02, 0.7, 12.0]])
    features = time_features(seconds)
    for frame, second in enumerate(seconds[0].tolist()):
        for index in range(NUM_PERIODS):
            period = 0.04 * (60 / 0.04) ** (index / (NUM_PERIODS - 1))
            angle = 2 * math.pi * second / period
            assert features[0, frame, index].item() == pytest.approx(math.sin(angle), abs=1e-3)
            assert features[0, frame, NUM_PERIODS + index].item() == pytest.approx(math.cos(angle), abs=1e-3)


def test_the_same_frames_at_other_times_are_another_clip(clips, times):
    model = small_model(REGRESSION).eval()
    usual, slow = answer(model, clips, times), answer(model, clips, 3 * times)
    changed = (usual.logits - slow.logits).abs() / torch.tensor([10.0, 0.5, 1.0])
    assert changed.max() > 1e-3
    assert (usual.frame_weights - slow.frame_weights).abs().max() > 1e-3


def test_without_times_frames_come_at_the_nominal_rate(clips):
    model = small_model().eval()
    nominal = torch.arange(5)[None].expand(2, -1) * (1000 / NOMINAL_FRAME_RATE)
    torch.testing.assert_close(answer(model, clips).logits, answer(model, clips, nominal).logits)


def test_only_differences_to_the_earliest_frame_matter(clips, times):
    model = small_model().eval()
    expected = answer(model, clips, times).logits
    torch.testing.assert_close(answer(model, clips, times - 70).logits, expected)
    since_1970 = times.long() + 1_700_000_000_000  # as many milliseconds do not fit into single precision
    torch.testing.assert_close(answer(model, clips, since_1970).logits, expected)


def test_the_order_in_which_frames_are_handed_over_does_not_matter(clips, times):
    model, order = small_model().eval(), [3, 0, 4, 2, 1]
    expected = answer(model, clips, times)
    outputs = answer(model, clips[:, order], times[:, order])
    torch.testing.assert_close(outputs.logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outputs.frame_weights, expected.frame_weights[:, order], atol=1e-5, rtol=1e-5)
    # The order of the events does: the same times on other frames.
    reordered = answer(model, clips[:, order], times)
    assert (reordered.logits - expected.logits).abs().max() > 1e-4


# --- padding, number and size of frames --------------------------------------------------------------------------------


@pytest.mark.parametrize("attention, pooling", [("sdpa", "last"), ("eager", "last"), ("sdpa", "all")])
@pytest.mark.parametrize("with_times", [True, False])
def test_padded_clips_give_the_same_as_each_alone(attention, pooling, with_times):
    model = small_model(REGRESSION, classifier_pooling=pooling).eval()
    model.set_attn_implementation(attention)
    lengths = [4, 7, 1]
    singles = [random_clips(length, 3, 24, 20, seed=length) for length in lengths]
    spacings = [20.0, 41.0, 33.0]
    clips, times = torch.full((3, 7, 3, 24, 20), NAN), torch.full((3, 7), NAN)
    mask = torch.zeros(3, 7, dtype=torch.bool)
    for index, (clip, spacing) in enumerate(zip(singles, spacings, strict=True)):
        places = slice(7 - len(clip), None) if index == 0 else slice(len(clip))  # before or after the frames
        clips[index, places], mask[index, places] = clip, True
        times[index, places] = spacing * torch.arange(len(clip)) + 5
    batch = answer(model, clips, frame_times=times if with_times else None, frame_mask=mask)
    for index, clip in enumerate(singles):
        alone = answer(model, clip, frame_times=times[index][mask[index]] if with_times else None)
        torch.testing.assert_close(batch.logits[index], alone.logits[0], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(batch.spread[index], alone.spread[0], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(batch.frame_weights[index][mask[index]], alone.frame_weights[0], atol=1e-5, rtol=0)
    assert (batch.frame_weights[~mask] == 0).all()
    torch.testing.assert_close(batch.frame_weights.sum(1), torch.ones(3))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_takes_no_part_in_gradients(pooling, clips):
    model = small_model(classifier_pooling=pooling)
    start = copy.deepcopy(model.state_dict())
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 0, 0]])

    def gradients(*args, **kwargs):
        model.load_state_dict(start)
        model.zero_grad()
        model(*args, labels=LABELS[SINGLE], **kwargs).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    clips[:, 3:] = NAN
    torch.testing.assert_close(gradients(clips, frame_mask=mask), gradients(clips[:, :3]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frames, height, width", [(1, 24, 20), (2, 8, 8), (9, 33, 47)])
def test_any_number_and_size_of_frames_alone_and_in_a_batch(frames, height, width):
    model = small_model().eval()
    clips = random_clips(3, frames, 3, height, width)
    batch = answer(model, clips)
    assert batch.logits.shape == (3, 3) and batch.frame_weights.shape == (3, frames)
    for index, clip in enumerate(clips):
        alone = answer(model, clip)  # four dimensions: one clip
        torch.testing.assert_close(alone.logits[0], batch.logits[index], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode, pooling", [("inference", "last"), ("inference", "all"), ("frozen encoder", "last")])
def test_long_clips_are_encoded_in_pieces_where_no_gradient_is_needed(mode, pooling):
    model = small_model(classifier_pooling=pooling).eval()
    clip = random_clips(2 * FRAMES_AT_A_TIME + 3, 3, 8, 8)
    seen = []
    handle = model.echocare.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    with torch.enable_grad():
        whole = model(clip).logits
    assert seen == [2 * FRAMES_AT_A_TIME + 3]
    seen.clear()
    if mode == "inference":
        outputs = answer(model, clip)
    else:
        model.echocare.requires_grad_(False)
        outputs = model(clip, labels=torch.tensor([1]))
        outputs.loss.backward()
        assert all(parameter.grad is not None for parameter in model.video_head.parameters())
    assert seen == [FRAMES_AT_A_TIME, FRAMES_AT_A_TIME, 3]
    torch.testing.assert_close(outputs.logits, whole, atol=1e-5, rtol=1e-5)
    handle.remove()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"pixel_values": None}, "specify `pixel_values`"),
        (
            {"pixel_values": torch.rand(3, 24, 20)},
            r"must be clips \(batch, frames, channels, height, width\) .* \(3, 24, 20\)",
        ),
        ({"pixel_values": torch.rand(2, 0, 3, 24, 20)}, r"at least one frame, got \(2, 0, 3, 24, 20\)"),
        ({"pixel_values": torch.rand(2, 5, 1, 24, 20)}, "3 channels"),
        ({"frame_times": torch.rand(2, 4)}, r"`frame_times` must be \(batch, frames\), here \(2, 5\), got \(2, 4\)"),
        ({"frame_times": torch.full((2, 5), NAN)}, "`frame_times` holds times that are NaN or infinite"),
        ({"frame_mask": torch.ones(5)}, r"`frame_mask` must be \(batch, frames\), here \(2, 5\), got \(5,\)"),
        ({"frame_mask": torch.tensor([[1, 0, 0, 0, 1], [0] * 5])}, "leaves clip 1 without a frame"),
        ({"labels": torch.tensor([1])}, r"one class an image, \(2,\), got \(1,\)"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(arguments, message, clips):
    with pytest.raises(ValueError, match=message) as error:
        small_model()(**{"pixel_values": clips, **arguments})
    assert "\n" not in str(error.value)


# --- training and saving -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem, pooling",
    [(SINGLE, "last"), (MULTI, "all"), (ORDINAL, "last"), (REGRESSION, "last"), (REGRESSION, "all")],
)
def test_one_batch_can_be_learned(problem, pooling):
    model = small_model(problem, depths=[1, 1], classifier_pooling=pooling)
    clips, labels = random_clips(2, 3, 3, 16, 16), LABELS[problem]
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3 if problem == REGRESSION else 1e-2)
    history = []
    for _ in range(160 if problem == REGRESSION else 40):
        outputs = model(clips, labels=labels)
        history.append(outputs)
        optimiser.zero_grad()
        outputs.loss.backward()
        optimiser.step()
    first, last = history[0], history[-1]
    if problem != REGRESSION:
        assert last.loss < 0.05 < 0.3 < first.loss
        return
    # A likelihood has no zero to fall to: the error does, and the spread shrinks with it.
    deviation = torch.tensor([10.0, 0.5, 1.0])
    errors = [((outputs.logits - labels).abs() / deviation).mean() for outputs in (first, last)]
    spreads = [(outputs.spread / deviation).mean() for outputs in (first, last)]
    assert errors[1] < 0.1 < 0.5 < errors[0]
    assert spreads[1] < 0.2 < 0.5 < spreads[0]
    assert last.loss < first.loss


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_gradients_reach_every_parameter(problem, pooling, clips):
    model = small_model(problem, classifier_pooling=pooling)
    model(clips, labels=LABELS[problem]).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_a_batch_with_nothing_known_teaches_nothing(clips):
    model = small_model(REGRESSION)
    loss = model(clips, labels=torch.full((2, 3), NAN)).loss
    assert loss.item() == 0
    loss.backward()
    assert all((parameter.grad == 0).all() for parameter in model.parameters())


def test_gradient_checkpointing_gives_the_same_gradients(clips):
    model = small_model().train()

    def gradients():
        model.zero_grad()
        model(clips, labels=LABELS[SINGLE]).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected = gradients()
    model.activation_checkpointing_enable()
    assert all(layer.gradient_checkpointing for layer in model.video_head.layers)
    torch.testing.assert_close(gradients(), expected)


@pytest.mark.parametrize("problem", [SINGLE, REGRESSION])
def test_bfloat16_autocast_and_weights(problem, clips, times):
    model = small_model(problem).eval()
    expected = model(clips, times, labels=LABELS[problem])
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(clips, times, labels=LABELS[problem])
    assert outputs.loss.dtype == torch.float32
    torch.testing.assert_close(outputs.loss, expected.loss, atol=0.1, rtol=0.1)
    outputs.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    half = model.to(torch.bfloat16)(clips, times, frame_mask=torch.ones(2, 5), labels=LABELS[problem])
    torch.testing.assert_close(half.loss, expected.loss, atol=0.1, rtol=0.1)


def test_eager_attention_gives_the_same_as_sdpa(clips, times):
    model = small_model().eval()
    expected = answer(model, clips, times).logits
    model.set_attn_implementation("eager")
    torch.testing.assert_close(answer(model, clips, times).logits, expected, atol=1e-5, rtol=1e-5)


def test_hidden_states_and_attentions_are_those_of_the_encoder(clips):
    model = small_model().eval()
    model.set_attn_implementation("eager")
    outputs = model(clips, output_hidden_states=True, output_attentions=True)
    assert [tuple(m.shape) for m in outputs.reshaped_hidden_states] == [
        (10, 16, 12, 10),
        (10, 32, 6, 5),
        (10, 64, 3, 3),
    ]
    assert len(outputs.hidden_states) == len(outputs.attentions) == 3
    torch.testing.assert_close(outputs.logits, answer(model, clips).logits)
    assert model(clips, return_dict=False)[0].shape == (2, 3)


@pytest.mark.parametrize("masked", [True, False])
def test_the_graph_compiles_whole(masked, clips, times):
    model = small_model(
        REGRESSION, depths=[1, 1], use_conv_blocks=False, temporal_num_layers=1, classifier_pooling="all"
    )
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool) if masked else None
    if masked:
        clips[1, 3:] = NAN
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected = model(clips, times, mask, LABELS[REGRESSION])
    torch.testing.assert_close(
        compiled(clips, times, mask, LABELS[REGRESSION]).loss, expected.loss, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("problem, pooling", [(SINGLE, "last"), (REGRESSION, "last"), (REGRESSION, "all")])
def test_saving_and_loading_gives_the_same(problem, pooling, clips, times, tmp_path):
    model = small_model(problem, classifier_pooling=pooling)
    model(clips, times)  # a training batch, whose statistics are saved too
    model.eval()
    model.save_pretrained(tmp_path)
    again = EchoCareForVideoClassification.from_pretrained(tmp_path).eval()
    expected, outputs = answer(model, clips, times), answer(again, clips, times)
    assert torch.equal(outputs.logits, expected.logits)
    assert problem == SINGLE or torch.equal(outputs.spread, expected.spread)


def test_the_encoder_of_a_pretraining_checkpoint_is_taken_over(tmp_path):
    pretrained = EchoCareForPreTraining(small_config())
    pretrained.save_pretrained(tmp_path)
    model, info = EchoCareForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert all(name.startswith("video_head.") for name in info["missing_keys"])
    assert not any(name.startswith("echocare.") for name in info["unexpected_keys"])
    for name, parameter in model.echocare.named_parameters():
        assert torch.equal(parameter, pretrained.echocare.get_parameter(name))


# --- the stock pipeline --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def video_file(tmp_path_factory):
    """A grey square that moves across 12 frames of 64x48 pixels, as MP4."""
    av = pytest.importorskip("av", reason="the video pipeline reads files with PyAV (pip install av)")
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(12):
            pixels = np.zeros((48, 64, 3), np.uint8)
            pixels[10:30, 4 * index : 4 * index + 12] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


@pytest.mark.parametrize(
    "problem, num_labels", [(SINGLE, 3), (MULTI, 3), (ORDINAL, 4), (REGRESSION, 1), (REGRESSION, 2)]
)
def test_the_video_classification_pipeline(problem, num_labels, video_file):
    overrides = {"regression_mean": [50.0] * num_labels, "regression_deviation": [10.0] * num_labels}
    names = {index: f"name {index}" for index in range(num_labels)}
    model = small_model(problem, num_labels=num_labels, id2label=names, num_frames=8, **overrides).eval()
    shapes = []
    model.video_head.register_forward_hook(
        lambda module, inputs, output: shapes.append((tuple(inputs[0].shape), output[0][0]))
    )
    processor = EchoCareImageProcessorPil(size={"height": 32, "width": 32})
    classify = pipeline("video-classification", model=model, image_processor=processor)
    answers = classify(video_file)
    shape, logits = shapes.pop()
    assert shape == (1, 8, 64)  # one clip of `config.num_frames`
    scores = {SINGLE: logits.softmax(-1), MULTI: logits.sigmoid(), ORDINAL: logits.exp(), REGRESSION: logits}[problem]
    assert len(answers) == num_labels
    for entry in answers:
        assert entry["score"] == pytest.approx(scores[int(entry["label"][-1])].item(), abs=1e-5)
    if problem == REGRESSION:
        assert all(20 < entry["score"] < 80 for entry in answers)
    classify(video_file, num_frames=20)  # longer than the file: the frames that there are
    assert shapes.pop()[0] == (1, 12, 64)
