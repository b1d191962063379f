"""eval/runner/backbones.py: networks of transformers and timm under EchoCare's heads."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import echocare_hf
from echocare_hf.data.phantom_folder import write_phantom_folder
from echocare_hf.finetuning import FinetuneArguments, fit, open_job

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval"))
from runner import backbones
from runner.backbones_encoder import ForeignEncoder
from runner.backbones_pyramid import plan_pyramid
from runner.contenders import contender

SIDE = 32
HEADS = {
    "classification": "EchoCareForImageClassification",
    "segmentation": "EchoCareForSemanticSegmentation",
    "detection": "EchoCareForObjectDetection",
    "keypoints": "EchoCareForKeypointDetection",
    "video": "EchoCareForVideoClassification",
    "enhancement": "EchoCareForImageToImage",
}


def small_networks():
    """One network a kind: a CNN, two hierarchical ones with attention and without, and columns with and without AutoBackbone."""
    column = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 8}
    return {
        "resnet": transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic"
        ),
        "swin": transformers.SwinConfig(
            image_size=SIDE, embed_dim=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], window_size=2
        ),
        "convnext": transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
        "vit": transformers.ViTConfig(image_size=SIDE, patch_size=16, intermediate_size=32, **column),
        "dinov2": transformers.Dinov2Config(image_size=56, patch_size=14, mlp_ratio=2, **column),
    }


NETWORKS = tuple(small_networks())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each network, as `save_pretrained` of its AutoModel makes it; ResNet's has an image processor that normalises."""
    made = {}
    for name, config in small_networks().items():
        torch.manual_seed(0)
        made[name] = tmp_path_factory.mktemp(name)
        transformers.AutoModel.from_config(config).save_pretrained(made[name])
    values = {"image_processor_type": "ViTImageProcessor", "do_normalize": True}
    values |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.5]}
    (made["resnet"] / "preprocessor_config.json").write_text(json.dumps(values))
    return made


@pytest.fixture(scope="module")
def data(discs, clips, tmp_path_factory):
    """Arguments of each task: phantoms where their labels serve, discs and clips elsewhere."""
    phantoms = tmp_path_factory.mktemp("phantoms") / "data"
    values = write_phantom_folder(phantoms, 12, seed=0, size=96, kinds=("fetal_brain", "breast"))
    masks = [f"{value}={name}" for name, value in values.items()]
    boxes = {"data": str(discs), "group": "patient"}
    return {
        "classification": {"data": str(phantoms), "label": ["label"]},
        "segmentation": {"data": str(phantoms), "mask_values": masks},
        "detection": {**boxes, "one_class": "disc"},
        "keypoints": {**boxes, "keypoints": ["centre"]},
        "video": {"data": str(clips)},
        "enhancement": {"data": str(phantoms)},
    }


@pytest.fixture(scope="module")
def opened(data):
    """Jobs by task, opened once."""
    jobs = {}

    def job(task, **changes):
        if changes or task not in jobs:
            values = {
                "model": "tiny",
                "image_size": SIDE,
                "batch_size": 4,
                "bf16": False,
                "augmentation": 0.0,
                **data[task],
            }
            made = open_job(task, FinetuneArguments(**(values | changes)))
            if changes:
                return made
            jobs[task] = made
        return jobs[task]

    return job


def batch_of(job, count=4):
    return job.task.collate([job.sets["train"][row] for row in range(count)])


# Heads ----------------------------------------------------------------------------------------------------------------

# Every head on a CNN and on a column of tokens, the others on a head that reads one vector and one that reads every map.
PAIRS = [(network, task) for network in ("resnet", "vit") for task in HEADS]
PAIRS += [(network, task) for network in ("swin", "convnext", "dinov2") for task in ("classification", "segmentation")]


@pytest.mark.parametrize(("network", "task"), PAIRS)
def test_every_head_learns_on_every_network(network, task, folders, opened):
    job = opened(task)
    torch.manual_seed(0)
    model = backbones.substitute(job, f"hf:{folders[network]}", pretrained=True).train()
    assert isinstance(model, getattr(echocare_hf, HEADS[task]))
    losses = descent(model, batch_of(job, 2), 3e-4 if task == "enhancement" else 1e-3)
    assert min(losses[2:]) < losses[0]


def descent(model, batch, learning_rate, steps=5):
    """Losses of a few steps; at the first one every parameter that a map depends on must have a gradient, and most not 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    losses = []
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.item())
        if len(losses) == 1:
            learning = [one for name, one in model.echocare.named_parameters() if name in model.echocare.depth_of]
            assert len(learning) > 10 and all(one.grad is not None for one in learning)
            assert sum(one.grad.abs().sum().item() > 0 for one in learning) > len(learning) / 2
        optimizer.step()
        optimizer.zero_grad()
    return losses


# Maps -----------------------------------------------------------------------------------------------------------------


def encoder_of(folder, size=(SIDE, SIDE), processor=None, pretrained=True):
    return ForeignEncoder(backbones.network_recipe(f"hf:{folder}"), size, pretrained, processor).eval()


def test_maps_are_the_backbones_own_for_images_normalised_as_it_was_trained(folders):
    image = torch.rand(2, 3, SIDE, SIDE)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    oracle = transformers.ResNetBackbone.from_pretrained(folders["resnet"], out_features=stages).eval()
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.5]).view(3, 1, 1)
    encoder = encoder_of(folders["resnet"])
    with torch.no_grad():
        wanted, found = oracle((image - mean) / std).feature_maps, encoder.feature_maps(image)
    assert encoder.strides == [4, 8, 16, 32] and encoder.channels == [8, 16, 24, 32]
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_what_the_image_processor_normalises_is_undone(folders):
    image = torch.rand(1, 3, 40, SIDE)  # padded: black is what black pixels have become
    processor = echocare_hf.EchoCareImageProcessorPil(
        size={"height": 40, "width": SIDE}, do_normalize=True, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7]
    )
    normalised = (image - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    with torch.no_grad():
        plain = encoder_of(folders["resnet"], (40, SIDE)).feature_maps(image)
        undone = encoder_of(folders["resnet"], (40, SIDE), processor).feature_maps(normalised)
    for one, other in zip(plain, undone, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


def test_a_column_becomes_a_pyramid_of_four_depths(folders):
    image = torch.rand(1, 3, SIDE, SIDE)
    oracle = transformers.ViTModel.from_pretrained(folders["vit"], add_pooling_layer=False).eval()
    with torch.no_grad():
        outputs = oracle(image, output_hidden_states=True)
        found = encoder_of(folders["vit"]).feature_maps(image)
    blocks = [*outputs.hidden_states[2:-1:2], outputs.last_hidden_state]  # after blocks 2, 4, 6, 8 of 8
    assert len(blocks) == len(found) == 4
    for factor, tokens, feature_map in zip((4, 2, 1, 0.5), blocks, found, strict=True):
        own = torch.nn.functional.layer_norm(tokens[:, 1:], (16,)).transpose(1, 2).reshape(1, 16, 2, 2)
        mode = {"mode": "bilinear"} if factor > 1 else {"mode": "area"}
        torch.testing.assert_close(feature_map, torch.nn.functional.interpolate(own, scale_factor=factor, **mode))


def test_a_network_of_grey_images_gets_the_mean_of_the_channels(tmp_path):
    torch.manual_seed(0)
    config = small_networks()["resnet"]
    config.num_channels = 1
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    values = {
        "image_processor_type": "ViTImageProcessor",
        "do_normalize": True,
        "image_mean": [0.4],
        "image_std": [0.2],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    encoder, image = encoder_of(tmp_path), torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        wanted = encoder.maps.network((image.mean(1, keepdim=True) - 0.4) / 0.2).feature_maps
        for one, other in zip(wanted, encoder.feature_maps(image), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)
    config.num_channels = 2
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="images of 2 channels"):
        encoder_of(tmp_path)


@pytest.mark.parametrize("network", ["resnet", "vit", "dinov2"])
def test_images_of_any_size_give_maps_as_large_as_echocare_gives(network, folders):
    encoder = encoder_of(folders[network], (50, 71))
    maps = encoder.feature_maps(torch.rand(1, 3, 50, 71))
    assert [tuple(one.shape[-2:]) for one in maps] == [(13, 18), (7, 9), (4, 5), (2, 3)]


def test_plans():
    levels = plan_pyramid([4, 4, 8, 16, 32]).levels
    assert [(level.source, level.stride, level.factor) for level in levels] == [
        (1, 4, 1),
        (2, 8, 1),
        (3, 16, 1),
        (4, 32, 1),
    ]
    gap = plan_pyramid([4, 16])
    assert [(level.source, level.stride, level.factor) for level in gap.levels] == [(0, 4, 1), (0, 8, 0.5), (1, 16, 1)]
    feature_map = torch.arange(16.0).reshape(1, 1, 4, 4)
    averaged = gap.pyramid([feature_map, feature_map[..., :1, :1]], 16, 16)[1]
    assert averaged.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    column = plan_pyramid([14] * 4)
    assert column.zoom == 14 / 16 and column.input_size(100, 128) == (112, 112)
    with pytest.raises(ValueError, match="strides are 3, 8, which do not double"):
        plan_pyramid([3, 8])
    with pytest.raises(ValueError, match="none"):
        plan_pyramid([])


# The recipe -----------------------------------------------------------------------------------------------------------


def test_learning_rates_rise_with_the_layer_only_from_trained_weights(folders, opened, tmp_path):
    job = opened("classification", layer_decay=None)
    for pretrained in (True, False):
        model = backbones.substitute(job, str(folders["resnet"]), pretrained)
        trainer = job.trainer(model, tmp_path)
        rates = {id(one): group["lr"] for group in trainer.create_optimizer().param_groups for one in group["params"]}
        network = model.echocare.maps.network
        order = [
            network.embedder.embedder.convolution,
            *(stage.layers[0].layer[0].convolution for stage in network.encoder.stages),
        ]
        found = [rates[id(layer.weight)] for layer in order] + [rates[id(model.classifier.weight)]]
        if pretrained:
            top = sum(job.config.depths) + 1
            assert found[0] == found[1] == pytest.approx(job.arguments.learning_rate * 0.8**top)
            assert found[1] < found[2] < found[3] < found[4] < found[5] == job.arguments.learning_rate
        else:
            assert set(found) == {job.arguments.learning_rate}


def test_batch_norms_stand_still_while_the_network_does(folders, opened):
    job = opened("classification", freeze_encoder=True)
    model = backbones.substitute(job, str(folders["resnet"]), pretrained=True)
    before = {name: value.clone() for name, value in model.echocare.state_dict().items()}
    model.train()(**batch_of(job)).loss.backward()
    after = model.echocare.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in model.echocare.parameters())
    model.echocare.requires_grad_(True)
    model.train()(**batch_of(job))
    assert not all(torch.equal(value, model.echocare.state_dict()[name]) for name, value in before.items())


def test_a_run_from_the_head_start_to_the_saved_folder(folders, opened, tmp_path, monkeypatch):
    job = opened("classification", epochs=2, head_first=0.5, learning_rate=1e-3)
    model = backbones.substitute(job, str(folders["resnet"]), pretrained=True)
    start = {name: value.clone() for name, value in model.echocare.named_parameters()}
    fitted = fit(job, model, tmp_path / "checkpoints")
    assert fitted.head_start is not None and job.checkpoint == str(folders["resnet"])
    assert fitted.trainer.state.global_step == 4
    learned = any(not torch.equal(value, start[name]) for name, value in model.echocare.named_parameters())
    assert learned or fitted.kept or fitted.trainer.state.best_global_step == 2
    metrics, _ = fitted.trainer.assess(job.sets["validation"])
    assert np.isfinite(metrics["loss"])

    model.eval().save_pretrained(tmp_path / "saved")
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", None)  # nothing but the folder is read
    again = backbones.load(tmp_path / "saved")
    batch = batch_of(job)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert not list((tmp_path / "saved").glob("*.py"))


def test_random_weights_are_random_and_trained_ones_are_the_folders(folders, opened):
    job = opened("segmentation")
    weights = load_file(folders["swin"] / "model.safetensors")
    for pretrained in (True, False):
        own = backbones.substitute(job, str(folders["swin"]), pretrained).echocare.maps.network.state_dict()
        name = "embeddings.patch_embeddings.projection.weight"
        assert torch.equal(own[f"swin.{name}"], weights[name]) == pretrained
        assert (job.checkpoint is None) != pretrained


def test_masked_image_models_serve_as_encoders(folders, tmp_path):
    config = small_networks()["swin"]
    config.encoder_stride = 32
    model = transformers.SwinForMaskedImageModeling(config)
    model.save_pretrained(tmp_path / "simmim")
    encoder = encoder_of(tmp_path / "simmim")
    own = encoder.maps.network.swin.state_dict()
    assert all(torch.equal(own[name], value) for name, value in model.swin.state_dict().items() if name in own)


# Names, facts and errors ----------------------------------------------------------------------------------------------


def test_which_names_are_foreign(folders, checkpoint, tmp_path):
    assert all(backbones.is_foreign(name) for name in ("timm:resnet18", "hf:org/name", str(folders["vit"])))
    assert not any(backbones.is_foreign(name) for name in ("tiny", "echocare-tiny", str(checkpoint), str(tmp_path)))


def test_description(folders):
    (folders["swin"] / "README.md").write_text("---\nlicense: mit\n---\n")
    facts = backbones.describe(str(folders["swin"]))
    oracle = transformers.SwinBackbone(small_networks()["swin"])
    oracle.hidden_states_norms.clear()
    norms = 2 * (8 + 16 + 32 + 64)
    assert facts["parameters"] == oracle.num_parameters() + norms
    weights = (folders["swin"] / "model.safetensors").read_bytes()
    assert facts["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert (facts["library"], facts["version"]) == ("transformers", transformers.__version__)
    assert (facts["architecture"], facts["licence"]) == ("swin", "mit")
    json.dumps(facts)


def test_errors_are_one_line_with_the_cure(folders, opened, tmp_path, monkeypatch):
    job = opened("classification")
    cases = {"hf:nowhere": "no such folder", "nowhere": "no such folder", str(tmp_path): "cannot be read"}
    bert = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    transformers.BertModel(bert).save_pretrained(tmp_path / "bert")
    cases[str(tmp_path / "bert")] = "bert returns no feature maps"
    mae = transformers.ViTMAEConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=SIDE, patch_size=8
    )
    transformers.ViTMAEModel(mae).save_pretrained(tmp_path / "mae")
    cases[str(tmp_path / "mae")] = "mask the image"
    (tmp_path / "empty").mkdir()
    small_networks()["resnet"].save_pretrained(tmp_path / "empty")
    cases[str(tmp_path / "empty")] = "weights cannot be loaded"
    for name, words in cases.items():
        with pytest.raises(ValueError, match=words) as error:
            backbones.substitute(job, name, pretrained=True)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="no folder of a head"):
        backbones.load(folders["vit"])
    with pytest.raises(ValueError, match="--lora_rank"):
        backbones.substitute(opened("classification", lora_rank=2), str(folders["vit"]), pretrained=True)
    with pytest.raises(ValueError, match="no stochastic depth"):
        backbones.substitute(opened("classification", drop_path=0.1), str(folders["resnet"]), pretrained=True)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="pip install timm"):
        backbones.substitute(job, "timm:resnet18", pretrained=False)


# timm -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "strides"), [("test_resnet", None), ("test_vit", [4, 8, 16, 32]), ("test_efficientnet", None)]
)
def test_feature_extractors_of_timm(name, strides, opened, tmp_path):
    timm = pytest.importorskip("timm", reason="timm needs a torchvision that fits torch", exc_type=ImportError)
    for task in ("classification", "segmentation", "video"):
        job = opened(task)
        torch.manual_seed(0)
        model = backbones.substitute(job, f"timm:{name}", pretrained=False).train()
        losses = descent(model, batch_of(job, 2), 1e-3)
        assert min(losses[2:]) < losses[0]
        assert job.checkpoint is None
    image, encoder = torch.rand(1, 3, SIDE, SIDE), model.eval().echocare
    known = timm.get_pretrained_cfg(name)
    normalised = (image - torch.tensor(known.mean).view(3, 1, 1)) / torch.tensor(known.std).view(3, 1, 1)
    with torch.no_grad():
        found = encoder.feature_maps(image)
        wanted = encoder.maps.network(normalised)
    if strides is None:
        assert encoder.strides == encoder.maps.network.feature_info.reduction()
        for one, other in zip(wanted, found, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    else:
        assert encoder.strides == strides
        own = torch.nn.functional.layer_norm(wanted[-2].movedim(1, -1), wanted[-2].shape[1:2]).movedim(-1, 1)
        torch.testing.assert_close(found[2], own, rtol=1e-3, atol=1e-4)
    model.save_pretrained(tmp_path)
    again = backbones.load(tmp_path)
    batch = batch_of(job)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    facts = backbones.describe(f"timm:{name}", pretrained=False)
    assert facts["library"] == "timm" and facts["licence"] == known.license
    with pytest.raises(ValueError, match="did you mean resnet18"):
        backbones.network_recipe("timm:resnet18x")


def test_a_checkpoint_of_timm_in_a_folder(opened, tmp_path):
    timm = pytest.importorskip("timm", reason="timm needs a torchvision that fits torch", exc_type=ImportError)
    from timm.models import save_for_hf

    torch.manual_seed(0)
    network = timm.create_model("test_resnet", in_chans=1, num_classes=5)
    network.pretrained_cfg |= {"mean": [0.4], "std": [0.2]}
    save_for_hf(network, tmp_path / "trained", model_args={"num_classes": 5, "in_chans": 1})
    name = f"timm:local-dir:{tmp_path / 'trained'}"
    job = opened("classification")
    model = backbones.substitute(job, name, pretrained=True)
    oracle = timm.create_model(f"local-dir:{tmp_path / 'trained'}", pretrained=True, features_only=True).eval()
    image = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        found, wanted = model.eval().echocare.feature_maps(image), oracle((image.mean(1, keepdim=True) - 0.4) / 0.2)
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    facts = backbones.describe(name)
    assert len(facts["weights_sha256"]) == 64 and facts["architecture"] == "test_resnet"
    assert contender(name, pretrained=True).name == "timm:local-dir:trained"
    assert contender(name).describe(True)["source"] == "timm:local-dir:trained"
    assert model.config.recipe["reference"] == "local-dir:trained"
    model.save_pretrained(tmp_path / "tuned")
    shutil.rmtree(tmp_path / "trained")
    batch = batch_of(job)
    with torch.no_grad():
        assert torch.equal(backbones.load(tmp_path / "tuned")(**batch).logits, model(**batch).logits)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint of timm"):
        backbones.network_recipe(name)
