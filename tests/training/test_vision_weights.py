import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from transformers import ViTConfig

from modeling_mfdn import MFDNConfig, MFDNModel
from modeling_mfdn.training.vision_weights import load_vision_weights


def random_vit(image_size=16, **sizes):
    """The ViT whose sizes are those of tiny_config, all weights random (timm's norms and biases start as 1 and 0)."""
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 5, "num_heads": 3, "mlp_ratio": 40 / 24, **sizes}
    torch.manual_seed(1)
    vit = timm.models.vision_transformer.VisionTransformer(img_size=image_size, num_classes=0, **sizes).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return vit


def saved(vit, tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file(vit.state_dict(), path)
    return str(path)


def test_image_tokens_alone_give_timms_features(tiny_model, tmp_path):
    vit = random_vit()
    untouched = load_vision_weights(tiny_model, saved(vit, tmp_path))
    pixel_values = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            tiny_model.vision_features(pixel_values), vit.forward_features(pixel_values), atol=1e-5, rtol=1e-5
        )
    assert {name.split(".")[0] for name in untouched} == {
        "tag_embeddings",
        "text_encoder",
        "tag_decoder",
        "tag_head",
        "character_head",
    }


def test_positions_are_resampled_as_timm_resamples_them(tiny_model, tmp_path):
    vit = random_vit(image_size=40)
    load_vision_weights(tiny_model, saved(vit, tmp_path))
    vit.set_input_size(img_size=16)
    pixel_values = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            tiny_model.vision_features(pixel_values), vit.forward_features(pixel_values), atol=1e-5, rtol=1e-5
        )


def test_a_timm_name_fetches_and_checks_heads(tiny_model, monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, num_classes: random_vit(num_heads=4))
    with pytest.raises(ValueError, match="4 attention heads, the model 3"):
        load_vision_weights(tiny_model, "vit_large_patch16_224.augreg_in21k")
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, num_classes: random_vit())
    load_vision_weights(tiny_model, "vit_large_patch16_224.augreg_in21k")
    assert torch.equal(tiny_model.vision_embeddings.cls_token, random_vit().cls_token)


def test_the_unimodal_model_is_filled_but_for_its_head(tiny_config, tmp_path):
    tiny_config.modality = "image"
    model = MFDNModel(tiny_config)
    untouched = load_vision_weights(model, saved(random_vit(), tmp_path))
    assert untouched == ["character_head.weight", "character_head.bias"]


def test_a_model_of_ours_with_other_characters_tags_and_image_size_lends_its_image_stacks(tiny_config, tmp_path):
    changes = {"modality": "image", "num_labels": 7, "num_tags": 50, "image_size": 40}
    other = MFDNModel(MFDNConfig(**{**tiny_config.to_diff_dict(), **changes, "id2label": None, "label2id": None}))
    other.save_pretrained(tmp_path / "vit")
    model = MFDNModel(tiny_config)
    untouched = load_vision_weights(model, str(tmp_path / "vit"))
    heads = {"tag_embeddings", "text_encoder", "tag_decoder", "tag_head", "character_head"}
    assert {name.split(".")[0] for name in untouched} == heads
    for name in ("vision_encoder.layers.1.attention.q_proj.weight", "fusion_encoder.layers.0.mlp.fc2.bias"):
        assert torch.equal(model.get_parameter(name), other.get_parameter(name))
    theirs = other.vision_embeddings.position_embeddings
    expected = resample_abs_pos_embed(theirs, new_size=[2, 2], num_prefix_tokens=1)
    torch.testing.assert_close(model.vision_embeddings.position_embeddings, expected)


def test_a_model_in_shards_lends_its_image_stacks_and_an_incomplete_one_is_refused(tiny_model, tiny_config, tmp_path):
    tiny_model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(shards) > 3 and not (tmp_path / "shards" / "model.safetensors").exists()
    model = MFDNModel(tiny_config).eval()
    assert load_vision_weights(model, str(tmp_path / "shards"))[0].startswith("character_head")
    pixel_values = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.vision_features(pixel_values), tiny_model.vision_features(pixel_values))
    (tmp_path / "outside.safetensors").write_bytes(shards[0].read_bytes())
    index = tmp_path / "shards" / "model.safetensors.index.json"
    record = json.loads(index.read_text())
    for weight_map, message in (
        ({"a": "../outside.safetensors"}, "no weights file .*shards.outside.safetensors"),
        ({"a": shards[0].name}, "not a complete model: .* are missing, "),
        ({"a": 7}, "does not say which files"),
    ):
        index.write_text(json.dumps(record | {"weight_map": weight_map}))
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_vision_weights(model, str(tmp_path / "shards"))
    index.unlink()
    with pytest.raises(FileNotFoundError, match="no weights file .*model.safetensors"):
        load_vision_weights(model, str(tmp_path / "shards"))
    (tmp_path / "cut.safetensors").write_bytes(shards[0].read_bytes()[:-9])
    with pytest.raises(ValueError, match="cut.safetensors is broken"):
        load_vision_weights(model, str(tmp_path / "cut.safetensors"))


def test_a_model_of_ours_of_another_size_and_a_strangers_model_are_refused(tiny_config, tmp_path):
    MFDNModel(tiny_config).save_pretrained(tmp_path / "small")
    wider = MFDNModel(MFDNConfig(**{**tiny_config.to_diff_dict(), "hidden_size": 48}))
    before = wider.vision_embeddings.cls_token.clone()
    with pytest.raises(ValueError, match="hidden_size 24 in the weights, 48 in the model"):
        load_vision_weights(wider, str(tmp_path / "small"))
    assert torch.equal(wider.vision_embeddings.cls_token, before)
    ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="type 'vit', not one of ours"):
        load_vision_weights(wider, str(tmp_path / "vit"))


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"depth": 6}, "blocks 6 in the weights, 5 in the model"),
        ({"embed_dim": 48}, "width 48 in the weights, 24 in the model"),
        ({"patch_size": 4}, "patch size 4 in the weights, 8 in the model"),
        ({"qkv_bias": False}, "nothing for .*q_proj.bias"),
        ({"qk_norm": True}, "no place for .*q_norm"),
        ({"class_token": False, "global_pool": "avg"}, "cls_token missing"),
    ],
)
def test_a_vit_that_does_not_fit_is_refused_with_both_sizes(tiny_model, tmp_path, sizes, message):
    before = tiny_model.vision_embeddings.cls_token.clone()
    with pytest.raises(ValueError, match=message):
        load_vision_weights(tiny_model, saved(random_vit(**sizes), tmp_path))
    assert torch.equal(tiny_model.vision_embeddings.cls_token, before)


def test_pickled_missing_and_unknown_weights_are_refused(tiny_model, tmp_path):
    torch.save({}, tmp_path / "vit.pth")
    with pytest.raises(ValueError, match="can run any code"):
        load_vision_weights(tiny_model, str(tmp_path / "vit.pth"))
    with pytest.raises(FileNotFoundError, match="absent.safetensors"):
        load_vision_weights(tiny_model, str(tmp_path / "absent.safetensors"))
    with pytest.raises(ValueError, match="'vit_of_mine' is neither"):
        load_vision_weights(tiny_model, "vit_of_mine")
