"""Fine-tuning: from labelled images to a trained head, its metrics and its pictures. `training/finetune.py` is its command.

    job = open_job("segmentation", FinetuneArguments(data="lesions", epochs=20))
    trainer = job.trainer(job.model(), Path("checkpoints"))
    train(trainer)
    metrics, predictions = trainer.assess(job.sets["test"])

Any model whose `forward` takes what the task's head takes and answers as it does can stand in the place of `job.model()`: this is how
other networks are measured beside EchoCare, on the same split, with the same augmentation and the same metrics.
"""

from .arguments import FinetuneArguments, parse_arguments
from .card import write_card
from .head_start import start_head
from .job import Job, open_job
from .models import parameter_groups
from .pictures import draw_predictions
from .prepared import PreparedData
from .record import rounded, run_record
from .tasks import TASKS, Task
from .trainer import Progress, TaskTrainer, train

__all__ = [
    "TASKS",
    "FinetuneArguments",
    "Job",
    "PreparedData",
    "Progress",
    "Task",
    "TaskTrainer",
    "draw_predictions",
    "open_job",
    "parameter_groups",
    "parse_arguments",
    "rounded",
    "run_record",
    "start_head",
    "train",
    "write_card",
]
