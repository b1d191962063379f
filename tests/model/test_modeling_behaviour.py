"""What EchoCare's models promise beyond what transformers asks of every model: sizes, masks, precision, errors."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from transformers import AutoBackbone

from echocare_hf import EchoCareBackbone, EchoCareConfig, EchoCareForPreTraining, EchoCareModel
from echocare_hf.model import kernels_echocare, layers_echocare
from echocare_hf.model.layers_echocare import EchoCareDropPath, EchoCarePatchMerging

TREE = {"ids": ["root", "heart", "liver", "la", "lv"], "names": list("abcde"), "parents": [-1, 0, 0, 1, 1]}
LABELS = torch.tensor([[1, 1, 0, 1, -1], [1, 0, 1, 0, 0]])


def small_config(**overrides) -> EchoCareConfig:
    """Two stages, three blocks, 8x8 mask units. 30x44 pixels are 15x22 patches: windows and merging need padding."""
    settings = {
        "image_size": 32,
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "mask_unit_size": 8,
        "drop_path_rate": 0.0,
        "anatomy_tree": copy.deepcopy(TREE),
        "anatomy_hidden_size": 8,
    }
    return EchoCareConfig(**{**settings, **overrides})


def small_model(model_class=EchoCareForPreTraining, seed=0, **overrides):
    torch.manual_seed(seed)
    model = model_class(small_config(**overrides))
    with torch.no_grad():  # biases too, so that no part of the model is at a neutral value
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 30, 44, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask() -> torch.Tensor:
    """Mask units of a 30x44 image: 4 down, 6 across."""
    return torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(2)) < 0.5


@pytest.fixture
def written_out(monkeypatch):
    """Switches the CPU kernels off, so that the written-out form of the maths runs."""

    def switch_off():
        monkeypatch.setattr(layers_echocare, "runs_on_cpu_kernels", lambda tensor: False)

    return switch_off


def gradients(model, *inputs, seed=0, **named) -> dict[str, torch.Tensor]:
    """The gradient of the loss by parameter name, with the loss itself as `loss`."""
    model.zero_grad()
    torch.manual_seed(seed)
    loss = model(*inputs, **named).loss
    loss.backward()
    return {"loss": loss.detach(), **{name: p.grad.clone() for name, p in model.named_parameters()}}


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_feature_maps_double_in_channels_and_halve_in_size():
    assert EchoCareConfig.preset("base").stage_channels == [128, 256, 512, 1024, 2048]
    model = EchoCareModel(EchoCareConfig.preset("tiny")).eval()
    with torch.inference_mode():
        outputs = model(torch.rand(1, 3, 256, 256), output_hidden_states=True)
    shapes = [tuple(feature_map.shape) for feature_map in outputs.reshaped_hidden_states]
    assert shapes == [(1, 24, 64, 64), (1, 48, 32, 32), (1, 96, 16, 16), (1, 192, 8, 8), (1, 384, 4, 4)]
    for flat, feature_map in zip(outputs.hidden_states, outputs.reshaped_hidden_states, strict=True):
        assert torch.equal(flat, feature_map.flatten(2).transpose(1, 2))
        torch.testing.assert_close(feature_map.mean(1), torch.zeros(feature_map[:, 0].shape), atol=1e-5, rtol=0)


@pytest.mark.parametrize("height, width", [(96, 96), (230, 245), (256, 192), (512, 512), (8, 8), (9, 300)])
@pytest.mark.parametrize("decoder_type", ["conv_upsample", "pixel_shuffle", "multi_scale"])
def test_any_size_of_image(height, width, decoder_type):
    config = small_config(
        depths=[1, 2, 1, 1], num_heads=[1, 2, 4, 8], embed_dim=8, window_size=8, decoder_type=decoder_type
    )
    model = EchoCareForPreTraining(config).eval()
    pixel_values = torch.rand(1, 3, height, width)
    with torch.inference_mode():
        outputs = model(pixel_values)
        encoded = model.echocare(pixel_values)
    assert outputs.reconstruction.shape == pixel_values.shape
    assert torch.isfinite(outputs.reconstruction).all() and torch.isfinite(outputs.anatomy_logits).all()
    tokens = math.ceil(height / config.output_stride) * math.ceil(width / config.output_stride)
    assert encoded.last_hidden_state.shape == (1, tokens, config.hidden_size)
    torch.testing.assert_close(encoded.pooler_output, encoded.last_hidden_state.mean(1))


def test_the_multi_scale_decoder_has_its_own_width_or_that_of_the_dense_heads():
    for given, expected in ((None, 24), (8, 8)):
        config = small_config(decoder_type="multi_scale", dense_hidden_size=24, decoder_hidden_size=given)
        decoder = EchoCareForPreTraining(config).image_decoder
        assert {tuple(conv.weight.shape[:2]) for conv in decoder.convs} == {(expected, expected)}
        assert decoder.output.in_channels == expected


def test_an_image_gives_the_same_alone_and_in_a_batch(images, mask):
    model = small_model().eval()
    with torch.inference_mode():
        batch = model(images, mask)
        for index in range(len(images)):
            alone = model(images[index : index + 1], mask[index : index + 1])
            torch.testing.assert_close(alone.reconstruction[0], batch.reconstruction[index], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(alone.anatomy_logits[0], batch.anatomy_logits[index], atol=1e-5, rtol=1e-5)


# --- masks -----------------------------------------------------------------------------------------------------------


def test_a_mask_may_name_units_or_patches_as_a_map_or_flat(images, mask):
    model = small_model().eval()
    patches = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :15, :22]  # an 8-pixel unit is 4x4 patches
    with torch.inference_mode():
        expected = model(images, mask)
        for form in (mask.flatten(1), patches, patches.flatten(1), mask.long(), mask.float()):
            outputs = model(images, bool_masked_pos=form)
            assert torch.equal(outputs.reconstruction, expected.reconstruction)
            assert torch.equal(outputs.reconstruction_loss, expected.reconstruction_loss)


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 6, 4), (2, 23), (1, 4, 6), (2,), (2, 24, 1), (2, 1, 4, 6)])
def test_a_mask_of_another_shape_is_one_clear_error(images, shape):
    with pytest.raises(ValueError, match="fits neither 4x6 mask units of 8 pixels nor 15x22 patches of 2") as error:
        small_model().eval()(images, torch.ones(shape, dtype=torch.bool))
    assert "\n" not in str(error.value)


def test_what_stands_under_the_mask_does_not_matter(images, mask):
    model = small_model().eval()
    pixels = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None, :30, :44]
    changed = torch.where(pixels, torch.rand_like(images), images)
    with torch.inference_mode():
        assert torch.equal(model(images, mask).reconstruction, model(changed, mask).reconstruction)
        assert not torch.equal(model(images).reconstruction, model(changed).reconstruction)


def test_an_empty_mask_changes_nothing(images, mask):
    model = small_model().eval()
    with torch.inference_mode():
        outputs = model(images, torch.zeros_like(mask))
        assert torch.equal(outputs.reconstruction, model(images).reconstruction)
        assert outputs.reconstruction_loss == 0


def test_the_backbone_takes_no_mask(images, mask):
    backbone = small_model(EchoCareBackbone)
    with pytest.raises(ValueError, match="without a mask token"):
        backbone.echocare(images, mask)


# --- losses and gradients --------------------------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum_of_what_is_given(images, mask):
    model = small_model(reconstruction_loss_weight=2.0, anatomy_loss_weight=0.5).eval()
    with torch.inference_mode():
        both, masked, labelled, neither = (
            model(images, mask, LABELS),
            model(images, mask),
            model(images, labels=LABELS),
            model(images),
        )
    torch.testing.assert_close(both.loss, 2 * both.reconstruction_loss + 0.5 * both.anatomy_loss)
    assert masked.anatomy_loss is None and torch.equal(masked.loss, 2 * masked.reconstruction_loss)
    assert labelled.reconstruction_loss is None and torch.equal(labelled.loss, 0.5 * labelled.anatomy_loss)
    assert neither.loss is None


@pytest.mark.parametrize("decoder_type", ["conv_upsample", "pixel_shuffle", "multi_scale"])
def test_every_parameter_learns_from_the_pretraining_loss(images, mask, decoder_type):
    model = small_model(decoder_type=decoder_type).train()
    for name, gradient in gradients(model, images, mask, LABELS).items():
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0, name


def test_without_a_mask_the_mask_token_gets_no_gradient(images):
    model = small_model(EchoCareModel).train()
    model(images).pooler_output.square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == [
        "embeddings.mask_token"
    ]


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("kernels", [True, False], ids=["CPU kernels", "written out"])
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(images, mask, use_reentrant, kernels, written_out):
    if not kernels:
        written_out()
    model = small_model(drop_path_rate=0.3).train()
    expected = gradients(model, images, mask, LABELS)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": use_reentrant})
    assert model.is_activation_checkpointing
    torch.testing.assert_close(gradients(model, images, mask, LABELS), expected)


# --- the CPU kernels and the other implementations -------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [(30, 44), (16, 16), (8, 12)], ids=["padded windows", "whole windows", "small windows"]
)
@pytest.mark.parametrize(
    "overrides", [{}, {"qkv_bias": False}, {"hidden_act": "gelu_pytorch_tanh"}, {"use_conv_blocks": False}]
)
def test_cpu_kernels_equal_the_written_out_maths(size, overrides, written_out):
    """In double precision, loss and every gradient."""
    model = small_model(**overrides).double().train()
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    mask = torch.rand(2, -(-size[0] // 8), -(-size[1] // 8)) < 0.5
    expected = gradients(model, images, mask, LABELS)
    with torch.inference_mode():
        inferred = model(images, mask).reconstruction
    written_out()
    torch.testing.assert_close(expected, gradients(model, images, mask, LABELS), rtol=1e-5, atol=1e-7)
    with torch.inference_mode():
        torch.testing.assert_close(inferred, model(images, mask).reconstruction, rtol=1e-5, atol=1e-7)


def test_sdpa_and_eager_attention_agree(images, mask):
    model = small_model().train()
    assert model.config._attn_implementation == "sdpa"
    expected = gradients(model, images, mask, LABELS)
    model.set_attn_implementation("eager")
    torch.testing.assert_close(gradients(model, images, mask, LABELS), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_attention_probabilities_are_returned_by_every_implementation(images, implementation):
    model = small_model(EchoCareModel).eval()
    model.set_attn_implementation(implementation)
    with torch.inference_mode():
        outputs = model(images, output_attentions=True)
        torch.testing.assert_close(outputs.last_hidden_state, model(images).last_hidden_state, rtol=1e-4, atol=1e-5)
    # 15x22 patches are 4x6 windows of 4x4; their merged 8x11 map is 2x3 windows
    shapes = [tuple(attention.shape) for attention in outputs.attentions]
    assert shapes == [(2 * 24, 2, 16, 16), (2 * 6, 4, 16, 16), (2 * 6, 4, 16, 16)]
    for attention in outputs.attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))


def test_compiled_model_gives_the_same(images):
    model = small_model(EchoCareModel).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(images).pooler_output, model(images).pooler_output, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


def test_compiled_training_step_gives_the_same_gradients(images, mask):
    model = small_model(depths=[2], num_heads=[2]).train()
    expected = gradients(model, images, mask, LABELS)
    compiled = torch.compile(model, backend="aot_eager")
    compiled.zero_grad()
    loss = compiled(images, mask, LABELS).loss
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.testing.assert_close({"loss": loss.detach(), **found}, expected, rtol=1e-3, atol=1e-5)
    torch._dynamo.reset()


def test_exported_model_takes_any_batch(images):
    model = small_model(EchoCareModel).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(
        model, (images,), dynamic_shapes={"pixel_values": {0: batch}}, strict=False
    ).module()
    for count in (1, 2, 5):
        pixel_values = torch.rand(count, 3, 30, 44)
        with torch.no_grad():
            expected = model(pixel_values)
            found = exported(pixel_values)
        torch.testing.assert_close(found.pooler_output, expected.pooler_output, rtol=1e-4, atol=1e-5)


# --- precision -------------------------------------------------------------------------------------------------------


def similarity(first: torch.Tensor, second: torch.Tensor) -> float:
    return nn.functional.cosine_similarity(first.float().flatten(), second.float().flatten(), dim=0).item()


@pytest.mark.parametrize("kernels", [True, False], ids=["CPU kernels", "written out"])
def test_bfloat16_is_near_full_precision(images, mask, kernels, written_out):
    if not kernels:
        written_out()
    model = small_model().eval()
    with torch.inference_mode():
        expected = model(images, mask)
        with torch.autocast("cpu", torch.bfloat16):
            autocast = model(images, mask)
        half = model.to(torch.bfloat16)(images.bfloat16(), mask)
    for outputs in (autocast, half):
        assert torch.isfinite(outputs.reconstruction).all()
        assert similarity(outputs.reconstruction, expected.reconstruction) > 0.99
        assert similarity(outputs.anatomy_logits, expected.anatomy_logits) > 0.99


@pytest.mark.parametrize("kernels", [True, False], ids=["CPU kernels", "written out"])
def test_training_in_autocast_gives_every_parameter_a_finite_gradient(images, mask, kernels, written_out):
    if not kernels:
        written_out()
    model = small_model().train()
    expected = gradients(model, images, mask, LABELS)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(images, mask, LABELS).loss
    loss.backward()
    assert loss.dtype == torch.float32
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32 and torch.isfinite(parameter.grad).all(), name
        if expected[name].norm() > 1e-3:
            assert similarity(parameter.grad, expected[name]) > 0.9, name


def test_a_bfloat16_model_trains(images, mask):
    model = small_model().to(torch.bfloat16).train()
    for name, gradient in gradients(model, images.bfloat16(), mask, LABELS).items():
        assert torch.isfinite(gradient).all(), name


# --- adapters and hooks ----------------------------------------------------------------------------------------------


class LowRankLinear(nn.Linear):
    """What LoRA makes of a linear layer: the layer, and a product of two thin matrices beside it."""

    def __init__(self, base: nn.Linear):
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.weight, self.bias = base.weight, base.bias
        self.down = nn.Parameter(0.3 * torch.randn(2, base.in_features))
        self.up = nn.Parameter(0.3 * torch.randn(base.out_features, 2))

    def forward(self, values):
        return super().forward(values) + values @ self.down.t() @ self.up.t()


def adapt(model: nn.Module, name: str, how: str) -> None:
    """Changes what every module of that name computes."""
    for parent in list(model.modules()):
        module = getattr(parent, name, None)
        if not isinstance(module, nn.Module):
            continue
        if how == "subclass":
            setattr(parent, name, LowRankLinear(module))
        elif how == "forward hook":
            module.register_forward_hook(lambda module, inputs, output: output * 1.5 + 0.3)
        elif how == "forward pre-hook":
            module.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 1.5 + 0.3,))
        elif how == "replaced forward":
            module.forward = lambda values, forward=module.forward: forward(values) * 1.5 + 0.3
        elif how == "parametrized":
            nn.utils.parametrizations.weight_norm(module)
            with torch.no_grad():
                module.parametrizations.weight.original0.mul_(1.5)


LINEAR_LAYERS = ["qkv", "fc1", "fc2", "reduction", "projection"]
NORM_LAYERS = ["layernorm_before", "layernorm_after", "norm"]
ADAPTERS = [
    *((name, how) for name in ("qkv", "fc1", "reduction") for how in ("subclass", "forward hook", "replaced forward")),
    *((name, "forward pre-hook") for name in LINEAR_LAYERS),
    *((name, "parametrized") for name in ("qkv", "fc1", "fc2", "reduction")),
    *((name, how) for name in NORM_LAYERS for how in ("forward hook", "replaced forward")),
]


@pytest.mark.parametrize(("name", "how"), ADAPTERS, ids=lambda value: value)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_adapters_and_hooks_are_honoured(images, mask, name, how, training, written_out):
    """The kernels must not read the weights of a layer that does more than its weights say."""
    model = small_model().train(training)
    with torch.set_grad_enabled(training):
        plain = model(images, mask).reconstruction
        adapt(model, name, how)
        adapted = model(images, mask).reconstruction
        assert not torch.allclose(adapted, plain, rtol=1e-3)
        written_out()
        torch.testing.assert_close(adapted, model(images, mask).reconstruction, rtol=1e-3, atol=1e-4)


def test_an_adapter_learns_while_the_encoder_is_frozen(images, mask):
    model = small_model().train().requires_grad_(False)
    adapt(model, "qkv", "subclass")
    adapt(model, "fc1", "subclass")
    model(images, mask).loss.backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(learning) == 2 * 2 * 3 and all(name.endswith(("up", "down")) for name in learning)


# --- drop path, modes, copies ----------------------------------------------------------------------------------------


def test_drop_path_drops_whole_samples_and_keeps_the_expectation():
    drop_path = EchoCareDropPath(0.25).train()
    values = torch.ones(20000, 2, 3)
    torch.manual_seed(0)
    dropped = drop_path(values)
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert drop_path.eval()(values) is values
    assert EchoCareDropPath(0.0).train()(values) is values
    assert (EchoCareDropPath(1.0).train()(values) == 0).all()


def test_drop_path_rates_rise_from_zero():
    model = EchoCareModel(small_config(drop_path_rate=0.2))
    rates = [module.drop_prob for module in model.modules() if isinstance(module, EchoCareDropPath)]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_training_after_inference_in_the_same_process(images, mask):
    """Window layouts are cached: made under inference mode they could not be saved for a backward pass."""
    model = small_model()
    kernels_echocare.window_layout.cache_clear()
    with torch.inference_mode():
        model.eval()(images, mask)
    gradients(model.train(), images, mask, LABELS)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_copies_of_a_model_give_the_same(images, mask, duplicate):
    model = small_model().eval()
    gradients(model, images, mask, LABELS)
    twin = duplicate(model)
    with torch.inference_mode():
        assert torch.equal(twin(images, mask).reconstruction, model(images, mask).reconstruction)


def test_patch_merging_takes_neighbours_column_by_column():
    """Top left, bottom left, top right, bottom right: the order of MONAI's `PatchMergingV2` in two dimensions."""
    merging = EchoCarePatchMerging(small_config(), channels=1)
    seen = []
    merging.norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        merging(torch.tensor([[0.0, 1.0], [2.0, 3.0]]).view(1, 2, 2, 1))
    assert seen[0].flatten().tolist() == [0.0, 2.0, 1.0, 3.0]


# --- anatomy scores --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e4, math.inf])
def test_no_anatomy_score_stands_above_its_parents(images, dtype, scale):
    model = small_model().to(dtype).eval()
    with torch.no_grad():
        if math.isinf(scale):
            model.anatomy_classifier.output.bias.copy_(torch.tensor([-1.0, 1, -1, 1, 1]) * math.inf)
        else:
            model.anatomy_classifier.output.weight.mul_(scale)
        outputs = model(images.to(dtype))
    scores = outputs.anatomy_scores
    assert ((scores >= 0) & (scores <= 1)).all()
    for node, parent in enumerate(TREE["parents"]):
        if parent >= 0:
            assert (scores[:, node] <= scores[:, parent]).all()


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", [EchoCareModel, EchoCareForPreTraining, EchoCareBackbone])
@pytest.mark.parametrize(
    ("pixel_values", "message"),
    [
        (None, "you have to specify `pixel_values`"),
        (torch.rand(1, 1, 32, 32), "must be .batch, 3 channels, height, width., got .1, 1, 32, 32."),
        (torch.rand(3, 32, 32), "must be .batch, 3 channels, height, width., got .3, 32, 32."),
        (torch.rand(1, 3, 1, 1), "images of 1x1 pixels are too small"),
        (torch.full((1, 3, 32, 32), math.nan), "holds 3072 values that are NaN or infinite"),
        (torch.full((1, 3, 32, 32), math.inf), "holds 3072 values that are NaN or infinite"),
    ],
    ids=["missing", "one channel", "no batch", "1x1", "NaN", "infinite"],
)
def test_a_bad_image_is_one_clear_error(model_class, pixel_values, message):
    model = small_model(model_class).eval()
    with pytest.raises(ValueError, match=message) as error:
        model(pixel_values=pixel_values)
    assert "\n" not in str(error.value)


def test_large_but_finite_pixels_are_no_error():
    """Their sum overflows; only the values themselves decide."""
    small_model(EchoCareModel).eval()(torch.full((1, 3, 32, 32), 3e38))


def tree(ids=("a", "b"), names=("A", "B"), parents=(-1, 0)) -> dict:
    return {"ids": list(ids), "names": list(names), "parents": list(parents)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depths": [2, 2], "num_heads": [2]}, "need one entry a stage"),
        ({"depths": [], "num_heads": []}, "at least one block in every stage"),
        ({"depths": [0, 2]}, "at least one block in every stage"),
        ({"num_heads": [3, 4]}, "stage 1 has 16 channels, which 3 heads do not divide"),
        ({"num_heads": [2, 0]}, "stage 2 has 32 channels, which 0 heads do not divide"),
        ({"decoder_type": "unet"}, "'conv_upsample', 'pixel_shuffle' or 'multi_scale', got 'unet'"),
        ({"mask_unit_size": 9}, "must be a multiple of `patch_size`"),
        ({"mask_ratio": 1.5}, "`mask_ratio` must lie between 0 and 1"),
        ({"patch_size": 0}, "`patch_size` must be at least 1"),
        ({"decoder_hidden_size": 0}, "`decoder_hidden_size` must be at least 1"),
        ({"anatomy_tree": tree(parents=[1, 0])}, "a parent stands before its children"),
        ({"anatomy_tree": tree(parents=[-1, 1])}, "a parent stands before its children"),
        ({"anatomy_tree": tree(parents=[-1, -2])}, "a parent stands before its children"),
        ({"anatomy_tree": tree(names=["A"])}, "must have one length"),
        ({"anatomy_tree": tree(ids=["a", "a"])}, "must be unique"),
        ({"anatomy_tree": {"ids": []}}, "holds the lists ids, names and parents"),
    ],
)
def test_a_configuration_that_does_not_fit_together_says_why(settings, message):
    with pytest.raises(Exception, match=message) as error:
        small_config(**settings)
    # huggingface_hub's `strict` wraps what a validator raises
    assert isinstance(error.value, ValueError) or isinstance(error.value.__cause__, ValueError)


def test_presets_refuse_unknown_names_and_values():
    with pytest.raises(ValueError, match="unknown preset 'huge': choose one of tiny, base, large"):
        EchoCareConfig.preset("huge")
    with pytest.raises(ValueError, match="unknown configuration value 'dropp_path_rate'"):
        EchoCareConfig.preset("tiny", dropp_path_rate=0.1)


def test_a_pretraining_model_needs_a_tree():
    empty = {"ids": [], "names": [], "parents": []}
    with pytest.raises(ValueError, match="has no anatomy tree"):
        EchoCareForPreTraining(small_config(anatomy_tree=empty))
    EchoCareModel(small_config(anatomy_tree=empty))


# --- configuration ---------------------------------------------------------------------------------------------------


def test_a_saved_configuration_keeps_its_tree(tmp_path):
    config = small_config(out_features=["stage1"], mlp_ratio=2)
    config.save_pretrained(tmp_path)
    loaded = EchoCareConfig.from_pretrained(tmp_path)
    assert loaded.anatomy_tree == TREE and loaded.num_anatomy_nodes == 5
    assert loaded.out_features == ["stage1"]
    assert loaded.to_dict() == config.to_dict()


def test_the_presets_have_the_size_of_the_released_encoder():
    """Base is the released encoder: 120,221,688 parameters, and the mask token."""
    with torch.device("meta"):
        counts = {
            name: EchoCareModel(EchoCareConfig.preset(name)).num_parameters() for name in ("tiny", "base", "large")
        }
    assert counts["base"] == 120_221_688 + 128
    assert counts["tiny"] < 4_000_000 < counts["base"] < counts["large"]
    for name in ("base", "large"):
        with torch.device("meta"):
            model = EchoCareForPreTraining(EchoCareConfig.preset(name))
        assert model.config.num_anatomy_nodes == 117


# --- inside other models ---------------------------------------------------------------------------------------------


def test_the_backbone_gives_the_maps_that_the_encoder_gives(images):
    backbone = AutoBackbone.from_config(small_config(out_features=["stem", "stage2"])).eval()
    assert isinstance(backbone, EchoCareBackbone) and backbone.channels == [16, 64]
    with torch.inference_mode():
        maps = backbone(images).feature_maps
        expected = backbone.echocare(images, output_hidden_states=True).reshaped_hidden_states
    assert torch.equal(maps[0], expected[0]) and torch.equal(maps[1], expected[2])


def test_upernet_segments_on_top_of_the_backbone():
    from transformers import UperNetConfig, UperNetForSemanticSegmentation

    backbone_config = small_config(out_features=["stem", "stage1", "stage2"])
    config = UperNetConfig(
        backbone_config=backbone_config,
        hidden_size=8,
        num_labels=3,
        pool_scales=[1, 2],
        auxiliary_in_channels=64,
        auxiliary_channels=8,
    )
    model = UperNetForSemanticSegmentation(config).train()
    outputs = model(torch.rand(2, 3, 32, 32), labels=torch.randint(0, 3, (2, 32, 32)))
    outputs.loss.backward()
    assert isinstance(model.backbone, EchoCareBackbone)
    assert outputs.logits.shape == (2, 3, 32, 32)
    assert all(parameter.grad is not None for parameter in model.backbone.echocare.encoder.parameters())
