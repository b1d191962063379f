"""The image processors: transformers' own mixin, agreement of the two backends, and what the mixin does not ask."""

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoImageProcessor
from transformers.utils import is_torchvision_available

from echocare_hf import EchoCareConfig
from echocare_hf.data.phantom import make_phantom
from echocare_hf.model.image_processing_pil_echocare import EchoCareImageProcessorPil
from echocare_hf.model.post_processing_echocare import resize_geometry, resize_label_map
from upstream_mixins import upstream_module

PROCESSORS = {"pil": EchoCareImageProcessorPil}
if is_torchvision_available():
    from echocare_hf.model.image_processing_echocare import EchoCareImageProcessor

    PROCESSORS["torchvision"] = EchoCareImageProcessor

upstream = upstream_module("test_image_processing_common")
AutoImageProcessor.register(EchoCareConfig, image_processor_classes=dict(PROCESSORS), exist_ok=True)

every_processor = pytest.mark.parametrize("processor_class", PROCESSORS.values(), ids=PROCESSORS.keys())


@pytest.fixture(scope="module")
def phantom():
    return make_phantom("heart_a4c", seed=1, size=(120, 180))


# --- transformers' own tests -----------------------------------------------------------------------------------------


class EchoCareImageProcessingTester(upstream.ImageProcessingTester):
    def __init__(self, parent, **kwargs):
        kwargs.setdefault("size", {"height": 18, "width": 20})
        kwargs.setdefault("do_normalize", True)
        kwargs.setdefault("image_mean", (0.2, 0.3, 0.4))
        kwargs.setdefault("image_std", (0.5, 0.6, 0.7))
        self.num_labels = 3
        super().__init__(parent, **kwargs)

    def _get_image_processing_classes(self):
        return dict(PROCESSORS)  # the mixin looks in transformers' own list, which knows no outside model

    def prepare_image_processor_dict(self):
        settings = super().prepare_image_processor_dict()
        # JSON has no tuples: what is read back from a file is compared with lists
        return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


class EchoCareImageProcessingTest(
    upstream.PostProcessSemanticSegmentationTestMixin, upstream.ImageProcessingTestMixin, unittest.TestCase
):
    image_processor_tester_class = EchoCareImageProcessingTester
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        # The mixin compares backends on a photograph from the Hub; tests run offline, so they get a phantom.
        self.load_test_image = upstream.load_test_image
        image = make_phantom("liver", seed=0, size=(480, 640)).image
        upstream.load_test_image = lambda url: PIL.Image.fromarray(image).convert("RGB")

    def tearDown(self):
        upstream.load_test_image = self.load_test_image

    def _assert_has_attributes(self, processor, expected_attributes):
        # A processor keeps mean and standard deviation as tuples (they are hashed); the mixin compares types too.
        super()._assert_has_attributes(
            processor, {key: tuple(v) if isinstance(v, list) else v for key, v in expected_attributes.items()}
        )

    @unittest.skip("its process knows transformers' own classes only; the remote code test below covers it")
    def test_pil_can_run_without_torchvision(self):
        pass

    # Upstream wants a torchvision backend of every new model; ours shows it where torchvision is installed.
    @unittest.skipUnless(is_torchvision_available(), "torchvision is not installed")
    def test_new_models_require_torchvision_backend(self):
        super().test_new_models_require_torchvision_backend()


# --- what is accepted ------------------------------------------------------------------------------------------------


def as_inputs(grey: np.ndarray) -> dict[str, object]:
    """One grey picture in every accepted form."""
    rgb = np.stack([grey] * 3, axis=-1)
    opaque = np.concatenate([rgb, np.full_like(grey, 255)[..., None]], axis=-1)
    return {
        "PIL L": PIL.Image.fromarray(grey),
        "PIL RGB": PIL.Image.fromarray(rgb),
        "PIL RGBA": PIL.Image.fromarray(opaque),
        "PIL P": PIL.Image.fromarray(grey).convert("P"),
        "PIL I;16": PIL.Image.fromarray(grey.astype(np.uint16) * 257),
        "PIL F": PIL.Image.fromarray(grey.astype(np.float32)),
        "numpy (H, W)": grey,
        "numpy (H, W, 1)": grey[..., None],
        "numpy (H, W, 3)": rgb,
        "numpy (H, W, 4)": opaque,
        "numpy (3, H, W)": rgb.transpose(2, 0, 1),
        "numpy uint16": grey.astype(np.uint16) * 257,
        "numpy big-endian uint16": (grey.astype(np.uint16) * 257).astype(">u2"),
        "numpy int64": grey.astype(np.int64),
        "numpy float64": grey.astype(np.float64),
        "torch (H, W)": torch.from_numpy(grey),
        "torch (3, H, W)": torch.from_numpy(rgb).permute(2, 0, 1),
        "torch (H, W, 3) strided": torch.from_numpy(rgb),
        "torch uint16": torch.from_numpy(grey.astype(np.uint16) * 257),
        "torch float16": torch.from_numpy(grey).half(),
    }


@every_processor
@pytest.mark.parametrize("form", as_inputs(np.zeros((8, 8), np.uint8)))
def test_every_form_of_a_picture_gives_the_same_pixels(processor_class, form, phantom):
    pixels = processor_class()(as_inputs(phantom.image)[form], do_resize=False, return_tensors="pt").pixel_values
    expected = torch.from_numpy(phantom.image).float().div(255).expand(1, 3, -1, -1)
    torch.testing.assert_close(pixels, expected, atol=1e-6, rtol=0)


@every_processor
def test_defaults_are_the_released_preprocessing(processor_class, phantom):
    pixels = processor_class()(phantom.image, return_tensors="pt").pixel_values
    oracle = np.asarray(PIL.Image.fromarray(phantom.image).resize((256, 256), PIL.Image.Resampling.BILINEAR)) / 255
    assert pixels.shape == (1, 3, 256, 256)
    assert pixels.dtype == torch.float32
    assert pixels.min() >= 0 and pixels.max() <= 1
    np.testing.assert_allclose(pixels[0, 1].numpy(), oracle, atol=1.01 / 255)


@every_processor
def test_files_keep_their_depth_and_palette(processor_class, phantom, tmp_path):
    deep, palette = tmp_path / "deep.png", tmp_path / "mask.png"
    PIL.Image.fromarray(phantom.image.astype(np.uint16) * 257).save(deep)
    indices = PIL.Image.fromarray(phantom.mask, mode="P")
    indices.putpalette([40, 90, 200] * 256)
    indices.save(palette)
    features = processor_class()(str(deep), segmentation_maps=str(palette), do_resize=False, return_tensors="np")
    np.testing.assert_allclose(features["pixel_values"][0, 0], phantom.image / 255, atol=1e-6)
    np.testing.assert_array_equal(features["labels"][0], phantom.mask)
    np.testing.assert_allclose(
        processor_class()(deep, do_resize=False)["pixel_values"][0], features["pixel_values"][0]
    )


@every_processor
def test_transparency_is_laid_over_black(processor_class):
    image = np.full((10, 10, 4), 200, np.uint8)
    image[:, :5, 3] = 0
    image[:, 5:, 3] = 51  # a fifth
    for form in (image, PIL.Image.fromarray(image), torch.from_numpy(image).permute(2, 0, 1)):
        pixels = processor_class()(form, do_resize=False, do_rescale=False, return_tensors="np")["pixel_values"][0, 0]
        assert set(pixels[:, :5].ravel()) == {0}
        assert set(pixels[:, 5:].ravel()) == {40}


@every_processor
def test_mixed_and_nested_lists_become_one_batch(processor_class, phantom):
    pictures = list(as_inputs(phantom.image).values())
    assert processor_class()(pictures, return_tensors="pt").pixel_values.shape == (len(pictures), 3, 256, 256)
    assert processor_class()([pictures[:2], pictures[2:3]], return_tensors="pt").pixel_values.shape[0] == 3
    assert processor_class()(np.zeros((5, 30, 40, 1), np.uint8), return_tensors="pt").pixel_values.shape[0] == 5


@every_processor
def test_floats_of_unit_range_keep_their_values_but_are_warned_about(processor_class, phantom):
    unit = phantom.image.astype(np.float32) / 255
    features = processor_class()(unit, do_resize=False, do_rescale=False, return_tensors="np")
    np.testing.assert_allclose(features["pixel_values"][0, 0], unit)
    module = sys.modules["echocare_hf.model.post_processing_echocare"]
    with mock.patch.object(module.logger, "warning_once") as warning:
        assert processor_class()(unit, return_tensors="np")["pixel_values"].max() <= 1 / 255
    assert "do_rescale=False" in warning.call_args.args[0]


# --- what is refused -------------------------------------------------------------------------------------------------

BAD_PIXELS = np.ones((20, 20), np.float32)
BAD_PIXELS[3, 4] = np.nan

BAD_IMAGES = {
    "zero pixels": (np.zeros((0, 30, 3), np.uint8), r"0x30 pixels .* is empty"),
    "zero pixels, PIL": (PIL.Image.new("RGB", (0, 30)), r"30x0 pixels .* is empty"),
    "1x1": (np.zeros((1, 1, 3), np.uint8), r"1x1 pixels .* is too small: each side needs at least 8 pixels"),
    "1x1, PIL": (PIL.Image.new("L", (1, 1)), r"1x1 pixels .* is too small"),
    "a line": (np.zeros((300, 7), np.uint8), r"300x7 pixels .* is too small"),
    "two channels": (
        np.zeros((20, 20, 2), np.uint8),
        r"needs 1, 3 or 4 channels, got .* shape \(20, 20, 2\)",
    ),
    "five channels": (torch.zeros(5, 20, 20), r"needs 1, 3 or 4 channels, got .* shape \(5, 20, 20\)"),
    "NaN": (BAD_PIXELS, r"1 values that are NaN or infinite"),
    "infinite": (torch.full((3, 9, 9), torch.inf), r"243 values that are NaN or infinite"),
    "negative integers": (np.full((9, 9), -3, np.int16), r"must lie in 0 to 255, got -3 to -3"),
    "32-bit PIL": (PIL.Image.fromarray(np.full((9, 9), 4000, np.int32)), r"must lie in 0 to 255, got 4000 to 4000"),
    "no numbers": (np.full((9, 9), "x"), r"pixels must be numbers"),
    "one dimension": (np.zeros(9, np.uint8), r"has 2 or 3 dimensions"),
    "five dimensions": (np.zeros((1, 1, 9, 9, 3), np.uint8), r"a batch one more"),
    "nothing": ([], r"no image was given"),
}


@every_processor
@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_gets_one_clear_line(processor_class, case):
    image, message = BAD_IMAGES[case]
    with pytest.raises(ValueError, match=message) as caught:
        processor_class()(image)
    assert "\n" not in str(caught.value)


@every_processor
def test_a_bad_image_in_a_batch_is_named(processor_class, phantom):
    with pytest.raises(ValueError, match=r"image 1 \(of 3, counted from 0\): .*1x1"):
        processor_class()([phantom.image, np.zeros((1, 1), np.uint8), phantom.image])


@every_processor
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize_mode": "stretch"}, "'squash' or 'pad', got 'stretch'"),
        ({"size": {"shortest_edge": 224}}, "needs a height and a width"),
        ({"size": {"height": 0, "width": 5}}, "at least 1 pixel"),
    ],
)
def test_a_bad_setting_gets_one_clear_line(processor_class, settings, message, phantom):
    with pytest.raises(ValueError, match=message):
        processor_class(**settings)
    with pytest.raises(ValueError, match=message):
        processor_class()(phantom.image, **settings)


@every_processor
def test_a_misspelt_setting_of_a_call_is_refused(processor_class, phantom):
    with pytest.raises(TypeError, match="resiz_mode"):
        processor_class()(phantom.image, resiz_mode="pad")


# --- geometry --------------------------------------------------------------------------------------------------------


@given(
    height=st.integers(8, 900),
    width=st.integers(8, 900),
    target=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    mode=st.sampled_from(["squash", "pad"]),
)
@settings(max_examples=200, deadline=None)
def test_geometry_fits_and_maps_back(height, width, target, mode):
    geometry = resize_geometry(height, width, target, mode)
    for axis in (0, 1):
        assert geometry.offset[axis] >= 0
        assert 1 <= geometry.resized[axis] <= target[axis] - geometry.offset[axis]
    if mode == "pad":  # one side fits exactly, the other keeps the aspect ratio to half a pixel; centred
        assert target[0] == geometry.resized[0] or target[1] == geometry.resized[1]
        scale = min(target[0] / height, target[1] / width)
        assert abs(geometry.resized[0] - max(1, height * scale)) <= 0.5
        assert abs(geometry.resized[1] - max(1, width * scale)) <= 0.5
        for axis in (0, 1):
            far = target[axis] - geometry.resized[axis] - geometry.offset[axis]
            assert far - geometry.offset[axis] in (0, 1)
    corners = np.array([[0.0, 0.0], [width, height], [width / 3, height / 7]])
    there = geometry.to_input(corners)
    np.testing.assert_allclose(there[0], geometry.offset[::-1], atol=1e-9)
    np.testing.assert_allclose(there[1] - there[0], geometry.resized[::-1], atol=1e-9)
    np.testing.assert_allclose(geometry.to_original(there), corners, atol=1e-9)
    tensor = geometry.to_original(geometry.to_input(torch.tensor(corners, dtype=torch.float32)))
    torch.testing.assert_close(tensor, torch.tensor(corners, dtype=torch.float32), atol=1e-2, rtol=1e-4)


@every_processor
@pytest.mark.parametrize("shape", [(60, 200), (200, 60), (33, 33)])
def test_a_landmark_is_where_the_geometry_says(processor_class, shape):
    """A bright square's centre of mass, before and after."""
    image = np.zeros(shape, np.uint8)
    image[20:29, 10:25] = 255
    for mode in ("squash", "pad"):
        processor = processor_class(size={"height": 96, "width": 128}, resize_mode=mode)
        pixels = processor(image, return_tensors="np")["pixel_values"][0, 0].astype(float)
        rows, columns = np.indices(pixels.shape) + 0.5
        found = [(columns * pixels).sum() / pixels.sum(), (rows * pixels).sum() / pixels.sum()]
        geometry = processor.resize_geometry(*shape)
        np.testing.assert_allclose(geometry.to_original(np.array(found)), [17.5, 24.5], atol=0.15)


@every_processor
def test_padding_is_black_and_keeps_the_aspect_ratio(processor_class):
    image = np.full((50, 100, 3), 255, np.uint8)
    pixels = processor_class(resize_mode="pad")(image, return_tensors="np")["pixel_values"][0]
    assert pixels.shape == (3, 256, 256)
    assert (pixels[:, 64:192] == 1).all()
    assert (pixels[:, :64] == 0).all() and (pixels[:, 192:] == 0).all()


# --- segmentation maps -----------------------------------------------------------------------------------------------


@every_processor
def test_label_maps_follow_pillows_nearest_neighbour(processor_class, phantom):
    features = processor_class()(phantom.image, segmentation_maps=phantom.mask, return_tensors="pt")
    oracle = PIL.Image.fromarray(phantom.mask).resize((256, 256), PIL.Image.Resampling.NEAREST)
    assert features["labels"].dtype == torch.int64
    np.testing.assert_array_equal(features["labels"][0].numpy(), np.asarray(oracle))


@given(height=st.integers(1, 40), width=st.integers(1, 40), target=st.tuples(st.integers(1, 50), st.integers(1, 50)))
@settings(max_examples=60, deadline=None)
def test_label_resize_equals_torch_nearest_exact_and_invents_no_label(height, width, target):
    labels = np.arange(height * width).reshape(height, width)
    geometry = resize_geometry(height, width, target, "squash")
    resized = resize_label_map(labels, geometry, target, 255)
    oracle = torch.nn.functional.interpolate(
        torch.from_numpy(labels)[None, None].double(), size=target, mode="nearest-exact"
    )[0, 0].long()
    assert set(np.unique(resized)) <= set(labels.ravel())
    # torch works in floating point: where the source position is a whole number it may fall to either side
    ties = [
        np.array([(2 * i + 1) * n % (2 * m) == 0 for i in range(m)])
        for n, m in zip((height, width), target, strict=True)
    ]
    clear = ~(ties[0][:, None] | ties[1][None, :])
    np.testing.assert_array_equal(resized[clear], oracle.numpy()[clear])


@every_processor
@pytest.mark.parametrize("ignore_index", [255, -100])
def test_padding_of_labels_is_ignored_and_lines_up_with_the_image(processor_class, ignore_index):
    image = np.zeros((64, 128), np.uint8)
    image[16:48, 32:64] = 255
    features = processor_class(resize_mode="pad", ignore_index=ignore_index)(
        image, segmentation_maps=image > 0, return_tensors="pt"
    )
    labels, pixels = features["labels"][0], features["pixel_values"][0, 0]
    assert (labels[:64] == ignore_index).all() and (labels[192:] == ignore_index).all()
    assert set(labels[64:192].unique().tolist()) == {0, 1}
    assert torch.equal(labels[64:192] == 1, pixels[64:192] > 0.5)


@every_processor
@pytest.mark.parametrize(
    "form",
    [
        lambda mask: mask,
        lambda mask: mask[None],
        lambda mask: mask[..., None],
        lambda mask: [mask],
        lambda mask: mask.astype(np.float32),
        lambda mask: PIL.Image.fromarray(mask),
        lambda mask: torch.from_numpy(mask),
    ],
)
def test_every_form_of_a_label_map(processor_class, form, phantom):
    features = processor_class()(phantom.image, form(phantom.mask), do_resize=False, return_tensors="np")
    np.testing.assert_array_equal(features["labels"][0], phantom.mask)


@every_processor
def test_a_stack_of_label_maps_goes_with_a_stack_of_images(processor_class, phantom):
    images, masks = np.stack([phantom.image] * 4)[..., None], np.stack([phantom.mask] * 4)
    assert processor_class()(images, masks, return_tensors="pt")["labels"].shape == (4, 256, 256)


@every_processor
@pytest.mark.parametrize(
    ("label_map", "options", "message"),
    [
        (np.zeros((5, 5), np.uint8), {}, "segmentation map 0 has 5x5 pixels .* its image has 120x180"),
        (np.zeros((2, 120, 180), np.uint8), {}, "1 images need as many segmentation maps, got 2"),
        (np.zeros((120, 180, 3), np.uint8)[None], {}, "one label a pixel"),
        (np.full((120, 180), 0.5), {}, "whole numbers, got fractions"),
        (np.full((120, 180), np.nan), {}, "whole numbers, got fractions or NaN"),
        (np.zeros((120, 180), np.uint8), {"do_center_crop": True, "crop_size": 64}, "resize_mode='pad'"),
    ],
)
def test_a_bad_label_map_gets_one_clear_line(processor_class, label_map, options, message, phantom):
    with pytest.raises(ValueError, match=message):
        processor_class()(phantom.image, label_map, **options)


# --- both backends, saving, remote code ------------------------------------------------------------------------------


@pytest.mark.skipif(len(PROCESSORS) < 2, reason="torchvision is not installed: there is one backend only")
@pytest.mark.parametrize("mode", ["squash", "pad"])
@pytest.mark.parametrize("kind", ["breast", "lung", "fetal_brain"])
def test_backends_agree(mode, kind):
    """Eight-bit images to one grey level, floating-point ones to rounding error, labels exactly."""
    picture = make_phantom(kind, seed=3, size=(301, 413))
    outputs = [
        processor_class(resize_mode=mode, size={"height": 224, "width": 192})(
            [picture.image, picture.image.astype(np.float32)], [picture.mask] * 2, return_tensors="pt"
        )
        for processor_class in PROCESSORS.values()
    ]
    difference = (outputs[0]["pixel_values"] - outputs[1]["pixel_values"]).abs()
    assert difference[0].max() <= 1.01 / 255
    assert difference[1].max() <= 1e-5
    assert torch.equal(outputs[0]["labels"], outputs[1]["labels"])


@every_processor
def test_settings_survive_saving(processor_class, tmp_path):
    processor = processor_class(
        resize_mode="pad", ignore_index=-100, size=128, do_normalize=True, image_mean=[0.1] * 3, image_std=[0.2] * 3
    )
    processor.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert stored["resize_mode"] == "pad"
    assert stored["ignore_index"] == -100
    assert stored["image_processor_type"] == "EchoCareImageProcessor"
    for other in PROCESSORS.values():
        assert other.from_pretrained(tmp_path).to_dict() == processor.to_dict()


@every_processor
def test_reconstruction_undoes_preprocessing(processor_class, phantom):
    processor = processor_class(do_resize=False, do_normalize=True, image_mean=[0.1, 0.2, 0.3], image_std=[0.4] * 3)
    pixels = processor(phantom.image, return_tensors="pt").pixel_values
    np.testing.assert_array_equal(processor.reconstruct_images(pixels)[0], np.stack([phantom.image] * 3, -1))


@pytest.mark.parametrize("backend", PROCESSORS)
def test_remote_code_loads_without_the_package(backend, tmp_path):
    """The three files beside a preprocessor_config.json, in a fresh process that cannot import echocare_hf.

    For the backend "pil" it cannot import torchvision either, as on a machine that has none.
    """
    model_folder = Path(sys.modules[EchoCareImageProcessorPil.__module__].__file__).parent
    for name in ("image_processing_echocare", "image_processing_pil_echocare", "post_processing_echocare"):
        (tmp_path / f"{name}.py").write_bytes((model_folder / f"{name}.py").read_bytes())
    EchoCareImageProcessorPil(resize_mode="pad").save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    stored = json.loads(path.read_text())
    stored["auto_map"] = {
        "AutoImageProcessor": {
            "torchvision": "image_processing_echocare.EchoCareImageProcessor",
            "pil": "image_processing_pil_echocare.EchoCareImageProcessorPil",
        }
    }
    path.write_text(json.dumps(stored))
    script = """
import sys
sys.modules["echocare_hf"] = None
if sys.argv[2] == "pil":
    sys.modules["torchvision"] = None
import numpy as np
from transformers import AutoImageProcessor
processor = AutoImageProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
features = processor(np.zeros((20, 30), np.uint8), np.ones((20, 30), bool), return_tensors="np")
print(type(processor).__name__, features["pixel_values"].shape, features["labels"].max())
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), backend],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr
    expected = f"{PROCESSORS[backend].__name__} (1, 3, 256, 256) 255"
    assert result.stdout.splitlines()[-1] == expected
