"""Public weights of vision transformers → the image stack of a model of ours, at the sizes that the weights have.

Where they lie and of which kind they are; those of timm are turned into ours by `timm_weights`.
"""

import re
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from transformers import AutoConfig, AutoModel, CLIPVisionModel, PreTrainedModel, SiglipVisionModel, ViTModel

from ..configuration_mfdn import MFDNConfig
from ..modeling_mfdn import MFDNModel, MFDNPreTrainedModel
from .tag_tokenizer import TAG_LIST
from .terminal import is_hub_id
from .timm_weights import (
    ACTIVATIONS,
    FAMILIES,
    NUM_FUSION_LAYERS,
    VisionWeights,
    bare_vit,
    check_grid,
    default_depths,
    from_timm,
    own_layer,
    timm_model,
)
from .weight_files import PICKLES, download, load_folder, load_tensors, read_json, weight_files

IMAGE_STACKS = (
    "vision_embeddings.",
    "vision_encoder.",
    "fusion_encoder.",
    "pool_norm.",
    "trunk.",
    "trunk_projection.",
)
# Of a model of ours: what its image stack is made of, and how deep the stacks beside it are.
STACK_FIELDS = ("image_size", "patch_size", "num_channels", "hidden_size", "num_attention_heads", "intermediate_size")
STACK_FIELDS += ("num_vision_layers", "num_fusion_layers", "hidden_act", "layer_norm_eps", "pooling", "pool_norm")
STACK_FIELDS += ("num_register_tokens", "trunk_config", "hidden_dropout_prob", "initializer_range")
TEXT_FIELDS = ("num_text_layers", "num_decoder_layers")
# Vision models of transformers that are taken as they are, and whether they can be asked for another image size.
TRUNKS = {"dinov2": True, "dinov2_with_registers": True, "dinov3_vit": True}
TRUNKS |= {"siglip_vision_model": False, "clip_vision_model": False}
VISION_PARTS = {"siglip": SiglipVisionModel, "clip": CLIPVisionModel}  # of models of pictures and text


def read_vision_weights(weights: str, image_size: int | None = None) -> VisionWeights:
    """Read weights from any public source.

    Args:
        weights: a timm name (`vit_large_patch16_224.augreg_in21k`); an id on the Hub (`OWNER/NAME`, also
            `hf-hub:OWNER/NAME`); a folder in timm's Hub layout, of a transformers model, or of a model of ours; or a
            .safetensors file with the state dict of a timm ViT.
        image_size: in pixels; positions are resampled. None = the weights' own.

    Raises:
        FileNotFoundError: no such folder or file.
        OSError: the Hub cannot be reached, or wants a token.
        ValueError: pickled, cut or contradicting files, or a model that is none of [`FAMILIES`].
    """
    path = Path(weights)
    if path.suffix in PICKLES:
        raise ValueError(
            f"{weights} is not a .safetensors file. Loading a pickled file can run any code that it holds; write it "
            "again with safetensors.torch.save_file where you trust it."
        )
    if path.is_dir():
        found = read_folder(path, weights, image_size)
    elif path.suffix == ".safetensors":
        found = from_timm(bare_vit(load_tensors(path), weights), weights, image_size)
    elif is_hub_id(weights.removeprefix("hf-hub:")):
        found = read_folder(download(weights), weights, image_size)
    elif timm.is_model(weights):
        vit = timm.create_model(weights, pretrained=True, num_classes=0)
        found = from_timm(vit, weights, image_size, pixels=vit.pretrained_cfg)
    else:
        raise ValueError(
            f"{weights!r} is neither a folder, nor a .safetensors file, nor a Hub id (OWNER/NAME), nor the name "
            "of a timm model."
        )
    check_grid(found.config["image_size"], found.config["patch_size"], weights)
    return found


def fill(model: MFDNPreTrainedModel, weights: VisionWeights) -> list[str]:
    """Put the weights into a model that was made with their `config`, in place.

    Returns:
        Names of the model's parameters that the weights have nothing for, and that stayed as they were.

    Raises:
        ValueError: the model has other sizes.
    """
    own = model.state_dict()
    misfits = [name for name, tensor in weights.state.items() if name not in own or own[name].shape != tensor.shape]
    if misfits:
        name = misfits[0]
        ours = list(own[name].shape) if name in own else "not there"
        raise ValueError(
            f"{weights.source} does not fit: {name} is {ours} in the model, {list(weights.state[name].shape)} in the "
            f"weights ({len(misfits)} such)."
        )
    model.load_state_dict(weights.state, strict=False)
    return [name for name, _ in model.named_parameters() if name not in weights.state]


def resample(positions: torch.Tensor, side: int, num_prefix_tokens: int) -> torch.Tensor:
    """[1, prefix + n², D] positions → [1, prefix + side², D], by timm's own bicubic interpolation."""
    return resample_abs_pos_embed(positions, new_size=[side, side], num_prefix_tokens=num_prefix_tokens)


# ---------------------------------------------------------------- folders


def read_folder(folder: Path, weights: str, image_size: int | None) -> VisionWeights:
    """Weights of a folder, whose config.json says of which kind."""
    config = read_json(folder / "config.json")
    if "architecture" in config:
        vit = timm_model(folder, config, weights)
        pixels = config.get("pretrained_cfg") or {}
        return from_timm(vit, weights, image_size, pixels, config, is_bgr=(folder / TAG_LIST).is_file())
    model_type = str(config.get("model_type", ""))
    if model_type.startswith("mfdn"):
        return from_ours(folder, weights, image_size)
    if model_type in ("vit", *TRUNKS, *VISION_PARTS):
        return from_transformers(folder, model_type, weights, image_size)
    raise ValueError(f"{weights} is of type {model_type or 'unknown'!r}. What can be taken: {FAMILIES}.")


# ---------------------------------------------------------------- a model of ours


def from_ours(folder: Path, weights: str, image_size: int | None) -> VisionWeights:
    """The image stack of a model that was saved by this package, of any system and modality."""
    config = AutoConfig.from_pretrained(folder)
    if not isinstance(config, MFDNConfig):
        raise ValueError(f"{folder} holds a model of type {config.model_type!r}, not one of ours.")
    fields = {name: getattr(config, name) for name in STACK_FIELDS}
    fields |= {name: getattr(config, name) for name in TEXT_FIELDS if getattr(config, name)}  # a baseline has none
    fields = default_depths(config.num_vision_layers + config.num_fusion_layers) | fields
    state = load_folder(folder, IMAGE_STACKS)
    with torch.device("meta"):
        expected = MFDNModel(MFDNConfig(**fields, modality="image", num_labels=1)).state_dict()
    expected = {name: tensor.shape for name, tensor in expected.items() if name.startswith(IMAGE_STACKS)}
    if missing := [name for name, shape in expected.items() if getattr(state.get(name), "shape", None) != shape]:
        raise ValueError(
            f"{folder} is not a complete model: {len(missing)} weights are missing or of other sizes than its "
            f"config.json says, {missing[0]} is one."
        )
    positions = "vision_embeddings.position_embeddings"
    if image_size and image_size != config.image_size:
        if config.trunk_config is not None:
            raise ValueError(f"The trunk of {weights} was made for {config.image_size} pixels: leave --image_size.")
        state[positions] = resample(state[positions], image_size // config.patch_size, config.num_prefix_tokens)
        fields["image_size"] = image_size
    return VisionWeights(weights, fields, state, saved_pixel_options(folder))


def saved_pixel_options(folder: Path) -> dict[str, Any]:
    """Options of MFDNImageProcessor from a preprocessor_config.json, if there is one."""
    path = folder / "preprocessor_config.json"
    options = read_json(path) if path.is_file() else {}
    return {name: options[name] for name in ("image_mean", "image_std", "resample") if name in options}


# ---------------------------------------------------------------- transformers


def from_transformers(folder: Path, model_type: str, weights: str, image_size: int | None) -> VisionWeights:
    """A ViT of transformers as our own blocks, any other of [`TRUNKS`] as a trunk."""
    weight_files(folder)  # refuses pickles with a sentence
    load_folder(folder, ("no tensor",))  # and files that are cut
    loader = VISION_PARTS.get(model_type, ViTModel if model_type == "vit" else AutoModel)
    try:
        options = {"add_pooling_layer": False} if model_type == "vit" else {}
        model = loader.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **options)
    except (RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{weights}: config.json and weights contradict each other ({error}).") from error
    config = model.config
    pixels = saved_pixel_options(folder)
    own_size = config.image_size
    if model_type != "vit" and image_size and image_size != own_size and not TRUNKS.get(config.model_type):
        raise ValueError(f"{weights} sees {own_size} pixels and no other number: leave --image_size.")
    has_cls = not config.model_type.startswith("siglip")
    fields = {
        "image_size": image_size or own_size,
        "patch_size": config.patch_size,
        "num_channels": config.num_channels,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": 4 * config.hidden_size,
        "pooling": "cls" if has_cls else "mean",
        "num_register_tokens": getattr(config, "num_register_tokens", 0) or 0,
        **default_depths(config.num_hidden_layers),
    }
    if model_type == "vit":
        return from_transformers_vit(model, weights, fields, pixels)
    fields |= {"num_fusion_layers": NUM_FUSION_LAYERS, "trunk_config": config.to_dict()}
    state = {f"trunk.{name}": tensor for name, tensor in model.state_dict().items()}
    return VisionWeights(weights, fields, state, pixels)


def from_transformers_vit(model: PreTrainedModel, weights: str, fields: dict, pixels: dict) -> VisionWeights:
    """ViTModel → our own blocks. `fields`: of MFDNConfig, as far as any vision model has them."""
    config, theirs = model.config, model.state_dict()
    if config.hidden_act not in ACTIVATIONS.values() or config.num_hidden_layers < 2:
        raise ValueError(
            f"{weights} has {config.num_hidden_layers} layers and {config.hidden_act}: expected 2 and gelu."
        )
    positions = resample(theirs["embeddings.position_embeddings"], fields["image_size"] // config.patch_size, 1)
    depth = config.num_hidden_layers
    state = {
        "vision_embeddings.cls_token": theirs["embeddings.cls_token"],
        "vision_embeddings.position_embeddings": positions,
        "fusion_encoder.norm.weight": theirs["layernorm.weight"],
        "fusion_encoder.norm.bias": theirs["layernorm.bias"],
    }
    for kind in ("weight", "bias"):
        state[f"vision_embeddings.patch_embed.{kind}"] = theirs[f"embeddings.patch_embeddings.projection.{kind}"]
    renamed = {"layernorm_before": "norm1", "layernorm_after": "norm2"}
    for name, tensor in theirs.items():
        if match := re.match(r"(?:encoder\.)?layers?\.(\d+)\.(.+)", name):
            index, part = int(match[1]), match[2]
            for old, new in renamed.items():
                part = part.replace(old, new)
            state[f"{own_layer(index, depth)}.{part}"] = tensor
    for index in range(depth):  # a ViT without qkv_bias
        for projection in ("q_proj", "k_proj", "v_proj"):
            name = f"{own_layer(index, depth)}.attention.{projection}.bias"
            state.setdefault(name, torch.zeros(config.hidden_size))
    fields |= {
        "intermediate_size": config.intermediate_size,
        "num_vision_layers": depth // 2,
        "num_fusion_layers": depth - depth // 2,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
    }
    return VisionWeights(weights, fields, state, pixels)


__all__ = ["VisionWeights", "fill", "read_vision_weights"]
