"""What EchoCare's two image processors share, whatever library does the resizing.

Reading and checking of images, the geometry of a resize, and label maps live here, so that both backends accept the
same inputs, refuse the same ones with the same words, and return identical labels.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_utils import ChannelDimension, ImageInput, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs
from transformers.utils import logging

from .post_processing_dense_echocare import DensePostProcessingMixin
from .post_processing_points_echocare import PointPostProcessingMixin
from .remote_code_echocare import IMAGE_PROCESSOR_AUTO_MAP, SelfContainedSaveMixin

logger = logging.get_logger(__name__)

RESIZE_MODES = ("squash", "pad")
MINIMUM_SIDE = 8
CHANNEL_COUNTS = (1, 3, 4)


class EchoCareImageProcessorKwargs(ImagesKwargs, total=False):
    r"""
    resize_mode (`str`, *optional*, defaults to `self.resize_mode`):
        How an image reaches `size`: `"squash"` resizes it straight to `size`, which is what the released weights saw;
        `"pad"` keeps its aspect ratio, fits it into `size` and centres it on black.
    ignore_index (`int`, *optional*, defaults to `self.ignore_index`):
        Value that padded pixels get in `labels`, to be left out of the loss.
    """

    resize_mode: str
    ignore_index: int


class ResizeGeometry(NamedTuple):
    """Where an image lands in the model's input, and the way back.

    Coordinates are continuous (x, y) in pixels, with 0 at the outer edge of the first pixel and `width` or `height` at
    the outer edge of the last, so the centre of pixel `i` lies at `i + 0.5`.

    Attributes:
        original (`tuple[int, int]`): height and width of the image as given, in pixels.
        resized (`tuple[int, int]`): height and width of the image after resizing, without padding, in pixels.
        offset (`tuple[int, int]`): rows above and columns left of the resized image, in pixels; 0 when squashed.
        scale (`tuple[float, float]`): resized over original, vertically and horizontally.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        return self.resized[0] / self.original[0], self.resized[1] / self.original[1]

    def to_input(self, points: Any) -> Any:
        """Maps points of the original image to the model's input.

        Args:
            points (`np.ndarray` or `torch.Tensor` of shape `(..., 2)`): (x, y) in pixels of the original image.

        Returns:
            The same points as (x, y) in pixels of the input, same type and shape.
        """
        scale, offset = self._as_xy(points)
        return points * scale + offset

    def to_original(self, points: Any) -> Any:
        """Maps points of the model's input back to the original image; the inverse of `to_input`.

        Args:
            points (`np.ndarray` or `torch.Tensor` of shape `(..., 2)`): (x, y) in pixels of the input.

        Returns:
            The same points as (x, y) in pixels of the original image, same type and shape. Points on the padding fall
            outside it.
        """
        scale, offset = self._as_xy(points)
        return (points - offset) / scale

    def _as_xy(self, points: Any) -> tuple[Any, Any]:
        scale, offset = self.scale[::-1], self.offset[::-1]
        if isinstance(points, torch.Tensor):
            return points.new_tensor(scale, dtype=torch.float32), points.new_tensor(offset, dtype=torch.float32)
        return np.asarray(scale), np.asarray(offset)


def resize_geometry(height: int, width: int, size: tuple[int, int], resize_mode: str) -> ResizeGeometry:
    """The placement of an image of `height` x `width` pixels in an input of `size` (height, width).

    Args:
        height (`int`): rows of the image, in pixels.
        width (`int`): columns of the image, in pixels.
        size (`tuple[int, int]`): height and width of the model's input, in pixels.
        resize_mode (`str`): `"squash"` or `"pad"`, see `EchoCareImageProcessorKwargs`.
    """
    target_height, target_width = size
    if resize_mode == "squash":
        return ResizeGeometry((height, width), (target_height, target_width), (0, 0))
    scale = min(target_height / height, target_width / width)
    resized_height = min(target_height, max(1, round(height * scale)))
    resized_width = min(target_width, max(1, round(width * scale)))
    offset = ((target_height - resized_height) // 2, (target_width - resized_width) // 2)
    return ResizeGeometry((height, width), (resized_height, resized_width), offset)


def read_pixels(
    image: Any, do_convert_rgb: bool, input_data_format: str | ChannelDimension | None = None
) -> np.ndarray | torch.Tensor:
    """One image of any accepted kind as a checked, channels-first array.

    Whole numbers of any width that lie in 0..255 become `uint8`; `uint16` is divided by 257 into 0..255 without
    rounding; floating point keeps its values. Transparency is laid over black, the colour of an ultrasound screen
    outside the sector.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            Shape (height, width), (height, width, channels) or (channels, height, width); 1, 3 or 4 channels, at least
            8 pixels a side.
        do_convert_rgb (`bool`):
            Whether the result shall have three channels.
        input_data_format (`str` or `ChannelDimension`, *optional*):
            Where the channels are; read off the shape when not given.

    Returns:
        `np.ndarray` or `torch.Tensor` (as given; PIL gives numpy): (channels, height, width), uint8 or float32.

    Raises:
        ValueError: when the image is empty, smaller than 8 pixels on a side, has another number of channels, holds NaN
            or infinite pixels, or whole numbers that are neither 8 nor 16 bit.
    """
    if isinstance(image, PIL.Image.Image):
        _check_sides(image.height, image.width)
        pixels: Any = _pil_to_array(image)
        input_data_format = ChannelDimension.LAST
    elif isinstance(image, torch.Tensor):
        pixels = image.detach()
    else:
        pixels = image
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif _channel_axis(tuple(pixels.shape), input_data_format) == 2:
        pixels = pixels.permute(2, 0, 1) if isinstance(pixels, torch.Tensor) else np.moveaxis(pixels, 2, 0)
    # (channels, height, width)
    _check_sides(pixels.shape[1], pixels.shape[2])
    if pixels.shape[0] not in CHANNEL_COUNTS:
        raise ValueError(f"an image needs 1, 3 or 4 channels, got an array of shape {tuple(image.shape)}")
    pixels, white = _to_uint8_or_float32(pixels)
    if do_convert_rgb and pixels.shape[0] == 4:
        pixels = _over_black(pixels, white)
    if do_convert_rgb and pixels.shape[0] == 1:
        pixels = pixels[[0, 0, 0]]
    return pixels


def _check_sides(height: int, width: int) -> None:
    if height == 0 or width == 0:
        raise ValueError(f"an image of {height}x{width} pixels (height x width) is empty")
    if min(height, width) < MINIMUM_SIDE:
        raise ValueError(
            f"an image of {height}x{width} pixels (height x width) is too small: "
            f"each side needs at least {MINIMUM_SIDE} pixels"
        )


def _channel_axis(shape: tuple[int, ...], input_data_format: str | ChannelDimension | None) -> int:
    """0 or 2, the axis of the channels in a 3-D shape."""
    if len(shape) != 3:
        raise ValueError(f"an image has 2 or 3 dimensions, got an array of shape {shape}")
    if input_data_format is not None:
        return 2 if ChannelDimension(input_data_format) == ChannelDimension.LAST else 0
    if shape[2] in CHANNEL_COUNTS:
        return 2
    if shape[0] in CHANNEL_COUNTS:
        return 0
    if 0 in shape:
        return 2
    raise ValueError(
        f"an image needs 1, 3 or 4 channels, got an array of shape {shape}; "
        "give several grey images as a list or as (batch, height, width, 1)"
    )


def _pil_to_array(image: PIL.Image.Image) -> np.ndarray:
    """(height, width) or (height, width, channels) without losing bits, palette or transparency."""
    if image.info.get("transparency") is not None or image.mode in ("LA", "La", "PA", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB", "RGBA", "I", "F") and not image.mode.startswith("I;16"):
        image = image.convert("RGB")
    array = np.array(image)
    return array if array.ndim == 3 else array[..., None]


def _to_uint8_or_float32(pixels: Any) -> tuple[Any, float]:
    """The pixels as uint8 or float32, and the value of full opacity in an alpha channel of theirs."""
    is_torch = isinstance(pixels, torch.Tensor)
    name = str(pixels.dtype).removeprefix("torch.")
    kind = "" if is_torch else pixels.dtype.kind
    if name == "uint8":
        return pixels, 255.0
    if name == "bool":
        return (pixels.to(torch.uint8) if is_torch else pixels.astype(np.uint8)) * 255, 255.0
    if pixels.dtype.is_floating_point if is_torch else kind == "f":
        pixels = pixels.to(torch.float32) if is_torch else pixels.astype(np.float32)
        bad = ~(torch.isfinite(pixels) if is_torch else np.isfinite(pixels))
        if bad.any():
            raise ValueError(f"the image holds {int(bad.sum())} values that are NaN or infinite")
        return pixels, 1.0
    if name == "uint16" or (kind == "u" and pixels.dtype.itemsize == 2):
        return (pixels.to(torch.float32) if is_torch else pixels.astype(np.float32)) / 257, 255.0
    if pixels.dtype.is_complex if is_torch else kind not in "iu":
        raise ValueError(f"pixels must be numbers, got an array of {name}")
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 255:
        raise ValueError(
            f"{name} pixels must lie in 0 to 255, got {low} to {high}: give 16-bit images as uint16, others as float"
        )
    return (pixels.to(torch.uint8) if is_torch else pixels.astype(np.uint8)), 255.0


def _over_black(pixels: Any, white: float) -> Any:
    """RGBA over black: (4, height, width) -> (3, height, width), same type."""
    if white == 1.0 and (pixels.min() < 0 or pixels.max() > 1):
        raise ValueError("a floating-point image with transparency needs values in 0 to 1")
    colour = pixels[:3] * (pixels[3:] / white)
    if isinstance(pixels, torch.Tensor):
        return colour.round().to(torch.uint8) if pixels.dtype == torch.uint8 else colour
    return np.round(colour).astype(np.uint8) if pixels.dtype == np.uint8 else colour.astype(np.float32)


def read_label_map(label_map: Any) -> np.ndarray:
    """One segmentation map of any accepted kind as whole numbers.

    Args:
        label_map (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            Shape (height, width), (1, height, width) or (height, width, 1). Whole numbers or booleans; a palette image
            gives its indices.

    Returns:
        `np.ndarray` of shape (height, width), int64.

    Raises:
        ValueError: for another shape, or values that are no whole numbers.
    """
    array = np.asarray(label_map.detach().cpu() if isinstance(label_map, torch.Tensor) else label_map)
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[..., 0]
    elif array.ndim == 3 and shape[0] == 1:
        array = array[0]
    if array.ndim != 2:
        raise ValueError(f"a segmentation map has one label a pixel, (height, width), got an array of shape {shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"a segmentation map holds whole numbers, got {array.dtype}")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.round(array)).all()):
        raise ValueError("a segmentation map holds whole numbers, got fractions or NaN")
    return array.astype(np.int64)


def resize_label_map(
    label_map: np.ndarray, geometry: ResizeGeometry, size: tuple[int, int], ignore_index: int
) -> np.ndarray:
    """A label map placed like its image: nearest neighbour, padded with `ignore_index`.

    The source of target pixel i is pixel floor((i + 1/2) * original / resized), as in Pillow's and torch's exact
    nearest, but in whole numbers, so that no rounding error can tell the backends apart.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): labels, int64.
        geometry (`ResizeGeometry`): placement of the image.
        size (`tuple[int, int]`): height and width of the result, in pixels.
        ignore_index (`int`): value of the padding.

    Returns:
        `np.ndarray` of shape `size`, int64.
    """
    rows, columns = (
        ((2 * np.arange(resized) + 1) * original) // (2 * resized)
        for original, resized in zip(geometry.original, geometry.resized, strict=True)
    )
    result = np.full(size, ignore_index, dtype=np.int64)
    top, left = geometry.offset
    result[top : top + len(rows), left : left + len(columns)] = label_map[rows[:, None], columns]
    return result


class EchoCareImageProcessingMixin(  # type: ignore[misc]
    SelfContainedSaveMixin, DensePostProcessingMixin, PointPostProcessingMixin, BaseImageProcessor
):
    """The backend-free part of `EchoCareImageProcessor` and `EchoCareImageProcessorPil`, and their defaults.

    The defaults are the preprocessing of the released weights: RGB, 256x256, values in [0, 1], no mean and standard
    deviation. Set `do_normalize`, `image_mean` and `image_std` to have these.
    """

    backend: str  # "torchvision" or "pil"

    valid_kwargs = EchoCareImageProcessorKwargs
    resample: Any = PILImageResampling.BILINEAR
    image_mean: Any = None
    image_std: Any = None
    size: Any = {"height": 256, "width": 256}
    default_to_square = True
    do_convert_rgb: bool | None = True
    do_resize: bool | None = True
    do_rescale: bool | None = True
    rescale_factor = 1 / 255
    do_normalize: bool | None = False
    resize_mode: str = "squash"
    ignore_index: int = 255

    def _auto_map(self) -> dict[str, Any]:
        return {"AutoImageProcessor": dict(IMAGE_PROCESSOR_AUTO_MAP)}

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers, without `auto_map`: it belongs to the folder, and every save writes it anew."""
        settings = {name: value for name, value in image_processor_dict.items() if name != "auto_map"}
        return super().from_dict(settings, **kwargs)

    def fetch_images(self, image_url_or_urls):
        """Opens what is given as a local path, bit depth, palette and transparency kept; URLs go to transformers."""
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(image) for image in image_url_or_urls]
        if isinstance(image_url_or_urls, (str, os.PathLike)) and os.path.isfile(image_url_or_urls):  # noqa: PTH113
            with PIL.Image.open(image_url_or_urls) as image:
                return PIL.ImageOps.exif_transpose(image).copy()
        return super().fetch_images(image_url_or_urls)

    def process_image(
        self,
        image: ImageInput,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        **kwargs,
    ):
        """Checks one image and brings it into the backend's form; see `read_pixels` for what is accepted.

        Returns:
            (channels, height, width), uint8 or float32.

        Raises:
            ValueError: for an image that is empty, too small, of a wrong channel count, or not finite.
        """
        pixels: Any = read_pixels(image, bool(do_convert_rgb), input_data_format)
        if self.backend == "pil" and isinstance(pixels, torch.Tensor):
            pixels = pixels.cpu()
        elif isinstance(pixels, np.ndarray):
            pixels = np.ascontiguousarray(pixels)
        return super().process_image(pixels, do_convert_rgb=False, input_data_format=ChannelDimension.FIRST, **kwargs)

    def resize_geometry(
        self,
        height: int,
        width: int,
        size: dict[str, int] | SizeDict | None = None,
        resize_mode: str | None = None,
    ) -> ResizeGeometry:
        """Where this processor puts an image, to map boxes, landmarks and masks there and back.

        Args:
            height (`int`): rows of the original image, in pixels.
            width (`int`): columns of the original image, in pixels.
            size (`dict[str, int]`, *optional*): the `size` of the call, when it was given one.
            resize_mode (`str`, *optional*): the `resize_mode` of the call, when it was given one.

        Returns:
            [`ResizeGeometry`]: original and resized size, offset, scale, `to_input` and `to_original`.

        Example:

        ```python
        >>> geometry = processor.resize_geometry(480, 640)
        >>> landmarks_in_image = geometry.to_original(landmarks_in_input)
        ```"""
        target = self.size if size is None else size
        mode = self.resize_mode if resize_mode is None else resize_mode
        return resize_geometry(height, width, (target["height"], target["width"]), mode)

    def reconstruct_images(self, pixel_values: torch.Tensor) -> np.ndarray:
        """Undoes rescaling and normalisation, to look at what a model saw or painted.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch, channels, height, width)`): a model's input, or an image
                made in its value range.

        Returns:
            `np.ndarray` of shape `(batch, height, width, channels)`, uint8, 0 to 255.
        """
        images = pixel_values.detach().to("cpu", torch.float32)
        if self.do_normalize:
            mean, std = (
                torch.as_tensor(value, dtype=torch.float32).reshape(1, -1, 1, 1)
                for value in (self.image_mean, self.image_std)
            )
            images = images * std + mean
        if self.do_rescale:
            images = images / self.rescale_factor
        return images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()

    def _standardize_kwargs(self, **kwargs) -> dict:  # type: ignore[override]
        kwargs = super()._standardize_kwargs(**kwargs)
        if kwargs.get("resize_mode") not in RESIZE_MODES:
            raise ValueError(f"`resize_mode` is 'squash' or 'pad', got {kwargs.get('resize_mode')!r}")
        size = kwargs["size"]
        if size is not None and not (size.get("height", 0) > 0 and size.get("width", 0) > 0):
            raise ValueError(f"`size` needs a height and a width of at least 1 pixel, got {dict(size)}")
        return kwargs

    def _prepare_images_structure(self, images: ImageInput, expected_ndims: int = 3) -> list:
        """A flat list of single images out of one image, a batch array, or a list, nested or not, of these."""

        def flatten(item) -> list:
            if isinstance(item, (list, tuple)):
                return [single for entry in item for single in flatten(entry)]
            if isinstance(item, PIL.Image.Image) or item.ndim <= expected_ndims:
                return [item]
            if item.ndim == expected_ndims + 1:
                return list(item)
            raise ValueError(
                f"an image has {expected_ndims} dimensions at most, a batch one more, got an array of shape "
                f"{tuple(item.shape)}"
            )

        flat = flatten(self.fetch_images(images))
        if not flat:
            raise ValueError("no image was given")
        return flat

    def _prepare_image_like_inputs(self, images: ImageInput, *args, **kwargs) -> list:
        """Every image checked and channels first; a bad one in a batch is named by its position."""
        flat = self._prepare_images_structure(images)
        prepared = []
        for position, image in enumerate(flat):
            try:
                prepared.append(self.process_image(image, *args, **kwargs))
            except ValueError as error:
                if len(flat) == 1:
                    raise
                raise ValueError(f"image {position} (of {len(flat)}, counted from 0): {error}") from None
        return prepared

    def _prepare_segmentation_maps(
        self,
        segmentation_maps: ImageInput,
        image_sizes: Sequence[tuple[int, int]],
        do_resize: bool,
        size: SizeDict,
        resize_mode: str,
        ignore_index: int,
    ) -> list[np.ndarray]:
        """The label maps of a batch of images, each (height, width) int64, placed like its image."""
        maps = [read_label_map(item) for item in self._flatten_segmentation_maps(segmentation_maps)]
        if len(maps) != len(image_sizes):
            raise ValueError(f"{len(image_sizes)} images need as many segmentation maps, got {len(maps)}")
        labels = []
        for position, (label_map, image_size) in enumerate(zip(maps, image_sizes, strict=True)):
            if label_map.shape != image_size:
                raise ValueError(
                    f"segmentation map {position} has {label_map.shape[0]}x{label_map.shape[1]} pixels "
                    f"(height x width), its image has {image_size[0]}x{image_size[1]}"
                )
            if do_resize:
                target = (size["height"], size["width"])
                label_map = resize_label_map(
                    label_map, resize_geometry(*image_size, target, resize_mode), target, ignore_index
                )
            labels.append(label_map)
        return labels

    def _flatten_segmentation_maps(self, segmentation_maps: ImageInput) -> list:
        """Single maps out of one map, a batch (batch, height, width), or a list of these."""
        flat = []
        for item in self._prepare_images_structure(segmentation_maps):
            is_stack = (
                not isinstance(item, PIL.Image.Image)
                and item.ndim == 3
                and item.shape[0] > 1
                and item.shape[2] >= MINIMUM_SIDE
            )
            flat += list(item) if is_stack else [item]
        return flat

    def _preprocess_image_like_inputs(  # type: ignore[override]
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        *,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        return_tensors: Any = None,
        device: Any = None,
        ignore_index: int = 255,
        **kwargs,
    ) -> BatchFeature:
        """Images to `pixel_values` and, where given, label maps to `labels`."""
        on_torch = self.backend == "torchvision"
        device_kwargs = {"device": device} if on_torch else {}
        prepared = self._prepare_image_like_inputs(
            images, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format, **device_kwargs
        )
        if kwargs["do_rescale"] and any("float" in str(image.dtype) and 0 < image.max() <= 1 for image in prepared):
            logger.warning_once(
                "An image of floating-point values between 0 and 1 is about to be multiplied by `rescale_factor`, as"
                " if it held 0 to 255. If it is rescaled already, pass `do_rescale=False`."
            )
        image_sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in prepared]
        features = self._preprocess(prepared, return_tensors=None, **kwargs)
        data = dict(features)
        if segmentation_maps is not None:
            if kwargs.get("do_center_crop") or kwargs.get("do_pad"):
                raise ValueError(
                    "`segmentation_maps` go with neither `do_center_crop` nor `do_pad`: use `resize_mode='pad'`"
                )
            labels: list = self._prepare_segmentation_maps(
                segmentation_maps,
                image_sizes,
                do_resize=kwargs["do_resize"],
                size=kwargs["size"],
                resize_mode=kwargs["resize_mode"],
                ignore_index=ignore_index,
            )
            data["labels"] = [torch.from_numpy(label).to(device) for label in labels] if on_torch else labels
        return BatchFeature(data=data, tensor_type=return_tensors)


__all__ = [
    "EchoCareImageProcessingMixin",
    "EchoCareImageProcessorKwargs",
    "ResizeGeometry",
    "read_label_map",
    "read_pixels",
    "resize_geometry",
    "resize_label_map",
]
