"""The web page: a drop zone and examples on one side, what was found on the other; Gradio underneath.

`build_page` is the page itself, `serve` starts it. Importing this module imports Gradio, which reads its environment then: analytics are
switched off, and its temporary files lie in a folder of this process alone.
"""

import atexit
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from echocare_hf.data.reading_record import one_line
from echocare_hf.examination.report_page import REPORT_STYLE

from . import panels
from .analysis import Analyser, Answer, as_choices
from .examples import Example
from .folders import RequestFolders
from .kept_frame import KeptFrame, load_clip, save_clips
from .limits import MEGABYTE
from .occlusion import find_targets, occlusion_map
from .occlusion_clip import clip_occlusion
from .pictures import enhanced_layers, findings_layers, occlusion_layers

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr

REQUESTS_AT_ONCE = 4
"""Of which one uses the models, while others are read, drawn or written."""

MOST_WAITING = 64
DELETE_EVERY, DELETE_AFTER = 300, 1800
"""Seconds."""

TEAL = gr.themes.Color(
    *("#eef8fa", "#d5eef3", "#abdce6", "#79c5d5", "#44a8be", "#1b8aa2", "#0f768c", "#0d6073", "#0e4f5f", "#0d414e"),
    "#082a33",
)


@dataclass(eq=False)
class Page:
    """The page and what it needs to run: the models, folders, and Gradio's blocks."""

    blocks: gr.Blocks
    analyser: Analyser
    folders: RequestFolders


class Desk:
    """What the page's events call: a file in, values of components out.

    Args:
        analyser: with the loaded models.
        folders: of requests.
        examples: of the gallery.
    """

    def __init__(self, analyser: Analyser, folders: RequestFolders, examples: Sequence[Example]) -> None:
        self.analyser, self.folders, self.examples = analyser, folders, []
        self.examples_place = folders.root / "examples"
        self.examples_place.mkdir()
        for example in examples:  # Gradio gives out what lies in its own folder, and nothing else
            path, thumbnail = (shutil.copy2(each, self.examples_place) for each in (example.path, example.thumbnail))
            self.examples.append(Example(Path(path), Path(thumbnail), example.caption))

    def analyse(
        self, path: str | None, threshold: float, every: float, spacing: str | None, visitor: str, progress: Any = None
    ) -> Answer:
        """One file through the models; the visitor's former results are dropped.

        Raises:
            ValueError: one line, for the visitor.
        """
        if not path:
            raise ValueError("no file was given: drop one, or choose an example")
        place = Path(path)
        if not place.is_file():
            raise ValueError(f"{place.name}: is not here any more; drop it again")
        choices = as_choices(threshold, every, spacing)

        def tell(done: int, total: int | None) -> None:
            if progress is not None and total and total > 1:
                progress((done, total), desc="frames", unit="frame")

        folder = self.folders.new(visitor)
        if place.parent != self.examples_place:
            self.folders.uses(visitor, place)
        try:
            answer = self.analyser.analyse(place, place.name, folder, choices, tell)
            KeptFrame.of(answer).save(folder)
            save_clips(answer, folder)
        except ValueError as error:
            self.folders.remove(folder)
            raise ValueError(one_line(str(error).replace(str(place), place.name), 400)) from None
        except BaseException:
            self.folders.remove(folder)
            raise
        self.folders.drop_former(visitor, but=folder.name)
        return answer

    # What the events return ---------------------------------------------------------------------------------

    def show(
        self,
        path: str | None,
        threshold: float,
        every: float,
        spacing: str | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        """Analyses a file for the page; values of `_Results.outputs`."""
        try:
            answer = self.analyse(path, threshold, every, spacing, _visitor(request), progress)
        except ValueError as error:
            return self._nothing(panels.problem(str(error)), {"error": str(error)})
        layers = findings_layers(answer, self.analyser.style(float(threshold)))
        video = next((str(file) for file in answer.files if file.name == "overlay.mp4"), None)
        wipes = [
            panels.layers_panel(each, f"{answer.result.name}, enhanced", "Before / after", 0.5, wipe=True)
            for each in enhanced_layers(answer).values()
        ]
        targets = [
            (panels.target_name(each), f"{each.model}\n{each.label}")
            for each in find_targets(answer.found, answer.result.clip)
        ]
        name = f"frame {answer.found.index}" if answer.is_clip else answer.result.name
        return [
            answer.folder.name,
            panels.summary(answer),
            panels.layers_panel(layers, name, "Opacity of the findings"),
            panels.findings(answer),
            gr.update(visible=True),
            gr.update(value=video, visible=video is not None),
            gr.update(value="".join(wipes)),
            gr.update(visible=bool(wipes)),
            panels.report(answer),
            gr.update(visible="report" in answer.record),
            gr.update(choices=targets, value=targets[0][1] if targets else None),
            "",
            gr.update(visible=bool(targets)),
            gr.update(value=[str(file) for file in answer.files]),
            answer.record,
        ]

    def clear(self) -> list[Any]:
        """What stands in the results while a file is analysed."""
        return self._nothing(panels.WORKING, None)

    def _nothing(self, said: str, record: Any) -> list[Any]:
        hidden = gr.update(visible=False)
        return [
            *("", said, "", "", hidden),
            *(gr.update(value=None, visible=False), "", hidden, "", hidden),
            *(gr.update(choices=[], value=None), "", hidden, gr.update(value=None), record),
        ]

    def answer(
        self, file: str | None, threshold: float, every: float, spacing: str | None, request: gr.Request
    ) -> tuple[dict[str, Any], list[str]]:
        """For programs: the record of result.json, and the files; an error is raised."""
        try:
            answer = self.analyse(file, threshold, every, spacing, _visitor(request))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return answer.record, [str(each) for each in answer.files]

    def explain(self, token: str, target: str | None) -> str:
        """The occlusion map of a score of the last file."""
        try:
            if not target:
                raise ValueError("choose a score first")
            folder = self.folders.find(token)
            frame = KeptFrame.load(folder)
            model_name, label = target.split("\n", 1)
            model = self.analyser.model(model_name)
            pixels = frame.pixels if model.sees_whole_image else frame.crop
            with self.analyser.turn() as check:
                if model.task == "video":
                    seen = load_clip(folder, self.analyser.clip_models.index(model.name))
                    of_clip = clip_occlusion(model, seen, label, pixels.shape[:2], check)
                    found, said = of_clip.places, panels.clip_occlusion(label, of_clip)
                else:
                    found = occlusion_map(model, pixels, label, check)
                    said = panels.occlusion(label, found)
        except ValueError as error:
            return panels.problem(str(error))
        layers = occlusion_layers(pixels, found)
        return panels.layers_panel(layers, f"What {label} rests on", "Opacity of the map", 0.8) + said

    def choose(self, event: gr.SelectData) -> str:
        """The file of an example."""
        return str(self.examples[event.index].path)

    def leave(self, request: gr.Request) -> None:
        """Drops what belongs to a visitor who closes the page."""
        self.folders.leave(_visitor(request))


def build_page(analyser: Analyser, examples: Sequence[Example] = (), host: str = "127.0.0.1") -> Page:
    """The page for loaded models.

    Args:
        analyser: with the models and limits.
        examples: of the gallery; none leaves it out.
        host: address that the page is served at, for what it says of where files go.
    """
    folders = RequestFolders(DELETE_AFTER)
    atexit.register(folders.close)
    os.environ["GRADIO_TEMP_DIR"] = str(folders.root)
    desk = Desk(analyser, folders, examples)
    limits = analyser.limits
    with gr.Blocks(
        title="EchoCare", analytics_enabled=False, delete_cache=(DELETE_EVERY, DELETE_AFTER), fill_width=True
    ) as blocks:
        gr.HTML(panels.header(panels.where_files_go(host)), elem_id="ec-top")
        token = gr.State("")
        with gr.Row(elem_id="ec-main", equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_id="ec-input"):
                file = gr.File(label="Image, DICOM or clip", file_count="single", height=170, elem_id="ec-file")
                gr.HTML(f'<p class="ec-soft ec-limits">{panels.text(panels.limits_line(limits))}</p>')
                run = gr.Button("Analyse", variant="primary", elem_id="ec-run")
                gallery = None
                if examples:
                    gr.HTML('<h2 class="ec-small">Examples</h2>')
                    gallery = gr.Gallery(
                        [(str(example.thumbnail), example.caption) for example in desk.examples],
                        label="Examples",
                        show_label=False,
                        columns=3,
                        height="auto",
                        allow_preview=False,
                        object_fit="cover",
                        interactive=False,
                        buttons=[],
                        elem_id="ec-examples",
                    )
                with gr.Accordion("Options", open=False, elem_id="ec-options"):
                    threshold = gr.Slider(
                        *(0.05, 0.95, 0.5),
                        step=0.05,
                        label="Threshold",
                        info="Least score of objects and of steps on the anatomy path",
                    )
                    every = gr.Number(
                        *(1,), label="Every n-th frame", info="Of clips", minimum=1, maximum=1000, precision=0
                    )
                    spacing = gr.Textbox(
                        label="Pixel spacing",
                        info="Millimetres per pixel, down and across, for files without it: 0.2 or 0.2,0.3",
                        max_lines=1,
                    )
                gr.HTML(panels.models_panel(analyser.facts))
            with gr.Column(scale=7, min_width=320, elem_id="ec-results"):
                summary = gr.HTML(panels.WAITING, elem_id="ec-summary")
                with gr.Row(equal_height=False, elem_id="ec-pair"):
                    with gr.Column(scale=6, min_width=300):
                        viewer = gr.HTML(elem_id="ec-picture")
                    with gr.Column(scale=5, min_width=280):
                        findings = gr.HTML(elem_id="ec-found")
                clip = gr.Video(
                    label="Clip with findings",
                    visible=False,
                    interactive=False,
                    buttons=["download"],
                    elem_id="ec-clip",
                )
                with gr.Tabs(visible=False, elem_id="ec-tabs") as tabs:
                    with gr.Tab("Enhanced", visible=False) as enhanced_tab:
                        enhanced = gr.HTML(elem_id="ec-enhanced")
                    with gr.Tab("Report draft", visible=False) as report_tab:
                        report = gr.HTML(elem_id="ec-report")
                    with gr.Tab("Why this score?") as map_tab:
                        with gr.Row(equal_height=False):
                            target = gr.Dropdown(
                                label="Score",
                                info="Parts of the image are covered in turn; where the score falls, it rests on them.",
                                choices=[],
                                elem_id="ec-target",
                            )
                            explain = gr.Button("Compute occlusion map", elem_id="ec-explain")
                        heat = gr.HTML(elem_id="ec-heat")
                    with gr.Tab("Downloads"):
                        downloads = gr.File(
                            label="PNG, JSON, DICOM", file_count="multiple", interactive=False, elem_id="ec-downloads"
                        )
                    with gr.Tab("JSON"):
                        record = gr.JSON(label="result.json", show_label=False, max_height=480, elem_id="ec-json")
        outputs = [
            *(token, summary, viewer, findings, tabs, clip, enhanced, enhanced_tab, report, report_tab),
            *(target, heat, map_tab, downloads, record),
        ]
        inputs = [file, threshold, every, spacing]
        starts = [file.upload, run.click]
        if gallery is not None:
            chosen = gallery.select(
                desk.choose, outputs=file, queue=False, show_progress="hidden", api_visibility="private"
            )
            starts.append(chosen.success)
        for number, start in enumerate(starts):
            cleared = start(desk.clear, outputs=outputs, queue=False, show_progress="hidden", api_visibility="private")
            cleared.then(
                desk.show,
                inputs,
                outputs,
                api_name="show" if number == 0 else None,
                api_visibility="undocumented" if number == 0 else "private",
                concurrency_id="analyse",
                concurrency_limit=REQUESTS_AT_ONCE,
                show_progress_on=summary,
            ).then(None, js="() => window.echocareShowResults()", api_visibility="private")
        explain.click(
            desk.explain,
            [token, target],
            heat,
            api_name="explain",
            api_visibility="undocumented",
            concurrency_id="analyse",
        )
        call = gr.Button(visible=False)
        given = gr.File(label="file", visible=False)
        answered = gr.JSON(label="record", visible=False)
        written = gr.File(label="files", file_count="multiple", visible=False)
        call.click(
            desk.answer,
            [given, threshold, every, spacing],
            [answered, written],
            api_name="analyse",
            api_description="Analyses one file: the record of result.json, and the files that were written.",
            concurrency_id="analyse",
        )
        blocks.unload(desk.leave)
    blocks.queue(max_size=MOST_WAITING, default_concurrency_limit=REQUESTS_AT_ONCE)
    return Page(blocks, analyser, folders)


def serve(page: Page, host: str, port: int | None = None, open_browser: bool = False) -> str:
    """Starts the page; it is served by threads of this process until `stop`.

    Args:
        page: from `build_page`.
        host, port: to listen at; a free port from 7860 on without one.
        open_browser: whether to open it in the user's browser.

    Returns:
        Its address.

    Raises:
        OSError: if the port is taken.
    """
    _, address, _ = page.blocks.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=int(page.analyser.limits.megabytes * MEGABYTE),
        theme=theme(),
        css=f"{_part('style.css')}\n.ec-draft {{ {REPORT_STYLE} }}",
        head=f'<meta name="referrer" content="no-referrer"><script>{_part("viewer.js")}</script>',
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=True,
    )
    return address


def stop(page: Page) -> None:
    """Ends a page that is served, and removes its folders."""
    page.blocks.close(verbose=False)
    page.folders.close()


def theme() -> gr.themes.Base:
    """The colours of the package's other pages, and the fonts of the visitor's system: nothing is fetched."""
    fonts = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
    base = gr.themes.Base(
        primary_hue=TEAL,
        secondary_hue=TEAL,
        neutral_hue="slate",
        font=fonts,
        font_mono=[gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
        radius_size="lg",
    )
    return base.set(
        body_background_fill="#f2f5f7",
        body_background_fill_dark="#0c1217",
        body_text_color="#16212b",
        body_text_color_dark="#e8edf2",
        block_background_fill="#ffffff",
        block_background_fill_dark="#151d24",
        block_border_color="#d9dfe5",
        block_border_color_dark="#2a3640",
        button_primary_background_fill="#0f768c",
        button_primary_background_fill_hover="#0d6073",
        button_primary_background_fill_dark="#1b8aa2",
        button_primary_text_color="#ffffff",
    )


def _part(name: str) -> str:
    """A file that lies beside this one."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _visitor(request: gr.Request | None) -> str:
    return str(getattr(request, "session_hash", None) or "nobody")


__all__ = ["Desk", "Page", "build_page", "serve", "stop", "theme"]
