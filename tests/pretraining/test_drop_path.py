"""Drop path by image: what is dropped is that of the numbers of each image, however a batch is cut."""

import torch

from echocare_hf.model.layers_echocare import EchoCareDropPath
from echocare_hf.pretraining.drop_path import DropPathOfImages, give_noise
from echocare_hf.pretraining.network import make_network
from echocare_hf.pretraining.recipe import Recipe

CONFIG = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4, "anatomy_hidden_size": 16}


def network_of(rate):
    recipe = Recipe(data=["x"], output_dir="y", image_size="32", config={**CONFIG, "drop_path_rate": rate})
    return make_network(recipe)


def test_an_image_is_kept_where_its_number_is_below_the_share_that_is_kept():
    drop_path, numbers = DropPathOfImages(0.25), torch.tensor([[0.0, 0.9], [0.74, 0.1], [0.76, 0.75]])
    give_noise([drop_path], numbers)
    images = torch.rand(3, 2, 2, 5)
    first, second = drop_path(images), drop_path(images)
    for image, (one, other) in enumerate(((4 / 3, 0), (4 / 3, 4 / 3), (0, 0))):
        torch.testing.assert_close(first[image], images[image] * one)
        torch.testing.assert_close(second[image], images[image] * other)
    give_noise([drop_path], numbers)
    assert torch.equal(drop_path.eval()(images), images)


def test_without_numbers_it_is_the_drop_path_of_the_model():
    images = torch.rand(64, 2, 2, 3)
    torch.manual_seed(3)
    mine = DropPathOfImages(0.5)(images)
    torch.manual_seed(3)
    assert torch.equal(mine, EchoCareDropPath(0.5)(images))


def test_only_blocks_that_drop_need_numbers():
    assert network_of(0.0).branches == 0
    # Rates rise from 0 at the first of three blocks; each asks twice, after attention and after the MLP.
    network = network_of(0.2)
    assert network.branches == 4 and [drop.drop_prob for drop in network.drop_paths] == [0.1, 0.2]


def test_a_batch_cut_in_two_drops_the_same_paths():
    network = network_of(0.6)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 32, 32, generator=generator)
    numbers = torch.rand(8, network.branches, generator=generator)

    def pooled(part):
        give_noise(network.drop_paths, numbers[part])
        return network.model.echocare(images[part]).pooler_output

    whole = pooled(slice(0, 8))
    assert torch.allclose(whole, torch.cat([pooled(slice(0, 4)), pooled(slice(4, 8))]), atol=1e-5)
    give_noise(network.drop_paths, numbers.flip(0))
    assert not torch.allclose(whole, network.model.echocare(images).pooler_output, atol=1e-3)
