"""What makes a saved folder load without this package: the map of Auto classes, and a copy of the code files.

`transformers` writes only the class that was saved into `auto_map`; with the whole map, any head loads from any head's checkpoint.
"""

import shutil
from pathlib import Path
from typing import Any

# The configuration is named through the modeling file, so that model and configuration come from one copy of the code.
AUTO_MAP = {
    "AutoConfig": "modeling_echocare.EchoCareConfig",
    "AutoModel": "modeling_echocare.EchoCareModel",
    "AutoBackbone": "modeling_echocare.EchoCareBackbone",
    "AutoModelForPreTraining": "modeling_echocare.EchoCareForPreTraining",
    "AutoModelForMaskedImageModeling": "modeling_echocare.EchoCareForPreTraining",
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


class SelfContainedSaveMixin:
    """`save_pretrained` that writes a folder which loads without this package; stands before the transformers base class."""

    def _auto_map_holder(self) -> Any:
        """The object whose `auto_map` attribute `save_pretrained` writes out."""
        return self

    def _auto_map(self) -> dict[str, Any]:
        """The map to write; each family of classes that mixes this in has its own."""
        raise NotImplementedError

    def save_pretrained(self, save_directory: str | Path, *args: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As in transformers; the folder also gets the whole `auto_map` and the code files, before anything is uploaded."""
        if push_to_hub:
            # The Hub upload saves to a folder of its own through this method, and sends all of it.
            names = ("commit_message", "commit_description", "private", "token", "revision", "create_pr", "tags")
            hub = {name: kwargs.pop(name) for name in names if name in kwargs}
            repo_id = kwargs.pop("repo_id", Path(save_directory).name)
        holder = self._auto_map_holder()
        previous = getattr(holder, "auto_map", None)
        holder.auto_map = self._auto_map()
        try:
            saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        finally:
            if previous is None:
                del holder.auto_map
            else:
                holder.auto_map = previous
        if kwargs.get("is_main_process", True):
            copy_code(save_directory)
        if push_to_hub:
            self.push_to_hub(repo_id, **hub)  # type: ignore[attr-defined]
        return saved
