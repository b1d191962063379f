"""`echocare demo`: loads the models, makes the examples, starts the page; or writes it as a Space."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers.utils import logging

from echocare_hf.checkpoints import checkpoint_path
from echocare_hf.examination.models import LoadedModel, load_models
from echocare_hf.examination.report_model import load_report_model, split_report_models
from echocare_hf.examination.report_writer import ReportWriter

from .analysis import Analyser
from .examples import Example, examples_folder, make_examples
from .limits import Limits
from .save_space import write_space

EXTRA = 'the web page needs Gradio: pip install "echocare-hf[demo]"'


def run_command(
    models: Sequence[str],
    host: str,
    port: int | None,
    limits: Limits,
    open_browser: bool,
    say: Callable[[str], None],
    report: str | None = None,
) -> None:
    """Serves the page until the program is stopped.

    Args:
        models: checkpoints as `load_models` takes them; `echocare-tiny` joins them for the anatomy if none of them has that task. A report
            generator may be among them.
        host, port: to listen at.
        limits: of a request.
        open_browser: whether to open the page.
        say: prints a line.
        report: a report generator, None for the one among `models`, if there is one.

    Raises:
        ImportError: without Gradio.
        ValueError: for a checkpoint that cannot be loaded.
        OSError: for a port that is taken.
    """
    page_module = import_page()
    others, writer = open_writer(models, report)
    analyser = Analyser(load_with_anatomy(others), limits, writer)
    page = page_module.build_page(analyser, _examples(), host)
    try:
        address = page_module.serve(page, host, port, open_browser)
        say(f"EchoCare is at {address} with {', '.join(facts.name for facts in analyser.facts)}. Ctrl-C ends it.")
        threading.Event().wait()
    finally:
        page_module.stop(page)


def open_writer(models: Sequence[str], report: str | None) -> tuple[list[str], ReportWriter | None]:
    """The models that find things, and what writes draft reports, where a report generator is given.

    Args:
        models: checkpoints, among them perhaps a report generator.
        report: a report generator, None for the one among `models`.

    Raises:
        ValueError: for several generators, or one that cannot be loaded.
    """
    logging.disable_progress_bar()
    others, generator = split_report_models(models, report, unasked=True)
    return others, None if generator is None else ReportWriter(load_report_model(generator))


def load_with_anatomy(models: Sequence[str]) -> list[LoadedModel]:
    """The models, and `echocare-tiny` in front of them if none tells the anatomy."""
    logging.disable_progress_bar()  # the bars of transformers, which count weights
    loaded = load_models(list(models)) if models else []
    if any(model.task == "anatomy" for model in loaded):
        return loaded
    source = str(checkpoint_path())
    if any(model.name == Path(source).name for model in loaded):
        source = f"anatomy={source}"
    return [*load_models([source]), *loaded]


def import_page() -> Any:
    """The module of the page.

    Raises:
        ImportError: with the cure, without Gradio.
    """
    try:
        from . import page
    except ImportError as error:
        if (error.name or "").split(".")[0] != "gradio":
            raise
        raise ImportError(EXTRA) from error
    return page


def _examples() -> list[Example]:
    with tqdm(desc="examples", unit="image", delay=2, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return make_examples(examples_folder(), progress)


__all__ = ["import_page", "load_with_anatomy", "run_command", "write_space"]
