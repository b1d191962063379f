"""Fine-tuning: from labelled images to a trained head, its metrics and its pictures. `training/finetune.py` is its command.

    job = open_job("segmentation", FinetuneArguments(data="lesions", epochs=20))
    trainer = job.trainer(job.model(), Path("checkpoints"))
    train(trainer)
    metrics, predictions = trainer.assess(job.sets["test"])

Any model whose `forward` takes what the task's head takes and answers as it does can stand in the place of `job.model()`: this is how
other networks are measured beside EchoCare, on the same split, with the same augmentation and the same metrics.
"""

from .arguments import FinetuneArguments, parse_arguments
from .callbacks import EarlyStop, HeadFirst, Progress
from .card import write_card
from .fitting import Fitted, fit
from .head_start import HeadStart, start_head
from .job import Job, open_job
from .known_images import save_known_images
from .models import parameter_groups, with_adapters
from .pictures import draw_predictions
from .prepared import PreparedData
from .record import rounded, run_record
from .tasks import TASKS, Task
from .trainer import TaskTrainer, train
from .work_folder import open_work_folder

__all__ = [
    "TASKS",
    "EarlyStop",
    "FinetuneArguments",
    "Fitted",
    "HeadFirst",
    "HeadStart",
    "Job",
    "PreparedData",
    "Progress",
    "Task",
    "TaskTrainer",
    "draw_predictions",
    "fit",
    "open_job",
    "open_work_folder",
    "parameter_groups",
    "parse_arguments",
    "rounded",
    "run_record",
    "save_known_images",
    "start_head",
    "train",
    "with_adapters",
    "write_card",
]
