"""SYSU-FLL-CEUS: hepatocellular carcinoma, haemangioma or focal nodular hyperplasia in a contrast-enhanced video.

Layout: a folder a class, `HCC/`, `HEM/`, `FNH/`, with a video (`.avi`) a case.

Verified: the classes, their counts (186, 109, 58) and that every case is of another patient
(lemondan/Focal-liver-lesions-dataset-in-CEUS); folders of classes with `.avi` files in code that reads a local copy.

Assumed: the names of the class folders beyond the classes' own abbreviations; several spellings are accepted.
"""

from pathlib import Path

from echocare_hf.data.labelled import LabelledData, Sample
from echocare_hf.data.labelled.pixels import CINE_FORMATS

from .common import BenchmarkTask, Counts, complete, deal
from .layout import files_of, folders_of, need, roots

CLASSES = ("HCC", "HEM", "FNH")
SPELLINGS = {
    "hcc": "HCC",
    "hepatocellular carcinoma": "HCC",
    "hem": "HEM",
    "hemangioma": "HEM",
    "haemangioma": "HEM",
    "fnh": "FNH",
    "focal nodular hyperplasia": "FNH",
}
PAPER = Counts(train=285, test=68, unit="videos", classes={"HCC": (150, 36), "HEM": (88, 21), "FNH": (47, 11)})


def read(folder: Path, *, strict: bool = True) -> LabelledData:
    """SYSU-FLL-CEUS as its authors publish it. Every video is decoded once, to see that it can be."""
    root = next((path for path in roots(folder) if _class_folders(path)), folder)
    found = _class_folders(root)
    for name in CLASSES:
        if name not in found:
            need(root, name, "SYSU-FLL-CEUS has the folders HCC, HEM and FNH, a video a case in each")
    samples = []
    for label, name in enumerate(CLASSES):
        videos = files_of(found[name], CINE_FORMATS, below=True)
        if not videos:
            raise ValueError(
                f"{found[name] / '1.avi'}: was expected here, a video a case, but there is no video; unpack it again"
            )
        for path in videos:
            case = f"{name}/{path.relative_to(found[name]).with_suffix('').as_posix()}"
            samples.append(Sample(name=case, images=(str(path),), group=case, label=label))
    data = LabelledData(str(root), "video", tuple(samples), class_names=CLASSES)
    return deal(complete(data, strict), PAPER.train, PAPER.test)


def _class_folders(folder: Path) -> dict[str, Path]:
    names = ((SPELLINGS.get(path.name.lower().replace("_", " ")), path) for path in folders_of(folder))
    return {name: path for name, path in names if name is not None}


TASK = BenchmarkTask(
    key="sysu_fll_ceus",
    task="video",
    metrics=("macro_f1",),
    split="by patient (a case each), classes in like shares, seed 0, 285 : 68",
    reader=read,
    data_set="sysu_fll_ceus",
    paper=PAPER,
    figures={"accuracy": 87.12, "macro_f1": 83.44},
)
