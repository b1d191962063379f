"""transformers' own `ModelTesterMixin` and `BackboneTesterMixin`, run on EchoCare's models.

What a mixin test asks that does not hold for EchoCare by design is overridden here, with the reason beside it; what
the mixin skips on its own account (no GPU, no text, no generation, ...) is left to it.
"""

import copy
import unittest
from unittest import mock

import pytest
import torch
from transformers.models.auto import modeling_auto

from echocare_hf import EchoCareBackbone, EchoCareConfig, EchoCareForPreTraining, EchoCareModel
from echocare_hf.model.layers_echocare import EchoCarePatchEmbeddings
from upstream_mixins import upstream_module

modeling_common = upstream_module("test_modeling_common")
backbone_common = upstream_module("test_backbone_common")

# heart and liver, with two structures of the heart
TREE = {"ids": ["root", "heart", "liver", "la", "lv"], "names": list("abcde"), "parents": [-1, 0, 0, 1, 1]}

# The mixins learn from these dictionaries which model takes which labels. They name transformers' own models only:
# `AutoModel.register` does not write there.
MIXIN_NAMES = {
    "MODEL_MAPPING_NAMES": "EchoCareModel",
    "MODEL_FOR_PRETRAINING_MAPPING_NAMES": "EchoCareForPreTraining",
    "MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING_NAMES": "EchoCareForPreTraining",
    "MODEL_FOR_BACKBONE_MAPPING_NAMES": "EchoCareBackbone",
}


@pytest.fixture(scope="module", autouse=True)
def names_known_to_the_mixins():
    with pytest.MonkeyPatch.context() as patch:
        for dictionary, name in MIXIN_NAMES.items():
            patch.setitem(getattr(modeling_auto, dictionary), "echocare", name)
        yield


class EchoCareModelTester:
    """A configuration and a batch, as small as the mixins like them: two stages, three blocks, 32x32 pixels.

    The first stage runs over 4x4 whole windows; the second has a shifted block, whose windows need every kind of mask.
    """

    batch_size = 3
    images_per_example = 1  # more for clips
    is_training = True
    image_size = 32
    patch_size = 2
    num_channels = 3
    embed_dim = 16
    depths = [1, 2]
    num_heads = [2, 4]
    window_size = 4
    hidden_size = 64  # of the last map
    num_hidden_layers = 2  # stages
    num_attention_heads = 2  # of the first stage
    seq_length = 16  # tokens of a window, of the last map, and mask units of 8x8 pixels
    num_masks = 8

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        return EchoCareConfig(
            image_size=self.image_size,
            patch_size=self.patch_size,
            num_channels=self.num_channels,
            embed_dim=self.embed_dim,
            depths=self.depths,
            num_heads=self.num_heads,
            window_size=self.window_size,
            initializer_range=0.002,  # small numbers: the mixins compare with absolute tolerances
            mask_unit_size=8,
            drop_path_rate=0.1,
            anatomy_tree=copy.deepcopy(TREE),
            anatomy_hidden_size=8,
            out_features=["stem", "stage1", "stage2"],
        )

    def prepare_config_and_inputs_for_common(self):
        shape = (self.batch_size, self.num_channels, self.image_size, self.image_size)
        return self.get_config(), {"pixel_values": modeling_common.floats_tensor(shape)}


def stage_maps(tester):
    """(tokens, channels) of the maps stem, stage1, stage2."""
    side = tester.image_size // tester.patch_size
    return [(side**2 // 4**index, tester.embed_dim * 2**index) for index in range(len(tester.depths) + 1)]


class EchoCareModelTest(modeling_common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (EchoCareModel, EchoCareForPreTraining, EchoCareBackbone)
    test_resize_embeddings = False  # no vocabulary
    # Asked of models that are newer than 2022 by the copyright line of their file; ours is to pass it too.
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = EchoCareModelTester(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Labels of the pretraining model are anatomy labels, and its reconstruction loss needs a mask.

        The mixin would hand an image model for masked modelling a mask of zeros (nothing masked), and no labels.
        """
        inputs = copy.deepcopy(inputs_dict)
        if return_labels and model_class is EchoCareForPreTraining:
            batch = self.model_tester.batch_size
            mask = torch.zeros(batch, 4, 4, dtype=torch.bool)
            mask[:, ::2] = True
            inputs["bool_masked_pos"] = mask
            inputs["labels"] = torch.tensor([1, 1, 0, 1, -1]).repeat(batch, 1)
        return inputs

    def test_attention_outputs(self):
        """Overridden: there is one entry a block, and each has the windows of all images as its first dimension.

        The mixin expects one entry a `num_hidden_layers`, which for us counts stages (as Swin does).
        """
        tester = self.model_tester
        expected = [
            (
                tester.batch_size * tester.images_per_example * windows,
                heads,
                tester.window_size**2,
                tester.window_size**2,
            )
            for windows, heads in [(16, 2), (4, 4), (4, 4)]
        ]
        for model_class in self.all_model_classes:
            config, inputs = tester.prepare_config_and_inputs_for_common()
            model = model_class._from_config(config, attn_implementation="eager").eval()
            with torch.no_grad():
                outputs = model(**inputs, output_attentions=True)
                assert [tuple(attention.shape) for attention in outputs.attentions] == expected
                assert model(**inputs).attentions is None

                model.config.output_attentions = True
                from_config = model(**inputs)
                assert [tuple(attention.shape) for attention in from_config.attentions] == expected

                # attentions come last of the outputs that the mixin knows, and hidden states add to the outputs
                both = model(**inputs, output_hidden_states=True)
                assert len(both.attentions) == len(expected)
                assert set(both) - set(from_config) <= {"hidden_states", "reshaped_hidden_states"}

    def test_hidden_states_output(self):
        """Overridden: the maps differ in size, from the stem on; the mixin wants the size of the last one everywhere.

        Backbones return them as maps, models as sequences.
        """
        expected = stage_maps(self.model_tester)
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            model = model_class(config).eval()
            with torch.no_grad():
                asked = model(**inputs, output_hidden_states=True)
                model.config.output_hidden_states = True
                configured = model(**inputs)
            for outputs in (asked, configured):
                maps = outputs.hidden_states
                if model_class is EchoCareBackbone:
                    maps = [feature_map.flatten(2).transpose(1, 2) for feature_map in maps]
                assert [tuple(feature_map.shape[1:]) for feature_map in maps] == expected

    def test_retain_grad_hidden_states_attentions(self):
        """Overridden: a hidden state is the normalised copy of a map, a side branch before the last output.

        So the gradient is taken of all hidden states together; the mixin takes it of the last output.
        """
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = EchoCareModel._from_config(config, attn_implementation="eager")
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
        kept = [*outputs.hidden_states, *outputs.attentions]
        for tensor in kept:
            tensor.retain_grad()
        sum(hidden_state.square().sum() for hidden_state in outputs.hidden_states).backward()
        assert all(tensor.grad is not None for tensor in kept)

    def test_model_get_set_embeddings(self):
        """Overridden: what embeds an image is a patch embedding, no `nn.Embedding`; another may take its place."""
        for model_class in self.all_model_classes:
            config = self.model_tester.get_config()
            model = model_class(config)
            assert isinstance(model.get_input_embeddings(), EchoCarePatchEmbeddings)
            assert model.get_output_embeddings() is None
            replacement = EchoCarePatchEmbeddings(config)
            model.set_input_embeddings(replacement)
            assert model.get_input_embeddings() is replacement

    def test_enable_input_require_grads_with_gradient_checkpointing(self):
        """The mixin's own test, which looks for the embedding's weight one level above where a convolution has it."""
        weight = property(lambda embeddings: embeddings.projection.weight)
        with mock.patch.object(EchoCarePatchEmbeddings, "weight", weight, create=True):
            super().test_enable_input_require_grads_with_gradient_checkpointing()


class EchoCareBackboneTest(backbone_common.BackboneTesterMixin, unittest.TestCase):
    all_model_classes = (EchoCareBackbone,)
    config_class = EchoCareConfig
    has_attentions = True

    def setUp(self):
        self.model_tester = EchoCareModelTester(self)
