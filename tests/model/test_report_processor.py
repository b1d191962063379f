"""The report generator's processor and tokenizer: texts come back whole, prompts, padding, and what is refused."""

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizerFast

from echocare_hf import EchoCareImageProcessorPil, EchoCareReportProcessor
from echocare_hf.model.prompts_echocare_report import left_padded, position_ids
from echocare_hf.model.tokenizer_echocare_report import prepare_report_tokenizer, train_report_tokenizer

TEXTS = [
    "Liver of normal size. No focal lesion.",
    "肝脏大小正常，未见占位。",
    "Nodule of 8.5 mm.",
    "结节大小 12 mm。",
] * 3
VIEWS = ["long", "short"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_report_tokenizer(TEXTS)


@pytest.fixture(scope="module")
def processor(tokenizer):
    image_processor = EchoCareImageProcessorPil(size={"height": 32, "width": 32})
    return EchoCareReportProcessor(image_processor, tokenizer, views=VIEWS, max_length=40, max_images=8)


def image(value=0):
    return PIL.Image.fromarray(np.full((20, 30, 3), value, dtype=np.uint8))


# Texts as they come, and pieces that a tokenizer might take for its own.
PIECES = st.sampled_from(
    ["</s>", "<pad>", "<report>", "肝", "  ", "\n", "\t", "🫀", "é", "e\u0301", "3.5", "\ufffd", "\x00"]
)
ANY_TEXT = st.text(max_size=30) | st.lists(st.text(max_size=4) | PIECES, max_size=8).map("".join)


@settings(max_examples=150, deadline=None)
@given(text=ANY_TEXT)
def test_every_text_comes_back_from_its_tokens(processor, text):
    ids = processor.tokenizer(text)["input_ids"]
    assert ids[-1] == processor.tokenizer.eos_token_id and processor.tokenizer.eos_token_id not in ids[:-1]
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text
    inputs = processor(text=[text], organ=["肝脏"], max_length=1000)
    assert processor.batch_decode(inputs["labels"]) == [text]
    assert processor.batch_decode(inputs["decoder_input_ids"]) == [text]


def test_the_tokenizer_is_trained_on_the_texts(tokenizer, tmp_path):
    vocabulary = tokenizer.get_vocab()
    plain = len(b"Liver of normal size. No focal lesion.")
    assert len(tokenizer(TEXTS[0])["input_ids"]) < plain / 2  # words became tokens
    assert all(len(token) <= 16 for token in vocabulary)
    digits = tokenizer.tokenize("12.5")
    assert digits == ["1", "2", ".", "5"]
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("Größe </s> 12", "未见占位"):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    with pytest.raises(ValueError, match="`vocab_size` must be at least 262"):
        train_report_tokenizer(TEXTS, vocab_size=100)


def test_an_existing_tokenizer_gets_what_it_lacks(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "liver", "normal"]))
    bert = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    before = len(bert)
    tokenizer = prepare_report_tokenizer(bert)
    assert len(bert) == before and len(tokenizer) == before + 3
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("[CLS]", "[SEP]", "[PAD]")
    processor = EchoCareReportProcessor(EchoCareImageProcessorPil(), tokenizer)
    inputs = processor(text=["liver normal"], organ=["liver"])
    names = tokenizer.convert_ids_to_tokens(inputs["decoder_input_ids"][0])
    assert names == ["[CLS]", "<organ>", "liver", "<report>", "liver", "normal"]
    assert tokenizer.convert_ids_to_tokens(inputs["labels"][0][-3:]) == ["liver", "normal", "[SEP]"]
    assert processor.batch_decode(inputs["labels"]) == ["liver normal"]


def test_the_prompt_is_organ_and_indication(processor):
    decode = processor.tokenizer.decode
    assert decode(processor.prompt()) == "<s>"
    assert decode(processor.prompt("liver")) == "<s><organ>liver<report>"
    assert decode(processor.prompt("liver", "疼痛")) == "<s><organ>liver<indication>疼痛<report>"
    assert decode(processor.prompt(None, "pain")) == "<s><indication>pain<report>"
    assert processor.prompt("", "") == processor.prompt()


def test_labels_are_the_next_token_and_skip_the_prompt(processor):
    inputs = processor(text=TEXTS[:2], organ=["liver", None])
    for row in range(2):
        kept = inputs["decoder_attention_mask"][row].bool()
        ids, labels = inputs["decoder_input_ids"][row][kept].tolist(), inputs["labels"][row][kept].tolist()
        prompt = len(processor.prompt("liver" if row == 0 else None))
        assert labels[: prompt - 1] == [-100] * (prompt - 1)
        assert labels[prompt - 1 :] == [*ids[prompt:], processor.tokenizer.eos_token_id]
        assert (inputs["labels"][row][~kept] == -100).all()
    assert not inputs["decoder_attention_mask"][1, 0]  # padding is at the left
    assert processor(text=TEXTS[:2], padding_side="right")["decoder_attention_mask"][:, 0].all()


def test_images_of_a_report_are_padded_with_a_mask(processor):
    inputs = processor(images=[[image(10), image(20)], [image(30)]], views=[["short", None], ["long"]])
    assert inputs["pixel_values"].shape == (2, 2, 3, 32, 32)
    assert inputs["image_mask"].tolist() == [[True, True], [True, False]]
    assert inputs["views"].tolist() == [[2, 0], [1, 0]]
    values = inputs["pixel_values"].mean((2, 3, 4)) * 255
    torch.testing.assert_close(values, torch.tensor([[10.0, 20.0], [30.0, 0.0]]))
    assert "labels" not in inputs and inputs["decoder_input_ids"].tolist() == [[1], [1]]
    assert "image_mask" not in processor(images=[[image()], [image()]])


def test_how_images_and_texts_go_together(processor):
    a, b = image(), image()
    shapes = {
        "one image": processor(images=a, text="").pixel_values.shape,
        "one each": processor(images=[a, b]).pixel_values.shape,
        "one each with texts": processor(images=[a, b], text=["", ""]).pixel_values.shape,
        "two of one text": processor(images=[a, b], text="").pixel_values.shape,
        "array": processor(images=np.zeros((20, 20), np.uint8)).pixel_values.shape,
        "frames": processor(images=[np.zeros((5, 20, 20, 3), np.uint8)]).pixel_values.shape,
    }
    assert {name: shape[:2] for name, shape in shapes.items()} == {
        "one image": (1, 1),
        "one each": (2, 1),
        "one each with texts": (2, 1),
        "two of one text": (1, 2),
        "array": (1, 1),
        "frames": (1, 5),
    }
    assert isinstance(processor(images=a, return_tensors="np")["pixel_values"], np.ndarray)


def test_a_report_beyond_the_limit_is_cut_with_a_warning_that_names_it(processor):
    long = "Unusual wording " * 20
    with pytest.warns(
        UserWarning, match=r"report 1 \('Unusual wording Unusual wordin...'\) has \d+ tokens .* the limit is 40"
    ):
        inputs = processor(text=[TEXTS[0], long])
    assert inputs["decoder_input_ids"].shape == (2, 40)
    assert inputs["labels"][1, -1] != processor.tokenizer.eos_token_id  # the cut is no end
    assert long.startswith(processor.batch_decode(inputs["labels"])[1])
    for options in ({"strict": True}, {"truncation": False}):
        with pytest.raises(ValueError, match=r"report 1 .* the limit is 40"):
            processor(text=[TEXTS[0], long], **options)
    with pytest.raises(ValueError, match="organ and indication of report 0"):
        processor(text=["a"], indication=[long])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give `images`"),
        ({"images": []}, "`images` is empty"),
        ({"images": [[]], "text": ["a"]}, "report 0 has no image"),
        ({"images": [[image()], []]}, "report 1 has no image"),
        ({"images": [image(), None]}, "report 1 has no image"),
        ({"images": [[image(), None]]}, "report 0 has an image that is None"),
        ({"images": [[image()], image()]}, "mixes single images and lists"),
        ({"images": [[image()] * 9]}, "report 0 has 9 images, the processor takes 8"),
        ({"images": [[image()]], "text": ["a", "b"]}, "2 texts for 1 reports"),
        ({"images": [[image()]], "organ": ["a", "b"]}, "2 organs for 1 reports"),
        ({"images": [[image()]], "views": [["side"]]}, "unknown view 'side': the model knows long, short"),
        ({"images": [[image()]], "views": [["long", "long"]]}, "one view for each image"),
        ({"images": [[image()]], "text": ["\ud800"]}, "text 0 holds half a surrogate pair at character 0"),
        ({"images": [[image()]], "text": [3]}, "text 0 must be text, got int"),
        ({"images": [[image()]], "return_tensors": "tf"}, "`return_tensors` is 'pt' or 'np'"),
    ],
)
def test_bad_inputs_get_one_clear_line(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), rows=st.integers(1, 4), width=st.integers(1, 6))
def test_padding_moves_to_the_left(data, rows, width):
    prompts = [data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=width)) for _ in range(rows)]
    ids, mask = torch.zeros(rows, width + 2, dtype=torch.long), torch.zeros(rows, width + 2, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        before = data.draw(st.integers(0, width + 2 - len(prompt)))
        ids[row, before : before + len(prompt)] = torch.tensor(prompt)
        mask[row, before : before + len(prompt)] = 1
    longest = max(map(len, prompts))
    for given_mask in (mask, None):
        moved, kept = left_padded(ids, given_mask, pad=0, start=1)
        assert moved.tolist() == [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
        assert kept.tolist() == [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    places = position_ids(kept)
    assert [row[-len(prompt) :] for row, prompt in zip(places.tolist(), prompts, strict=True)] == [
        list(range(len(prompt))) for prompt in prompts
    ]
