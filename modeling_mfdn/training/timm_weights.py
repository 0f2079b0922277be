"""A ViT of timm as the image stack of a model of ours.

A plain ViT is cut in two (paper §V-A): the first half of its blocks fills the vision encoder, the rest the fusion
encoder, whose input then is what it was trained on, and image tokens alone go through both as through the ViT
(`vision_features`). Any other that gives one state a patch (EVA02, DINOv3) is taken whole, as a trunk before a fresh
fusion encoder.
"""

import inspect
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import nn
from transformers.image_utils import PILImageResampling

from .weight_files import load_folder

FAMILIES = (
    "plain ViTs of timm and transformers, with [CLS] or pooled; EVA02, DINOv3 and other ViTs of timm; DINOv2, DINOv3, "
    "SigLIP and CLIP of transformers; models of ours"
)
ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh", "QuickGELU": "quick_gelu"}
NUM_FUSION_LAYERS = 4  # behind a trunk


@dataclass
class VisionWeights:
    """What public weights give to a model of ours.

    Args:
        source: as the user named it.
        config: fields of MFDNConfig that follow from the weights.
        state: tensors by our names.
        image_processor: options of MFDNImageProcessor: what the weights expect of their pixels.
    """

    source: str
    config: dict[str, Any]
    state: dict[str, torch.Tensor]
    image_processor: dict[str, Any] = field(default_factory=dict)


def check_grid(image_size: int, patch_size: int, weights: str) -> None:
    """Raises ValueError for an image size that is no whole number of patches."""
    if image_size % patch_size:
        raise ValueError(
            f"--image_size must be a multiple of {patch_size}, the patch size of {weights}; got {image_size}."
        )


def default_depths(depth: int) -> dict[str, int]:
    """Depths of the text branch for a ViT of so many blocks. Paper: 12 and 4 for 24."""
    return {"num_text_layers": max(1, depth // 2), "num_decoder_layers": max(1, depth // 6)}


def timm_model(folder: Path, config: dict, weights: str) -> nn.Module:
    """The model of a folder in timm's Hub layout, without its head, with its weights.

    Raises ValueError: an unknown architecture, arguments that it does not take, or weights of other sizes.
    """
    architecture, arguments = str(config["architecture"]), config.get("model_args") or {}
    if not timm.is_model(architecture):
        raise ValueError(f"{weights}: this timm ({timm.__version__}) knows no architecture {architecture!r}.")
    own = set(inspect.signature(timm.create_model).parameters) | {"features_only", "num_classes"}
    if not isinstance(arguments, dict) or (strange := sorted(arguments.keys() & own)):
        strange = strange if isinstance(arguments, dict) else [arguments]
        raise ValueError(f"{weights}: model_args of config.json may not hold {strange}.")
    try:
        with torch.device("meta"):  # nothing is allocated before the sizes are known to fit
            model = timm.create_model(architecture, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError, KeyError) as error:
        raise ValueError(f"{weights}: {architecture} cannot be made with model_args {arguments} ({error}).") from error
    check_family(model, weights)
    state = {name: tensor for name, tensor in load_folder(folder).items() if not name.startswith("head.")}
    sizes = {name: tensor.shape for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    if misfits := [
        name for name in sizes.keys() | state.keys() if sizes.get(name) != getattr(state.get(name), "shape", None)
    ]:
        name = min(misfits)
        found = list(state[name].shape) if name in state else "missing"
        expected = list(sizes[name]) if name in sizes else "nothing of that name"
        raise ValueError(
            f"{weights}: config.json and weights contradict each other in {len(misfits)} tensors; {name} is {found}, "
            f"expected {expected}. Download both again."
        )
    model = timm.create_model(architecture, num_classes=0, **arguments)
    model.load_state_dict(state)
    return model


def check_family(model: nn.Module, weights: str) -> None:
    """Raises ValueError for a timm model that does not give one state a patch (windows, convolutions)."""
    if not isinstance(model, VisionTransformer | Eva):
        raise ValueError(f"{weights} is a {type(model).__name__}. What can be taken: {FAMILIES}.")


def bare_vit(state: dict[str, torch.Tensor], weights: str) -> VisionTransformer:
    """A timm ViT from its state dict alone: sizes are those of the tensors, heads are taken to be 64 wide."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    width, _, patch_size, _ = shapes.get("patch_embed.proj.weight", (0, 0, 0, 0))
    depth = 1 + max((int(name.split(".")[1]) for name in shapes if re.match(r"blocks\.\d+\.", name)), default=-1)
    needed = ("patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight")
    if missing := [name for name in needed if name not in shapes]:
        raise ValueError(f"{weights} is not the state dict of a plain timm ViT: {', '.join(missing)} missing.")
    if width % 64:
        raise ValueError(
            f"{weights} is {width} wide, which does not say how many attention heads it has. Pass the folder with its "
            "config.json instead."
        )
    prefix = [name for name in ("cls_token", "reg_token") if name in shapes]
    num_prefix = sum(shapes[name][1] for name in prefix)
    num_positions = shapes["pos_embed"][1]
    has_prefix_positions = math.isqrt(num_positions) ** 2 != num_positions
    grid = math.isqrt(num_positions - num_prefix * has_prefix_positions)
    vit = VisionTransformer(
        img_size=grid * patch_size,
        patch_size=patch_size,
        in_chans=shapes["patch_embed.proj.weight"][1],
        num_classes=0,
        global_pool="token" if "cls_token" in shapes else "avg",
        embed_dim=width,
        depth=depth,
        num_heads=width // 64,
        mlp_ratio=shapes["blocks.0.mlp.fc1.weight"][0] / width,
        qkv_bias="blocks.0.attn.qkv.bias" in shapes,
        proj_bias="blocks.0.attn.proj.bias" in shapes,
        qk_norm="blocks.0.attn.q_norm.weight" in shapes,
        init_values=1.0 if "blocks.0.ls1.gamma" in shapes else None,
        class_token="cls_token" in shapes,
        no_embed_class=bool(prefix) and not has_prefix_positions,
        reg_tokens=shapes.get("reg_token", (1, 0))[1],
        pre_norm="norm_pre.weight" in shapes,
        final_norm="norm.weight" in shapes or "fc_norm.weight" in shapes,
        fc_norm="fc_norm.weight" in shapes,
    )
    state = {
        name: t
        for name, t in state.items()
        if not name.startswith(("head.", "head_dist.", "pre_logits.", "attn_pool."))
    }
    try:
        vit.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{weights} is another kind of ViT than its file alone tells ({reason}).") from error
    print(f"{weights}: {depth} blocks, {width} wide, taken to have {width // 64} heads.")
    return vit


def from_timm(
    vit: nn.Module,
    weights: str,
    image_size: int | None,
    pixels: Any = None,
    config: dict | None = None,
    is_bgr: bool = False,
    num_fusion_layers: int = NUM_FUSION_LAYERS,
) -> VisionWeights:
    """A timm model as our own blocks where they are the same, else as a trunk.

    Args:
        vit: without its head.
        pixels: its pretrained_cfg.
        config: config.json, to make the model again; None = timm's own of that name.
        is_bgr: it expects channels in the order blue, green, red, which go into the first layer once.
        num_fusion_layers: behind a trunk; 0 = none, what is pooled is what the model itself pools.
    """
    check_family(vit, weights)
    own_size, patch_size = vit.patch_embed.img_size, vit.patch_embed.patch_size
    if len(set(own_size)) > 1 or len(set(patch_size)) > 1:
        raise ValueError(f"{weights} sees {own_size} pixels in patches of {patch_size}; expected squares.")
    if is_bgr:
        with torch.no_grad():
            vit.patch_embed.proj.weight.copy_(vit.patch_embed.proj.weight[:, [2, 1, 0]])
    size = image_size or own_size[0]
    check_grid(size, patch_size[0], weights)
    if size != own_size[0]:
        vit.set_input_size(img_size=size)
    num_registers = vit.reg_token.shape[1] if vit.reg_token is not None else 0
    is_pooled = vit.global_pool != "token" or vit.cls_token is None
    fields = {
        "image_size": size,
        "patch_size": patch_size[0],
        "num_channels": vit.patch_embed.proj.in_channels,
        "hidden_size": vit.embed_dim,
        "num_attention_heads": vit.blocks[0].attn.num_heads,
        "intermediate_size": 4 * vit.embed_dim,
        "pooling": "mean" if is_pooled else "cls",
        "pool_norm": isinstance(vit.fc_norm, nn.LayerNorm) and isinstance(vit.norm, nn.Identity),
        # A [CLS] that is not read out is one more register.
        "num_register_tokens": num_registers + (is_pooled and vit.cls_token is not None),
        **default_depths(len(vit.blocks)),
    }
    options = pixel_options(pixels or {})
    if is_plain(vit):
        return VisionWeights(weights, fields | plain_fields(vit), plain_state(vit, fields), options)
    fields["num_fusion_layers"] = num_fusion_layers
    arguments = dict((config or {}).get("model_args") or {}) | {"img_size": size}
    architecture = (config or {}).get("architecture") or weights
    trunk_config = {"model_type": "timm_wrapper", "architecture": architecture, "model_args": arguments}
    trunk_config |= {"do_pooling": False, "num_classes": 0, "label_names": []}
    unused = ("attn_pool.", "fc_norm.", "head.")
    theirs = vit.state_dict()
    state = {f"trunk.timm_model.{name}": tensor for name, tensor in theirs.items() if not name.startswith(unused)}
    if fields["pool_norm"] and num_fusion_layers == 0:
        fields["layer_norm_eps"] = vit.fc_norm.eps
        state |= {f"pool_norm.{kind}": theirs[f"fc_norm.{kind}"] for kind in ("weight", "bias")}
    else:  # behind a fusion encoder it is not the norm of this trunk any more
        fields["pool_norm"] = False
    return VisionWeights(weights, fields | {"trunk_config": trunk_config}, state, options)


def pixel_options(pixels: Any) -> dict[str, Any]:
    """Options of MFDNImageProcessor from timm's pretrained_cfg (a dictionary or an object)."""
    read = pixels.get if isinstance(pixels, dict) else lambda name: getattr(pixels, name, None)
    options = {"image_mean": read("mean"), "image_std": read("std")}
    interpolation = str(read("interpolation") or "bicubic").upper()
    options["resample"] = getattr(PILImageResampling, interpolation, PILImageResampling.BICUBIC)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value is not None
    }


def is_plain(vit: nn.Module) -> bool:
    """Whether the blocks of a timm model are those of ours, but for LayerScale, which goes into the weights."""
    if not isinstance(vit, VisionTransformer) or not isinstance(vit.norm_pre, nn.Identity) or vit.pos_embed is None:
        return False
    return all(
        type(block) is Block
        and type(block.attn) is Attention
        and isinstance(block.attn.q_norm, nn.Identity)
        and isinstance(getattr(block.attn, "norm", nn.Identity()), nn.Identity)
        and isinstance(block.mlp.norm, nn.Identity)
        and type(block.mlp.act).__name__ in ACTIVATIONS
        for block in vit.blocks
    )


def plain_fields(vit: VisionTransformer) -> dict[str, Any]:
    """Further fields of MFDNConfig for a plain ViT."""
    depth, block = len(vit.blocks), vit.blocks[0]
    if depth < 2:
        raise ValueError(f"A ViT of {depth} block cannot be cut into a vision and a fusion encoder.")
    return {
        "intermediate_size": block.mlp.fc1.out_features,
        "num_vision_layers": depth // 2,
        "num_fusion_layers": depth - depth // 2,
        "hidden_act": ACTIVATIONS[type(block.mlp.act).__name__],
        "layer_norm_eps": block.norm1.eps,
    }


def plain_state(vit: VisionTransformer, fields: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a plain timm ViT by our names."""
    theirs, depth = vit.state_dict(), len(vit.blocks)
    state = {"vision_embeddings.patch_embed.weight": theirs["patch_embed.proj.weight"]}
    state["vision_embeddings.patch_embed.bias"] = theirs.get("patch_embed.proj.bias", torch.zeros(vit.embed_dim))
    prefix = [tokens for tokens in (theirs.get("cls_token"), theirs.get("reg_token")) if tokens is not None]
    if fields["pooling"] == "cls":
        state["vision_embeddings.cls_token"], prefix = prefix[0], prefix[1:]
    if prefix:
        state["vision_embeddings.register_tokens"] = torch.cat(prefix, dim=1)
    positions = theirs["pos_embed"]
    num_prefix = fields["num_register_tokens"] + (fields["pooling"] == "cls")
    if vit.no_embed_class:  # only patches have positions there
        positions = torch.cat([positions.new_zeros(1, num_prefix, vit.embed_dim), positions], dim=1)
    state["vision_embeddings.position_embeddings"] = positions
    for index in range(depth):
        layer = own_layer(index, depth)
        block = {
            name.removeprefix(f"blocks.{index}."): t
            for name, t in theirs.items()
            if name.startswith(f"blocks.{index}.")
        }
        state |= {f"{layer}.{name}": tensor for name, tensor in block_state(block, vit.embed_dim).items()}
    norm = "fc_norm" if fields["pool_norm"] else "norm"
    target = "pool_norm" if fields["pool_norm"] else "fusion_encoder.norm"
    for kind in ("weight", "bias"):
        state[f"{target}.{kind}"] = theirs[f"{norm}.{kind}"]
    return {name: tensor.contiguous() for name, tensor in state.items()}


def own_layer(index: int, depth: int) -> str:
    """Where block `index` of a ViT of `depth` blocks goes: the first half sees, the rest fuses."""
    in_fusion = index >= depth // 2
    return f"{'fusion' if in_fusion else 'vision'}_encoder.layers.{index - depth // 2 * in_fusion}"


def block_state(block: dict[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    """One block of a timm ViT as an [`MFDNLayer`]: q, k and v apart, LayerScale in the weights behind it."""
    state = {name: tensor for name, tensor in block.items() if name.startswith(("norm1.", "norm2.", "mlp.fc"))}
    qkv_bias = block.get("attn.qkv.bias", torch.zeros(3 * width))
    for kind, tensor in (("weight", block["attn.qkv.weight"]), ("bias", qkv_bias)):
        for projection, rows in zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True):
            state[f"attention.{projection}.{kind}"] = rows
    state["attention.o_proj.weight"] = block["attn.proj.weight"]
    state["attention.o_proj.bias"] = block.get("attn.proj.bias", torch.zeros(width))
    for name in ("mlp.fc1", "mlp.fc2"):
        state.setdefault(f"{name}.bias", torch.zeros(len(state[f"{name}.weight"])))
    for scale, layer in (("ls1.gamma", "attention.o_proj"), ("ls2.gamma", "mlp.fc2")):
        if scale in block:
            state[f"{layer}.weight"] = block[scale][:, None] * state[f"{layer}.weight"]
            state[f"{layer}.bias"] = block[scale] * state[f"{layer}.bias"]
    return state


__all__ = ["VisionWeights", "bare_vit", "from_timm", "timm_model"]
