"""`handler.py` of a published EchoCare checkpoint: what Hugging Face Inference Endpoints run. It travels beside the weights.

It needs torch, transformers, numpy and Pillow; pydicom for DICOM, av for MP4 and AVI. Nothing of the request is taken for a file of
this machine, and addresses are fetched only where `ECHOCARE_ALLOW_URLS=1` is set.

Request: the bytes of an image, or JSON

    {"inputs": <base64 text, data URL, or a list of these>, "parameters": {"top_k": 3, ...}}

Environment: `ECHOCARE_MAX_BYTES` (largest file, default 64 MiB), `ECHOCARE_MAX_PIXELS` (largest frame, default 50 million),
`ECHOCARE_MAX_INPUTS` (most images of one request, default 32), `ECHOCARE_ALLOW_URLS`, `ECHOCARE_DEVICE`, and `HF_TASK`, which chooses
between the tasks of a checkpoint that has several.
"""

import base64
import binascii
import io
import os
import urllib.error
import urllib.request
from typing import Any, NamedTuple, cast

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForVideoClassification, pipeline

TASKS = {
    "EchoCareForImageClassification": ["image-classification"],
    "EchoCareForSemanticSegmentation": ["image-segmentation"],
    "EchoCareForObjectDetection": ["object-detection"],
    "EchoCareForKeypointDetection": ["keypoint-detection"],
    "EchoCareForImageToImage": ["image-to-image"],
    "EchoCareForVideoClassification": ["video-classification"],
    "EchoCareForPreTraining": ["anatomy-classification"],
    "EchoCareForReportGeneration": ["image-text-to-text"],
    "EchoCareModel": [],
    "EchoCareBackbone": [],
}
"""The task of each class of checkpoint; all but the report generator serve `image-feature-extraction` too."""

FEATURES = "image-feature-extraction"
ALIASES = {"feature-extraction": FEATURES, "image-to-text": "image-text-to-text"}
OFFERED = {
    "image-classification": {"top_k", "function_to_apply"},
    "image-segmentation": {"threshold", "mask_threshold", "subtask"},
    "object-detection": {"threshold"},
    "keypoint-detection": {"threshold", "spacing"},
    "image-to-image": set(),
    "video-classification": {"top_k", "function_to_apply", "num_frames"},
    "anatomy-classification": {"top_k", "threshold"},
    "image-text-to-text": {"max_new_tokens", "generate_kwargs", "return_full_text"},
    FEATURES: {"pool", "normalize"},
}
"""The parameters of each task."""

NOMINAL_FRAME_RATE = 30.0  # of clips that do not state theirs
URL_TIMEOUT = 20  # seconds


class Frame(NamedTuple):
    """One image of a request: pixels, mm per pixel (row, column) where the file states it, and milliseconds into its clip."""

    image: PIL.Image.Image
    spacing: tuple[float, float] | None = None
    time: float | None = None


class EndpointHandler:
    """Loads the checkpoint of a folder and answers requests with it.

    Args:
        path: the folder that this file lies in.

    Raises:
        ValueError: if the folder holds no EchoCare checkpoint.
    """

    def __init__(self, path: str = "") -> None:
        self.path = str(path) or os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
        config = AutoConfig.from_pretrained(self.path, trust_remote_code=True)
        name = (config.architectures or [""])[0]
        if name not in TASKS:
            raise ValueError(
                f"{self.path} holds a checkpoint of {name or 'no known class'}, not one of EchoCare's: {', '.join(TASKS)}"
            )
        tasks = TASKS[name] + ([] if name == "EchoCareForReportGeneration" else [FEATURES])
        wanted = ALIASES.get(os.environ.get("HF_TASK", ""), os.environ.get("HF_TASK", ""))
        if wanted == "image-classification" and wanted not in tasks and "anatomy-classification" in tasks:
            wanted = "anatomy-classification"
        self.task = wanted if wanted in tasks else tasks[0]
        self.max_bytes = _setting("ECHOCARE_MAX_BYTES", 64 << 20)
        self.max_pixels = _setting("ECHOCARE_MAX_PIXELS", 50_000_000)
        self.max_inputs = _setting("ECHOCARE_MAX_INPUTS", 32)
        self.allow_urls = os.environ.get("ECHOCARE_ALLOW_URLS", "").lower() in ("1", "true", "yes")
        device = torch.device(os.environ.get("ECHOCARE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.task == "video-classification":
            self.model = AutoModelForVideoClassification.from_pretrained(self.path, trust_remote_code=True)
            self.model = self.model.to(device).eval()
            self.processor = AutoImageProcessor.from_pretrained(self.path, trust_remote_code=True)
        else:
            self.pipeline = cast(Any, pipeline)(self.task, model=self.path, trust_remote_code=True, device=device)
            self.model, self.processor = self.pipeline.model, self.pipeline.image_processor

    def __call__(self, data: dict[str, Any]) -> Any:
        """Answers one request.

        Args:
            data: `inputs`, an image as bytes, base64 text, data URL or PIL image, a DICOM file as bytes or base64 text, or a list of
                these (a list of frames is one clip for a video checkpoint); and optionally `parameters`. For a report
                `inputs` may be `{"image": ..., "text": ...}`.

        Returns:
            What the pipeline of the task returns, ready for JSON: masks are base64 PNG. Where a file states its spacing every
            entry of the result has `spacing_mm`, [row, column]. An enhanced image is a PIL image, which the endpoint sends as PNG.
            A list of inputs gives a list of results.

        Raises:
            ValueError: for a request that cannot be answered; the endpoint sends the text as {"error": ...} with status 400.
        """
        if not isinstance(data, dict) or data.get("inputs") is None:
            raise ValueError('the request needs "inputs": an image as bytes, base64 text or data URL')
        inputs, parameters = data["inputs"], self._parameters(data)
        text = parameters.pop("text", None)
        if isinstance(inputs, dict):
            text = inputs.get("text", inputs.get("prompt", text))
            inputs = inputs.get("images", inputs.get("image"))
            if inputs is None:
                raise ValueError('"inputs" is an object without "image"')
        many = isinstance(inputs, (list, tuple))
        given = list(inputs) if many else [inputs]
        if not given:
            raise ValueError('"inputs" is an empty list')
        if len(given) > self.max_inputs:
            raise ValueError(f'"inputs" holds {len(given)} files; this endpoint takes {self.max_inputs} at a time')
        clip = self.task == "video-classification"
        frames = [self._read(one, f"inputs[{place}]" if many else "inputs", clip) for place, one in enumerate(given)]
        if self.task == "video-classification":
            if all(len(each) == 1 for each in frames):  # pictures are the frames of one clip
                return self._classify_clip([each[0] for each in frames], parameters)
            answers = [self._classify_clip(each, parameters) for each in frames]
        elif self.task == "image-text-to-text":
            return self.pipeline(images=[each[0].image for each in frames], text=text or "", **parameters)
        else:
            answers = [self._answer(each[0], dict(parameters)) for each in frames]
        return answers if many else answers[0]

    def _parameters(self, data: dict[str, Any]) -> dict[str, Any]:
        parameters = data.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise ValueError(f'"parameters" is an object, got {type(parameters).__name__}')
        at_root = {key: value for key, value in data.items() if key not in ("inputs", "parameters")}
        merged = {key: value for key, value in {**at_root, **parameters}.items() if value is not None}
        known = OFFERED[self.task] | ({"text"} if self.task == "image-text-to-text" else set())
        unknown = sorted(set(merged) - known)
        if unknown:
            offered = ", ".join(sorted(known)) or "none"
            raise ValueError(f"{self.task} has no parameter {', '.join(unknown)}; it has: {offered}")
        for name in ("threshold", "mask_threshold"):
            value = merged.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"`{name}` is a number from 0 to 1, got {value!r}")
        for name in ("top_k", "num_frames", "max_new_tokens"):
            value = merged.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` is a whole number of at least 1, got {value!r}")
        return merged

    # Answers, one task each

    def _answer(self, frame: Frame, parameters: dict[str, Any]) -> Any:
        if self.task == FEATURES:
            return self._features(frame, **parameters)
        if self.task == "image-to-image":
            return self.pipeline(frame.image)
        if self.task == "image-segmentation":
            answer = self._segment(frame, **parameters)
        else:
            if self.task == "image-classification":
                parameters.setdefault("function_to_apply", self._scores_of())
            elif self.task == "keypoint-detection" and frame.spacing:
                parameters.setdefault("spacing", list(frame.spacing))
            answer = self.pipeline(frame.image, **parameters)
        return _with_spacing(answer, frame.spacing)

    def _scores_of(self) -> str:
        """How logits become scores: measured values stay as they are, findings are independent, classes exclude each other."""
        config = self.model.config
        if config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1):
            return "none"
        return "sigmoid" if config.problem_type == "multi_label_classification" else "softmax"

    def _features(self, frame: Frame, pool: bool = True, normalize: bool = False) -> list[Any]:
        features = np.asarray(self.pipeline(frame.image, pool=pool), dtype=np.float32)
        if normalize:
            features /= np.linalg.norm(features, axis=-1, keepdims=True).clip(1e-12)
        return features.tolist()

    def _segment(
        self, frame: Frame, threshold: float = 0.0, mask_threshold: float = 0.0, subtask: str = "semantic"
    ) -> list[dict[str, Any]]:
        """A mask for every class that is in the image, the background included; the score is its mean probability there."""
        if subtask != "semantic":
            raise ValueError(f"`subtask` is semantic for this checkpoint, got {subtask!r}")
        size = (frame.image.height, frame.image.width)
        (found,) = self.processor.post_process_semantic_segmentation(
            self._run(frame.image), target_sizes=[size], return_segmentation_scores=True
        )
        probabilities, classes = found.segmentation_scores.float().softmax(0).max(0)
        answer = []
        for index in classes.unique().tolist():
            mask = (classes == index) & (probabilities >= mask_threshold)
            score = float(probabilities[mask].mean()) if bool(mask.any()) else 0.0
            if score < threshold or not bool(mask.any()):
                continue
            entry = {"score": score, "label": self.model.config.id2label[index], "mask": _png(mask.cpu().numpy())}
            if frame.spacing:
                entry["area_mm2"] = float(mask.sum()) * frame.spacing[0] * frame.spacing[1]
            answer.append(entry)
        return answer

    @torch.inference_mode()
    def _run(self, images: Any, **kwargs: Any) -> Any:
        pixel_values = self.processor(images=images, return_tensors="pt")["pixel_values"]
        return self.model(pixel_values.to(self.model.device, self.model.dtype), **kwargs)

    def _classify_clip(self, frames: list[Frame], parameters: dict[str, Any]) -> list[dict[str, Any]]:
        wanted = parameters.get("num_frames") or self.model.config.num_frames
        if len(frames) > wanted:
            frames = [frames[place] for place in np.linspace(0, len(frames) - 1, wanted).round().astype(int)]
        times = [
            place * 1000 / NOMINAL_FRAME_RATE if frame.time is None else frame.time
            for place, frame in enumerate(frames)
        ]
        outputs = self._run(
            [frame.image for frame in frames], frame_times=torch.tensor([times], device=self.model.device)
        )
        logits, function = outputs.logits[0].float(), parameters.get("function_to_apply") or self._scores_of()
        if function not in ("softmax", "sigmoid", "none"):
            raise ValueError(f"`function_to_apply` is softmax, sigmoid or none, got {function!r}")
        scores = {"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid(), "none": logits}[function].tolist()
        spread = None if outputs.spread is None else outputs.spread[0].tolist()
        answer = [
            {"score": score, "label": self.model.config.id2label[place]}
            | ({"spread": spread[place]} if spread else {})
            for place, score in enumerate(scores)
        ]
        answer.sort(key=lambda entry: -entry["score"])
        return _with_spacing(answer[: parameters.get("top_k", 5)], frames[0].spacing)

    # Inputs

    def _read(self, item: Any, name: str, clip: bool) -> list[Frame]:
        """The frames of one file; the first alone unless a clip is wanted."""
        if isinstance(item, PIL.Image.Image):
            self._check_size(item.height, item.width, name)
            return [Frame(PIL.ImageOps.exif_transpose(item))]
        content = self._content(item, name)
        if not content:
            raise ValueError(f"{name} is empty")
        if len(content) > self.max_bytes:
            raise ValueError(f"{name} has {len(content)} bytes; this endpoint takes {self.max_bytes}")
        if content[128:132] == b"DICM":
            return self._read_dicom(content, name, clip)
        try:
            return self._read_picture(content, name, clip)
        except PIL.UnidentifiedImageError:
            if clip:
                return self._read_video(content, name)
            raise ValueError(f"{name} is no image that can be read (PNG, JPEG, TIFF, ... or DICOM)") from None

    def _content(self, item: Any, name: str) -> bytes:
        if isinstance(item, (bytes, bytearray, memoryview)):
            return bytes(item)
        if not isinstance(item, str):
            raise ValueError(f"{name} is an image as bytes, base64 text or data URL, got {type(item).__name__}")
        text = item.strip()
        if text.lower().startswith(("http://", "https://")):
            return self._fetch(text, name)
        if text.startswith("data:"):
            head, comma, text = text.partition(",")
            if not comma or not head.endswith(";base64"):
                raise ValueError(f"{name} is a data URL without base64 content")
        if len(text) > self.max_bytes * 4 // 3 + 4:
            raise ValueError(f"{name} has more than {self.max_bytes} bytes, which this endpoint takes")
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"{name} is neither base64 text nor a data URL: {text[:40]!r}") from None

    def _fetch(self, url: str, name: str) -> bytes:
        if not self.allow_urls:
            raise ValueError(
                f"{name} is an address, which this endpoint does not fetch: send the image itself (or set ECHOCARE_ALLOW_URLS=1)"
            )
        try:
            with urllib.request.urlopen(url, timeout=URL_TIMEOUT) as response:
                return response.read(self.max_bytes + 1)
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise ValueError(f"{name}: {url[:200]} cannot be fetched ({error})") from error

    def _check_size(self, height: int, width: int, name: str) -> None:
        if height * width > self.max_pixels:
            raise ValueError(
                f"{name} has {height}x{width} pixels; this endpoint takes {self.max_pixels} pixels a frame"
            )

    def _read_picture(self, content: bytes, name: str, clip: bool) -> list[Frame]:
        with PIL.Image.open(io.BytesIO(content)) as picture:
            self._check_size(picture.height, picture.width, name)
            count = getattr(picture, "n_frames", 1) if clip else 1
            frames, time = [], 0.0
            try:
                for place in range(count):
                    if count > 1:
                        picture.seek(place)
                    frames.append(
                        Frame(PIL.ImageOps.exif_transpose(picture).copy(), None, time if count > 1 else None)
                    )
                    time += picture.info.get("duration") or 1000 / NOMINAL_FRAME_RATE
            except (OSError, SyntaxError, ValueError) as error:
                raise ValueError(f"{name} is a damaged image ({error})") from error
        return frames

    def _read_video(self, content: bytes, name: str) -> list[Frame]:
        try:
            import av
        except ImportError:
            raise ValueError(
                f"{name} is no image or DICOM file; this endpoint reads no videos (av is not installed)"
            ) from None
        frames: list[Frame] = []
        wanted, step, place = 16 * self.model.config.num_frames, 1, 0
        try:
            with cast(Any, av.open(io.BytesIO(content))) as container:
                for frame in container.decode(video=0):
                    self._check_size(frame.height, frame.width, name)
                    if place % step == 0:
                        time = place * 1000 / NOMINAL_FRAME_RATE if frame.time is None else frame.time * 1000
                        frames.append(Frame(frame.to_image(), None, time))
                    if len(frames) > wanted:  # long clips are thinned out on the way
                        frames, step = frames[::2], step * 2
                    place += 1
        except (av.FFmpegError, OSError, IndexError) as error:
            raise ValueError(f"{name} is no image, DICOM file or video that can be read ({error})") from error
        if not frames:
            raise ValueError(f"{name} is a video without a frame")
        return frames

    def _read_dicom(self, content: bytes, name: str, clip: bool) -> list[Frame]:
        try:
            import pydicom
            from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
        except ImportError:
            raise ValueError(f"{name} is a DICOM file, but pydicom is not installed on this endpoint") from None
        try:
            dataset = pydicom.dcmread(io.BytesIO(content))
            height, width = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
            count = int(dataset.get("NumberOfFrames") or 1)
            self._check_size(height, width, name)
            if "PixelData" not in dataset or not height or not width:
                raise ValueError("it has no pixels")
            spacing = _dicom_spacing(dataset, height, width)
            wanted = min(count, 16 * self.model.config.num_frames) if clip else 1
            times = _dicom_times(dataset, count)
            frames = []
            for place in np.linspace(0, count - 1, wanted).round().astype(int).tolist():
                pixels = pixel_array(dataset, index=place)  # YBR comes as RGB
                if dataset.PhotometricInterpretation == "PALETTE COLOR":
                    pixels = apply_color_lut(pixels, dataset)
                    pixels = pixels >> 8 if pixels.dtype == np.uint16 else pixels
                elif pixels.ndim == 2:
                    pixels = _grey(apply_voi_lut(apply_modality_lut(pixels, dataset), dataset), dataset)
                image = PIL.Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
                frames.append(Frame(image, spacing, times[place] if count > 1 else None))
        except Exception as error:  # whatever pydicom and its decoders raise for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{name} is a DICOM file that cannot be read: {reason}") from error
        return frames


def _setting(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{name} is a whole number of at least 1, got {text!r}")
    return int(text)


def _png(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _with_spacing(answer: list[dict[str, Any]], spacing: tuple[float, float] | None) -> list[dict[str, Any]]:
    """The entries with `spacing_mm`, and sizes of boxes in mm, where the spacing is known."""
    for entry in answer if spacing else ():
        entry["spacing_mm"] = list(spacing or ())
        if spacing and "box" in entry:
            box = entry["box"]
            entry["height_mm"] = (box["ymax"] - box["ymin"]) * spacing[0]
            entry["width_mm"] = (box["xmax"] - box["xmin"]) * spacing[1]
    return answer


def _grey(pixels: np.ndarray, dataset: Any) -> np.ndarray:
    """Samples as shown: 8-bit as they are, windowed and deeper ones stretched to 0 to 255; MONOCHROME1 inverted."""
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(np.float64)
        deep = int(dataset.get("BitsStored") or 8) > 8 or pixels.min() < 0 or pixels.max() > 255
        if deep:
            low, high = pixels.min(), pixels.max()
            pixels = (pixels - low) / max(high - low, 1e-12) * 255
        pixels = pixels.round().clip(0, 255).astype(np.uint8)
    return 255 - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels


def _dicom_spacing(dataset: Any, height: int, width: int) -> tuple[float, float] | None:
    """Millimetres per pixel (row, column): of the largest 2-D ultrasound region in centimetres, else Pixel Spacing.

    A region that reaches beyond the grid was written for another grid, so its spacing is not that of these pixels.
    """
    best: tuple[tuple[bool, int], tuple[float, float] | None] | None = None
    for item in dataset.get("SequenceOfUltrasoundRegions") or []:
        units = (item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection"))
        if item.get("RegionSpatialFormat") != 1 or units != (3, 3):
            continue
        spacing = (10 * abs(float(item.PhysicalDeltaY)), 10 * abs(float(item.PhysicalDeltaX)))  # cm to mm
        x0, y0, x1, y1 = (int(item.get(f"RegionLocation{name}") or 0) for name in ("MinX0", "MinY0", "MaxX1", "MaxY1"))
        usable = min(spacing) > 0 and x1 <= width and y1 <= height
        rank = (item.get("RegionDataType") == 1, (x1 - x0) * (y1 - y0))
        if best is None or rank > best[0]:
            best = (rank, spacing if usable else None)
    if best is not None:
        return best[1]
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        values = [float(value) for value in dataset.get(keyword) or []]
        if len(values) == 2 and min(values) > 0:
            return values[0], values[1]
    return None


def _dicom_times(dataset: Any, count: int) -> list[float]:
    """Milliseconds of each frame since the first."""
    vector = dataset.get("FrameTimeVector")
    if vector is not None and not isinstance(vector, (int, float, str)) and len(vector) == count:
        return np.cumsum([0.0, *(float(value) for value in list(vector)[1:])]).tolist()
    step = float(dataset.get("FrameTime") or 0)
    rate = float(dataset.get("CineRate") or dataset.get("RecommendedDisplayFrameRate") or NOMINAL_FRAME_RATE)
    return [place * (step if step > 0 else 1000 / rate) for place in range(count)]
