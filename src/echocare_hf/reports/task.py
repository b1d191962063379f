"""Image-report pairs as tensors for the generator, and its answers as drafts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from echocare_hf.data.augmentation import Augmentation
from echocare_hf.finetuning.tasks.base import Example, Task, scaled_settings

from .arguments import ReportArguments
from .findings import finding_targets, text_findings
from .frozen import batched
from .pair_images import pair_frames
from .pairs import ReportData, ReportPair


class ReportTask(Task):
    """What fine-tuning asks of a task, for reports.

    Args:
        data: the pairs.
        processor: an `EchoCareReportProcessor`.
        options: of the run.
        findings: names of the findings of the head, in its order.
    """

    pipeline_tag = "image-text-to-text"
    best_metric = "score"

    def __init__(self, data: ReportData, processor: Any, options: ReportArguments, findings: Sequence[str]) -> None:
        self.data: Any = data
        self.options = options
        self.report_processor, self.processor = processor, processor.image_processor
        self.size = (self.processor.size["height"], self.processor.size["width"])
        self.findings = list(findings)
        self.augmentation = Augmentation(
            scaled_settings(options.augmentation, flip=False)
        )  # a side is a finding's place

    def prepare(self, sample: Any) -> Example:
        """The images of a pair at the model's size, `pixels` (images, channels, height, width) uint8, with its texts."""
        frames, marks = pair_frames(sample.images, sample.views, self.options.max_images)
        return {
            "pixels": self.resize(frames),
            "marks": marks,
            "report": sample.report,
            "organ": sample.organ,
            "indication": sample.indication,
            "findings": torch.tensor(self.targets(sample), dtype=torch.float32),
        }

    def targets(self, pair: ReportPair) -> list[int]:
        """1 present, 0 absent, -1 unknown for each finding of the head."""
        return finding_targets(pair_findings(pair), self.findings, self.options.unmentioned)

    def example(self, item: Example, generator: torch.Generator | None) -> Example:
        if "encoded" in item:
            versions = item["encoded"]
            drawn = 0 if generator is None else int(torch.randint(len(versions), (), generator=generator))
            words = {name: value for name, value in item.items() if name not in ("pixels", "encoded")}
            return {**words, "encoded": versions[drawn]}
        images = item["pixels"].float() / 255
        if generator is not None and self.options.augmentation > 0:
            images = torch.stack([self.augmentation(image, generator).image for image in images])
        return {**{name: value for name, value in item.items() if name != "pixels"}, "images": self.normalize(images)}

    def collate(self, examples: Sequence[Example]) -> Example:
        """A batch with the reports as labels."""
        batch = self.inputs(examples, with_reports=True)
        if self.findings:
            batch["findings"] = torch.stack([example["findings"] for example in examples])
        return batch

    def inputs(self, examples: Sequence[Example], with_reports: bool = False) -> dict[str, Any]:
        """What the model takes: images with their views, prompts, and the reports where they are wanted."""
        counts = torch.tensor([len(example["marks"]) for example in examples])
        mask = torch.arange(int(counts.max())) < counts[:, None]  # (batch, images)
        if "encoded" in examples[0]:
            shown = batched([example["encoded"] for example in examples], mask)
        else:
            images = torch.cat([example["images"] for example in examples])
            pixels = images.new_zeros(*mask.shape, *images.shape[1:])
            pixels[mask] = images
            shown = {"pixel_values": pixels}
        known = self.report_processor.views
        views = torch.zeros(mask.shape, dtype=torch.long)
        views[mask] = torch.tensor(
            [known.index(mark) + 1 if mark in known else 0 for example in examples for mark in example["marks"]]
        )
        words = self.report_processor(
            text=[example["report"] for example in examples] if with_reports else None,
            organ=[example["organ"] for example in examples],
            indication=[example["indication"] for example in examples],
            return_tensors="pt",
        )
        batch = {**shown, "views": views, **words}
        return batch if bool(mask.all()) else {**batch, "image_mask": mask}


def pair_findings(pair: ReportPair) -> Mapping[str, str]:
    """The findings of a pair: those that its text tells, and over them those that the data states."""
    return {**text_findings(pair.report, pair.language, pair.organ), **pair.findings}


__all__ = ["ReportTask", "pair_findings"]
