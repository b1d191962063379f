"""Report generators for the tests of draft reports: fresh ones, and one that has learned a report by heart."""

import functools

import numpy as np
import torch
from PIL import Image

from echocare_hf import EchoCareForReportGeneration
from report_sizes import NO_DROPOUT, SMALL_ENCODER

SMALL = {
    **SMALL_ENCODER,
    **NO_DROPOUT,
    "encoder_maps": 1,
    "decoder_n_embd": 64,
    "decoder_n_layer": 1,
    "decoder_n_head": 2,
    "decoder_n_positions": 160,
}


def fresh_generator(texts, **values):
    torch.manual_seed(0)
    return EchoCareForReportGeneration.from_preset("tiny", list(texts), **{**SMALL, **values})


def save_generator(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@functools.cache
def _learned(text, told, steps, findings):
    model, processor = fresh_generator([text] * 2, findings=list(findings) or None)
    random = np.random.default_rng(0)
    organs, indications = zip(*told, strict=True)
    images = [[Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8))] for _ in told]
    batch = processor(
        images=images, text=[text] * len(told), organ=organs, indication=indications, return_tensors="pt"
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(steps):
        output = model(**batch)
        if output.loss < 0.02:
            break
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        for name, parameter in model.findings_head.named_parameters() if findings else ():
            parameter.fill_(3.0 if name.endswith("bias") else 0.0)
    return model.eval(), processor


def learned_generator(text, told=((None, None),), steps=300, findings=()):
    """A generator that writes `text` of any image under each pair of organ and indication, and is sure that all `findings` are present."""
    return _learned(text, tuple(told), steps, tuple(findings))
