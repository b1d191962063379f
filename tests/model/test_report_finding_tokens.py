"""The report generator's decoder is told what its findings head tells, or what somebody states."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from echocare_hf import EchoCareForReportGeneration, EchoCareReportConfig
from report_sizes import NO_DROPOUT, SMALL_DECODER, SMALL_ENCODER

TEXTS = ["Nodule in the left lobe.", "No nodule.", "Cyst and nodule."]
FINDINGS = ["nodule", "cyst"]
SMALL = {**SMALL_ENCODER, **SMALL_DECODER, "decoder_n_positions": 64}


def images(count):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    model, processor = EchoCareForReportGeneration.from_preset(
        "tiny", TEXTS, findings=FINDINGS, finding_tokens=True, **SMALL, **NO_DROPOUT
    )
    with torch.no_grad():
        model.findings_head.weight.mul_(20)  # fresh, it says 0.5 of everything
    return model, processor


@pytest.fixture(scope="module")
def batch(generator):
    a, b, c = images(3)
    return generator[1](images=[[a, b], [c]], organ=["thyroid gland", None])


def test_the_decoder_is_told_the_probabilities_of_the_head(generator, batch):
    model, _ = generator
    with torch.no_grad():
        free = model(**batch)
        told = model(**batch, stated_findings=free.findings_logits.sigmoid())
        other = model(**batch, stated_findings=1 - free.findings_logits.sigmoid())
    torch.testing.assert_close(told.logits, free.logits)
    assert not torch.allclose(other.logits, free.logits, atol=1e-3)
    assert torch.equal(other.findings_logits, free.findings_logits)  # the head says what it sees


def test_what_is_not_stated_is_told_by_the_head(generator, batch):
    model, _ = generator
    with torch.no_grad():
        shares = model(**batch).findings_logits.sigmoid()
        for unknown in (-1.0, -100.0, float("nan")):
            stated = torch.tensor([[1.0, unknown], [unknown, 0.0]])
            whole = torch.stack([torch.stack([stated[0, 0], shares[0, 1]]), torch.stack([shares[1, 0], stated[1, 1]])])
            torch.testing.assert_close(
                model(**batch, stated_findings=stated).logits, model(**batch, stated_findings=whole).logits
            )


def test_a_token_lies_between_absent_and_present(generator):
    tokens = generator[0].finding_tokens
    found = tokens(torch.tensor([[0.0, 1.0], [0.25, 0.5]]))
    absent, present = tokens.weight[:, 0], tokens.weight[:, 1]
    torch.testing.assert_close(found[0], torch.stack([absent[0], present[1]]))
    torch.testing.assert_close(found[1, 0], 0.75 * absent[0] + 0.25 * present[0])


def test_the_text_does_not_move_the_head(generator):
    model, processor = generator
    inputs = processor(images=[[image] for image in images(2)], text=TEXTS[:2])
    model(**inputs).loss.backward()
    assert model.findings_head.weight.grad is None and model.finding_tokens.weight.grad.abs().sum() > 0
    model.zero_grad()
    outputs = model(**inputs, findings=torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    outputs.loss.backward()
    wanted = F.binary_cross_entropy_with_logits(outputs.findings_logits, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(outputs.findings_loss, wanted)
    assert model.findings_head.weight.grad.abs().sum() > 0
    model.zero_grad()


@pytest.mark.parametrize("more", [{}, {"num_beams": 3}])
@pytest.mark.parametrize("stated", [None, [[1.0, 0.0], [float("nan"), 1.0]]])
def test_generation_with_a_cache_equals_generation_without(generator, batch, more, stated):
    model, _ = generator
    given = {} if stated is None else {"stated_findings": torch.tensor(stated)}
    options = {"max_new_tokens": 10, "return_dict_in_generate": True, "output_logits": True, **more}
    cached, plain = (
        model.generate(**batch, **given, **options),
        model.generate(**batch, **given, **options, use_cache=False),
    )
    assert cached.sequences.tolist() == plain.sequences.tolist()
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(plain.logits), rtol=1e-4, atol=1e-5)


def test_a_batch_equals_each_alone_and_images_are_a_set(generator, batch):
    model, processor = generator
    a, b, c = images(3)
    with torch.no_grad():
        together = model(**batch)
        for row, (own, organ) in enumerate((([b, a], "thyroid gland"), ([c], None))):
            alone = model(**processor(images=[own], organ=organ))
            torch.testing.assert_close(alone.findings_logits[0], together.findings_logits[row], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(alone.logits[0, -1], together.logits[row, -1], rtol=1e-4, atol=1e-5)


def test_a_text_follows_what_is_stated():
    """A model that has learned texts which only the findings tell apart writes what is stated, whatever its head says."""
    torch.manual_seed(0)
    model, processor = EchoCareForReportGeneration.from_preset(
        "tiny", TEXTS, findings=FINDINGS, finding_tokens=True, **SMALL, **NO_DROPOUT
    )
    (image,) = images(1)
    stated = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    inputs = processor(images=[[image]] * 3, text=TEXTS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(60):
        model(**inputs, stated_findings=stated).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    asked = processor(images=[[image]] * 3)
    assert processor.batch_decode(model.generate(**asked, stated_findings=stated)) == TEXTS


def test_it_saves_and_loads_and_an_older_model_has_none(generator, batch, tmp_path):
    model, _ = generator
    model.save_pretrained(tmp_path)
    loaded, info = EchoCareForReportGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)
    older, _ = EchoCareForReportGeneration.from_preset("tiny", TEXTS, findings=FINDINGS, **SMALL)
    assert older.finding_tokens is None
    with pytest.raises(ValueError, match="need a model with `finding_tokens`"):
        older(**batch, stated_findings=torch.ones(2, 2))


def test_what_is_refused(generator, batch):
    with pytest.raises(ValueError, match="needs `findings`"):
        EchoCareReportConfig.preset("tiny", finding_tokens=True)
    with pytest.raises(ValueError, match="at least 1"):
        EchoCareReportConfig.preset("tiny", draft_candidates=0)
    with pytest.raises(ValueError, match=r"must be \(2, 2\)"):
        generator[0](**batch, stated_findings=torch.ones(2, 3))


def test_images_that_were_encoded_once_give_the_same(generator, batch):
    model, _ = generator
    mask = batch["image_mask"]
    features, maps = model.encoder.encode_images(batch["pixel_values"][mask])

    def placed(values):
        found = values.new_full((*mask.shape, *values.shape[1:]), float("nan"))  # padding must not matter
        found[mask] = values
        return found

    others = {name: value for name, value in batch.items() if name != "pixel_values"}
    with torch.no_grad():
        found = model(image_features=placed(features), image_maps=[placed(each) for each in maps], **others)
        wanted = model(**batch)
    torch.testing.assert_close(found.logits, wanted.logits)
    torch.testing.assert_close(found.findings_logits, wanted.findings_logits)


def test_image_dropout_hides_images_from_the_decoder_in_training_alone(generator, batch):
    model, _ = generator
    other = {**batch, "pixel_values": batch["pixel_values"].flip(0)[:, :, :, ::2].repeat_interleave(2, 3)}
    stated = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    model.config.image_dropout = 1.0
    with torch.no_grad():
        model.train()
        model.encoder.feature_norm.eval()
        hidden = [model(**inputs, stated_findings=stated).logits for inputs in (batch, other)]
        model.eval()
        shown = [model(**inputs, stated_findings=stated).logits for inputs in (batch, other)]
    model.config.image_dropout = 0.0
    torch.testing.assert_close(*hidden)
    assert not torch.allclose(*shown, atol=1e-3)
