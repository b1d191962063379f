"""What the parts of a report generator start from: encoded images, a linear findings head, a decoder that knows the texts."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from echocare_hf.reports import ReportArguments, write_phantom_exams
from echocare_hf.reports.findings_start import STRENGTH, start_findings_head
from echocare_hf.reports.frozen import encode_once
from echocare_hf.reports.job import open_report_job
from echocare_hf.reports.start import prepare_start
from echocare_hf.reports.text_start import start_decoder


@pytest.fixture(scope="module")
def exams(tmp_path_factory):
    return write_phantom_exams(tmp_path_factory.mktemp("data") / "exams", 24, 0, ["en"], 32, ["thyroid", "lung"])


def opened(exams, tmp_path, **values):
    options = {"model": "echocare-tiny", "image_size": 32, "max_tokens": 80, "batch_size": 4, **values}
    return open_report_job(ReportArguments(data=str(exams), output="x", **options), tmp_path)


def loss_of(job, part):
    data = job.sets[part]
    with torch.no_grad():
        return float(job.model.eval()(**job.task.collate([data[row] for row in range(len(data))])).text_loss)


def test_encoded_examples_give_the_outputs_of_their_images(exams, tmp_path):
    job = opened(exams, tmp_path, augmentation=0.0)
    data = job.sets["validation"]
    rows = range(len(data))
    with torch.no_grad():
        wanted = job.model(**job.task.collate([data[row] for row in rows]))
        assert encode_once(job.model.encoder, data, 3)
        batch = job.task.collate([data[row] for row in rows])
        found = job.model(**batch)
    assert "pixel_values" not in batch and all(len(data.item(row)["encoded"]) == 1 for row in rows)
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.findings_logits, wanted.findings_logits, rtol=1e-4, atol=1e-5)


def test_training_draws_among_augmented_copies(exams, tmp_path):
    job = opened(exams, tmp_path)
    data = job.sets["train"]
    assert encode_once(job.model.encoder, data, 2)
    versions = data.item(0)["encoded"]
    assert len(versions) == 3 and not torch.equal(versions[0][0], versions[1][0])
    drawn = []
    for epoch in range(12):
        data.epoch = epoch
        drawn.append(next(i for i, each in enumerate(versions) if each[0] is data[0]["encoded"][0]))
    assert set(drawn) == {0, 1, 2}


def test_the_findings_head_is_the_logistic_regression_of_the_features(exams, tmp_path):
    job = opened(exams, tmp_path)
    assert start_findings_head(job)
    data, targets = job.sets["train"], job.targets("train")
    shown = [job.task.example(data.item(row), None) for row in range(len(data))]
    with torch.no_grad():
        inputs = job.task.inputs(shown)
        encoded = job.model.encoder(inputs["pixel_values"], inputs.get("image_mask"), inputs["views"])
        found = job.model.findings_head(encoded.pooler_output).sigmoid().numpy()
    pooled = encoded.pooler_output.double().numpy()
    scaled = (pooled - pooled.mean(0)) / (pooled.std(0) + 1e-6)
    compared = 0
    for column in range(targets.shape[1]):
        truth = targets[:, column] == 1
        if truth.any() and not truth.all():
            reference = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=2000).fit(scaled, truth)
            np.testing.assert_allclose(found[:, column], reference.predict_proba(scaled)[:, 1], atol=2e-3)
            compared += 1
    assert compared >= 3


def test_the_decoder_learns_the_texts_and_the_rest_stays(exams, tmp_path):
    job = opened(exams, tmp_path, seed=3)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    fresh = loss_of(job, "validation")
    told = start_decoder(job, 40)
    assert told < fresh - 1  # nats a token
    changed = {name for name, value in job.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("decoder.", "finding_tokens.", "encoder.layernorm.")) for name in changed)
    assert start_decoder(job, 0) is None


def test_training_on_images_starts_from_what_the_texts_gave(exams, tmp_path):
    """No image changes what the decoder says, until training gives the images a scale."""
    job = opened(exams, tmp_path)
    start_decoder(job, 2)
    data = job.sets["validation"]
    batch = job.task.collate([data[0], data[1]])
    other = {**batch, "pixel_values": batch["pixel_values"].flip(-1)}
    stated = batch["findings"]
    with torch.no_grad():
        found = [job.model(**inputs, stated_findings=stated).logits for inputs in (batch, other)]
    torch.testing.assert_close(*found)
    job.model(**batch).loss.backward()
    assert job.model.encoder.layernorm.weight.grad.abs().sum() > 0


def test_time_ends_the_texts(exams, tmp_path):
    job = opened(exams, tmp_path)
    ticks = iter(range(0, 10_000, 30))  # half a minute a look
    assert start_decoder(job, 10_000, minutes=2, clock=lambda: next(ticks)) > 0
    assert next(ticks) <= 30 * 8


def test_what_is_prepared_depends_on_the_run(exams, tmp_path):
    job = opened(exams, tmp_path, freeze_encoder=True, text_steps=1)
    assert prepare_start(job) > 0
    assert "encoded" in job.sets["train"].item(0) and not job.model.findings_head.weight.requires_grad
    learns = opened(exams, tmp_path, text_steps=0)
    prepare_start(learns)
    assert "encoded" not in learns.sets["train"].item(0) and learns.model.findings_head.weight.requires_grad
    job.is_trained = True
    weights = job.model.findings_head.weight.clone()
    assert prepare_start(job) == 0 and torch.equal(weights, job.model.findings_head.weight)
