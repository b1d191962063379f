"""Before it sees images, the decoder learns the texts themselves, each under the findings that it states.

A decoder that starts from random weights on a hundred image-report pairs learns the pairs by heart before it can write. What reports say
of given findings needs no images, and steps without them are cheap: so the decoder first becomes a language model of the training
reports, told their findings, organ and indication. Batches hold texts of similar length.

Where the tokens of the images will be there are zeros, and the scale of these tokens is 0 afterwards: so training on images starts from
exactly this language model, and not from one that random tokens disturb.

Source: Ramachandran et al. 2017, Unsupervised pretraining for sequence to sequence learning, for decoders that start as language models.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from echocare_hf.model.encoder_echocare_report import EchoCareReportEncoderOutput

from .drafting import split_inputs
from .job import ReportJob

BATCH = 16  # texts a step
RATE = 2.0  # learning rate over that of the run
WARMUP = 0.05  # share of the steps
LEARNS = ("decoder.", "finding_tokens.", "image_attention.")


def start_decoder(
    job: ReportJob, steps: int, minutes: float | None = None, clock: Callable[[], float] = time.monotonic
) -> float | None:
    """Trains the decoder on the texts of the training part, under their findings, without images.

    Args:
        job: of the run; its model is changed.
        steps: of the optimizer.
        minutes (*optional*): most time, on `clock`.
        clock (*optional*): gives seconds.

    Returns:
        The cross-entropy of the validation reports, in nats a token; None without steps.
    """
    model: Any = job.model
    if steps < 1:
        return None
    arguments = job.arguments
    parameters = [p for name, p in model.named_parameters() if name.startswith(LEARNS) and p.requires_grad]
    rate = RATE * arguments.learning_rate
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": arguments.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=rate,
    )
    random = np.random.default_rng(arguments.seed)
    count = _tokens_an_image(job)
    examples = [_words(job, "train", row) for row in range(len(job.sets["train"]))]
    lengths = np.array([len(job.processor.tokenizer(example["report"])["input_ids"]) for example in examples])
    start = clock()
    done = 0
    model.train()
    with tqdm(total=steps, desc="learning the texts", unit="step", leave=False, disable=None) as bar:
        while done < steps:
            for rows in _batches(lengths, random):
                share = done / steps
                if minutes:
                    share = max(share, (clock() - start) / (60 * minutes))
                if share >= 1:
                    done = steps
                    break
                for group in optimizer.param_groups:
                    group["lr"] = rate * _factor(share)
                _loss(job, [examples[row] for row in rows], count).backward()
                torch.nn.utils.clip_grad_norm_(parameters, arguments.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                done += 1
                bar.update()
    model.eval()
    silence_images(model)
    held = [_words(job, "validation", row) for row in range(len(job.sets["validation"]))]
    with torch.inference_mode():
        losses = [float(_loss(job, [example], count)) for example in held]
    return float(np.mean(losses))


def silence_images(model: Any) -> None:
    """Makes the tokens of all images 0, until training gives them a scale."""
    torch.nn.init.zeros_(model.encoder.layernorm.weight)
    torch.nn.init.zeros_(model.encoder.layernorm.bias)


@torch.inference_mode()
def _tokens_an_image(job: ReportJob) -> int:
    data = job.sets["train"]
    shown, _ = split_inputs(job.task.inputs([job.task.example(data.item(0), None)]))
    shown = {
        name: [each.to(job.model.device) for each in value] if isinstance(value, list) else value.to(job.model.device)
        for name, value in shown.items()
    }
    return int(job.model.encoder(**shown).last_hidden_state.shape[1]) // len(data.item(0)["marks"])


def _words(job: ReportJob, part: str, row: int) -> dict[str, Any]:
    item = job.sets[part].item(row)
    return {name: item[name] for name in ("report", "organ", "indication", "findings", "marks")}


def _batches(lengths: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """Rows of one pass, texts of similar length together, in random order."""
    order = random.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    batches = [order[place : place + BATCH] for place in range(0, len(order), BATCH)]
    return [batches[place] for place in random.permutation(len(batches))]


def _loss(job: ReportJob, examples: list[dict[str, Any]], count: int) -> torch.Tensor:
    """The text loss of a batch without images."""
    model = job.model
    words = job.processor(
        text=[example["report"] for example in examples],
        organ=[example["organ"] for example in examples],
        indication=[example["indication"] for example in examples],
        return_tensors="pt",
    ).to(model.device)
    told = {}
    if model.finding_tokens is not None:
        told["stated_findings"] = torch.stack([example["findings"] for example in examples]).to(model.device)
    projection = model.encoder.image_projection
    images = torch.tensor([len(example["marks"]) for example in examples], device=model.device)
    mask = torch.arange(int(images.max()) * count, device=model.device) < (images * count)[:, None]
    nothing = EchoCareReportEncoderOutput(
        last_hidden_state=torch.zeros(*mask.shape, projection.out_features, device=model.device),
        attention_mask=mask,
        pooler_output=torch.zeros(len(examples), 2 * projection.in_features, device=model.device),
    )
    return model(encoder_outputs=nothing, **words, **told).loss


def _factor(share: float) -> float:
    """Of the learning rate, when a share of the steps is done: up in a line, down in half a cosine."""
    if share < WARMUP:
        return max(share, 1e-3) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (share - WARMUP) / (1 - WARMUP)))


__all__ = ["start_decoder"]
