"""Runs `stranger.py`: proof that a folder or a repository loads where this package is not installed."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .publish_folder import Source, read_json
from .publish_report import REPORT_TASK

_STRANGER = Path(__file__).with_name("stranger.py")
_MOST_SECONDS = 1800
_TASKS = {
    "AutoModel": "image-feature-extraction",
    "AutoBackbone": "image-feature-extraction",
    "AutoModelForImageClassification": "image-classification",
    "AutoModelForSemanticSegmentation": "image-segmentation",
    "AutoModelForObjectDetection": "object-detection",
    "AutoModelForVideoClassification": "video-classification",
    "AutoModelForImageTextToText": REPORT_TASK,
}
_CALL_OPTIONS = {REPORT_TASK: {"text": "", "return_full_text": False, "max_new_tokens": 200}}
_OPTIONS = {"image-feature-extraction": {"pool": True}, "video-classification": {"frame_sampling_rate": 1}}
_KEPT_VARIABLES = (
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_MODULES_CACHE",
    "HF_DATASETS_CACHE",
)


class Trial:
    """How to load a source as a stranger.

    Args:
        source: the model or data set.
        folder: its staged copy.

    Attributes:
        task: of the pipeline.
        takes_clips: whether the pipeline is given clips.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.auto_class = self.task = ""
        if source.kind == "model":
            self.auto_class, self.task = _head(folder)
        self.takes_clips = self.task == "video-classification"

    def run(
        self, place: str, images: list[Path], output: Path, revision: str | None = None, **hub: str | None
    ) -> dict[str, Any]:
        """Loads and runs.

        Args:
            place: the staged folder, or an id of the Hub.
            images: to run the pipeline on.
            output: an empty folder for pictures of the results.
            revision: of the repository.
            hub: `endpoint` and `token` for an id; without them nothing is asked of a network.

        Returns:
            What `stranger.py` says.

        Raises:
            ValueError: if it does not load or run there, in one line.
        """
        request = {
            "kind": self.source.kind,
            "source": place,
            "revision": revision,
            "auto_class": self.auto_class,
            "task": self.task,
            "infer_task": bool(hub) and self.task != "image-feature-extraction",
            "processor_class": "AutoProcessor" if self.task == REPORT_TASK else "AutoImageProcessor",
            "pipeline_options": _OPTIONS.get(self.task, {}),
            "call_options": _CALL_OPTIONS.get(self.task, {}),
            "images": [str(image) for image in images],
            "output": str(output),
        }
        with tempfile.TemporaryDirectory() as home:
            environment = {name: value for name, value in os.environ.items() if name not in _KEPT_VARIABLES}
            environment |= {"HF_HOME": home, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
            if hub:
                environment |= {"HF_ENDPOINT": hub["endpoint"] or "", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}
                environment |= {"HF_TOKEN": hub["token"]} if hub["token"] else {}
            else:
                environment |= {"HF_HUB_OFFLINE": "1"}
            result = subprocess.run(
                [sys.executable, "-I", str(_STRANGER)],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                timeout=_MOST_SECONDS,
                check=False,
                env=environment,
                cwd=home,
            )
        lines = [line for line in result.stdout.splitlines() if line.startswith("ANSWER ")]
        if not lines:
            last = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
            raise ValueError(f"{place}: does not load in a fresh process without this package ({last[:300]})")
        answer = json.loads(lines[-1].removeprefix("ANSWER "))
        if "error" in answer:
            raise ValueError(f"{place}: does not load in a fresh process without this package ({answer['error']})")
        return answer


def _head(folder: Path) -> tuple[str, str]:
    """The Auto class of the saved head and the task of its pipeline."""
    config = read_json(folder / "config.json")
    saved = (config.get("architectures") or [""])[0]
    classes = [name for name, place in config.get("auto_map", {}).items() if str(place).endswith(f".{saved}")]
    if not saved or not classes:
        raise ValueError(
            f"{folder / 'config.json'}: does not say by which class the model loads (architectures, auto_map); save it again with "
            "save_pretrained of echocare_hf"
        )
    auto_class = next((name for name in classes if name in _TASKS), classes[0])
    pipelines = list(config.get("custom_pipelines") or {})
    task = pipelines[0] if pipelines else _TASKS.get(auto_class)
    if task is None:
        raise ValueError(f"{folder / 'config.json'}: no pipeline runs {saved}; publishing takes {', '.join(_TASKS)}")
    return auto_class, task


def same_results(here: Any, there: Any) -> bool:
    """Whether two answers agree: numbers within 0.001, everything else alike."""
    if isinstance(here, dict) and isinstance(there, dict):
        return here.keys() == there.keys() and all(same_results(here[key], there[key]) for key in here)
    if isinstance(here, list) and isinstance(there, list):
        return len(here) == len(there) and all(map(same_results, here, there))
    if isinstance(here, (int, float)) and isinstance(there, (int, float)):
        return abs(here - there) <= 1e-3 * max(1.0, abs(here))
    return bool(here == there)


__all__ = ["Trial", "same_results"]
