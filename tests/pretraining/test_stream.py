"""The stream: each image once an epoch, the same for any number of processes, and the changes on the way in."""

import numpy as np
import pytest
import torch
from corpora import SIDE, picture, write_files, write_shards
from PIL import Image

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.pretraining.corpus import read_corpus
from echocare_hf.pretraining.recipe import Recipe
from echocare_hf.pretraining.stream import Batch, Changes, StreamImages, batches, resize

TREE = AnatomyTree.default()
NONE = Changes(crop=0, flip_horizontal=0, flip_vertical=0, grey=0, jitter=0)


@pytest.fixture(scope="module", params=[write_files, write_shards])
def corpus(request, tmp_path_factory):
    return read_corpus([str(request.param(tmp_path_factory.mktemp("corpus") / "a"))], TREE)


def recipe_of(**values):
    return Recipe(
        **{
            "data": ["x"],
            "output_dir": "y",
            "steps": 9,
            "batch_size": 8,
            "image_size": "32",
            "warmup_steps": 1,
            **values,
        }
    )


def stream(corpus, start=0, rank=0, processes=1, **values):
    recipe = recipe_of(**values)
    images = StreamImages(corpus, Changes.of(recipe), recipe.seed, 16)
    return list(batches(images, recipe, recipe.schedule(), start, rank, processes))


def rows(steps):
    return [row for step in steps for batch in step for row in batch.rows.tolist()]


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(value, other.as_dict()[name]) for name, value in one.as_dict().items())


def test_every_image_is_seen_once_an_epoch_in_another_order_each(corpus):
    seen = rows(stream(corpus))  # 72 = 3 x 24
    epochs = [seen[:24], seen[24:48], seen[48:]]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != sorted(epochs[0])
    assert rows(stream(corpus, seed=1)) != seen


def test_shards_are_read_one_run_after_another(tmp_path):
    corpus = read_corpus([str(write_shards(tmp_path / "a"))], TREE)
    images = StreamImages(corpus, NONE, 0, 16)
    order, blocks = images.order.epoch(0), corpus.images.blocks()
    owner = np.repeat(np.arange(len(blocks)), blocks)[order]
    assert (np.diff(owner) != 0).sum() == len(blocks) - 1


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_sees_the_same_images_changed_alike(corpus, processes):
    alone = stream(corpus)
    shares = [stream(corpus, rank=rank, processes=processes) for rank in range(processes)]
    for step, parts in enumerate(zip(*shares, strict=True)):
        for name, value in alone[step][0].as_dict().items():
            assert torch.equal(torch.cat([part[0].as_dict()[name] for part in parts]), value), name


def test_accumulated_parts_are_the_batch(corpus):
    whole, halves = stream(corpus)[2][0], stream(corpus, accumulation=2)[2]
    assert torch.equal(torch.cat([half.pixel_values for half in halves]), whole.pixel_values)


def test_a_stream_goes_on_anywhere_also_with_workers(corpus):
    whole = stream(corpus)
    for start, workers in ((4, 0), (7, 2)):
        rest = stream(corpus, start=start, workers=workers)
        assert len(rest) == 9 - start
        assert all(equal(one[0], other[0]) for one, other in zip(whole[start:], rest, strict=True))


def test_size_follows_the_schedule(corpus):
    sides = [step[0].pixel_values.shape[-1] for step in stream(corpus, image_size="0:32 0.5:48")]
    assert sides == [32] * 5 + [48] * 4
    assert stream(corpus, image_size="0:32 0.5:48")[-1][0].noise.shape == (8, 3, 3)


def test_labels_belong_to_their_images(corpus):
    for batch in (step[0] for step in stream(corpus)):
        for row, labels, levels in zip(batch.rows.tolist(), batch.labels, batch.levels, strict=True):
            path = TREE.path_nodes(int(corpus.nodes[row]))
            assert labels.numpy().tolist() == TREE.labels(int(corpus.nodes[row])).tolist()
            assert levels.tolist()[: len(path)] == path


def test_a_batch_that_cannot_be_cut_is_refused(corpus):
    with pytest.raises(ValueError, match=r"batch_size \(8\) must be a multiple of accumulation x processes \(1 x 3\)"):
        stream(corpus, processes=3)


def test_resizing_is_that_of_pillow():
    pixels = picture(0)
    expected = np.asarray(Image.fromarray(pixels).resize((48, 48), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize(pixels[..., None], 48)[0].numpy() - expected).max() <= 1


def test_without_changes_the_image_comes_through():
    image = NONE(picture(0)[..., None], SIDE, torch.Generator())
    np.testing.assert_array_equal(image.numpy(), np.repeat(picture(0)[None] / np.float32(255), 3, 0))


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", 1), ("flip_vertical", 0)])
def test_mirroring(name, axis):
    changes = Changes(**{**vars(NONE), name: 1.0})
    image = changes(picture(0)[..., None], SIDE, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(image[0].numpy(), np.flip(picture(0), axis) / np.float32(255))


def test_crops_keep_to_their_share_and_aspect():
    changes = Changes(crop=1, crop_scale=(0.3, 0.8), crop_aspect=(0.8, 1.25))
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        down, across = changes.draw_crop(200, 300, generator)
        height, width = down.stop - down.start, across.stop - across.start
        assert 0.29 < height * width / 60000 < 0.81
        assert min(down.start, across.start) >= 0 and down.stop <= 200 and across.stop <= 300
        if height < 200 and width < 300:
            assert 0.78 < (width / 300) / (height / 200) < 1.28


def test_grey_takes_the_colour_away():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    image = Changes(**{**vars(NONE), "grey": 1.0})(pixels, 40, torch.Generator())
    expected = np.asarray(Image.fromarray(pixels).convert("L")) / 255
    assert torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])
    np.testing.assert_allclose(image[0].numpy(), expected, atol=1 / 255)
