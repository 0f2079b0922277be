"""Weights of a pretrained ViT → vision and fusion encoder (paper §V-A: ViT-L/16, pretrained on ImageNet-21k).

It is timm's, or one of our own models, of whatever characters and tags. timm's is cut in two: the first blocks fill
the vision encoder, the rest the fusion encoder, whose input then is what it was trained on. Image tokens alone go
through both as through the ViT (`MFDNModel.vision_features`).
"""

import json
import math
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.layers import resample_abs_pos_embed
from transformers import AutoConfig

from ..configuration_mfdn import MFDNConfig
from ..modeling_mfdn import MFDNModel

IMAGE_STACKS = ("vision_embeddings.", "vision_encoder.", "fusion_encoder.")
HEAD_NAMES = ("head.", "head_dist.", "pre_logits.", "fc_norm.")  # what follows the features; MFDN has its own heads


def load_vision_weights(model: MFDNModel, weights: str) -> list[str]:
    """Fill patch embedding, [CLS], positions, both encoders and the final norm, in place.

    Positions of another image size are resampled to the model's grid of patches.

    Args:
        weights: a folder that train_mfdn.py wrote, also in shards; a .safetensors file with the state dict of a timm
            ViT; or the name of a timm model whose pretrained weights are fetched,
            `vit_large_patch16_224.augreg_in21k`. All but the file also tell the number of heads, which a state dict
            does not.

    Returns:
        Names of the model's parameters that the ViT has nothing for, and that stayed as they were.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a pickled or broken file, an unknown name, or a ViT whose sizes or parts do not fit.
    """
    if Path(weights, "config.json").is_file():
        new_state = load_own_state(model, weights)
    else:
        new_state = map_vit_state(model, load_vit_state(model, weights), weights)
    own_state = model.state_dict()
    for name, tensor in new_state.items():
        if tensor.shape != own_state[name].shape:
            raise ValueError(
                f"{weights} does not fit: {name} is {list(own_state[name].shape)} in the model, {list(tensor.shape)} "
                "in the weights."
            )
    model.load_state_dict(new_state, strict=False)
    return [name for name, _ in model.named_parameters() if name not in new_state]


def load_own_state(model: MFDNModel, folder: str) -> dict[str, torch.Tensor]:
    """The image stacks of a model that train_mfdn.py saved, of any system and modality."""
    config = AutoConfig.from_pretrained(folder)
    if not isinstance(config, MFDNConfig):
        raise ValueError(f"{folder} holds a model of type {config.model_type!r}, not one of ours.")
    sizes = (
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_vision_layers",
        "num_fusion_layers",
        "patch_size",
        "num_channels",
    )
    check_sizes({name: (getattr(config, name), getattr(model.config, name)) for name in sizes}, folder)
    state = {}
    for path in weight_files(Path(folder)):
        state |= load_tensors(path, IMAGE_STACKS)
    missing = [name for name in model.state_dict() if name.startswith(IMAGE_STACKS) and name not in state]
    if missing:
        raise ValueError(f"{folder} is not a complete model: {len(missing)} weights are missing, {missing[0]} is one.")
    positions = "vision_embeddings.position_embeddings"
    return state | {positions: resample_positions(state[positions], model, folder)}


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the shards that model.safetensors.index.json names."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return [folder / "model.safetensors"]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [folder / Path(name).name for name in names]  # shards lie beside their index and nowhere else
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} does not say which files hold the weights.") from error


def load_tensors(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, torch.Tensor]:
    """Of a .safetensors file, those whose names begin so; nothing else is read."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}
    except SafetensorError as error:
        raise ValueError(f"{path} is broken, or no .safetensors file: {error}.") from error


def check_sizes(found: dict[str, tuple[int, int]], weights: str, remark: str = "") -> None:
    """Refuse weights whose sizes, {what: (in the weights, in the model)}, differ from the model's."""
    misfits = [
        f"{what} {theirs} in the weights, {ours} in the model"
        for what, (theirs, ours) in found.items()
        if theirs != ours
    ]
    if misfits:
        raise ValueError(f"{weights} does not fit: {'; '.join(misfits)}{remark}.")


def load_vit_state(model: MFDNModel, weights: str) -> dict[str, torch.Tensor]:
    """The state dict of a timm ViT, from a file or through timm."""
    suffix = Path(weights).suffix
    if suffix in (".pth", ".pt", ".bin", ".ckpt", ".npz"):
        raise ValueError(
            f"{weights} is not a .safetensors file. Loading a pickled file can run any code that it holds; write it "
            "again with safetensors.torch.save_file where you trust it."
        )
    if suffix == ".safetensors":
        return load_tensors(Path(weights))
    # A dot also parts architecture and tag in timm's names, so any other suffix is taken for a name.
    if not timm.is_model(weights):
        raise ValueError(
            f"{weights!r} is neither a folder with a model of ours, nor a .safetensors file, nor the name of a timm "
            "model."
        )
    vit = timm.create_model(weights, pretrained=True, num_classes=0)
    num_heads, expected = vit.blocks[0].attn.num_heads, model.config.num_attention_heads
    if num_heads != expected:
        raise ValueError(f"{weights} has {num_heads} attention heads, the model {expected}; they must be equal.")
    return vit.state_dict()


def map_vit_state(model: MFDNModel, vit_state: dict[str, torch.Tensor], weights: str) -> dict[str, torch.Tensor]:
    """timm's names and shapes → the model's."""
    config = model.config
    vit_state = {name: tensor for name, tensor in vit_state.items() if not name.startswith(HEAD_NAMES)}
    missing = [name for name in ("patch_embed.proj.weight", "cls_token", "pos_embed") if name not in vit_state]
    if missing:
        raise ValueError(f"{weights} is not the state dict of a timm ViT with [CLS]: {', '.join(missing)} missing.")
    width, num_channels, patch_size, _ = vit_state["patch_embed.proj.weight"].shape
    depth = 1 + max((int(name.split(".")[1]) for name in vit_state if name.startswith("blocks.")), default=-1)
    mlp_width = len(vit_state["blocks.0.mlp.fc1.bias"]) if depth else 0
    found = {
        "blocks": (depth, config.num_vision_layers + config.num_fusion_layers),
        "width": (width, config.hidden_size),
        "MLP width": (mlp_width, config.intermediate_size),
        "patch size": (patch_size, config.patch_size),
        "channels": (num_channels, config.num_channels),
    }
    check_sizes(found, weights, " (vision and fusion layers together)")

    new_state, unknown = {}, []
    for name, tensor in vit_state.items():
        if name == "cls_token":
            new_state["vision_embeddings.cls_token"] = tensor
        elif name == "pos_embed":
            new_state["vision_embeddings.position_embeddings"] = resample_positions(tensor, model, weights)
        elif name.startswith("patch_embed.proj."):
            new_state[name.replace("patch_embed.proj", "vision_embeddings.patch_embed")] = tensor
        elif name.startswith("norm."):
            new_state[f"fusion_encoder.{name}"] = tensor
        elif name.startswith("blocks."):
            _, index, part = name.split(".", 2)
            in_fusion = int(index) >= config.num_vision_layers
            stack = "fusion_encoder" if in_fusion else "vision_encoder"
            layer = f"{stack}.layers.{int(index) - config.num_vision_layers * in_fusion}"
            if part.startswith("attn.qkv."):
                kind = part.removeprefix("attn.qkv.")
                for projection, rows in zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True):
                    new_state[f"{layer}.attention.{projection}.{kind}"] = rows
            else:
                new_state[f"{layer}.{part.replace('attn.proj', 'attention.o_proj')}"] = tensor
        else:
            unknown.append(name)
    own_names = model.state_dict().keys()
    unknown += [name for name in new_state if name not in own_names]
    needed = [name for name in own_names if name.startswith(IMAGE_STACKS) and name not in new_state]
    if unknown or needed:
        raise ValueError(
            f"{weights} is another kind of ViT than MFDN's: the model has no place for {unknown[:5]} and finds "
            f"nothing for {needed[:5]}."
        )
    return new_state


def resample_positions(positions: torch.Tensor, model: MFDNModel, weights: str) -> torch.Tensor:
    """[1, 1 + n², D] positions of a square grid and [CLS] → [1, P, D], by timm's own bicubic interpolation."""
    num_patches = positions.shape[1] - 1
    if math.isqrt(max(num_patches, 0)) ** 2 != num_patches:
        raise ValueError(
            f"{weights} has {num_patches + 1} positions; expected a square grid of patches and one [CLS]."
        )
    side = model.config.image_size // model.config.patch_size
    return resample_abs_pos_embed(positions, new_size=[side, side], num_prefix_tokens=1)


__all__ = ["load_vision_weights"]
