"""What makes a saved report generator, model and processor, load without this package."""

import shutil
from pathlib import Path
from typing import Any

from .remote_code_echocare import SelfContainedSaveMixin

# The configuration is named through the modeling file, so that model and configuration come from one copy of the code.
REPORT_AUTO_MAP = {
    "AutoConfig": "modeling_echocare_report.EchoCareReportConfig",
    "AutoModelForImageTextToText": "modeling_echocare_report.EchoCareForReportGeneration",
}
REPORT_PROCESSOR_AUTO_MAP = {"AutoProcessor": "processing_echocare_report.EchoCareReportProcessor"}


class SelfContainedReportMixin(SelfContainedSaveMixin):
    """`save_pretrained` of the report generator's parts: the folder also gets the `*_echocare_report.py` files."""

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the folder also gets `auto_map` and the code files. An upload saves through here, too."""
        target = Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        if kwargs.get("is_main_process", True):
            for source in sorted(Path(__file__).parent.glob("*_echocare_report.py")):
                if source.resolve() != (target / source.name).resolve():
                    shutil.copyfile(source, target / source.name)
        # What was loaded as remote code would else write a map of its own over this one.
        holder = self._auto_map_holder()
        holder._auto_class = None
        try:
            return super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            del holder._auto_class
