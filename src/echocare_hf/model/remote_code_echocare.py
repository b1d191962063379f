"""What makes a saved folder load without this package: the map of Auto classes, the pipeline, and a copy of the code files.

`transformers` writes only the class that was saved into `auto_map`; with the whole map, any head loads from any head's checkpoint. The
pipeline is that of the saved head alone: with several, `pipeline(model=folder)` could not tell which task is meant.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Never imported from here: transformers carries along what a file names, so a model that was loaded as remote code has its pipeline.
    from .pipeline_echocare import EchoCarePipeline  # noqa: F401

# The configuration is named through the modeling file, so that model and configuration come from one copy of the code.
AUTO_MAP = {
    "AutoConfig": "modeling_echocare.EchoCareConfig",
    "AutoModel": "modeling_echocare.EchoCareModel",
    "AutoBackbone": "modeling_echocare.EchoCareBackbone",
    "AutoModelForPreTraining": "modeling_echocare.EchoCareForPreTraining",
    "AutoModelForMaskedImageModeling": "modeling_echocare.EchoCareForPreTraining",
    "AutoModelForImageClassification": "modeling_echocare.EchoCareForImageClassification",
    "AutoModelForSemanticSegmentation": "modeling_echocare.EchoCareForSemanticSegmentation",
    "AutoModelForObjectDetection": "modeling_echocare.EchoCareForObjectDetection",
    "AutoModelForKeypointDetection": "modeling_echocare.EchoCareForKeypointDetection",
    "AutoModelForVideoClassification": "modeling_echocare.EchoCareForVideoClassification",
    "AutoModelForImageToImage": "modeling_echocare.EchoCareForImageToImage",
}

# Task without a pipeline in transformers -> the head that it runs on, the Auto class of the head, and our pipeline.
PIPELINES = {
    "anatomy-classification": ("EchoCareForPreTraining", "AutoModelForPreTraining", "AnatomyClassificationPipeline"),
    "keypoint-detection": (
        "EchoCareForKeypointDetection",
        "AutoModelForKeypointDetection",
        "KeypointDetectionPipeline",
    ),
    "image-to-image": ("EchoCareForImageToImage", "AutoModelForImageToImage", "ImageToImagePipeline"),
}

IMAGE_PROCESSOR_AUTO_MAP = {
    "torchvision": "image_processing_echocare.EchoCareImageProcessor",
    "pil": "image_processing_pil_echocare.EchoCareImageProcessorPil",
}


def copy_code(folder: str | Path) -> None:
    """Copies the code files that a checkpoint needs (all `*_echocare.py` beside this one) into `folder`."""
    target = Path(folder)
    for source in sorted(Path(__file__).parent.glob("*_echocare.py")):
        if source.resolve() != (target / source.name).resolve():
            shutil.copyfile(source, target / source.name)


def custom_pipelines(model_class: type) -> dict[str, dict[str, Any]]:
    """The entry `custom_pipelines` of config.json for a checkpoint of this class; empty for heads that transformers serves."""
    names = {parent.__name__ for parent in model_class.__mro__}
    return {
        task: {"impl": f"pipeline_echocare.{pipeline}", "pt": [auto_class], "type": "image"}
        for task, (model, auto_class, pipeline) in PIPELINES.items()
        if model in names
    }


class CheckpointPipelines(dict):
    """`custom_pipelines` as `transformers.pipeline` shall read it from a configuration.

    A task that is registered with our pipeline is not in it (while its name still tells which task is meant): the package is
    installed, and no code of the folder needs to run. Entries are handed out as copies, because `pipeline` writes classes into
    them, which no configuration could be saved with.
    """

    def __contains__(self, task: Any) -> bool:
        if not super().__contains__(task):
            return False
        from transformers.pipelines import PIPELINE_REGISTRY

        registered = PIPELINE_REGISTRY.supported_tasks.get(task, {}).get("impl")
        return getattr(registered, "__name__", None) != self[task]["impl"].split(".")[-1]

    def __getitem__(self, task: str) -> dict[str, Any]:
        return dict(super().__getitem__(task))


class SelfContainedSaveMixin:
    """`save_pretrained` that writes a folder which loads without this package; stands before the transformers base class."""

    def _auto_map_holder(self) -> Any:
        """The object whose attributes `auto_map` and `custom_pipelines` `save_pretrained` writes out."""
        return self

    def _auto_map(self) -> dict[str, Any]:
        """The map to write; each family of classes that mixes this in has its own."""
        raise NotImplementedError

    def save_pretrained(self, save_directory: str | Path, *args: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As in transformers; the folder also gets `auto_map`, its pipeline, and the code files, before anything is uploaded."""
        if push_to_hub:
            # The Hub upload saves to a folder of its own through this method, and sends all of it.
            names = ("commit_message", "commit_description", "private", "token", "revision", "create_pr", "tags")
            hub = {name: kwargs.pop(name) for name in names if name in kwargs}
            repo_id = kwargs.pop("repo_id", Path(save_directory).name)
        holder = vars(self._auto_map_holder())
        written = {"auto_map": self._auto_map(), "custom_pipelines": custom_pipelines(type(self))}
        previous = {name: holder.pop(name) for name in written if name in holder}
        holder.update((name, value) for name, value in written.items() if value)
        try:
            saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        finally:
            for name in written:
                holder.pop(name, None)
            holder.update(previous)
        if kwargs.get("is_main_process", True):
            copy_code(save_directory)
        if push_to_hub:
            self.push_to_hub(repo_id, **hub)  # type: ignore[attr-defined]
        return saved
