"""transformers' own common tests on what ships: `test_transformers_common.py` runs this file where they are unpacked.

A test that does not apply is overridden, with the reason.
"""

import unittest

import torch
from tests.test_configuration_common import ConfigTester
from tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin
from tests.test_modeling_common import ModelTesterMixin, floats_tensor
from tests.test_processing_common import ProcessorTesterMixin

from modeling_mfdn import (
    Label2LabelConfig,
    Label2LabelModel,
    MFDNConfig,
    MFDNImageProcessor,
    MFDNModel,
    MFDNProcessor,
    MultiLabelConfig,
    MultiLabelModel,
)
from modeling_mfdn.configuration_mfdn import IGNORE_INDEX
from modeling_mfdn.training.tag_tokenizer import build_tag_tokenizer

SIZES = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "num_vision_layers": 2,
    "num_text_layers": 1,
    "num_fusion_layers": 2,
    "num_decoder_layers": 1,
    "max_tag_tokens": 7,
    "num_tags": 41,
    "num_labels": 6,
}


class Tester:
    """Tiny configurations and inputs of one model class."""

    batch_size = 5

    def __init__(self, parent, config_class, **options):
        self.parent, self.config_class, self.options = parent, config_class, SIZES | options
        self.is_training = True
        self.hidden_size, self.num_attention_heads = SIZES["hidden_size"], SIZES["num_attention_heads"]
        self.num_hidden_layers = SIZES["num_fusion_layers"]  # of which states and attentions are recorded
        self.seq_length = (SIZES["image_size"] // SIZES["patch_size"]) ** 2 + 1

    def get_config(self):
        return self.config_class(**self.options)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        size = config.image_size
        inputs = {"pixel_values": floats_tensor([self.batch_size, config.num_channels, size, size])}
        if config.modality == "image+tags":
            ids = torch.tensor([2, 5, 9, 4, 15, 6, 3])  # [CLS], tags and one [MASK], [SEP]
            inputs["input_ids"] = ids.repeat(self.batch_size, 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            self.seq_length = config.num_vision_tokens + config.max_tag_tokens - 1  # without the hidden tag
        return config, inputs


class ModelTest(ModelTesterMixin):
    config_class, options = None, {}
    not_written = {"num_labels"}  # it stands as `id2label`
    test_resize_embeddings = False
    has_attentions = True

    def setUp(self):
        self.model_tester = Tester(self, self.config_class, **self.options)
        self.config_tester = ConfigTester(
            self,
            config_class=self.config_class,
            has_text_modality=False,
            common_properties=["hidden_size", "num_attention_heads", "image_size", "patch_size"],
            **{name: size for name, size in SIZES.items() if name not in self.not_written},
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels:
            config = self.model_tester.get_config()
            inputs["labels"] = torch.zeros(self.model_tester.batch_size, dtype=torch.long)
            if config.predicts_tags:
                labels = torch.tensor([IGNORE_INDEX, IGNORE_INDEX, 3, 1, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX])
                inputs["tag_labels"] = labels.repeat(self.model_tester.batch_size, 1)
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()


class OfPicturesAlone(ModelTest):
    def test_model_get_set_embeddings(self):
        """As transformers' own test of ViT has it: what embeds pictures is no nn.Embedding."""
        model = self.all_model_classes[0](self.model_tester.get_config())
        assert isinstance(model.get_input_embeddings(), torch.nn.Conv2d)
        model.set_input_embeddings(new := torch.nn.Conv2d(3, 24, 8, 8))
        assert model.get_input_embeddings() is new


class MFDNModelTest(ModelTest, unittest.TestCase):
    all_model_classes = (MFDNModel,)
    config_class = MFDNConfig
    test_resize_embeddings = True

    def test_resize_tokens_embeddings(self):
        """All of it but its end, which sets the vocabulary to 4 tokens: ours has 5 special ones."""
        with self.assertRaisesRegex(ValueError, "special tokens"):
            super().test_resize_tokens_embeddings()


class MFDNImageModelTest(OfPicturesAlone, unittest.TestCase):
    all_model_classes = (MFDNModel,)
    config_class, options = MFDNConfig, {"modality": "image"}


class MultiLabelModelTest(OfPicturesAlone, unittest.TestCase):
    all_model_classes = (MultiLabelModel,)
    config_class = MultiLabelConfig
    not_written = {"num_labels", "num_text_layers", "num_decoder_layers"}  # 0, whatever is asked for


class Label2LabelModelTest(OfPicturesAlone, unittest.TestCase):
    all_model_classes = (Label2LabelModel,)
    config_class = Label2LabelConfig
    not_written = {"num_labels", "num_text_layers", "num_decoder_layers"}  # 0, whatever is asked for


class ProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = MFDNProcessor

    @classmethod
    def setUpClass(cls):
        """Without the `auto_map` of classes that travel with a model, which these tests do not know."""
        cls.registered = [(each, each._auto_class) for each in (MFDNProcessor, MFDNImageProcessor)]
        MFDNProcessor._auto_class = MFDNImageProcessor._auto_class = None
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        for each, name in cls.registered:
            each._auto_class = name

    def prepare_text_inputs(self, batch_size=None, modalities=None):
        """A text of ours is tags with commas between; one tag alone is what the tokenizer makes the same of."""
        return "lower" if batch_size is None else ["lower", "newer", "upper", "older"][:batch_size]

    @unittest.skip("MFDN answers about pictures: a call with tags and no picture is an error.")
    def test_processor_text_has_no_visual(self):
        pass

    @classmethod
    def _setup_tokenizer(cls):
        return build_tag_tokenizer(["lower", "newer", "upper", "older", "longer", "string"], 32)

    @classmethod
    def _setup_image_processor(cls):
        return MFDNImageProcessor()


class Pictures(ImageProcessingTester):
    def __init__(self, parent):
        super().__init__(parent, size={"height": 18, "width": 20})

    def _get_image_processing_classes(self):
        return {"torchvision": MFDNImageProcessor}


class ImageProcessorTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = Pictures

    @unittest.skip("Every picture becomes RGB, on white where it is transparent.")
    def test_call_numpy_4_channels(self):
        pass
