"""The command `echocare`: one sub-command for each thing one does with EchoCare from a shell.

Every command follows the same manners, which live here once, in `Commands`: a wrong input ends in one line on stderr
("error: ...") and exit code 2, Ctrl-C in one line and exit code 130, and only a mistake of the program itself shows a
traceback (`ECHOCARE_DEBUG=1` shows it for every error).

To add a command, write a function, decorate it with `@app.command(...)`, and import what it needs inside it:
`echocare --help` must not wait for torch. Let it raise ValueError, OSError or ImportError with a message of one line
that names the file and the cure.
"""

import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from .anatomy import AnatomyNode, AnatomyTree

EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# click's UsageError and ClickException, which newer versions of Typer bring along under a private name
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns an error of the user's input, or Ctrl-C, into one line on stderr and an exit code.

    Raises:
        typer.Exit: 2 for a usage error, ValueError, OSError or a missing optional package; 130 for Ctrl-C. Everything
            else (TypeError, AssertionError, a module of our own that does not import, ...) passes through.
    """
    try:
        yield
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # `echocare anatomy | head` is no error; Typer ends quietly
        raise
    except _ClickException as error:
        context = getattr(error, "ctx", None) if isinstance(error, _UsageError) else None
        hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        _fail(f"error: {message}{hint}", EXIT_WRONG_INPUT)
    except (ValueError, OSError, ImportError) as error:
        own_module = isinstance(error, ImportError) and (error.name or "").split(".")[0] == "echocare_hf"
        if own_module or os.environ.get("ECHOCARE_DEBUG"):
            raise
        _fail(f"error: {_message(error)}", EXIT_WRONG_INPUT)


def _fail(line: str, exit_code: int) -> NoReturn:
    typer.echo(" ".join(part.strip() for part in line.splitlines() if part.strip()), err=True)
    raise typer.Exit(exit_code) from None


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, (str, bytes)):
        return f"{os.fsdecode(error.filename)}: {error.strerror}"  # without "[Errno 2]"
    return str(error) or type(error).__name__


class Commands(TyperGroup):
    """The group of all commands, with the common treatment of errors."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with one_line_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with one_line_errors():
            return super().invoke(ctx)


app = typer.Typer(
    name="echocare",
    cls=Commands,
    rich_markup_mode=None,  # plain help, which needs no import of rich and survives every terminal
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 119},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"echocare {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """EchoCare, the ultrasound foundation model, from the command line.

    \b
    Examples:
      echocare anatomy A4C
      echocare convert echocare_encoder.pth echocare-base

    Every command explains itself with --help. A wrong input ends with one line and exit code 2.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a letter that the terminal lacks is no reason to print nothing
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command()
def anatomy(
    node: Annotated[
        str | None,
        typer.Argument(
            help="A name, id, alias, path or SNOMED CT code; all nodes if left out.",
            show_default=False,
        ),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option("--level", metavar="LEVEL", help="List the nodes of one level: region, organ or structure."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the anatomy tree, or what is known of one node.

    \b
    Examples:
      echocare anatomy                           the tree: 9 regions, 52 organs, 56 structures
      echocare anatomy heart                     one node
      echocare anatomy "apical 4 chamber view"   by name, in almost any spelling
      echocare anatomy 80891009                  by SNOMED CT code
      echocare anatomy thorax --level organ      the organs of a region
      echocare anatomy A4C --json                for scripts
    """
    from .anatomy import AnatomyTree

    tree = AnatomyTree.default()
    index = None if node is None else tree.index(node)
    if level is not None:
        found = [tree[v] for v in tree.level_nodes(level) if index is None or tree.descendant_matrix[index, v]]
        if as_json:
            _print_json([_as_dict(tree, entry) for entry in found])
        else:
            for entry in found:
                code = f" {entry.code.scheme} {entry.code.value}" if entry.code else ""
                typer.echo(f"{tree.path(entry.index)} [{entry.id}]{code}")
    elif index is None:
        if as_json:
            _print_json([_as_dict(tree, entry) for entry in tree])
        else:
            typer.echo(tree.format())
    elif as_json:
        _print_json(_as_dict(tree, tree[index]))
    else:
        typer.echo(_describe(tree, tree[index]))


def _as_dict(tree: "AnatomyTree", node: "AnatomyNode") -> dict[str, Any]:
    return {
        "id": node.id,
        "name": node.name,
        "level": node.level_name,
        "path": tree.path(node.index),
        "code": node.code._asdict() if node.code else None,
        "aliases": list(node.aliases),
        "parent": tree.ids[node.parent] if node.parent >= 0 else None,
        "children": [tree.ids[child] for child in tree.children(node.index)],
    }


def _describe(tree: "AnatomyTree", node: "AnatomyNode") -> str:
    from .anatomy.tree import FETAL_SCHEME, FETUS_CODE

    code = f"{node.code.scheme} {node.code.value} ({node.code.meaning})" if node.code else "none"
    if node.code and node.code.scheme == FETAL_SCHEME:
        code = f"SCT {node.code.value} ({node.code.meaning}) together with DCM {FETUS_CODE} (Fetus)"
    children = tree.children(node.index)
    lines = [
        tree.path(node.index),
        f"  id        {node.id}",
        f"  level     {node.level_name}",
        f"  code      {code}",
        f"  aliases   {', '.join(node.aliases) or 'none'}",
        f"  children  {'' if children else 'none'}",
        *(f"    {tree.names[child]} [{tree.ids[child]}]" for child in children),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _print_json(value: Any) -> None:
    import json

    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    typer.echo(json.dumps(value, indent=2, ensure_ascii=not is_unicode))


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The released .pth file; a model folder with --to-monai.")],
    output_dir: Annotated[Path, typer.Argument(help="The folder to make; the .pth file to write with --to-monai.")],
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", metavar="NAME", help="Insist on tiny, base or large. The tensors say which it is if left out."
        ),
    ] = None,
    to_monai: Annotated[
        bool, typer.Option("--to-monai", help="The way back: a model folder to weights that MONAI's Swin loads.")
    ] = False,
) -> None:
    """Convert the released weights to a model folder, or back.

    `AutoModel.from_pretrained` loads the folder. The file may hold the bare encoder or a whole pretraining model, under any
    prefix; no code in it is run. Every tensor is accounted for: loaded, checked, missing or left out, with the reason. A
    tensor that the encoder lacks (but for the mask token), has too many, or has in the wrong shape is an error. The
    result is read back, compared with the source bit by bit, and run beside MONAI's model where MONAI is installed.
    Nothing is written unless all of it fits.

    \b
    Examples:
      echocare convert echocare_encoder.pth echocare-base
      echocare convert my_large.pth echocare-large --preset large   an error if it is another
      echocare convert --to-monai echocare-base echocare_monai.pth
    """
    from .hub.convert import convert_checkpoint

    convert_checkpoint(checkpoint, output_dir, preset=preset, to_monai=to_monai, report=typer.echo)


class ReportOption(TyperCommand):
    """`predict`, whose `--report` may stand alone: at the end, before another option, or before a file that is to be analysed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        told: list[str] = []
        for place, text in enumerate(args):
            following = args[place + 1] if place + 1 < len(args) else "-"
            alone = text == "--report" and (following.startswith("-") or Path(following).is_file())
            told.append("--report=" if alone else text)
        return super().parse_args(ctx, told)


@app.command(cls=ReportOption)
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files, folders, globs, archives, DICOMDIR, dicom:// and dicomweb+https:// addresses.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="The folder of the results.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A checkpoint's folder, Hub id or bare name; once for each model.",
            show_default="with --report: echocare-tiny",
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            "--report",
            metavar="[MODEL]",
            help="Write a draft report with this report generator; without a value with the one among --model.",
            show_default=False,
        ),
    ] = None,
    organ: Annotated[
        str | None,
        typer.Option(
            "--organ",
            metavar="NAME",
            help="Told to the report generator; by the anatomy if left out.",
            show_default=False,
        ),
    ] = None,
    indication: Annotated[
        str | None,
        typer.Option(
            "--indication", metavar="TEXT", help="Why it is examined, told to the generator.", show_default=False
        ),
    ] = None,
    every: Annotated[int, typer.Option("--every", metavar="N", help="Analyse every n-th frame of a clip.")] = 1,
    max_frames: Annotated[
        int | None,
        typer.Option("--max-frames", metavar="N", help="At most N frames of a clip.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", help="Frames that go through a model together.")
    ] = 16,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="SCORE", help="Least score of objects and of anatomy, 0 to 1.")
    ] = 0.5,
    spacing: Annotated[
        str | None,
        typer.Option(
            "--spacing",
            metavar="ROW,COLUMN",
            help="Millimetres per pixel, down and across, of files that do not state theirs.",
            show_default=False,
        ),
    ] = None,
    region: Annotated[bool, typer.Option(help="Find the ultrasound region and analyse that.")] = True,
    familiarity: Annotated[bool, typer.Option(help="Tell how much an image looks like what the model knows.")] = True,
    overlays: Annotated[bool, typer.Option(help="Draw what was found: PNG of stills, MP4 of clips.")] = True,
    all_masks: Annotated[
        bool, typer.Option("--all-masks", help="Masks of all frames of a clip, not of key frames.")
    ] = False,
    surroundings: Annotated[
        bool, typer.Option("--surroundings", help="Pictures show what is around the region too, such as names.")
    ] = False,
    dicom: Annotated[bool, typer.Option(help="Write DICOM objects for DICOM input.")] = True,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", metavar="NAME", help="fp32, bf16, or auto: bf16 where it is fast.")
    ] = "auto",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of PyTorch.")] = 0,
) -> None:
    """Analyse ultrasound files with one or more checkpoints.

    Writes what was found in each file, in physical units where the file states its spacing: JSON, a CSV summary, pictures, one web page a
    study and, for DICOM input, a DICOM Segmentation, a Structured Report and enhanced images. A file that cannot be read is named at the
    end and stops nothing; exit code 1 says that there was one. A run that was stopped goes on where it was. Not a medical device.

    \b
    Examples:
      echocare predict scans/ --model echocare-tiny --output results
      echocare predict IM0001.dcm clip.mp4 --model head-detector --output results
      echocare predict study.zip --model hc=runs/head --model busi=runs/lesion --output results
      echocare predict clip.avi --model runs/lv --output results --every 2 --spacing 0.3,0.3
      echocare predict scan.mp4 --report reports --model echocare-tiny --model runs/lv --output results
      echocare predict scan.mp4 --report --model echocare-tiny --model reports --output results
    """
    from .examination.command import read_spacing, run_command
    from .examination.file_folder import Outputs

    if not model and report is None:
        raise ValueError("Missing option '--model' (see `echocare predict --help`)")
    options = {
        "every": every,
        "max_frames": max_frames,
        "batch_size": batch_size,
        "threshold": threshold,
        "spacing": read_spacing(spacing),
        "search_region": region,
        "familiarity": familiarity,
        "device": device,
        "precision": precision,
    }
    made = Outputs(overlays, dicom, all_masks, surroundings)
    code = run_command(
        *(inputs, model or [], output, options, made, seed, typer.echo, lambda line: typer.echo(line, err=True)),
        report=report,
        organ=organ,
        indication=indication,
    )
    if code:
        raise typer.Exit(code)


@app.command()
def curate(
    sources: Annotated[
        list[str], typer.Argument(help="Folders, archives, shards, manifests, URLs, Hub ids; NAME=... names one.")
    ],
    output: Annotated[Path, typer.Option("--output", help="The folder of the corpus.")],
    every: Annotated[int, typer.Option("--every", metavar="N", help="Keep every n-th frame of a cine loop.")] = 10,
    every_seconds: Annotated[
        float | None,
        typer.Option("--every-seconds", metavar="S", help="Keep a frame in S seconds instead.", show_default=False),
    ] = None,
    max_side: Annotated[
        int, typer.Option("--max-side", metavar="PIXELS", help="Longest side of stored images.")
    ] = 512,
    image_format: Annotated[str, typer.Option("--image-format", metavar="NAME", help="jpeg or png.")] = "jpeg",
    near_distance: Annotated[
        int,
        typer.Option("--near-distance", metavar="BITS", help="Bits of 64 in which near-copies differ; -1 keeps them."),
    ] = 3,
    min_nonzero: Annotated[
        int, typer.Option("--min-nonzero", metavar="N", help="Pixels above 0 that an image needs.")
    ] = 1000,
    find_region: Annotated[bool, typer.Option(help="Remove what is around the ultrasound region.")] = True,
    remove_text: Annotated[bool, typer.Option(help="Remove text near the border of the region.")] = True,
    check_ultrasound: Annotated[bool, typer.Option(help="Drop what does not look like ultrasound.")] = True,
    validation: Annotated[
        float, typer.Option("--validation", metavar="SHARE", help="Share of the validation split.")
    ] = 0.05,
    exclude: Annotated[
        list[Path] | None,
        typer.Option("--exclude", metavar="FILE", help="Hashes of images to keep out.", show_default=False),
    ] = None,
    hashes: Annotated[
        Path | None,
        typer.Option(
            "--hashes", metavar="FILE", help="Write the hashes of all images for --exclude.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="A table text,node of your own names.", show_default=False),
    ] = None,
    marks: Annotated[
        Path | None,
        typer.Option("--marks", metavar="FILE", help="marks.csv of the contact sheet.", show_default=False),
    ] = None,
    contact_images: Annotated[
        int, typer.Option("--contact-images", metavar="N", help="Images a class to look at.")
    ] = 100,
    shard_megabytes: Annotated[
        int, typer.Option("--shard-megabytes", metavar="MB", help="About how large a shard is.")
    ] = 64,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help="Processes; one a core if left out.", show_default=False),
    ] = None,
    runner: Annotated[str, typer.Option("--runner", metavar="NAME", help="local, or ray for a cluster.")] = "local",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the split and the order of rows.")] = 0,
) -> None:
    """Make a clean, labelled, sharded corpus of raw ultrasound files.

    Drops exact and near-copies, broken and empty files and what is not ultrasound; samples cine loops; removes what is around the
    ultrasound region, text near its border, and all metadata; maps labels to the anatomy tree; splits by patient and clip.
    `datasets.load_dataset(OUTPUT, streaming=True)` reads the result. A run that was stopped goes on where it was.

    \b
    Examples:
      echocare curate breast_busi clips.zip --output corpus
      echocare curate busi=/data/breast s3://bucket/us/** --output corpus --workers 16
      echocare curate benchmarks --output checked --hashes benchmarks.txt     a list of images to keep out
      echocare curate data --output corpus --exclude benchmarks.txt
      echocare curate data --output corpus --marks marks.csv                  without what you marked as wrong
    """
    from .curation.command import run_command

    options = {
        "every": every,
        "every_seconds": every_seconds,
        "max_side": max_side,
        "image_format": image_format,
        "near_distance": near_distance,
        "min_nonzero": min_nonzero,
        "find_region": find_region,
        "remove_text": remove_text,
        "check_ultrasound": check_ultrasound,
        "validation": validation,
        "contact_images": contact_images,
        "shard_megabytes": shard_megabytes,
        "workers": workers or os.cpu_count() or 1,
        "runner": runner,
        "seed": seed,
    }
    run_command(sources, output, options, exclude or [], labels, marks, hashes, typer.echo)


@app.command()
def export(
    folder: Annotated[str, typer.Argument(help="A checkpoint's folder, or the bare name of one that ships.")],
    onnx: Annotated[Path, typer.Option("--onnx", metavar="OUTPUT", help="The folder to make, of ONNX graphs.")],
    int8: Annotated[bool, typer.Option("--int8", help="Write int8 graphs too, and measure what they cost.")] = False,
    opset: Annotated[int, typer.Option("--opset", metavar="N", help="Of ONNX, 20 to 23.")] = 20,
    check: Annotated[bool, typer.Option(help="Compare with PyTorch on several batches and sizes.")] = True,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Images to calibrate and compare int8 on.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Labelled data to measure int8 on.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the inputs of the comparison.")] = 0,
) -> None:
    """Write a checkpoint as ONNX graphs: encoder.onnx (every map, pooled feature) and model.onnx (its head).

    Batch and image size are free. Every output is compared with PyTorch's before anything is kept: a graph that is off by more than
    1e-4 is refused.

    \b
    Examples:
      echocare export echocare-tiny --onnx tiny-onnx
      echocare export runs/lesion --onnx lesion-onnx --int8 --images scans
      echocare export runs/lesion --onnx lesion-onnx --int8 --images scans --data labelled
    """
    from .hub.export_onnx import export_onnx

    export_onnx(
        folder, onnx, int8=int8, opset=opset, check=check, images=images, data=data, seed=seed, report=typer.echo
    )


@app.command()
def catalogue(
    key: Annotated[
        str | None,
        typer.Argument(help="A data set, of which all is shown; the list if left out.", show_default=False),
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option("--node", metavar="NODE", help="Shows this anatomy node or one below it.", show_default=False),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", metavar="NAME", help="Has labels for this task.", show_default=False)
    ] = None,
    licence: Annotated[
        list[str] | None,
        typer.Option("--licence", metavar="TEXT", help="Has this in its licence.", show_default=False),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            metavar="WORDS",
            help="Has these words in its names, nodes, tasks, modality, licence, access, layout or note.",
            show_default=False,
        ),
    ] = None,
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Its licence allows commercial use, as far as is known.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List public ultrasound data sets, or what is known of one. An option may be given several times; all must be met.

    \b
    Examples:
      echocare catalogue                                            all of them
      echocare catalogue busbra                                     licence, files, how to get it, sources
      echocare catalogue --node liver --task segmentation           what shows the liver, with masks
      echocare catalogue --node fetus --commercial                  all below a region
      echocare catalogue --text "carotid frames" --json             for scripts
    """
    from .anatomy import AnatomyTree
    from .data.catalogue import filter_catalogue, find_dataset, read_catalogue
    from .data.catalogue_text import WIDTH, format_entry, format_table

    entries = read_catalogue()
    if key is not None:
        if commercial or node or task or licence or text:
            raise ValueError("KEY names one data set; leave out KEY to use --node, --task and the other filters")
        entry = find_dataset(entries, key)
        if as_json:
            _print_json(entry.as_dict())
        else:
            typer.echo(format_entry(entry, AnatomyTree.default()))
        return
    found = filter_catalogue(entries, commercial=commercial)
    options = {"node": node, "task": task, "licence": licence, "text": text}
    conditions: list[dict[str, Any]] = [{name: value} for name, values in options.items() for value in values or ()]
    for condition in conditions:
        found = filter_catalogue(found, **condition)
    if as_json:
        _print_json([entry.as_dict() for entry in found])
    else:
        typer.echo(format_table(found, shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH))


@app.command()
def publish(
    folder: Annotated[
        str, typer.Argument(help="A model folder, one of `echocare curate`, or the bare name echocare-tiny.")
    ],
    repo_id: Annotated[
        str, typer.Option("--repo-id", metavar="ORG/NAME", help="The repository on the Hub; made if it is not there.")
    ],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who sees it; private unless told.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything but the upload; show the files and the card.")
    ] = False,
    examples: Annotated[
        list[str] | None,
        typer.Option(
            "--examples",
            metavar="FILE",
            help="An image, clip or DICOM file to show, or a folder of them; phantoms if left out.",
            show_default=False,
        ),
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", help="Of the commit.", show_default=False)
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", metavar="TOKEN", help="Of the Hub; the one of `hf auth login` if left out.", show_default=False
        ),
    ] = None,
    max_file_mb: Annotated[
        float, typer.Option("--max-file-mb", metavar="MB", help="Refuse a folder with a larger file.")
    ] = 5000.0,
    new_card: Annotated[
        bool, typer.Option("--new-card", help="Write the card anew from the records in the folder.")
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license", "--licence", metavar="ID", help="The licence, in place of the card's.", show_default=False
        ),
    ] = None,
    audited: Annotated[
        bool, typer.Option("--audited", help="You have looked at what audit.csv of a data set lists.")
    ] = False,
) -> None:
    """Put a model or a curated data set on the Hub, so that strangers can load it.

    One commit holds weights, code, image processor, pipelines, card, examples with what the model really returned, and the handler of
    Inference Endpoints. Refused are pickles, secrets, paths of this machine, example images that may tell who is on them, files over a
    limit, and a card without licence, data or metrics. A process without this package loads the result before the upload and from the Hub
    after it. HF_ENDPOINT names another server. An upload that was interrupted leaves the repository as it was; give the command again.

    \b
    Examples:
      echocare publish runs/lesion --repo-id my-lab/lesion --dry-run
      echocare publish runs/lesion --repo-id my-lab/lesion                       private
      echocare publish echocare-tiny --repo-id my-lab/echocare-tiny --public
      echocare publish runs/lesion --repo-id my-lab/lesion --examples a.png --examples b.png
      echocare publish corpus --repo-id my-lab/corpus                            of echocare curate
    """
    from .hub.publish import PublishOptions
    from .hub.publish import publish as run

    options = PublishOptions(
        repo_id=repo_id,
        private=private,
        dry_run=dry_run,
        token=token,
        message=message,
        max_file_mb=max_file_mb,
        examples=examples or [],
        new_card=new_card,
        licence=licence,
        audited=audited,
    )
    run(folder, options, typer.echo)


@app.command()
def demo(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="ID_OR_FOLDER",
            help="A checkpoint's folder, Hub id or bare name; once for each model.",
            show_default="echocare-tiny",
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            "--report",
            metavar="ID_OR_FOLDER",
            help="A report generator, which writes a draft report; it may be among the models instead.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="To listen at.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65535, help="To listen at; a free one from 7860 on if left out.", show_default=False
        ),
    ] = None,
    max_mb: Annotated[float, typer.Option("--max-mb", metavar="MB", help="Largest file that is taken.")] = 64,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", metavar="S", help="Longest time of the models for a file.")
    ] = 60,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
    save_space: Annotated[
        Path | None,
        typer.Option(
            "--save-space",
            metavar="DIR",
            help="Write the page as a Space, ready to push, and end.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show what the models see, on a web page of this machine.

    Takes an image, a DICOM file or a clip, and shows the anatomy, overlays, measurements, enhanced images, a draft report and what a score
    rests on; with downloads. echocare-tiny tells the anatomy unless a model of yours does. Nothing is sent anywhere. Not a medical device.

    \b
    Examples:
      echocare demo
      echocare demo --model head=runs/fetal-head --model runs/lesion
      echocare demo --model runs/lesion --report runs/reports              a draft report, its frames beside it
      echocare demo --host 0.0.0.0 --port 8080 --no-browser --max-mb 20    for others in your network
      echocare demo --model runs/lesion --save-space my-space              a folder for huggingface.co/spaces
    """
    from .app.command import run_command, write_space
    from .app.limits import Limits

    limits = Limits(max_mb, max_seconds)
    if save_space is not None:
        write_space(save_space, [*(model or []), *([report] if report else [])], limits, typer.echo)
    else:
        run_command(model or [], host, port, limits, browser, typer.echo, report)


def main() -> None:
    """Entry point of the script `echocare`."""
    app()


if __name__ == "__main__":
    main()
