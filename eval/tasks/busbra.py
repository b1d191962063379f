"""BUS-BRA: BI-RADS categories 2 to 5 of breast ultrasound images.

Layout: `Images/bus_<number>-<side>.png`, `Masks/mask_<number>-<side>.png` (not read here), `bus_data.csv` (`ID`, `Case`,
`Histology`, `Pathology`, `BIRADS`, `Device`, `Width`, `Height`, `Side`, `BBOX`), `5-fold-cv.csv` and `10-fold-cv.csv` (`ID`,
`Pathology`, `kFold`).

Verified in code that reads the published files and in a user's audit of them (several readers of `5-fold-cv.csv`): names, columns,
`Case` as the patient, folds 1 to 5 of 376, 385, 366, 365 and 383 images and 212 to 214 patients, none in two folds; 1,875 images of
1,064 patients. So no official fold has the paper's 375 images, nor can four of them have its 800 patients.

Assumed: ID may or may not end with `.png`. Fold 1 is the test part unless `fold` says otherwise; the paper does not say which it
took.
"""

from pathlib import Path

from echocare_hf.data.labelled import LabelledData, Sample

from .common import BenchmarkTask, Counts, complete
from .layout import attributes_of, files_of, find_root, need, read_number, read_rows, shortened

CLASSES = ("2", "3", "4", "5")
FOLDS = range(1, 6)
ATTRIBUTES = {
    "Device": "device",
    "Side": "laterality",
    "Pathology": "pathology",
    "Histology": "histology",
    "BIRADS": "birads",
}
"""Columns for results by subgroup."""
PAPER = Counts(
    train=1500,
    test=375,
    unit="images",
    patients=(800, 264),
    note="the official folds have 376, 385, 366, 365 and 383 images of 212 to 214 patients: none of them gives the paper's counts",
)


def read(folder: Path, *, strict: bool = True, fold: int = 1) -> LabelledData:
    """BUS-BRA as its authors publish it.

    Args:
        fold: the official fold to test on, 1 to 5; the other four are the training part.
    """
    if fold not in FOLDS:
        raise ValueError(f"fold is one of 1 to 5, not {fold}")
    root = find_root(
        folder, ("Images", "bus_data.csv", "5-fold-cv.csv"), "BUS-BRA: Images, bus_data.csv and 5-fold-cv.csv"
    )
    folds = {
        _stem(row["ID"]): read_number(row["kFold"], f"{where}, column kFold,", int)
        for where, row in read_rows(need(root, "5-fold-cv.csv", "the official folds"), ("ID", "kFold"))
    }
    samples = []
    for where, row in read_rows(need(root, "bus_data.csv", "the labels"), ("ID", "Case", "BIRADS")):
        name = _stem(row["ID"])
        if name not in folds:
            raise ValueError(
                f"{where}: {name} stands in no fold of {root / '5-fold-cv.csv'}; download both tables again"
            )
        if row["BIRADS"] not in CLASSES:
            raise ValueError(
                f"{where}: {name} has the BI-RADS category {row['BIRADS']!r}, which is none of 2, 3, 4, 5; correct it"
            )
        samples.append(
            Sample(
                name=name,
                images=(str(need(root, f"Images/{name}.png", f"the image that {where} lists")),),
                group=row["Case"],
                split="test" if folds[name] == fold else "train",
                label=CLASSES.index(row["BIRADS"]),
                attributes=attributes_of(row, ATTRIBUTES),
            )
        )
    listed = {Path(str(sample.images[0])) for sample in samples}
    bare = [path.name for path in files_of(need(root, "Images", "the images")) if path not in listed]
    notes = (
        (f"{root}: {len(bare)} images have no row in bus_data.csv and are no examples: {shortened(bare)}",)
        if bare
        else ()
    )
    data = LabelledData(str(root), "classification", tuple(samples), class_names=CLASSES, problems=notes)
    return complete(data, strict)


def _stem(name: str) -> str:
    return name.removesuffix(".png")


TASK = BenchmarkTask(
    key="busbra",
    task="classification",
    metrics=("macro_f1",),
    split="official 5 folds by patient, one of them to test on (fold 1)",
    reader=read,
    data_set="busbra",
    paper=PAPER,
    figures={"accuracy": 70.36, "macro_f1": 65.38},
)
