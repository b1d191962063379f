"""Structured contrast against the sums written out one by one, and against one process when there are two."""

import math
import socket

import pytest
import torch
import torch.distributed as distributed
from torch import multiprocessing

from echocare_hf.pretraining.contrast import ContrastProjection, structured_contrast_loss

LEVELS = torch.tensor(
    [[0, 3, 7], [0, 3, 7], [0, 3, 8], [0, 4, -1], [1, 5, 9], [1, 5, 9], [1, -1, -1], [-1, -1, -1]]
)  # fmt: skip


def written_out(projections, levels, temperature):
    count, depth = levels.shape
    total, weights, coarser = 0.0, 0.0, 0.0
    for level in range(depth):
        anchors = []
        for i in range(count):
            others = [
                p for p in range(count) if p != i and levels[i, level] >= 0 and levels[p, level] == levels[i, level]
            ]
            if others:
                similarity = [math.exp(float(projections[i] @ projections[k]) / temperature) for k in range(count)]
                below = sum(similarity) - similarity[i]
                anchors.append(sum(-math.log(similarity[p] / below) for p in others) / len(others))
        loss = max(sum(anchors) / len(anchors) if anchors else 0.0, coarser)  # the finer never costs less
        coarser = loss
        total += math.exp(1 / (depth - level)) * loss
        weights += math.exp(1 / (depth - level))
    return total / weights


def projections_of(seed, count=8):
    numbers = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(numbers, dim=-1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_is_the_sum_written_out(seed, temperature):
    loss = structured_contrast_loss(projections_of(seed), LEVELS, temperature)
    assert float(loss) == pytest.approx(written_out(projections_of(seed), LEVELS, temperature), rel=1e-5)


def test_finer_level_costs_at_least_the_coarser_one():
    """Fine pairs lie together, but coarse ones apart: the coarse loss counts for all levels."""
    angles = torch.tensor([0.0, 0.0, math.pi, math.pi])
    projections = torch.stack((angles.cos(), angles.sin()), 1)
    levels = torch.tensor([[0, 1], [0, 1], [0, 2], [0, 2]])
    coarse = structured_contrast_loss(projections, levels[:, :1], 0.5)
    assert float(structured_contrast_loss(projections, levels, 0.5)) == pytest.approx(float(coarse), rel=1e-6)
    assert float(structured_contrast_loss(projections, levels[:, 1:], 0.5)) < float(coarse)


def test_draws_equal_paths_together():
    levels = torch.tensor([[0, 1], [0, 1], [2, 3], [2, 3]])
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = torch.optim.Adam([values], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        structured_contrast_loss(torch.nn.functional.normalize(values, dim=-1), levels, 0.2).backward()
        optimizer.step()
    near = torch.nn.functional.normalize(values, dim=-1) @ torch.nn.functional.normalize(values, dim=-1).t()
    assert near[0, 1] > 0.8 and near[2, 3] > 0.8 and near[:2, 2:].max() < 0.2


def test_unlabelled_images_are_no_anchors_and_no_labels_cost_nothing():
    unlabelled = torch.full((8, 3), -1)
    values = projections_of(0).requires_grad_()
    loss = structured_contrast_loss(values, unlabelled)
    loss.backward()
    assert float(loss.detach()) == 0 and torch.equal(values.grad, torch.zeros_like(values))


def test_projection_has_length_one():
    projected = ContrastProjection(12, 4)(torch.randn(3, 12))
    assert torch.allclose(projected.norm(dim=-1), torch.ones(3), atol=1e-6) and projected.shape == (3, 4)


def _half(rank, port, results):
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    values = projections_of(3)[4 * rank : 4 * rank + 4].clone().requires_grad_()
    loss = structured_contrast_loss(values, LEVELS[4 * rank : 4 * rank + 4], 0.3)
    loss.backward()
    mean = loss.detach().clone()
    distributed.all_reduce(mean)
    results[rank] = (float(mean) / 2, values.grad / 2)  # as DistributedDataParallel averages
    distributed.destroy_process_group()


def test_two_processes_with_half_the_images_each_are_one():
    whole = projections_of(3).requires_grad_()
    loss = structured_contrast_loss(whole, LEVELS, 0.3)
    loss.backward()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_half, (port, results), nprocs=2)
        halves = [results[0], results[1]]
    assert halves[0][0] == halves[1][0] == pytest.approx(float(loss.detach()), abs=1e-6)
    assert torch.allclose(torch.cat([gradient for _, gradient in halves]), whole.grad, atol=1e-6)
