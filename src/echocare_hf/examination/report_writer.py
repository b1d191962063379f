"""Writes the draft report of a file when all its frames have been analysed.

    writer = ReportWriter(load_report_model("reports"), organ="thyroid")
    draft = writer.write(path, result, clip, region)

Key frames go through the report generator together, cut to the analysed region, with the organ and the indication; its sentences are
checked against its own findings head and against what the other models measured.
"""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.reports.drafting import write_drafts
from echocare_hf.reports.findings import rule_organ

from .clip import ClipFindings
from .region import Region
from .report_draft import ExaminationDraft
from .report_frames import choose_frames, missing_frames, read_frames
from .report_model import ReportModel
from .report_support import frame_confidences, support_sentences
from .results import FileResult, ModelFacts

_ORGAN_LEVEL = 1  # of a path: region, organ, structure


class ReportWriter:
    """A report generator and what it is told.

    Args:
        report: the generator.
        organ: that is examined, in the words of the generator's training; told by the anatomy if not given.
        indication: why it is examined.

    Raises:
        ValueError: if organ and indication leave the generator no room to write.
    """

    def __init__(self, report: ReportModel, organ: str | None = None, indication: str | None = None) -> None:
        self.report = report
        self.organ, self.indication = (organ or "").strip(), (indication or "").strip()
        limit = report.model.config.max_report_length
        taken = len(report.processor.prompt(self.organ, self.indication))
        if limit is not None and taken >= limit:
            raise ValueError(
                f"--organ and --indication have {taken} tokens, and {self.facts.source} takes {limit} with its report: shorten them"
            )

    @property
    def facts(self) -> ModelFacts:
        return self.report.facts

    @property
    def options(self) -> dict[str, Any]:
        """What changes its reports, beside the weights."""
        return {"organ": self.organ, "indication": self.indication, "thresholds": self.report.sha256}

    def write(self, path: Path, result: FileResult, clip: ClipFindings | None, region: Region) -> ExaminationDraft:
        """The draft of one file.

        Args:
            path: of the file.
            result: what the other models found; its key frames and measurements are used.
            clip: what the frames of a clip show together, None for a still.
            region: what is analysed.

        Raises:
            ValueError: if the file cannot be read again.
        """
        model, processor = self.report.model, self.report.processor
        frames = read_frames(path, choose_frames(result.key_frames, clip), region)
        if not frames:
            raise ValueError("holds none of the chosen frames any more; it was changed meanwhile")
        organ, source = self._organ(result)
        images = [[Image.fromarray(frame.pixels) for frame in frames]]
        told = {"organ": organ or None, "indication": self.indication or None}
        inputs = processor(images=images, **told, return_tensors="pt")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a generator that samples writes the same of the same file
            (draft,) = write_drafts(model, processor, inputs, self.report.thresholds, organs=[organ or None])
        shares = frame_confidences(model, processor, inputs, draft.text) if draft.sentences else []
        measurements = tuple(result.measurements)
        sentences = support_sentences(draft.sentences, frames, measurements, shares)
        named = {index for sentence in sentences for index in sentence.frames}
        others = read_frames(path, missing_frames(named, frames), region)
        return ExaminationDraft(
            model=self.facts.name,
            draft=draft,
            sentences=sentences,
            measurements=measurements,
            frames=tuple(frames),
            pictures=tuple(sorted([*frames, *others], key=lambda frame: frame.index)),
            organ=organ,
            indication=self.indication,
            organ_source=source,
            warnings=self._warnings(draft.text, inputs, organ),
        )

    def _organ(self, result: FileResult) -> tuple[str, str]:
        """The organ, by the name that the rules of findings have, or the tree's in lower case; and who says it."""
        if self.organ:
            return self.organ, "option"
        if len(result.anatomy_path) <= _ORGAN_LEVEL:
            return "", ""
        label = result.anatomy_path[_ORGAN_LEVEL]
        known = label.node if label.node in AnatomyTree.default().ids else label.label
        return rule_organ(known) or label.label.lower(), "anatomy"

    def _warnings(self, text: str, inputs: Any, organ: str) -> tuple[str, ...]:
        warnings = []
        limit = self.report.model.config.max_report_length
        tokens = len(self.report.processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not text:
            warnings.append("the report generator wrote nothing")
        if limit is not None and inputs["decoder_input_ids"].shape[1] + tokens >= limit:
            warnings.append(f"the report ends where the generator has no room left, after {tokens} tokens")
        if not organ:
            warnings.append("the generator was not told the organ: no anatomy was found, and none was given (--organ)")
        return tuple(warnings)


__all__ = ["ReportWriter"]
