"""A head that starts from a linear model says what scikit-learn's linear model says."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from transformers import TrainerCallback

from echocare_hf import EchoCareConfig
from echocare_hf.finetuning import FinetuneArguments, fitting, open_job, train, with_adapters
from echocare_hf.finetuning import head_start as module
from echocare_hf.finetuning.head_start import HeadStart, start_head


@pytest.fixture
def arguments(discs, checkpoint):
    return FinetuneArguments(data=str(discs), model=str(checkpoint), fractions=[0.6, 0.2, 0.2], bf16=False)


def answers(job, model, part):
    data = job.sets[part]
    with torch.inference_mode():
        return model.eval()(
            torch.stack([data.task.example(data.item(row), None)["pixel_values"] for row in range(len(data))])
        ).logits


def features_of(job, model, part):
    """Of the images as they are, and for training behind them those of the first epoch, augmented if anything is."""
    data = job.sets[part]
    images = [data.task.example(data.item(row), None)["pixel_values"] for row in range(len(data))]
    if part == "train":
        images += [data[row]["pixel_values"] for row in range(len(data))]
    with torch.inference_mode():
        features = [module.pooled_features(model.echocare.eval(), image[None])[0][0] for image in images]
    return torch.stack(features).double().numpy()


@pytest.mark.parametrize("pooling, augmentation", [("all", 1.0), ("last", 1.0), ("all", 0.0)])
def test_classes_are_those_of_a_logistic_regression(arguments, pooling, augmentation, monkeypatch):
    monkeypatch.setattr(module, "STRENGTHS", (1e-2,))
    job = open_job("classification", replace(arguments, label=["label"], augmentation=augmentation))
    job.config.classifier_pooling = pooling
    model = job.model()
    start = start_head(job, model)
    train, validation = (features_of(job, model, part) for part in ("train", "validation"))
    images, labels = len(job.parts["train"]), [sample.label for sample in job.parts["train"]] * 2
    assert np.allclose(train[:images], train[images:]) is not bool(augmentation)
    if not augmentation:
        train, labels = train[:images], labels[:images]
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, class_weight="balanced", max_iter=2000))
    expected = oracle.fit(train, labels).predict_proba(validation)
    torch.testing.assert_close(
        answers(job, model, "validation").softmax(-1), torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-3
    )
    metrics = job.task.metrics(list(expected), job.parts["validation"])
    assert start.metric == pytest.approx(metrics[job.task.best_metric], abs=1e-6)


def test_measured_values_are_those_of_a_ridge_regression(arguments, monkeypatch):
    monkeypatch.setattr(module, "STRENGTHS", (1e-1,))
    job = open_job("regression", replace(arguments, target=["radius_mm"]))
    model = job.model()
    assert start_head(job, model) is not None
    train, validation = (features_of(job, model, part) for part in ("train", "validation"))
    values = np.array([sample.targets["radius_mm"] for sample in job.parts["train"]])
    oracle = make_pipeline(StandardScaler(), Ridge(alpha=10.0))
    oracle.fit(train, np.tile((values - values.mean()) / values.std(), 2))
    expected = oracle.predict(validation) * values.std() + values.mean()
    torch.testing.assert_close(
        answers(job, model, "validation")[:, 0], torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-3
    )


def fake_job(problem, labels, **values):
    config = SimpleNamespace(problem_type=problem, class_weights=None, positive_weights=None, **values)
    return SimpleNamespace(config=config), np.asarray(labels, dtype=float)


def test_findings_that_nobody_judged_take_no_part():
    random = np.random.default_rng(0)
    features = random.normal(size=(40, 5))
    labels = np.stack([features[:, 0] > 0, features[:, 1] > 0.3], 1).astype(float)
    labels[::4, 1] = -1
    weights, biases = module._fit_for(*fake_job("multi_label_classification", labels))(features, 0.1)
    known = labels[:, 1] >= 0
    for index, rows in ((0, slice(None)), (1, known)):
        oracle = LogisticRegression(C=0.1, max_iter=2000).fit(features[rows], labels[rows, index])
        np.testing.assert_allclose(weights[index], oracle.coef_[0], rtol=1e-5)
        assert biases[index] == pytest.approx(oracle.intercept_[0], rel=1e-5)


def test_ordered_classes_fill_the_steps_of_the_head():
    """With the head's own formula, P(y > k given y >= k) is what a logistic regression on these rows says."""
    random = np.random.default_rng(1)
    features = random.normal(size=(200, 3))
    classes = np.digitize(features[:, 0] + 0.3 * random.normal(size=200), [-0.8, 0.0, 0.8])
    job, labels = fake_job("ordinal_classification", classes[:, None], num_labels=4)
    weights, biases = module._fit_for(job, labels)(features, 1.0)
    raw = torch.from_numpy(features @ weights.T + biases)
    log_probabilities = module.label_logits(raw, EchoCareConfig(num_labels=4, problem_type="ordinal_classification"))
    probabilities = log_probabilities.exp().numpy()
    for step in range(3):
        rows = classes >= step
        oracle = LogisticRegression(C=1.0, max_iter=2000).fit(features[rows], classes[rows] > step)
        above = probabilities[:, step + 1 :].sum(1) / probabilities[:, step:].sum(1)
        np.testing.assert_allclose(above, oracle.predict_proba(features)[:, 1], rtol=1e-4, atol=1e-6)


def test_random_weights_and_other_heads_start_as_they_are(arguments):
    job = open_job("classification", replace(arguments, label=["label"], model="tiny", image_size=32))
    assert start_head(job, job.model()) is None
    job = open_job("classification", replace(arguments, label=["label"], head_start=False))
    assert start_head(job, job.model()) is None
    job = open_job("segmentation", replace(arguments, mask_values=["0=background", "1=disc"]))
    assert start_head(job, job.model()) is None


def test_low_rank_adapters_start_from_the_same_head(arguments):
    pytest.importorskip("peft")
    job = open_job("classification", replace(arguments, label=["label"], lora_rank=2))
    model = job.model().eval()
    assert start_head(job, model) is not None
    pixels = torch.stack([job.sets["validation"][row]["pixel_values"] for row in range(4)])
    with torch.inference_mode():
        before = model(pixels).logits
        adapted = with_adapters(model, 2).eval()
        torch.testing.assert_close(adapted(pixels).logits, before)  # adapters start at nothing
        start = HeadStart.of(adapted, 0.8)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
        assert (adapted(pixels).logits - before).abs().max() > 0.1
        assert start.restore_if_better(adapted, 0.7, True)
        torch.testing.assert_close(adapted.merge_and_unload()(pixels).logits, before)


@pytest.mark.parametrize(
    ("best", "greater", "kept"), [(0.7, True, True), (0.9, True, False), (0.7, False, False), (None, True, True)]
)
def test_the_start_is_kept_if_training_brings_nothing_better(best, greater, kept):
    model = nn.Linear(2, 1)
    start = HeadStart.of(model, 0.8)
    nn.init.constant_(model.weight, 5.0)
    assert start.restore_if_better(model, best, greater) is kept
    assert bool((model.weight == 5.0).all()) is not kept


@pytest.mark.parametrize(("ruined", "kept"), [(True, True), (False, False)])
def test_training_is_undone_where_it_clearly_made_the_start_worse(ruined, kept, arguments, tmp_path, monkeypatch):
    """A head that is wrong by a hundred deviations is clearly worse; one that is behind by a millionth is not."""

    def spoil(trainer, last):
        with torch.no_grad():
            trainer.model.classifier.bias.add_(100.0 if ruined else 0.01)
        found = trainer.assess(trainer.eval_dataset)[0][job.task.best_metric]
        trainer.state.best_metric = found if ruined else started[-1].metric + 1e-6

    started = []
    monkeypatch.setattr(fitting, "train", spoil)
    monkeypatch.setattr(fitting, "start_head", lambda *given: started.append(start_head(*given)) or started[-1])
    job = open_job("regression", replace(arguments, target=["radius_mm"], fractions=[0.5, 0.4, 0.1]))
    model = job.model()
    fitted = fitting.fit(job, model, tmp_path)
    assert fitted.kept is kept and fitted.head_start.metric < fitted.trainer.state.best_metric
    assert torch.equal(model.classifier.bias, started[-1].weights["classifier.bias"]) is kept


@pytest.mark.parametrize("share, expected", [(0.5, [False, False, True, True]), (0.0, [True] * 4), (1.0, [False] * 4)])
def test_the_encoder_joins_in_when_a_share_of_the_schedule_is_done(arguments, share, expected, tmp_path):
    job = open_job(
        "segmentation", replace(arguments, mask="mask", epochs=4, batch_size=64, head_first=share, patience=0)
    )
    model = job.model()
    states = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            states.append({name: value.detach().clone() for name, value in model.named_parameters()})

    trainer = job.trainer(model, tmp_path)
    trainer.add_callback(Watch())
    states.append({name: value.detach().clone() for name, value in model.named_parameters()})
    train(trainer)
    encoder, head = "echocare.encoder.stages.0.blocks.0.mlp.fc1.weight", "segmentation_head.weight"
    assert encoder in states[0] and len(states) == 5
    assert [not torch.equal(one[encoder], other[encoder]) for one, other in pairwise(states)] == expected
    assert all(not torch.equal(one[head], other[head]) for one, other in pairwise(states))


def test_clips_start_from_a_ridge_regression_of_the_mean_frame(arguments, tmp_path, monkeypatch):
    """Of clips of two and three frames: the whole model, transformer and all, says what scikit-learn says of the mean features."""
    monkeypatch.setattr(module, "STRENGTHS", (1e-1,))
    folder = tmp_path / "clips"
    random = np.random.default_rng(3)
    rows = []
    for clip in range(10):
        for frame in range(2 + clip % 2):
            pixels = np.zeros((32, 32), np.uint8)
            pixels[4 : 8 + clip, 4 : 10 + frame] = random.integers(100, 255)
            (folder / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "images" / f"{clip}_{frame}.png")
            rows.append(f"images/{clip}_{frame}.png,clip{clip},{frame},{clip * 1.5}")
    (folder / "metadata.csv").write_text("file_name,sequence,frame,size_mm\n" + "\n".join(rows) + "\n")
    job = open_job("video", replace(arguments, data=str(folder), target=["size_mm"], min_frames=2))
    model = job.model()
    start = start_head(job, model)
    assert start is not None
    means = {}
    for part in ("train", "validation"):
        data = job.sets[part]
        clips = [data.task.example(data.item(row), None)["pixel_values"] for row in range(len(data))]
        if part == "train":
            clips += [data[row]["pixel_values"] for row in range(len(data))]  # augmented
        with torch.inference_mode():
            means[part] = np.stack(
                [module.pooled_features(model.echocare.eval(), clip)[0].mean(0).double().numpy() for clip in clips]
            )
    values = np.array([sample.targets["size_mm"] for sample in job.parts["train"]])
    oracle = make_pipeline(StandardScaler(), Ridge(alpha=10.0))
    oracle.fit(means["train"], np.tile((values - values.mean()) / values.std(), 2))
    expected = oracle.predict(means["validation"]) * values.std() + values.mean()
    data = job.sets["validation"]
    batch = data.task.collate([data.task.example(data.item(row), None) for row in range(len(data))])
    with torch.inference_mode():
        found = model.eval()(**batch).logits[:, 0]
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-3)
    truth = np.array([sample.targets["size_mm"] for sample in job.parts["validation"]])
    assert start.metric == pytest.approx(np.abs(expected - truth).mean() / values.std(), rel=0.3)
