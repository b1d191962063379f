"""Of several drawn texts the one that the others and the findings head agree with."""

import itertools

import numpy as np
import pytest
import torch

from echocare_hf import EchoCareForReportGeneration
from echocare_hf.metrics.text_overlap import rouge_l
from echocare_hf.reports import FindingThresholds, write_drafts
from echocare_hf.reports.consensus import consensus, expected_findings_f1

TEXTS = ["Several B-lines.", "Several B-lines, no effusion.", "Normal lung.", "Several B-lines.", "Effusion."]


def test_without_findings_it_is_the_text_that_is_most_alike_to_all():
    def alike(text):  # by hand, word by word
        return np.mean([rouge_l(words(text), words(other), 1) for other in TEXTS])

    def words(text):
        return text.lower().replace(".", "").replace(",", "").replace("b-lines", "b lines").split()

    assert consensus(TEXTS, {}, "en", "lung") == int(np.argmax([alike(text) for text in TEXTS]))


def test_the_head_decides_where_the_words_do_not():
    texts = ["Several B-lines.", "Several A-lines."]
    for sure, place in (("b_lines", 0), ("a_lines", 1)):
        told = dict.fromkeys(("b_lines", "a_lines"), 0.05) | {sure: 0.9}
        assert consensus(texts, told, "en", "lung") == place
        assert consensus(texts, told, "en", "lung", weight=0) == 0  # the first of equal ones


def test_chinese_is_compared_by_characters():
    texts = ["未见异常。", "左叶可见低回声结节。", "左叶探及低回声结节。"]
    assert consensus(texts, {}, "zh", "thyroid") == 1  # two of three share all but two characters
    assert consensus([*texts, texts[2]], {}) == 2


def test_empty_texts_are_no_error_and_no_text_is():
    assert consensus(["", "Normal lung.", "Normal lung."], {"b_lines": 0.1}, "en", "lung") == 1
    assert consensus(["", ""], {}) == 0
    with pytest.raises(ValueError, match="no text"):
        consensus([], {})


def test_the_expected_f1_is_that_of_the_expected_counts():
    """Against all outcomes of independent findings, by their probability: true positives over the mean of both sums."""
    chances, stated = {"a": 0.9, "b": 0.3, "c": 0.6}, {"a": "present", "b": "absent", "c": "present", "d": "present"}
    both = wanted = 0.0
    for outcome in itertools.product((0, 1), repeat=3):
        chance = np.prod([p if one else 1 - p for p, one in zip(chances.values(), outcome, strict=True)])
        both += chance * (outcome[0] + outcome[2])
        wanted += chance * sum(outcome)
    assert expected_findings_f1(stated, chances) == pytest.approx(2 * both / (2 + wanted))
    assert expected_findings_f1({}, chances) == expected_findings_f1(stated, {}) == 0.0


@pytest.fixture(scope="module")
def generator():
    """Untrained: what it draws differs every time."""
    torch.manual_seed(0)
    small = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    small |= {"mask_unit_size": 8, "decoder_n_embd": 32, "decoder_n_layer": 1, "decoder_n_head": 2}
    return EchoCareForReportGeneration.from_preset(
        "tiny", TEXTS, findings=["b_lines", "pleural_effusion"], finding_tokens=True, encoder_maps=1, **small
    )


def drafts(generator, rows, **options):
    model, processor = generator
    random = np.random.default_rng(0)
    images = [[random.integers(0, 256, (32, 32, 3), dtype=np.uint8)] for _ in range(3)]
    organs = ["lung", "thyroid gland", None]
    inputs = processor(images=[images[row] for row in rows], organ=[organs[row] for row in rows])
    return write_drafts(model, processor, inputs, FindingThresholds({}, {}), max_new_tokens=12, **options)


def test_drafts_of_several_candidates_are_the_same_alone_in_a_batch_and_again(generator):
    together = drafts(generator, [0, 1, 2], candidates=4)
    torch.manual_seed(5)
    again, alone = (
        drafts(generator, [0, 1, 2], candidates=4),
        [drafts(generator, [row], candidates=4)[0] for row in range(3)],
    )
    assert [draft.text for draft in together] == [draft.text for draft in again] == [draft.text for draft in alone]
    for draft, single in zip(together, alone, strict=True):
        assert [part.confidence for part in draft.sentences] == pytest.approx(
            [part.confidence for part in single.sentences]
        )


def test_the_configuration_says_how_many_and_drawing_leaves_random_numbers_alone(generator):
    model, _ = generator
    torch.manual_seed(3)
    before = torch.get_rng_state()
    wanted = drafts(generator, [0], candidates=4)
    assert torch.equal(before, torch.get_rng_state())
    greedy = drafts(generator, [0])
    model.config.draft_candidates = 4
    assert drafts(generator, [0]) == wanted and drafts(generator, [0], candidates=1) == greedy
    assert drafts(generator, [0], num_beams=2)[0].text
    model.config.draft_candidates = 1


def test_beams_and_candidates_do_not_go_together(generator):
    for options in ({"candidates": 0}, {"candidates": 3, "num_beams": 2}):
        with pytest.raises(ValueError, match="give one of them"):
            drafts(generator, [0], **options)
