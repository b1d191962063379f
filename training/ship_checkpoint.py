"""Makes a checkpoint that comes with the package from a folder of training/pretrain.py.

    python training/ship_checkpoint.py runs/tiny/best --name echocare-tiny --add docs/echocare-tiny.md

The folder src/echocare_hf/checkpoints/NAME appears, with weights, configuration, image processor, card, training.json. Code stays behind:
the package has it, and a copy beside the weights would grow old; `save_pretrained` and publishing add it again. What the weights know of
ultrasound belongs to them: run `eval/familiarity.py fit` afterwards. Refused are checkpoints of
more than 15 MB, and those whose images do not all allow any use.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from echocare_hf.files import written_beside
from echocare_hf.finetuning.card import licence_of

CHECKPOINTS = Path(__file__).resolve().parents[1] / "src" / "echocare_hf" / "checkpoints"
MOST_BYTES = 15_000_000
FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "README.md", "training.json")
CODE_KEYS = ("auto_map", "custom_pipelines")
USE = """```python
from transformers import AutoImageProcessor, AutoModel

from echocare_hf import checkpoint_path

folder = checkpoint_path("{name}")
processor = AutoImageProcessor.from_pretrained(folder)
encoder = AutoModel.from_pretrained(folder)
```"""


def ship(source: Path, name: str, added: str = "") -> Path:
    """Copies what a shipped checkpoint needs.

    Args:
        source: folder of a pretrained model.
        name: what people will call it.
        added: text for the end of the card.

    Raises:
        ValueError: for a folder that lacks a file, is too large, or was trained on images that do not allow any use.
    """
    missing = [file for file in FILES if not (source / file).is_file()]
    if missing:
        raise ValueError(
            f"{source}: has no {missing[0]}; give the folder best or final of a run of training/pretrain.py"
        )
    record = json.loads((source / "training.json").read_text(encoding="utf-8"))
    if licence_of(record["licences"]) != "apache-2.0":
        raise ValueError(
            f"{source}: was trained on images under {', '.join(record['licences'])}: not all allow any use"
        )
    size = sum((source / file).stat().st_size for file in FILES)
    if size > MOST_BYTES:
        raise ValueError(f"{source}: has {size / 1e6:.1f} MB; at most {MOST_BYTES / 1e6:.0f} come with the package")
    with written_beside(CHECKPOINTS / name) as partial:
        partial.mkdir(parents=True)
        shutil.copyfile(source / "model.safetensors", partial / "model.safetensors")
        for file in ("config.json", "preprocessor_config.json"):
            values = json.loads((source / file).read_text(encoding="utf-8"))
            kept = {key: value for key, value in values.items() if key not in CODE_KEYS}
            (partial / file).write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        for key in ("data", "exclude", "exclude_groups"):
            record["recipe"][key] = [Path(path).name for path in record["recipe"][key]]
        (partial / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        card = (source / "README.md").read_text(encoding="utf-8").replace("- custom_code\n", "")
        card = re.sub(r"```python.*?```", lambda _: USE.format(name=name), card, count=1, flags=re.DOTALL)
        card = re.sub(r"^# .*$", f"# {name}", card, count=1, flags=re.MULTILINE)
        (partial / "README.md").write_text(
            card.rstrip() + "\n" + (f"\n{added.strip()}\n" if added else ""), encoding="utf-8"
        )
    return CHECKPOINTS / name


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--name", default="echocare-tiny")
    parser.add_argument("--add", type=Path, help="Markdown for the end of the card, such as downstream figures")
    arguments = parser.parse_args(argv)
    try:
        added = arguments.add.read_text(encoding="utf-8") if arguments.add else ""
        print(f"made {ship(arguments.source, arguments.name, added)}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
