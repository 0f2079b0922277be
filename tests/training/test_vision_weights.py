"""Every family of public weights, small and random, in its public layout: image tokens give its own features, and
what cannot be taken is a sentence."""

import json

import pytest
import timm
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ResNetConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from modeling_mfdn import MFDNConfig, MFDNModel, MultiLabelConfig, MultiLabelModel
from modeling_mfdn.training import weight_files
from modeling_mfdn.training.tag_tokenizer import build_processor
from modeling_mfdn.training.vision_weights import fill, read_vision_weights

SMALL = {"embed_dim": 128, "depth": 5, "num_heads": 2, "img_size": 32, "patch_size": 8, "mlp_ratio": 1.5}
WD = {"class_token": False, "global_pool": "avg", "fc_norm": False, "act_layer": "gelu_tanh"}
PLAIN = {
    "cls": {},
    "wd": WD,
    "pooled and normalised after": {"class_token": False, "global_pool": "avg"},
    "pooled beside cls": {"global_pool": "avg"},
    "registers and layer scale": {"init_values": 0.3, "reg_tokens": 3, "no_embed_class": True},
    "siglip": {"class_token": False, "global_pool": "map"},
    "without biases": {"qkv_bias": False, "proj_bias": False},
    "quick gelu": {"act_layer": "quick_gelu"},
}
TRUNKS = {
    "norm before (clip)": ("vit_base_patch16_224", SMALL | {"pre_norm": True}),
    "normalised queries": ("vit_base_patch16_224", SMALL | {"qk_norm": True}),
    "eva02": ("eva02_base_patch14_224", SMALL | {"img_size": 28, "patch_size": 7}),
    "dinov3": ("vit_base_patch16_dinov3", SMALL),
}
PIXELS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic"}


def shaken(model, by=0.1):
    """All weights random: norms, biases and scales start as 1 and 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return model.eval()


def timm_folder(folder, architecture="vit_base_patch16_224", by=0.1, **arguments):
    """A random timm model and its folder, as on the Hub."""
    model = shaken(timm.create_model(architecture, num_classes=9, **arguments), by)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architecture": architecture, "num_classes": 9, "model_args": arguments, "pretrained_cfg": PIXELS}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    return model


def started_from(source, image_size=None, **options):
    weights = read_vision_weights(str(source), image_size)
    model = MFDNModel(MFDNConfig(**weights.config, num_tags=11, num_labels=6, **options)).eval()
    return model, fill(model, weights), weights


def image_tokens(model, pixel_values):
    has_trunk = model.config.trunk_config is not None
    return model.encode_image(pixel_values) if has_trunk else model.vision_features(pixel_values)


def prefixes(names):
    return {name.split(".")[0] for name in names}


# ------------------------------------------------------------------ families
@pytest.mark.parametrize("kind", PLAIN)
@torch.no_grad()
def test_a_plain_vit_of_timm_gives_its_own_features(kind, tmp_path):
    vit = timm_folder(tmp_path / "vit", **SMALL | PLAIN[kind])
    model, untouched, weights = started_from(tmp_path / "vit")
    pixel_values = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        image_tokens(model, pixel_values), vit.forward_features(pixel_values), atol=1e-5, rtol=1e-5
    )
    assert prefixes(untouched) == {"character_head", "tag_embeddings", "text_encoder", "tag_decoder", "tag_head"}
    assert (model.config.num_vision_layers, model.config.num_fusion_layers) == (2, 3)
    assert model.config.intermediate_size == 192
    assert weights.image_processor == {"image_mean": PIXELS["mean"], "image_std": PIXELS["std"], "resample": 3}


@pytest.mark.parametrize("kind", [kind for kind in PLAIN if kind != "siglip"])
@torch.no_grad()
def test_what_is_pooled_is_what_timm_pools(kind, tmp_path):
    vit = timm_folder(tmp_path / "vit", **SMALL | PLAIN[kind])
    model, _, _ = started_from(tmp_path / "vit", modality="image")
    pixel_values = torch.randn(2, 3, 32, 32)
    expected = vit.forward_head(vit.forward_features(pixel_values), pre_logits=True)
    torch.testing.assert_close(model(pixel_values).character_embedding, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", TRUNKS)
@torch.no_grad()
def test_another_vit_of_timm_is_a_trunk_before_a_fresh_fusion_encoder(kind, tmp_path):
    architecture, arguments = TRUNKS[kind]
    vit = timm_folder(tmp_path / "vit", architecture, **arguments)
    model, untouched, _ = started_from(tmp_path / "vit")
    size = arguments["img_size"]
    pixel_values = torch.randn(2, 3, size, size)
    torch.testing.assert_close(
        image_tokens(model, pixel_values), vit.forward_features(pixel_values), atol=1e-5, rtol=1e-5
    )
    assert "trunk" not in prefixes(untouched) and "fusion_encoder" in prefixes(untouched)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModel.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(again(pixel_values).logits, model(pixel_values).logits)


@pytest.mark.parametrize(
    ("config_class", "model_class"),
    [
        (ViTConfig, ViTModel),
        (Dinov2Config, Dinov2Model),
        (Dinov2WithRegistersConfig, Dinov2WithRegistersModel),
        (DINOv3ViTConfig, DINOv3ViTModel),
        (SiglipVisionConfig, SiglipVisionModel),
        (CLIPVisionConfig, CLIPVisionModel),
    ],
    ids=lambda value: value.__name__,
)
@torch.no_grad()
def test_a_vision_model_of_transformers_gives_its_own_features(config_class, model_class, tmp_path):
    sizes = {"hidden_size": 48, "num_hidden_layers": 5, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
    if not config_class.__name__.startswith("Dinov2"):
        sizes["intermediate_size"] = 80
    theirs = shaken(model_class(config_class(**sizes)))
    theirs.save_pretrained(tmp_path / "theirs")
    model, untouched, _ = started_from(tmp_path / "theirs")
    pixel_values = torch.randn(2, 3, 32, 32)
    expected = theirs(pixel_values).last_hidden_state
    torch.testing.assert_close(image_tokens(model, pixel_values), expected, atol=1e-5, rtol=1e-5)
    assert (model.config.trunk_config is None) == (config_class is ViTConfig)
    assert not {"trunk", "vision_encoder", "vision_embeddings"} & prefixes(untouched)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModel.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(again(pixel_values).logits, model(pixel_values).logits)


@torch.no_grad()
def test_a_trunk_of_another_width_is_projected(tmp_path):
    timm_folder(tmp_path / "vit", "eva02_base_patch14_224", **SMALL | {"img_size": 28, "patch_size": 7})
    weights = read_vision_weights(str(tmp_path / "vit"))
    narrow = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    model = MFDNModel(MFDNConfig(**weights.config | narrow, num_tags=11, num_labels=6)).eval()
    assert {"trunk_projection", "fusion_encoder"} <= prefixes(fill(model, weights))
    assert model(torch.randn(2, 3, 28, 28)).character_embedding.shape == (2, 24)


@pytest.mark.slow
@torch.no_grad()
def test_at_the_exact_config_of_wd_v3(tmp_path):
    """448 pixels, 784 tokens, 12 blocks of 768, no [CLS], gelu_tanh, BGR."""
    vit = timm_folder(tmp_path / "wd", by=0.02, **WD, img_size=448)
    (tmp_path / "wd" / "selected_tags.csv").write_text("tag_id,name,category,count\n")
    model, _, _ = started_from(tmp_path / "wd", modality="image")
    pixel_values = torch.randn(1, 3, 448, 448)
    features = model.vision_features(pixel_values)
    assert features.shape == (1, 784, 768)
    torch.testing.assert_close(features, vit.forward_features(pixel_values[:, [2, 1, 0]]), atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------ sizes
@pytest.mark.parametrize("kind", ["cls", "wd", "registers and layer scale"])
@torch.no_grad()
def test_positions_are_resampled_as_timm_resamples_them(kind, tmp_path):
    vit = timm_folder(tmp_path / "vit", **SMALL | PLAIN[kind])
    model, _, _ = started_from(tmp_path / "vit", image_size=48)
    vit.set_input_size(img_size=48)
    pixel_values = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(
        model.vision_features(pixel_values), vit.forward_features(pixel_values), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_a_trunk_takes_another_image_size_as_timm_does(tmp_path):
    vit = timm_folder(tmp_path / "vit", "vit_base_patch16_dinov3", **SMALL)
    model, _, _ = started_from(tmp_path / "vit", image_size=48)
    vit.set_input_size(img_size=48)
    pixel_values = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(model.encode_image(pixel_values), vit.forward_features(pixel_values))
    model.save_pretrained(tmp_path / "saved")
    again = AutoModel.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(again(pixel_values).logits, model(pixel_values).logits)


def test_an_image_size_between_patches_is_refused(tmp_path):
    timm_folder(tmp_path / "vit", **SMALL)
    with pytest.raises(ValueError, match="multiple of 8, the patch size of .*got 44"):
        read_vision_weights(str(tmp_path / "vit"), 44)


# ------------------------------------------------------------------ sources
@torch.no_grad()
def test_a_file_alone_tells_all_but_the_heads(tmp_path, capsys):
    vit = timm_folder(tmp_path / "vit", **SMALL)
    model, _, _ = started_from(tmp_path / "vit" / "model.safetensors")
    pixel_values = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        model.vision_features(pixel_values), vit.forward_features(pixel_values), atol=1e-5, rtol=1e-5
    )
    assert "taken to have 2 heads" in capsys.readouterr().out
    timm_folder(tmp_path / "odd", **SMALL | {"embed_dim": 48})
    with pytest.raises(ValueError, match="48 wide, which does not say how many attention heads"):
        read_vision_weights(str(tmp_path / "odd" / "model.safetensors"))


@torch.no_grad()
def test_a_timm_name_and_a_name_on_the_hub_are_fetched(tmp_path, monkeypatch):
    vit = timm_folder(tmp_path / "vit", **SMALL)
    asked = []

    def download(repository, allow_patterns):
        asked.append(repository)
        return str(tmp_path / "vit")

    monkeypatch.setattr(weight_files, "snapshot_download", download)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, num_classes: vit)
    fetched = read_vision_weights("vit_large_patch16_224.augreg_in21k")
    assert torch.equal(fetched.state["vision_embeddings.cls_token"], vit.cls_token)
    monkeypatch.undo()
    monkeypatch.setattr(weight_files, "snapshot_download", download)
    for name in ("somebody/vit", "hf-hub:somebody/vit"):
        assert torch.equal(read_vision_weights(name).state["vision_embeddings.cls_token"], vit.cls_token)
    assert asked == ["somebody/vit"] * 2


@pytest.mark.parametrize("config_class, model_class", [(MFDNConfig, MFDNModel), (MultiLabelConfig, MultiLabelModel)])
@torch.no_grad()
def test_a_model_of_ours_with_other_names_and_pixels_lends_its_image_stack(
    tiny_config, tags, tmp_path, config_class, model_class
):
    theirs = {**tiny_config.to_diff_dict(), "image_size": 40, "auto_map": None}
    other = shaken(model_class(config_class(**theirs)))
    other.save_pretrained(tmp_path / "other")
    build_processor(other.config, tags, "random", {"image_mean": [0.1, 0.2, 0.3]}).save_pretrained(tmp_path / "other")
    model, untouched, weights = started_from(tmp_path / "other", image_size=16)
    assert prefixes(untouched) == {"character_head", "tag_embeddings", "text_encoder", "tag_decoder", "tag_head"}
    name = "fusion_encoder.layers.0.mlp.fc2.bias"
    assert torch.equal(model.get_parameter(name), other.get_parameter(name))
    expected = resample_abs_pos_embed(
        other.vision_embeddings.position_embeddings, new_size=[2, 2], num_prefix_tokens=1
    )
    torch.testing.assert_close(model.vision_embeddings.position_embeddings.data, expected)
    assert weights.image_processor["image_mean"] == [0.1, 0.2, 0.3] and model.config.max_tag_tokens == 32


def test_a_model_in_shards_is_read_and_an_incomplete_one_refused(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(shards) > 3 and not (tmp_path / "shards" / "model.safetensors").exists()
    model, _, _ = started_from(tmp_path / "shards")
    pixel_values = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.vision_features(pixel_values), tiny_model.vision_features(pixel_values))
    (tmp_path / "outside.safetensors").write_bytes(shards[0].read_bytes())
    index = tmp_path / "shards" / "model.safetensors.index.json"
    record = json.loads(index.read_text())
    for weight_map, message in (
        ({"a": "../outside.safetensors"}, "no weights file .*shards.outside.safetensors"),
        ({"a": shards[0].name}, "not a complete model: .* are missing"),
        ({"a": 7}, "does not say which files"),
    ):
        index.write_text(json.dumps(record | {"weight_map": weight_map}))
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_vision_weights(str(tmp_path / "shards"))
    index.unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors in"):
        read_vision_weights(str(tmp_path / "shards"))


# ------------------------------------------------------------------ what cannot be taken
@pytest.mark.parametrize("architecture", ["swin_tiny_patch4_window7_224", "convnext_atto", "mobilenetv3_small_050"])
def test_windows_and_convolutions_are_refused_with_the_families_that_are_not(architecture, tmp_path):
    timm_folder(tmp_path / "other", architecture)
    with pytest.raises(ValueError, match="What can be taken: plain ViTs .*SigLIP"):
        read_vision_weights(str(tmp_path / "other"))
    ResNetConfig().save_pretrained(tmp_path / "resnet")
    with pytest.raises(ValueError, match="of type 'resnet'. What can be taken"):
        read_vision_weights(str(tmp_path / "resnet"))


def test_a_config_that_lies_is_refused(tmp_path):
    timm_folder(tmp_path / "vit", **SMALL)
    path = tmp_path / "vit" / "config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"model_args": SMALL | {"depth": 4}}, "contradict each other in 12 tensors"),
        ({"model_args": SMALL | {"embed_dim": 256}}, "contradict each other"),
        ({"model_args": SMALL | {"num_heads": 3}}, "cannot be made"),
        ({"model_args": SMALL | {"checkpoint_path": "/etc/passwd"}}, "may not hold .*checkpoint_path"),
        ({"model_args": SMALL | {"pretrained": True}}, "may not hold .*pretrained"),
        ({"model_args": ["a"]}, "may not hold"),
        ({"model_args": SMALL | {"no_such": 1}}, "cannot be made"),
        ({"architecture": "vit_of_the_future"}, "knows no architecture 'vit_of_the_future'"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            read_vision_weights(str(tmp_path / "vit"))
    for content, message in (("{", "cut or damaged"), ("[1]", "no JSON object")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_vision_weights(str(tmp_path / "vit"))


def test_cut_pickled_missing_and_unknown_weights_are_refused(tmp_path):
    timm_folder(tmp_path / "vit", **SMALL)
    whole = (tmp_path / "vit" / "model.safetensors").read_bytes()
    (tmp_path / "vit" / "model.safetensors").write_bytes(whole[:-9])
    with pytest.raises(ValueError, match="model.safetensors is cut.*download it again"):
        read_vision_weights(str(tmp_path / "vit"))
    (tmp_path / "vit" / "model.safetensors").rename(tmp_path / "vit" / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pytorch_model.bin is pickled, which could run any code"):
        read_vision_weights(str(tmp_path / "vit"))
    torch.save({}, tmp_path / "vit.pth")
    with pytest.raises(ValueError, match="can run any code"):
        read_vision_weights(str(tmp_path / "vit.pth"))
    with pytest.raises(FileNotFoundError, match="absent.safetensors"):
        read_vision_weights(str(tmp_path / "absent.safetensors"))
    with pytest.raises(ValueError, match="'vit_of_mine' is neither"):
        read_vision_weights("vit_of_mine")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError, "gated: accept its terms .*hf auth login"),
        (RepositoryNotFoundError, "no somebody/vit on the Hub"),
        (LocalEntryNotFoundError, "Is there a network"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence_that_says_what_to_do(error, message, monkeypatch):
    def refuse(*args, **kwargs):
        raise error.__new__(error)  # they are made of answers of the Hub, which we have none of

    monkeypatch.setattr(weight_files, "snapshot_download", refuse)
    with pytest.raises(OSError, match=message):
        read_vision_weights("somebody/vit")
