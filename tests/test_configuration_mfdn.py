import json

import pytest

from modeling_mfdn.configuration_mfdn import MFDNConfig


def test_defaults_are_the_paper():
    config = MFDNConfig()
    paper = {
        "image_size": 128,
        "patch_size": 16,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "num_vision_layers": 12,
        "num_text_layers": 12,
        "num_fusion_layers": 12,
        "num_decoder_layers": 4,
        "max_tag_tokens": 32,
        "num_tags": 25_404,
        "num_labels": 14_413,
        "character_loss_weight": 1,
        "tag_loss_weight": 1,
        "num_vision_tokens": 65,
        "vocab_size": 25_409,
    }
    assert {name: getattr(config, name) for name in paper} == paper


def test_names_survive_saving(tmp_path, tiny_config):
    tiny_config.save_pretrained(tmp_path)
    loaded = MFDNConfig.from_pretrained(tmp_path)
    assert loaded.id2label == tiny_config.id2label
    assert loaded.num_labels == tiny_config.num_labels
    assert loaded.to_dict() == tiny_config.to_dict()


def test_every_saved_key_is_a_declared_field(tmp_path, tiny_config):
    tiny_config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    declared = set(MFDNConfig.__dataclass_fields__) | {
        "auto_map",
        "custom_pipelines",
        "model_type",
        "transformers_version",
        "dtype",
        "architectures",
    }
    assert set(saved) <= declared


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"image_size": 100}, "100 and 16"),
        ({"num_attention_heads": 7}, "1024 and 7"),
        ({"max_tag_tokens": 2}, "got 2"),
        ({"modality": "text"}, "'text'"),
    ],
)
def test_impossible_sizes_are_refused_with_their_values(wrong, said):
    with pytest.raises(Exception, match=said):
        MFDNConfig(**wrong)
