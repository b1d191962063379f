"""The report generator: losses, generation, sets of images, decoders, and that it learns, saves and loads."""

import copy
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BartConfig,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    Qwen2Config,
    Trainer,
    TrainingArguments,
    VisionEncoderDecoderModel,
)

from echocare_hf import EchoCareForReportGeneration, EchoCareModel, EchoCareReportConfig, checkpoint_path
from echocare_hf.model.cross_attention_echocare_report import EchoCareImageAttention
from report_sizes import NO_DROPOUT, SMALL_DECODER, SMALL_ENCODER

TEXTS = [
    "Liver of normal size. No focal lesion.",
    "肝脏大小正常，未见占位。",
    "Nodule of 8.5 mm in the left lobe.",
    "甲状腺右叶结节，大小 12 mm。",
]
ORGANS = ["liver", "肝脏", "thyroid gland", None]
FINDINGS = ["focal lesion", "nodule"]
SMALL = {**SMALL_ENCODER, **SMALL_DECODER, "decoder_n_positions": 96}


def images(count, seed=0):
    random = np.random.default_rng(seed)
    return [PIL.Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(count)]


def small(**overrides):
    torch.manual_seed(0)
    return EchoCareForReportGeneration.from_preset("tiny", TEXTS, findings=FINDINGS, **{**SMALL, **overrides})


@pytest.fixture(scope="module")
def generator():
    return small()


@pytest.fixture(scope="module")
def batch(generator):
    """Four prompts of different length, with one to three images."""
    a, b, c, d, e, f, g = images(7)
    return generator[1](
        images=[[a, b], [c], [d, e, f], [g]], organ=ORGANS, views=[["left", "right"], [None], [1, 0, 2], [""]]
    )


@pytest.fixture(scope="module")
def memorised(generator, tmp_path_factory):
    """A model that Trainer has taught the four pairs, with what it logged."""
    model, processor = small(**NO_DROPOUT)
    pairs = [
        {"images": [image], "text": text, "organ": organ, "findings": [float(index % 2), float("nan")]}
        for index, (image, text, organ) in enumerate(zip(images(4), TEXTS, ORGANS, strict=True))
    ]

    def collate(rows):
        columns = {name: [row[name] for row in rows] for name in ("images", "text", "organ")}
        return {**processor(**columns), "findings": torch.tensor([row["findings"] for row in rows])}

    arguments = TrainingArguments(
        output_dir=str(tmp_path_factory.mktemp("trainer")),
        max_steps=70,
        per_device_train_batch_size=4,
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=pairs, eval_dataset=pairs, data_collator=collate)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return model.eval(), processor, pairs, losses, trainer.predict(pairs)


def test_the_loss_is_that_of_the_tokens_and_of_the_known_findings(generator):
    model, processor = generator
    inputs = processor(images=[[image] for image in images(2)], text=TEXTS[:2], organ=["liver", None])
    findings = torch.tensor([[1.0, float("nan")], [-100.0, 0.0]])
    with torch.no_grad():
        outputs = model(**inputs, findings=findings)
        wanted = []
        for row in range(2):  # one token after the other
            for place, label in enumerate(inputs["labels"][row].tolist()):
                if label != -100:
                    wanted.append(-outputs.logits[row, place].log_softmax(-1)[label])
    torch.testing.assert_close(outputs.text_loss, torch.stack(wanted).mean())
    logits = outputs.findings_logits
    known = torch.stack([-F.logsigmoid(logits[0, 0]), -F.logsigmoid(-logits[1, 1])])
    torch.testing.assert_close(outputs.findings_loss, known.mean())
    torch.testing.assert_close(outputs.loss, outputs.text_loss + outputs.findings_loss)
    model.config.findings_loss_weight = 0.25
    weighted = model(**inputs, findings=findings).loss
    model.config.findings_loss_weight = 1.0
    torch.testing.assert_close(weighted, outputs.text_loss + 0.25 * outputs.findings_loss)


def test_unknown_targets_alone_give_a_loss_of_zero_with_gradients(generator):
    model, processor = generator
    inputs = processor(images=images(1), text=[TEXTS[0]])
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    loss = model(**inputs, findings=torch.full((1, 2), -1.0)).loss
    assert loss.item() == 0
    loss.backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
    model.zero_grad()


def test_the_usual_call_of_an_encoder_decoder_trains_the_same_sequence(generator):
    """Labels from the tokenizer alone, as for transformers' own VisionEncoderDecoderModel."""
    model, processor = generator
    image = images(1)
    ours = processor(images=image, text=[TEXTS[0]])
    labels = processor.tokenizer(TEXTS[:1], return_tensors="pt")["input_ids"]
    assert isinstance(model, VisionEncoderDecoderModel)
    with torch.no_grad():
        usual = model(pixel_values=ours["pixel_values"], labels=labels).loss
        torch.testing.assert_close(usual, model(**ours).loss)


def test_generation_with_a_cache_equals_generation_without(generator, batch):
    model, _ = generator
    options = {"max_new_tokens": 12, "return_dict_in_generate": True, "output_logits": True}
    for more in ({}, {"num_beams": 3}):
        cached = model.generate(**batch, **options, **more)
        plain = model.generate(**batch, **options, **more, use_cache=False)
        assert cached.sequences.tolist() == plain.sequences.tolist()
        torch.testing.assert_close(torch.stack(cached.logits), torch.stack(plain.logits), rtol=1e-4, atol=1e-5)


def test_generation_of_a_batch_equals_generation_of_each(generator, batch):
    model, processor = generator
    model.generation_config.eos_token_id = None  # an untrained model may end at once
    together = model.generate(**batch, max_new_tokens=12, return_dict_in_generate=True, output_logits=True)
    logits = torch.stack(together.logits, 1)
    a, b, c, d, e, f, g = images(7)
    singles = [[a, b], [c], [d, e, f], [g]]
    views = [["left", "right"], None, [1, 0, 2], None]
    for row, (own, organ, marks) in enumerate(zip(singles, ORGANS, views, strict=True)):
        inputs = processor(images=[own], organ=organ, views=None if marks is None else [marks])
        alone = model.generate(**inputs, max_new_tokens=12, return_dict_in_generate=True, output_logits=True)
        assert alone.sequences[0, -12:].tolist() == together.sequences[row, -12:].tolist()
        torch.testing.assert_close(torch.stack(alone.logits, 1)[0], logits[row], rtol=1e-4, atol=1e-5)
    model.generation_config.eos_token_id = model.config.eos_token_id


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_may_be_padded_at_either_side(generator, batch, side):
    model, processor = generator
    other = processor(
        images=[[image] for image in images(2)],
        organ=["liver", None],
        padding_side=side,
        padding="max_length",
        max_length=20,
    )
    left = processor(images=[[image] for image in images(2)], organ=["liver", None])
    assert other["decoder_input_ids"].shape == (2, 20)
    found = [model.generate(**inputs, max_new_tokens=8)[:, -8:].tolist() for inputs in (other, left)]
    assert found[0] == found[1]


def test_the_loss_does_not_depend_on_the_side_of_the_padding(generator):
    model, processor = generator
    losses = [
        model(**processor(images=[[image] for image in images(2)], text=TEXTS[:2], padding_side=side)).loss
        for side in ("left", "right")
    ]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("views", [None, ["left", "right"]])
def test_the_images_of_a_report_are_a_set(generator, views):
    model, processor = generator
    a, b = images(2)
    one = processor(images=[[a, b]], views=views)
    other = processor(images=[[b, a]], views=views and views[::-1])
    with torch.no_grad():
        assert torch.equal(model(**one).findings_logits, model(**other).findings_logits)
    for options in ({}, {"num_beams": 2}):
        written = [model.generate(**inputs, max_new_tokens=12, **options).tolist() for inputs in (one, other)]
        assert written[0] == written[1]


def test_a_view_changes_what_the_decoder_sees(generator):
    model, processor = generator
    a, b = images(2)
    marked = [
        processor(images=[[a, b]], views=[views]) for views in (["left", "right"], ["right", "left"], ["", None])
    ]
    with torch.no_grad():
        logits = [model(**inputs).logits for inputs in (*marked, processor(images=[[a, b]]))]
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)
    torch.testing.assert_close(logits[2], logits[3])  # not marked


def test_padding_images_do_not_matter(generator, batch):
    model, _ = generator
    changed = {**batch, "pixel_values": batch["pixel_values"].clone()}
    changed["pixel_values"][~batch["image_mask"]] = float("nan")
    with torch.no_grad():
        for name in ("logits", "findings_logits"):
            torch.testing.assert_close(model(**changed)[name], model(**batch)[name])


def test_many_images_go_through_the_encoder_in_chunks(generator):
    model, _ = generator
    clip = torch.rand(1, 70, 3, 32, 32)
    with torch.no_grad():
        chunked = model.encoder(clip)
    whole = model.encoder(clip)  # for a gradient
    torch.testing.assert_close(chunked.last_hidden_state, whole.last_hidden_state.detach())
    torch.testing.assert_close(chunked.pooler_output, whole.pooler_output.detach())


def test_sampling_and_several_sequences(generator, batch):
    model, processor = generator
    options = {"max_new_tokens": 12, "num_return_sequences": 2}
    torch.manual_seed(1)
    sampled = model.generate(**batch, do_sample=True, temperature=1.5, **options)
    torch.manual_seed(1)
    again = model.generate(**batch, do_sample=True, temperature=1.5, **options)
    assert torch.equal(sampled, again) and len(sampled) == 8
    assert any(sampled[2 * row].tolist() != sampled[2 * row + 1].tolist() for row in range(4))
    scored = model.generate(**batch, num_beams=3, **options, return_dict_in_generate=True, output_scores=True)
    assert len(processor.batch_decode(scored.sequences)) == 8
    assert torch.isfinite(scored.sequences_scores).all()


def test_a_report_ends_where_the_decoder_is_full(generator):
    model, processor = generator
    model.generation_config.eos_token_id = None
    inputs = processor(images=images(1), organ="liver")
    for options in ({}, {"max_new_tokens": 500}, {"max_length": 500, "num_beams": 2}):
        assert model.generate(**inputs, **options).shape == (1, 96)
    assert model.generate(**inputs, max_new_tokens=5).shape[1] == inputs["decoder_input_ids"].shape[1] + 5
    model.generation_config.eos_token_id = model.config.eos_token_id
    with pytest.raises(ValueError, match="place for 96"):
        model.generate(inputs["pixel_values"], decoder_input_ids=torch.ones(1, 96, dtype=torch.long))


def test_findings_need_no_text(generator):
    model, processor = generator
    inputs = processor(images=[images(2)])
    with torch.no_grad():
        outputs = model(inputs["pixel_values"])
        encoded = model.encoder(inputs["pixel_values"])
        torch.testing.assert_close(outputs.findings_logits, model(encoder_outputs=encoded).findings_logits)
    assert outputs.findings_logits.shape == (1, 2) and outputs.loss is None
    assert model.generate(encoder_outputs=encoded, max_new_tokens=3).shape[0] == 1


def test_it_memorises_four_pairs(memorised):
    model, processor, pairs, losses, _ = memorised
    assert losses[-1] < 0.05 < losses[0]
    inputs = processor(images=[pair["images"] for pair in pairs], organ=ORGANS)
    assert processor.batch_decode(model.generate(**inputs)) == TEXTS
    assert processor.batch_decode(model.generate(**inputs, num_beams=3)) == TEXTS
    with torch.no_grad():
        present = model(inputs["pixel_values"]).findings_logits[:, 0] > 0
    assert present.tolist() == [False, True, False, True]


def test_trainer_takes_logits_and_findings_for_predictions(memorised):
    model, processor, _, _, predicted = memorised
    logits, findings = predicted.predictions
    assert logits.shape[::2] == (4, len(processor.tokenizer)) and findings.shape == (4, 2)
    assert "test_loss" in predicted.metrics and not model.accepts_loss_kwargs


def test_it_saves_and_loads(memorised, tmp_path):
    model, processor, pairs, _, _ = memorised
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is EchoCareForReportGeneration and type(again) is type(processor)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(AutoConfig.from_pretrained(tmp_path)) is EchoCareReportConfig
    assert loaded.decoder.lm_head.weight is loaded.decoder.transformer.wte.weight  # GPT-2's own two stay one
    inputs = again(images=[pair["images"] for pair in pairs], organ=ORGANS)
    assert again.batch_decode(loaded.generate(**inputs)) == TEXTS
    half = EchoCareForReportGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert again.batch_decode(half.generate(**inputs))[0][:5] == TEXTS[0][:5]


def test_gradient_checkpointing_gives_the_same_gradients():
    model, processor = small(**NO_DROPOUT)
    inputs = processor(images=[images(2)], text=TEXTS[:1])
    model.train()
    model.encoder.feature_norm.eval()  # its statistics would move from one pass to the next
    gradients = []
    for enable in (False, True):
        if enable:
            model.gradient_checkpointing_enable()
        model(**inputs, use_cache=False).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.decoder.modules())
    torch.testing.assert_close(*gradients)


DECODERS = {
    "gpt2": GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64),
    "bert": BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=64
    ),
    "bart": BartConfig(
        d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16, max_position_embeddings=64
    ),
}
OF_ENCODER = {key: value for key, value in SMALL.items() if not key.startswith("decoder_")}


@pytest.mark.parametrize("name", DECODERS)
def test_any_decoder_with_cross_attention(name, tmp_path):
    model, processor = EchoCareForReportGeneration.from_preset("tiny", TEXTS, decoder=DECODERS[name], **OF_ENCODER)
    side = "right" if name == "bart" else "left"
    inputs = processor(images=images(2), text=TEXTS[:2], padding_side=side)
    model(**inputs).loss.backward()
    inputs = processor(images=images(2), organ=["liver", "liver"])
    options = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    written, plain = model.generate(**inputs, **options), model.generate(**inputs, **options, use_cache=False)
    assert written.sequences.tolist() == plain.sequences.tolist()
    model.save_pretrained(tmp_path)
    loaded = EchoCareForReportGeneration.from_pretrained(tmp_path)
    assert loaded.generate(**inputs, max_new_tokens=6).tolist() == written.sequences.tolist()
    uneven = processor(images=images(2), organ=["liver", None])
    if name == "bart":
        with pytest.raises(ValueError, match="takes no position ids"):
            model.generate(**uneven, max_new_tokens=2)
        with pytest.raises(ValueError, match="takes no position ids"):
            model(**processor(images=images(2), text=TEXTS[:2]))
    else:
        assert model.generate(**uneven, max_new_tokens=2).shape[0] == 2


BLOCKS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
WITHOUT_CROSS_ATTENTION = {
    "llama": LlamaConfig(**BLOCKS, intermediate_size=16, num_key_value_heads=1),
    "qwen2": Qwen2Config(**BLOCKS, intermediate_size=16, num_key_value_heads=1),
    "opt": OPTConfig(**BLOCKS, ffn_dim=16, word_embed_proj_dim=16),
}


@pytest.mark.parametrize("name", WITHOUT_CROSS_ATTENTION)
def test_a_decoder_without_cross_attention_gets_it(name, tmp_path):
    torch.manual_seed(0)
    model, processor = EchoCareForReportGeneration.from_preset(
        "tiny", TEXTS, decoder=WITHOUT_CROSS_ATTENTION[name], findings=["cyst"], finding_tokens=True, **OF_ENCODER
    )
    loss = model(**processor(images=images(2), text=TEXTS[:2])).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.image_attention.layers[0].output.parameters())
    assert model.encoder.image_projection.weight.grad.any()

    a, b, c = images(3)
    batch = processor(images=[[a, b], [c]], organ=["liver", None])
    for options in ({}, {"num_beams": 3}):
        options = {"max_new_tokens": 6, "min_new_tokens": 6, **options}
        written = model.generate(**batch, **options)
        assert written.tolist() == model.generate(**batch, **options, use_cache=False).tolist()
        alone = [processor(images=[[a, b]], organ=["liver"]), processor(images=[[c]], organ=[None])]
        for row, inputs in enumerate(alone):
            assert model.generate(**inputs, **options)[0, -6:].tolist() == written[row, -6:].tolist()
    with torch.no_grad():
        shown, turned, other = (model(**processor(images=[group])).logits for group in ([a, b], [b, a], [c]))
    torch.testing.assert_close(shown, turned)
    assert (shown - other).abs().max() > 1e-4
    model.save_pretrained(tmp_path)
    loaded = EchoCareForReportGeneration.from_pretrained(tmp_path)
    for one in (loaded, copy.deepcopy(model)):
        assert one.generate(**batch, **options).tolist() == written.tolist()


def test_a_pretrained_decoder_without_cross_attention_sees_the_images(tmp_path):
    torch.manual_seed(0)
    llama, processor = EchoCareForReportGeneration.from_preset(
        "tiny", TEXTS, decoder=WITHOUT_CROSS_ATTENTION["llama"], **OF_ENCODER
    )
    llama.decoder.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    model, processor = EchoCareForReportGeneration.from_preset("tiny", decoder=str(tmp_path), **OF_ENCODER)
    weight = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(model.decoder.state_dict()[weight], llama.decoder.state_dict()[weight])
    with torch.no_grad():
        shown, other = (model(**processor(images=[[image]])).logits for image in images(2))
    assert (shown - other).abs().max() > 1e-4


def test_checkpointed_blocks_look_again_in_the_backward_pass():
    torch.manual_seed(0)
    model, processor = EchoCareForReportGeneration.from_preset(
        "tiny", TEXTS, decoder=WITHOUT_CROSS_ATTENTION["llama"], **OF_ENCODER
    )
    inputs = processor(images=images(2), text=TEXTS[:2])
    gradients = []
    for enable in (False, True):
        model.train().encoder.eval()
        if enable:
            model.gradient_checkpointing_enable()
        model(**inputs, use_cache=False).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    torch.testing.assert_close(*gradients)


def test_a_decoder_that_cannot_see_images_is_refused():
    alone = torch.nn.Linear(4, 4)
    alone.config = SimpleNamespace(num_hidden_layers=2, hidden_size=4)
    with pytest.raises(ValueError, match="Linear has neither cross-attention nor blocks"):
        EchoCareImageAttention(alone)


def test_the_encoder_of_a_checkpoint():
    model, processor = EchoCareForReportGeneration.from_preset("tiny", TEXTS, encoder="echocare-tiny")
    reference = EchoCareModel.from_pretrained(checkpoint_path("echocare-tiny"), use_mask_token=False).eval()
    pixel_values = processor(images=images(1))["pixel_values"][:, 0]
    with torch.no_grad():
        found, wanted = (encoder(pixel_values).last_hidden_state for encoder in (model.encoder.echocare, reference))
    assert torch.equal(found, wanted)
    assert not model.training and model.config.findings is None and model(pixel_values).findings_logits is None


def test_a_pretrained_decoder_brings_its_tokenizer(generator, tmp_path):
    model, processor = generator
    model.decoder.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    other, others = EchoCareForReportGeneration.from_preset("tiny", decoder=str(tmp_path), **OF_ENCODER)
    assert torch.equal(other.decoder.transformer.h[0].mlp.c_fc.weight, model.decoder.transformer.h[0].mlp.c_fc.weight)
    assert others.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    alone = EchoCareForReportGeneration.from_encoder_decoder_pretrained("echocare-tiny", str(tmp_path))
    assert torch.equal(alone.decoder.lm_head.weight, model.decoder.lm_head.weight)


@pytest.mark.parametrize("name", ["tiny", "base", "large"])
def test_presets(name):
    config = EchoCareReportConfig.preset(name, vocab_size=300, findings=["cyst"], image_size=64, decoder_n_layer=1)
    assert config.model_type == "echocare-report" and config.num_findings == 1
    assert (config.encoder.image_size, config.decoder.n_layer, config.decoder.vocab_size) == (64, 1, 300)
    assert EchoCareReportConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "huge"}, "unknown preset 'huge'"),
        ({"deepths": [1]}, "unknown configuration value 'deepths'"),
        ({"decoder_n_layers": 2}, "no value 'n_layers'"),
        ({"encoder_maps": 9}, "`encoder_maps` must lie between 1 and 5"),
        ({"findings": ["a", "a"]}, "must differ"),
        ({"findings": ["a"], "findings_positive_weights": [1.0, 2.0]}, "must be 1 numbers"),
        ({"texts": None}, "give `texts`"),
        ({"texts": []}, "at least one report"),
        ({"texts": "Liver normal."}, "must be a list"),
        ({"texts": ["\ud800"]}, "half a surrogate pair"),
    ],
)
def test_bad_settings_get_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        EchoCareForReportGeneration.from_preset(**{"name": "tiny", "texts": TEXTS, **arguments})
    assert "Traceback" not in str(caught.value)


def test_bad_inputs_get_one_clear_line(generator):
    model, _ = generator
    pixel_values = torch.rand(1, 2, 3, 32, 32)
    for arguments, message in [
        ({"pixel_values": None}, "you have to specify `pixel_values`"),
        ({"pixel_values": torch.rand(1, 0, 3, 32, 32)}, "at least one image"),
        ({"pixel_values": pixel_values, "image_mask": torch.zeros(1, 2)}, "report 0 without an image"),
        ({"pixel_values": pixel_values, "image_mask": torch.ones(1, 3)}, "`image_mask` must be"),
        ({"pixel_values": pixel_values, "views": torch.tensor([[0, 8]])}, "between 0"),
        (
            {
                "pixel_values": pixel_values,
                "labels": torch.zeros(1, 4).long(),
                "decoder_input_ids": torch.ones(1, 3).long(),
            },
            "`labels` must be",
        ),
        ({"pixel_values": pixel_values, "findings": torch.tensor([[2.0, 0.0]])}, "1 \\(present\\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            model(**arguments)
