"""How sure the report generator was of its words."""

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import LogitsProcessorList, modeling_utils

from echocare_hf import EchoCareForReportGeneration
from echocare_hf.model.generation_echocare_report import written_reports

SMALL = {"image_size": 32, "embed_dim": 8, "depths": [1], "num_heads": [1], "encoder_maps": 1, "mask_unit_size": 8}
DECODER = {"decoder_n_embd": 16, "decoder_n_layer": 1, "decoder_n_head": 2, "decoder_n_positions": 64}


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    texts = ["Liver normal. No lesion.", "肝脏正常。未见占位。"]
    model, processor = EchoCareForReportGeneration.from_preset("tiny", texts, **SMALL, **DECODER)
    with torch.no_grad():  # far from uniform
        model.decoder.transformer.wte.weight.mul_(30)
    return model, processor


@pytest.fixture(scope="module")
def inputs(generator):
    random = np.random.default_rng(0)
    images = [[PIL.Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8))] for _ in range(2)]
    return generator[1](images=images, organ=["liver and bile ducts", None])


def test_the_probabilities_are_those_of_the_generation(generator, inputs):
    """Greedy decoding's own scores are the oracle."""
    model, processor = generator
    options = {"return_dict_in_generate": True, "output_logits": True}
    written = model.generate(**inputs, max_new_tokens=10, **options)
    scores = torch.stack(written.logits, 1).log_softmax(-1)  # (batch, new tokens, vocabulary)
    new = written.sequences[:, -scores.shape[1] :]
    wanted = scores.gather(-1, new[..., None])[..., 0]
    for row, report in enumerate(written_reports(model, processor, written.sequences, **inputs)):
        values = [
            *report.log_probabilities,
            *([] if report.end_log_probability is None else [report.end_log_probability]),
        ]
        assert len(values) == 10 or report.end_log_probability is not None
        start = processor.text_span(written.sequences[row].tolist())[0] - (written.sequences.shape[1] - new.shape[1])
        torch.testing.assert_close(
            torch.tensor(values), wanted[row, start : start + len(values)], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("text", ["Liver normal. 3.5 mm", "肝脏正常。🫀 é", ""])
def test_the_spans_of_the_tokens_cover_the_text(generator, inputs, text):
    model, processor = generator
    ids = processor(text=[text, text], organ=["liver", None])
    end = torch.full((2, 1), processor.tokenizer.eos_token_id)
    padding = torch.full((2, 3), processor.tokenizer.pad_token_id)
    sequences = torch.cat((ids["decoder_input_ids"], end, padding), 1)
    for report in written_reports(model, processor, sequences, **inputs):
        assert report.text == text and len(report.token_spans) == len(report.log_probabilities)
        assert report.end_log_probability is not None and report.end_log_probability <= 0
        assert all(value <= 0 for value in report.log_probabilities)
        covered = sorted(set(report.token_spans))
        assert [span[0] for span in covered] == [0, *(span[1] for span in covered[:-1])] if text else not covered
        assert not text or covered[-1][1] == len(text)
        for begin, stop in covered:  # tokens that share a span write it together
            shared = [index for index, span in enumerate(report.token_spans) if span == (begin, stop)]
            own = ids["labels"][1][ids["labels"][1] >= 0][shared]
            assert processor.tokenizer.decode(own) == text[begin:stop]


def test_several_sequences_of_a_report(generator, inputs):
    model, processor = generator
    sequences = model.generate(**inputs, max_new_tokens=5, num_beams=3, num_return_sequences=3)
    reports = written_reports(model, processor, sequences, **inputs)
    assert [report.text for report in reports] == processor.batch_decode(sequences)
    single = {name: value[1:] for name, value in inputs.items()}
    alone = written_reports(model, processor, sequences[3:], **single)
    for one, other in zip(alone, reports[3:], strict=True):
        assert one.token_spans == other.token_spans
        torch.testing.assert_close(one.log_probabilities, other.log_probabilities, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="5 sequences are no multiple of 2 reports"):
        written_reports(model, processor, sequences[:5], **inputs)


def test_a_report_that_ends_before_another_gives_no_warning_of_padding(generator, inputs, monkeypatch):
    model, processor = generator
    told = []
    monkeypatch.setattr(modeling_utils.logger, "warning_once", lambda text, *rest: told.append(text))
    end = processor.tokenizer.eos_token_id

    def first_ends(ids, scores):
        scores[1, end] = -torch.inf
        if ids.shape[1] > 3:
            scores[0] = torch.full_like(scores[0], -torch.inf)
            scores[0, end] = 0
        return scores

    images = {name: value for name, value in inputs.items() if not name.startswith("decoder")}
    written = model.generate(**images, max_new_tokens=8, logits_processor=LogitsProcessorList([first_ends]))
    padding = processor.tokenizer.pad_token_id
    assert (written[0, -3:] == padding).all() and not (written[1] == padding).any() and not told
    ids = torch.tensor([[padding, 5], [6, 5]])
    model(**images, decoder_input_ids=ids)  # elsewhere padding without a mask is still told
    assert len(told) == 1 and "attention_mask" in told[0]
