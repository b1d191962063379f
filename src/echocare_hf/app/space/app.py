"""EchoCare on a Hugging Face Space: the page of `echocare demo`, with the models that settings.json names."""

import json
import os
from pathlib import Path

from echocare_hf.app.command import run_command
from echocare_hf.app.limits import Limits

HERE = Path(__file__).resolve().parent


def main() -> None:
    settings = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
    os.chdir(HERE)  # folders of models are named from here
    limits = Limits(settings["max_mb"], settings["max_seconds"])
    host = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0")
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    run_command(settings["models"], host, port, limits, open_browser=False, say=print)


if __name__ == "__main__":
    main()
