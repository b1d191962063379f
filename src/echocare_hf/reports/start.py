"""What a run does before it trains on image-report pairs: each part of the generator gets a start of its own."""

import time

from .findings_start import start_findings_head
from .frozen import encode_once
from .job import ReportJob
from .text_start import start_decoder

TEXT_SHARE = 0.5  # of the time of a run that is capped, at most


def prepare_start(job: ReportJob) -> float:
    """Encodes images once where the encoder does not learn; the findings head and the decoder get their start.

    A report generator that is trained on has had both. A run that goes on after it was cut off does this again, and then loads what it
    had learned.

    Args:
        job: of the run; its model is changed, and its examples get what the encoder made of them.

    Returns:
        Seconds in which the decoder learned, on the clock of the run's cap.
    """
    arguments, encoder = job.arguments, job.model.encoder
    if arguments.freeze_encoder:
        copies = arguments.copies if arguments.augmentation > 0 else 0
        fits = [encode_once(encoder, data, copies) for data in job.sets.values() if len(data)]
        if not all(fits):
            print("note: the encoded images do not fit into memory; they are encoded anew in every step", flush=True)
    if job.is_trained:
        return 0.0
    if arguments.head_start and not job.is_random and start_findings_head(job):
        job.model.findings_head.requires_grad_(not arguments.freeze_encoder)
    clock = time.monotonic if arguments.cpu_minutes is None else time.process_time
    minutes = arguments.cpu_minutes or arguments.minutes
    start = clock()
    loss = start_decoder(job, arguments.text_steps, TEXT_SHARE * minutes if minutes else None, clock)
    if loss is not None:
        print(f"the decoder has learned the texts: validation cross-entropy {loss:.3f} nats a token", flush=True)
    return clock() - start


__all__ = ["prepare_start"]
