"""From images, text and conditions to the inputs of EchoCare's report generator, and from its tokens back to text."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .remote_code_echocare import IMAGE_PROCESSOR_AUTO_MAP
from .remote_code_echocare_report import REPORT_PROCESSOR_AUTO_MAP, SelfContainedReportMixin
from .tokenizer_echocare_report import INDICATION, ORGAN, REPORT, check_text

# Characters of a text that a message quotes.
QUOTED = 30


class EchoCareReportProcessor(SelfContainedReportMixin, ProcessorMixin):
    """Prepares the inputs of `EchoCareForReportGeneration` and decodes what it generates.

        inputs = processor(images=[[image_a, image_b], [image_c]], text=reports, organ=["liver", "thyroid"], return_tensors="pt")
        loss = model(**inputs).loss                                    # training: `text` is the report
        inputs = processor(images=[[image_a, image_b]], organ="liver", return_tensors="pt")
        reports = processor.batch_decode(model.generate(**inputs))     # writing: no `text`, or how the report shall begin

    Args:
        image_processor: an EchoCare image processor.
        tokenizer: the tokenizer of the reports, see `train_report_tokenizer` and `prepare_report_tokenizer`.
        views (`list[str]`, *optional*): names of the views that an image can be marked with, as in the model's configuration.
        max_length (`int`, *optional*): the most tokens that the decoder takes, prompt included.
        max_images (`int`, *optional*, defaults to 64): the most images of one report.
        chat_template (`str`, *optional*): as in transformers.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        views: Sequence[str] | None = None,
        max_length: int | None = None,
        max_images: int = 64,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.views = list(views or [])
        self.max_length = max_length
        self.max_images = max_images

    @property
    def model_input_names(self) -> list[str]:
        return ["pixel_values", "image_mask", "views", "decoder_input_ids", "decoder_attention_mask"]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        organ: str | Sequence[str | None] | None = None,
        indication: str | Sequence[str | None] | None = None,
        views: Any = None,
        return_tensors: str = "pt",
        padding: Any = True,
        padding_side: str = "left",
        max_length: int | None = None,
        truncation: bool = True,
        strict: bool = False,
        **kwargs: Any,
    ) -> BatchFeature:
        """Inputs of the model.

        Args:
            images: the images of each report, `list[list[image]]`; or `list[image]`, one image a report, or all of one report where `text`
                is one text; or one image. An image is a PIL image or an array, as the image processor takes it.
            text (`str` or `list[str]`, *optional*): for training the reports, for generation how each shall begin ("" for nothing).
            organ (`str` or `list[str]`, *optional*): the organ that is examined, in any language; one for all reports or one each.
            indication (`str` or `list[str]`, *optional*): why it is examined, likewise.
            views (*optional*): names from `self.views`, or whole numbers (0 not marked, else 1 + index), nested as `images`; None or ""
                for an image that is not marked.
            return_tensors (`str`, *optional*, defaults to `"pt"`): `"pt"` or `"np"`.
            padding (*optional*): `"max_length"` pads prompts to `max_length`; all else to the longest of the batch.
            padding_side (`str`, *optional*, defaults to `"left"`): decoders without position ids train with `"right"`.
            max_length (`int`, *optional*): the most tokens, prompt included; `self.max_length` by default.
            truncation (`bool`, *optional*, defaults to `True`): False is the same as `strict`.
            strict (`bool`, *optional*, defaults to `False`): whether a report that is too long is an error; else it is cut with a warning.
            kwargs: for the image processor.

        Returns:
            A batch with

            - **pixel_values** (batch, images, channels, height, width); where reports have different numbers of images **image_mask**
              (batch, images), False for padding; **views** (batch, images) where given;
            - **decoder_input_ids** and **decoder_attention_mask** (batch, tokens): start token, `<organ>` and `<indication>` with their
              texts and `<report>` where given, and the text;
            - **labels** (batch, tokens), where `text` is given: the token that follows each, the end token last; -100 for prompt and
              padding.

        Raises:
            ValueError: for a report without an image or with too many, another number of texts, conditions or views than of reports, an
                unknown view, and, if `strict`, for a report that is too long.
        """
        texts = _listed(text)
        reports = None if images is None else _nested(images, text)
        lengths = [
            len(values) for values in (reports, texts, _listed(organ), _listed(indication)) if values is not None
        ]
        if not lengths:
            raise ValueError("give `images`, the images of each report")
        count = len(reports) if reports is not None else max(lengths)
        if texts is not None and len(texts) == 1 and isinstance(text, str):
            texts = texts * count
        if texts is not None and len(texts) != count:
            raise ValueError(f"{len(texts)} texts for {count} reports: give one for each")
        if not count:
            raise ValueError("`images` is empty: a report needs at least one image")
        batch: dict[str, Any] = {} if reports is None else self._images(reports, views, **kwargs)
        limit = max_length or self.max_length
        sequences = self._sequences(
            texts,
            _spread(organ, count, "organs"),
            _spread(indication, count, "indications"),
            limit,
            strict or not truncation,
        )
        width = limit if padding == "max_length" and limit else None
        batch.update(self._padded(sequences, texts is not None, padding_side, width))
        if return_tensors not in ("pt", "np"):
            raise ValueError(f"`return_tensors` is 'pt' or 'np', got {return_tensors!r}")
        if return_tensors == "np":
            batch = {name: value.numpy() for name, value in batch.items()}
        return BatchFeature(batch)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = True, **kwargs: Any) -> list[str]:
        """The reports in generated tokens, or in `labels`: what stands behind the prompt, up to the end token.

        Args:
            sequences: (batch, tokens); negative ids are left out.
            skip_special_tokens (`bool`, *optional*, defaults to `True`): False decodes prompt and special tokens too.
            kwargs: for the tokenizer.
        """
        return [self.decode(sequence, skip_special_tokens, **kwargs) for sequence in sequences]

    def decode(self, sequence: Any, skip_special_tokens: bool = True, **kwargs: Any) -> str:
        """The report in one sequence of tokens, see `batch_decode`."""
        ids = sequence.tolist() if isinstance(sequence, (Tensor, np.ndarray)) else list(sequence)
        ids = [index for index in ids if index >= 0]
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        if skip_special_tokens:
            ids = ids[slice(*self.text_span(ids))]
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, **kwargs)

    def text_span(self, ids: Sequence[int]) -> tuple[int, int]:
        """Where the report begins and ends in the ids of one sequence: behind the prompt, before the end token."""
        ids = list(ids)
        report = self.tokenizer.convert_tokens_to_ids(REPORT)
        fillers = {self.tokenizer.pad_token_id, self.tokenizer.bos_token_id}
        start = ids.index(report) + 1 if report in ids else 0
        while start < len(ids) and ids[start] in fillers:
            start += 1
        end = self.tokenizer.eos_token_id
        return start, ids.index(end, start) if end in ids[start:] else len(ids)

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """For the image-text-to-text pipeline: as `batch_decode`."""
        return self.batch_decode(generated_outputs, skip_special_tokens, **kwargs)

    def prompt(self, organ: str | None = None, indication: str | None = None) -> list[int]:
        """The ids that a report begins with: the start token, and, with a condition, `<organ> ... <indication> ... <report>`."""
        ids = [self.tokenizer.bos_token_id]
        for token, value in ((ORGAN, organ), (INDICATION, indication)):
            if value is not None and value != "":
                ids += [self.tokenizer.convert_tokens_to_ids(token), *self._encode(value, token.strip("<>"))]
        return ids if len(ids) == 1 else [*ids, self.tokenizer.convert_tokens_to_ids(REPORT)]

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        if "auto_map" in output:  # being saved: a loaded folder reads the image processor from here
            output["image_processor"]["auto_map"] = {"AutoImageProcessor": dict(IMAGE_PROCESSOR_AUTO_MAP)}
        return output

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the folder also gets the code files and the image processor's own file."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        self.image_processor.save_pretrained(save_directory)
        return saved

    def _auto_map(self) -> dict[str, Any]:
        return dict(REPORT_PROCESSOR_AUTO_MAP)

    def _encode(self, text: Any, what: str) -> list[int]:
        text = check_text(text, what)
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def _images(self, reports: list[list[Any]], views: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Pixel values, and where needed mask and views, of the nested images."""
        for index, images in enumerate(reports):
            if not images:
                raise ValueError(f"report {index} has no image: give at least one, or leave the pair out")
            if len(images) > self.max_images:
                raise ValueError(
                    f"report {index} has {len(images)} images, the processor takes {self.max_images} (`max_images`): choose key frames"
                )
            for image in images:
                if image is None:
                    raise ValueError(f"report {index} has an image that is None: give an image, or leave the pair out")
        flat = [image for images in reports for image in images]
        pixels = self.image_processor(images=flat, return_tensors="pt", **kwargs)["pixel_values"]
        counts = [len(images) for images in reports]
        most = max(counts)
        mask = torch.arange(most) < torch.tensor(counts)[:, None]  # (batch, images)
        placed = pixels.new_zeros(*mask.shape, *pixels.shape[1:])
        placed[mask] = pixels
        batch = {"pixel_values": placed}
        if min(counts) < most:
            batch["image_mask"] = mask
        if views is not None:
            marks = _nested_views(views, counts)
            numbers = torch.zeros(mask.shape, dtype=torch.long)
            numbers[mask] = torch.tensor([self._view_number(view) for row in marks for view in row])
            batch["views"] = numbers
        return batch

    def _view_number(self, view: Any) -> int:
        if view is None or (isinstance(view, str) and not view):
            return 0
        if isinstance(view, str) and view in self.views:
            return self.views.index(view) + 1
        if isinstance(view, (int, np.integer)) and 0 <= view <= len(self.views):
            return int(view)
        known = ", ".join(self.views) or "none"
        raise ValueError(
            f"unknown view {view!r}: the model knows {known}; name others with from_preset(..., views=[...])"
        )

    def _sequences(
        self,
        texts: list[str] | None,
        organs: list[str | None],
        indications: list[str | None],
        limit: int | None,
        strict: bool,
    ) -> list[tuple[list[int], int]]:
        """The ids of each report with, where there are texts, its end token, and the length of its prompt."""
        sequences = []
        for index, (organ, indication) in enumerate(zip(organs, indications, strict=True)):
            prompt = self.prompt(organ, indication)
            ids = prompt
            if texts is not None:
                ids = [*prompt, *self._encode(texts[index], f"text {index}"), self.tokenizer.eos_token_id]
            if limit is not None and len(prompt) >= limit:
                raise ValueError(
                    f"organ and indication of report {index} have {len(prompt)} tokens, the limit is {limit}"
                )
            taken = len(ids) - 1 if texts is not None else len(ids)  # the last token is only a label
            if limit is not None and taken > limit:
                quoted = repr(texts[index][:QUOTED] + "...")  # type: ignore[index]
                message = f"report {index} ({quoted}) has {taken} tokens with its prompt, the limit is {limit}"
                if strict:
                    raise ValueError(f"{message}: shorten it, or leave `strict` out to cut it")
                warnings.warn(f"{message}: its end is cut off", UserWarning, stacklevel=3)
                ids = ids[: limit + 1]
            sequences.append((ids, len(prompt)))
        return sequences

    def _padded(
        self, sequences: list[tuple[list[int], int]], with_labels: bool, side: str, width: int | None
    ) -> dict[str, Tensor]:
        """Decoder inputs, their mask, and labels, (batch, tokens) each."""
        if side not in ("left", "right"):
            raise ValueError(f"`padding_side` is 'left' or 'right', got {side!r}")
        lengths = [len(ids) - with_labels for ids, _ in sequences]
        shape = (len(sequences), width or max(lengths))
        inputs = torch.full(shape, self.tokenizer.pad_token_id)
        mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, -100)
        for row, ((ids, prompt), length) in enumerate(zip(sequences, lengths, strict=True)):
            start = shape[1] - length if side == "left" else 0
            inputs[row, start : start + length] = torch.tensor(ids[:length])
            mask[row, start : start + length] = 1
            if with_labels:
                labels[row, start + prompt - 1 : start + length] = torch.tensor(ids[prompt:])
        batch = {"decoder_input_ids": inputs, "decoder_attention_mask": mask}
        return {**batch, "labels": labels} if with_labels else batch


def _is_image(value: Any) -> bool:
    return isinstance(value, PIL.Image.Image) or (isinstance(value, (np.ndarray, Tensor)) and value.ndim < 4)


def _nested(images: Any, text: Any) -> list[list[Any]]:
    """The images of each report."""
    if _is_image(images):
        return [[images]]
    images = list(images)
    if any(image is None for image in images):
        raise ValueError(f"report {[image is None for image in images].index(True)} has no image: leave the pair out")
    flat = [_is_image(image) for image in images]
    if not any(flat):
        return [list(group) for group in images]
    if not all(flat):
        raise ValueError("`images` mixes single images and lists of images: give a list for every report")
    return [images] if isinstance(text, str) else [[image] for image in images]


def _nested_views(views: Any, counts: list[int]) -> list[list[Any]]:
    """The views of each report, nested as its images."""
    if isinstance(views, (Tensor, np.ndarray)):
        views = views.tolist()
    if views is None or isinstance(views, (str, int)):
        views = [views]
    views = list(views)
    if not any(isinstance(group, (list, tuple, Tensor, np.ndarray)) for group in views):
        views = [views] if len(counts) == 1 else [[view] for view in views]
    nested = [
        list(group) if group is not None else [None] * count for group, count in zip(views, counts, strict=False)
    ]
    if len(views) != len(counts) or [len(group) for group in nested] != counts:
        raise ValueError(f"`views` must name one view for each image: {counts} images a report, got {views}")
    return nested


def _listed(values: Any) -> list[Any] | None:
    if values is None:
        return None
    return [values] if isinstance(values, str) else list(values)


def _spread(values: Any, count: int, what: str) -> list[Any]:
    """One value a report: None or one text stands for all."""
    if values is None or isinstance(values, str):
        return [values] * count
    if len(values) != count:
        raise ValueError(f"{len(values)} {what} for {count} reports: give one for each")
    return list(values)


__all__ = ["EchoCareReportProcessor"]
