"""The keypoint head: what it learns, pairs without order, reading between the pixels, and the way back to millimetres."""

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from transformers import Trainer, TrainingArguments

from echocare_hf import EchoCareConfig
from echocare_hf.model.encoder_echocare import EchoCareModel
from echocare_hf.model.image_processing_pil_echocare import EchoCareImageProcessorPil
from echocare_hf.model.keypoints_echocare import (
    COORDINATE_LOSS_WEIGHT,
    VISIBILITY_LOSS_WEIGHT,
    EchoCareForKeypointDetection,
    EchoCareKeypointDetectionOutput,
    keypoint_losses,
    match_keypoint_pairs,
    read_heatmaps,
    target_spread,
)

NAN = float("nan")

both_decoders = pytest.mark.parametrize("decoder", ["light", "unetr"])


def small_config(**overrides) -> EchoCareConfig:
    settings = {
        "image_size": 48,
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "mask_unit_size": 8,
        "drop_path_rate": 0.0,
        "dense_decoder_type": "light",
        "dense_hidden_size": 16,
        "num_keypoints": 3,
        "anatomy_tree": {"ids": [], "names": [], "parents": []},
    }
    return EchoCareConfig(**{**settings, **overrides})


def small_model(seed: int = 0, **overrides) -> EchoCareForKeypointDetection:
    torch.manual_seed(seed)
    return EchoCareForKeypointDetection(small_config(**overrides))


# Landmarks 0 and 1 are the two ends of a bar, landmark 2 a dot that the third image does not have.
LABELS = torch.tensor(
    [
        [[8.0, 12.0, 2], [40.0, 20.0, 2], [14.5, 38.25, 2]],
        [[10.0, 36.0, 1], [38.0, 30.0, 1], [30.0, 10.75, 1]],
        [[12.0, 20.0, 2], [36.0, 34.0, 2], [0.0, 0.0, -1]],
    ]
)


def drawn(labels: torch.Tensor = LABELS, height: int = 48, width: int = 48) -> torch.Tensor:
    """A grey bar between landmarks 0 and 1 and a bright dot at landmark 2, on noise: (images, 3, height, width)."""
    images = 0.2 * torch.rand(len(labels), height, width, generator=torch.Generator().manual_seed(3))
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for image, (first, second, dot) in zip(images, labels, strict=True):
        along = second[:2] - first[:2]
        place = (((x - first[0]) * along[0] + (y - first[1]) * along[1]) / along.square().sum()).clamp(0, 1)
        distance = (x - first[0] - place * along[0]) ** 2 + (y - first[1] - place * along[1]) ** 2
        image += 0.4 * (distance < 4)
        if dot[2] > 0:
            image += 0.8 * torch.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / 8)
    return images[:, None].expand(-1, 3, -1, -1).contiguous()


def train(model, images, labels, steps: int = 100, rate: float = 5e-3) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    losses = []
    for _ in range(steps):
        loss = model(images, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def gaussian_map(points, rows: int, columns: int, stride: int, spread: float) -> torch.Tensor:
    """A probability map (rows, columns) with an equal Gaussian at each point, by loops."""
    heatmap = torch.zeros(rows, columns, dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            for x, y in points:
                square = ((column + 0.5) * stride - x) ** 2 + ((row + 0.5) * stride - y) ** 2
                heatmap[row, column] += math.exp(-square / (2 * spread**2))
    return heatmap / heatmap.sum()


# --- learning --------------------------------------------------------------------------------------------------------


@both_decoders
def test_overfits_one_batch(decoder):
    model = small_model(dense_decoder_type=decoder)
    losses = train(model, drawn(), LABELS)
    assert losses[-1] < 0.1 * losses[0]
    with torch.inference_mode():
        outputs = model.eval()(drawn())
    found = EchoCareImageProcessorPil().post_process_keypoint_detection(outputs)
    error = (torch.stack([entry["keypoints"] for entry in found]) - LABELS[..., :2]).norm(dim=-1)
    assert float(error[LABELS[..., 2] > 0].max()) < 1.0  # half a place of the light decoder's map
    visible = torch.stack([entry["visible"] for entry in found])
    assert torch.equal(visible, LABELS[..., 2] > 0)
    scores = torch.stack([entry["scores"] for entry in found])
    assert scores[2, 2] < 0.3 < scores[LABELS[..., 2] > 0].min()


def test_a_pair_without_order_is_learned_from_labels_in_any_order():
    """Bars at every angle, upright ones too, whose ends are labelled in random order; both maps end with one peak each."""
    generator = torch.Generator().manual_seed(5)
    angles = torch.linspace(0, math.pi, 9)[:-1]
    half = 15 * torch.stack((angles.cos(), angles.sin()), -1)
    ends = torch.stack((24 + half, 24 - half), 1)  # (8, 2, 2)
    swap = torch.rand(len(ends), generator=generator) < 0.5
    ends[swap] = ends[swap].flip(1)
    labels = torch.cat((torch.cat((ends, ends[:, :1]), 1), torch.full((8, 3, 1), 2.0)), -1)
    labels[:, 2, 2] = 0
    model = small_model(keypoint_pairs=[[0, 1]])
    images = drawn(labels)
    train(model, images, labels, steps=120)
    with torch.inference_mode():
        outputs = model.eval()(images)
    targets = match_keypoint_pairs(outputs.keypoints, labels, [[0, 1]])
    error = (outputs.keypoints - targets[..., :2]).norm(dim=-1)[:, :2]
    assert float(error.max()) < 2.0
    assert float(outputs.heatmaps[:, :2].flatten(2).amax(-1).min()) > 0.03


@both_decoders
def test_gradients_reach_all_parameters(decoder):
    model = small_model(dense_decoder_type=decoder, keypoint_pairs=[[0, 1]])
    model(drawn(), labels=LABELS).loss.backward()
    without = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert without == []


def test_gradient_checkpointing_gives_the_same_gradients():
    model = small_model().train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(drawn(), labels=LABELS).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_bfloat16_autocast_agrees_with_float32():
    model = small_model()
    expected = model(drawn(), labels=LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(drawn(), labels=LABELS)
    outputs.loss.backward()
    assert outputs.keypoints.dtype == outputs.heatmaps.dtype == outputs.loss.dtype == torch.float32
    torch.testing.assert_close(outputs.loss, expected.loss, rtol=0.02, atol=0)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_autocast_rounds_no_coordinate():
    """In bfloat16 a coordinate near 200 would be a whole number."""
    heatmaps = gaussian_map([(201.37, 198.81)], 128, 128, 2, 5.0).float()[None, None]
    labels = torch.tensor([[[201.37, 198.81, 2.0]]])
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            positions, _ = read_heatmaps(heatmaps, 2, 12.5)
            losses = keypoint_losses(heatmaps.clamp(min=1e-30).log(), torch.zeros(1, 1), labels, 2, (256, 256))
        results.append((positions, *losses))
    for exact, autocast in zip(*results, strict=True):
        assert torch.equal(exact, autocast)
    torch.testing.assert_close(results[0][0][0, 0], labels[0, 0, :2], atol=0.02, rtol=0)


def test_trainer_trains_and_evaluates(tmp_path):
    data = [{"pixel_values": image, "labels": label} for image, label in zip(drawn(), LABELS, strict=True)]
    arguments = TrainingArguments(
        output_dir=tmp_path, max_steps=2, per_device_train_batch_size=2, per_device_eval_batch_size=2, report_to=[],
        use_cpu=True, disable_tqdm=True, gradient_accumulation_steps=2, save_strategy="no",
    )  # fmt: skip
    model = small_model()
    assert model.accepts_loss_kwargs is False
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data)
    assert math.isfinite(trainer.train().training_loss)
    predicted = trainer.predict(data)
    with torch.inference_mode():
        expected = model.eval()(drawn()).keypoints
    torch.testing.assert_close(torch.from_numpy(predicted.predictions[0]), expected, atol=1e-2, rtol=0)
    assert (predicted.label_ids == LABELS.numpy()).all()


# --- shapes, saving, loading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder, stride", [("light", 2), ("unetr", 1)])
@pytest.mark.parametrize("height, width", [(57, 43), (32, 32), (33, 90)])
def test_any_size_of_image(decoder, stride, height, width):
    model = small_model(dense_decoder_type=decoder)
    labels = torch.tensor([[[5.0, 6.0, 2], [width - 1.0, height - 1.0, 2], [0.0, 0.0, 0]]])
    outputs = model(drawn(labels, height, width), labels=labels)
    assert outputs.heatmaps.shape == (1, 3, math.ceil(height / stride), math.ceil(width / stride))
    torch.testing.assert_close(outputs.heatmaps.sum((2, 3)), torch.ones(1, 3))
    assert outputs.keypoints.shape == (1, 3, 2) and outputs.scores.shape == (1, 3)
    assert outputs.input_sizes.tolist() == [[height, width]]
    assert torch.isfinite(outputs.loss)


@both_decoders
def test_an_image_gives_the_same_alone_and_in_a_batch(decoder):
    model = small_model(dense_decoder_type=decoder).eval()
    with torch.inference_mode():
        batch = model(drawn())
        for index in range(3):
            alone = model(drawn()[index : index + 1])
            torch.testing.assert_close(alone.heatmaps[0], batch.heatmaps[index], atol=1e-6, rtol=1e-4)
            torch.testing.assert_close(
                alone.visibility_logits[0], batch.visibility_logits[index], atol=1e-5, rtol=1e-4
            )


@both_decoders
def test_saved_and_loaded_gives_the_same(decoder, tmp_path):
    model = small_model(dense_decoder_type=decoder, keypoint_pairs=[[0, 1]], keypoint_names=["a", "b", "c"]).eval()
    model.save_pretrained(tmp_path)
    loaded = EchoCareForKeypointDetection.from_pretrained(tmp_path).eval()
    assert loaded.config.keypoint_pairs == [[0, 1]] and loaded.config.keypoint_names == ["a", "b", "c"]
    with torch.inference_mode():
        ours, theirs = model(drawn()), loaded(drawn())
    assert torch.equal(ours.keypoints, theirs.keypoints) and torch.equal(ours.scores, theirs.scores)


def test_loads_an_encoder(tmp_path):
    EchoCareModel(small_config()).save_pretrained(tmp_path)
    _, info = EchoCareForKeypointDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"keypoint_decoder", "keypoint_head"}


def test_hidden_states_only_when_asked_for():
    model = small_model().eval()
    with torch.inference_mode():
        plain, asked = model(drawn()), model(drawn(), output_hidden_states=True)
        keypoints = model(drawn(), return_dict=False)[0]
    assert plain.hidden_states is None and plain.reshaped_hidden_states is None
    assert len(asked.reshaped_hidden_states) == 3
    assert torch.equal(keypoints, plain.keypoints)


def test_a_model_without_landmarks_is_refused():
    with pytest.raises(ValueError, match="at least one landmark: set `num_keypoints`"):
        small_model(num_keypoints=0)


# --- losses ----------------------------------------------------------------------------------------------------------


def random_log_maps(batch: int, keypoints: int, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    logits = torch.randn(batch, keypoints, rows, columns, generator=torch.Generator().manual_seed(seed))
    return logits.flatten(2).log_softmax(-1).view_as(logits)


def test_losses_equal_the_loop():
    log_maps, visibility = random_log_maps(3, 3, 24, 24), torch.tensor([[0.3, -1.0, 2.0]]).repeat(3, 1)
    found = keypoint_losses(log_maps, visibility, LABELS, 2, (48, 48))
    divergences, errors, entropies = [], [], []
    for image, label in enumerate(LABELS.tolist()):
        for keypoint, (x, y, seen) in enumerate(label):
            logit = float(visibility[image, keypoint])
            probability = 1 / (1 + math.exp(-logit))
            entropies.append(-math.log(probability if seen > 0 else 1 - probability))
            if seen < 0:
                continue
            heatmap = log_maps[image, keypoint].double().exp()
            target = gaussian_map([(x, y)], 24, 24, 2, 2.0)
            normals = Categorical(target.flatten()), Categorical(heatmap.flatten())
            divergences.append(float(kl_divergence(*normals)))
            mean = [0.0, 0.0]
            for row in range(24):
                for column in range(24):
                    mean[0] += float(heatmap[row, column]) * (2 * column + 1)
                    mean[1] += float(heatmap[row, column]) * (2 * row + 1)
            errors.append((abs(mean[0] - x) + abs(mean[1] - y)) / 2 / 24)
    for value, expected in zip(found, (divergences, errors, entropies), strict=True):
        assert float(value) == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_the_loss_is_the_weighted_sum():
    outputs = small_model()(drawn(), labels=LABELS)
    expected = outputs.heatmap_loss + COORDINATE_LOSS_WEIGHT * outputs.coordinate_loss
    torch.testing.assert_close(outputs.loss, expected + VISIBILITY_LOSS_WEIGHT * outputs.visibility_loss)


@pytest.mark.parametrize(
    "unlabelled",
    [[NAN, NAN, 2.0], [NAN, 3.0, 0.0], [NAN, NAN, NAN], [7.0, 7.0, 0.0]],
    ids=["NaN", "NaN and 0", "all NaN", "visibility 0"],
)
def test_nothing_is_learned_from_landmarks_that_are_not_labelled(unlabelled):
    labels = LABELS.clone()
    labels[0, 1] = torch.tensor(unlabelled)
    log_maps = random_log_maps(3, 3, 24, 24).requires_grad_()
    visibility = torch.zeros(3, 3, requires_grad=True)
    sum(keypoint_losses(log_maps, visibility, labels, 2, (48, 48), [[1, 2]])).backward()
    # In a pair it is the model that says which end the one label belongs to: one of the two learns nothing.
    gradients = log_maps.grad.abs().sum((2, 3))[0]
    assert torch.isfinite(log_maps.grad).all() and gradients[0] > 0
    assert sorted((gradients[1:] > 0).tolist()) == [False, True]
    assert sorted((visibility.grad[0, 1:] != 0).tolist()) == [False, True]


def test_a_batch_without_labels_has_no_loss_and_no_gradient():
    labels = torch.zeros(3, 3, 3)
    model = small_model()
    outputs = model(drawn(), labels=labels)
    outputs.loss.backward()
    assert outputs.loss.item() == 0
    assert all(not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def peaks_at(points, spread: float = 2.0) -> torch.Tensor:
    """Log-probabilities (1, len(points), 24, 24) with one Gaussian each, stride 2."""
    return (
        torch.stack([gaussian_map([point], 24, 24, 2, spread) for point in points])
        .clamp(min=1e-30)
        .log()
        .float()[None]
    )


def test_a_pair_costs_the_same_in_either_order():
    points = [(10.0, 20.0), (36.0, 24.0), (20.0, 40.0)]
    labels = torch.tensor([[[*point, 2.0] for point in points]])
    swapped = labels[:, [1, 0, 2]]
    for log_maps in (peaks_at(points), peaks_at([points[1], points[0], points[2]]), random_log_maps(1, 3, 24, 24)):
        costs = [
            keypoint_losses(log_maps, torch.zeros(1, 3), entry, 2, (48, 48), [[0, 1]]) for entry in (labels, swapped)
        ]
        torch.testing.assert_close(costs[0], costs[1])
    given, other = (
        keypoint_losses(peaks_at(points), torch.zeros(1, 3), entry, 2, (48, 48)) for entry in (labels, swapped)
    )
    assert float(given[0]) < 1e-3 and float(other[0]) > 10  # without a pair the order matters


def test_an_undecided_model_learns_a_pair_from_left_to_right():
    labels = torch.tensor([[[36.0, 24.0, 2.0], [10.0, 20.0, 2.0]]])  # right end first
    log_maps = torch.full((1, 2, 24, 24), -math.log(24 * 24), requires_grad=True)
    sum(keypoint_losses(log_maps, torch.zeros(1, 2), labels, 2, (48, 48), [[0, 1]])[:1]).backward()
    wanted = (-log_maps.grad).flatten(2).argmax(-1)[0]  # where each map shall rise
    assert (wanted % 24 * 2 + 1).tolist() == [pytest.approx(10, abs=1), pytest.approx(36, abs=1)]


def test_matching_pairs_for_measuring():
    targets = torch.tensor([[[10.0, 10, 2], [30, 10, 1], [5, 5, 2], [9, 9, 2]]]).repeat(2, 1, 1)
    found = targets[..., :2] + 0.5
    found[1] = found[1, [1, 0, 2, 3]]
    matched = match_keypoint_pairs(found, targets, [[0, 1]])
    assert torch.equal(matched[0], targets[0])
    assert torch.equal(matched[1], targets[1, [1, 0, 2, 3]])


@pytest.mark.parametrize(
    "labels, message",
    [
        (torch.zeros(3, 3, 2), r"\(batch, num_keypoints, 3\), x, y and visibility: \(3, 3, 3\), got \(3, 3, 2\)"),
        (torch.zeros(3, 4, 3), r"got \(3, 4, 3\)"),
        ([1, 2], "got list"),
        (
            torch.full((3, 3, 3), 3.0),
            r"2 or 1 \(labelled\), 0 \(not labelled\) or -1 \(not in the image\), got \[3.0\]",
        ),
        (
            torch.tensor([60.0, 10.0, 2.0]).expand(3, 3, 3),
            r"landmark 0 of image 0 lies outside its 48x48 pixels \(height x width\) at \[60.0, 10.0\]: set its visibility to 0",
        ),
    ],
)
def test_bad_labels_give_one_clear_line(labels, message):
    with pytest.raises(ValueError, match=message) as error:
        small_model()(drawn(), labels=labels)
    assert "\n" not in str(error.value)


# --- reading heat maps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("point", [(31.3, 22.9), (32.0, 24.0), (20.05, 39.95)])
def test_a_peak_is_read_between_the_places(stride, point):
    spread = target_spread((64, 64), stride)
    heatmaps = gaussian_map([point], 64 // stride, 64 // stride, stride, spread).float()[None, None]
    positions, shares = read_heatmaps(heatmaps, stride, 2.5 * spread)
    torch.testing.assert_close(positions[0, 0], torch.tensor(point), atol=0.1 * stride, rtol=0)
    assert 0.9 < float(shares) < 1  # 1 - exp(-2.5^2 / 2) of a Gaussian


def test_of_two_peaks_the_higher_is_read_not_the_middle():
    both = gaussian_map([(10.0, 20.0)], 24, 24, 2, 2.0) * 0.6 + gaussian_map([(40.0, 30.0)], 24, 24, 2, 2.0) * 0.4
    positions, shares = read_heatmaps(both.float()[None, None], 2, 5.0)
    torch.testing.assert_close(positions[0, 0], torch.tensor([10.0, 20.0]), atol=0.1, rtol=0)
    assert float(shares) == pytest.approx(0.6 * 0.956, abs=0.02)


def test_two_ends_read_at_one_place_are_taken_apart():
    left, right = gaussian_map([(10.0, 20.0)], 24, 24, 2, 2.0), gaussian_map([(40.0, 30.0)], 24, 24, 2, 2.0)
    undecided = torch.stack((0.8 * left + 0.2 * right, 0.6 * left + 0.4 * right)).float()[None]
    alone, _ = read_heatmaps(undecided, 2, 5.0)
    assert float((alone[0, 0] - alone[0, 1]).norm()) < 0.5
    apart, shares = read_heatmaps(undecided, 2, 5.0, [[0, 1]])
    torch.testing.assert_close(apart[0], torch.tensor([[10.0, 20.0], [40.0, 30.0]]), atol=0.1, rtol=0)
    assert shares[0].tolist() == pytest.approx([0.8 * 0.956, 0.4 * 0.956], abs=0.02)
    certain = torch.stack((left, 0.99 * left + 0.01 * right)).float()[None]  # two ends that really lie together
    together, _ = read_heatmaps(certain, 2, 5.0, [[0, 1]])
    assert float((together[0, 0] - together[0, 1]).norm()) < 0.5


# --- back to the original image --------------------------------------------------------------------------------------


def fake_outputs(keypoints: torch.Tensor, scores: torch.Tensor, input_size: tuple[int, int]):
    return EchoCareKeypointDetectionOutput(
        keypoints=keypoints,
        scores=scores,
        visibility_logits=scores - 0.5,
        input_sizes=torch.tensor([input_size]).expand(len(keypoints), 2),
    )


@pytest.mark.parametrize("mode", ["squash", "pad"])
def test_landmarks_return_to_the_original_image(mode):
    processor = EchoCareImageProcessorPil(size={"height": 64, "width": 96}, resize_mode=mode)
    sizes = [(301, 200), (90, 333)]
    points = torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([200.0, 90.0])
    in_input = torch.stack(
        [processor.resize_geometry(*size).to_input(point) for size, point in zip(sizes, points, strict=True)]
    )
    outputs = fake_outputs(in_input, torch.tensor([[0.9, 0.1, 0.6, 0.4]] * 2), (64, 96))
    for target_sizes in (sizes, torch.tensor(sizes)):
        results = processor.post_process_keypoint_detection(outputs, target_sizes, spacing=[0.2, (0.1, 0.3)])
        for index, found in enumerate(results):
            torch.testing.assert_close(found["keypoints"], points[index], atol=1e-3, rtol=0)
            assert found["labels"].tolist() == [0, 1, 2, 3]
            assert found["visible"].tolist() == [True, False, True, False]
        torch.testing.assert_close(results[0]["keypoints_mm"], points[0] * 0.2, atol=1e-3, rtol=0)
        torch.testing.assert_close(results[1]["keypoints_mm"], points[1] * torch.tensor([0.3, 0.1]), atol=1e-3, rtol=0)
    (kept, _) = processor.post_process_keypoint_detection(outputs, threshold=0.5)
    assert kept["labels"].tolist() == [0, 2] and "keypoints_mm" not in kept
    torch.testing.assert_close(kept["keypoints"], in_input[0, [0, 2]])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"target_sizes": [(10, 10)] * 2}, "got 2 for 1"),
        ({"spacing": [0.1, 0.2]}, "got 2 for 1"),
        ({"spacing": 0}, "above 0"),
        ({"threshold": -1}, "`threshold` must lie between 0 and 1, got -1"),
    ],
)
def test_wrong_arguments_give_one_clear_line(arguments, message):
    outputs = fake_outputs(torch.rand(1, 3, 2), torch.rand(1, 3), (48, 48))
    with pytest.raises(ValueError, match=message):
        EchoCareImageProcessorPil().post_process_keypoint_detection(outputs, **arguments)


def test_a_pair_with_one_labelled_end_is_matched_by_that_end():
    found = torch.tensor([[[10.0, 10.0], [50.0, 50.0]]])
    targets = torch.tensor([[[49.0, 50.0], [math.nan, math.nan]]])
    matched = match_keypoint_pairs(found, targets, [[0, 1]])
    assert matched[0, 0].isnan().all() and matched[0, 1].tolist() == [49.0, 50.0]
