"""The benchmarks: the eleven of the EchoCare paper, and two uses of its press texts that public data stand behind.

    from tasks import TASKS
    data = TASKS["ddti"].read("DDTI")
    print(data.summary(), *TASKS["ddti"].check(data), sep="\\n")

Each file reads the layout of one data set as its authors publish it; its head says what of that is verified and what is assumed.
"""

from . import (
    abdomenus,
    brain_landmarks,
    busbra,
    camus,
    ddti,
    focus,
    musv,
    ovarian,
    sysu_fll_ceus,
    thyroid_cineclip,
    thyroid_detection,
    usenhance,
    usreport,
)
from .common import BenchmarkTask, Counts
from .ultrabench import ULTRABENCH

_PAPER = (
    ddti,
    musv,
    abdomenus,
    thyroid_cineclip,
    busbra,
    sysu_fll_ceus,
    focus,
    brain_landmarks,
    camus,
    usenhance,
    usreport,
)
_PRESS = (ovarian, thyroid_detection)

TASKS: dict[str, BenchmarkTask] = {module.TASK.key: module.TASK for module in (*_PAPER, *_PRESS)}
"""Every benchmark by its key, those of the paper first, in its order. The fourteen tasks of UltraBench stand in `ULTRABENCH`."""

__all__ = ["TASKS", "ULTRABENCH", "BenchmarkTask", "Counts"]
