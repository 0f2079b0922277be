"""MFDN, the Multimodal Fusion and Decoupling Network (paper §IV-B, Fig. 3).

Image patches and tags are encoded apart, fused by one transformer, and split again: the [CLS] of the image names the
character; a decoder that reads the image predicts the tags that were hidden. Letters in shapes: B batch, P vision
tokens (65), T tag tokens (32), N visible tags of the fullest post in a batch, D width, C characters, K tags.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_mfdn import IGNORE_INDEX, MFDNConfig


def eager_attention_forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Softmax attention (Eq. 3) on [B, heads, tokens, D / heads]; the reference for every other implementation."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class MFDNAttention(nn.Module):
    """Multi-head attention (Eq. 2 and 3) of `hidden_states` to itself, or to `context` where one is given."""

    def __init__(self, config: MFDNConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states, context=None, attention_mask=None, **kwargs):
        context = hidden_states if context is None else context
        query, key, value = (
            states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for states in (self.q_proj(hidden_states), self.k_proj(context), self.v_proj(context))
        )
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        kwargs |= {"dropout": dropout, "scaling": self.scaling}
        output, weights = attend(self, query, key, value, attention_mask, **kwargs)
        return self.o_proj(output.flatten(2)), weights


class MFDNMLP(nn.Module):
    def __init__(self, config: MFDNConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states):
        return self.fc2(self.act(self.fc1(hidden_states)))


class MFDNLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer, "layer normalization to the input of each layer" (§IV-B.3)."""

    def __init__(self, config: MFDNConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = MFDNAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MFDNMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        attended, _ = self.attention(self.norm1(hidden_states), attention_mask=attention_mask, **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.norm2(hidden_states)))


class MFDNDecoderLayer(GradientCheckpointingLayer):
    """Pre-norm layer whose queries are tags, and whose keys and values are the image (§IV-B.5)."""

    def __init__(self, config: MFDNConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = MFDNAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.cross_attention = MFDNAttention(config)
        self.norm3 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MFDNMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states, vision_states, attention_mask=None, **kwargs):
        attended, _ = self.attention(self.norm1(hidden_states), attention_mask=attention_mask, **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        attended, _ = self.cross_attention(self.norm2(hidden_states), context=vision_states, **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.norm3(hidden_states)))


class MFDNVisionEmbeddings(nn.Module):
    """[B, 3, H, W] pixels → [B, P, D]: a linear projection of each patch, [CLS] in front, learned positions.

    A model that pools its patches has no [CLS]; registers stand between it and the patches.
    """

    def __init__(self, config: MFDNConfig):
        super().__init__()
        self.config = config
        self.patch_embed = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)
        if config.pooling == "cls":
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        if config.num_register_tokens:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.num_vision_tokens, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values):
        pixel_values = pixel_values.to(self.patch_embed.weight.dtype)  # of the processor's, in a model of bfloat16
        patches = self.patch_embed(pixel_values).flatten(2).transpose(1, 2)  # [B, patches, D]
        prefix = [getattr(self, name) for name in ("cls_token", "register_tokens") if hasattr(self, name)]
        tokens = torch.cat([*(tokens.expand(patches.shape[0], -1, -1) for tokens in prefix), patches], dim=1)
        return self.dropout(tokens + self.position_embeddings)


class MFDNTagEmbeddings(nn.Module):
    """Tag ids and their slots → [B, N, D], as BERT embeds words (§IV-B.2)."""

    def __init__(self, config: MFDNConfig):
        super().__init__()
        self.tag_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_tag_tokens, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids, positions):
        """Without `input_ids` the slots as they are, [N, D]: asked for here, where weights that lie elsewhere
        (offloaded, sharded) are fetched."""
        if input_ids is None:
            return self.position_embeddings(positions)
        return self.dropout(self.norm(self.tag_embeddings(input_ids) + self.position_embeddings(positions)))


class MFDNEncoder(nn.Module):
    """A stack of layers; `final_norm` where nothing normalises its output again."""

    def __init__(self, config: MFDNConfig, num_layers: int, final_norm: bool = False):
        super().__init__()
        self.layers = nn.ModuleList([MFDNLayer(config) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if final_norm else nn.Identity()

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask, **kwargs)
        return self.norm(hidden_states)


class MFDNTagDecoder(nn.Module):
    """Reads the image and fills the slots of hidden tags (§IV-B.5)."""

    def __init__(self, config: MFDNConfig):
        super().__init__()
        self.mask_vector = nn.Parameter(torch.zeros(config.hidden_size))
        self.layers = nn.ModuleList([MFDNDecoderLayer(config) for _ in range(config.num_decoder_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, queries, is_hidden, vision_states, attention_mask=None, **kwargs):
        """`queries` [B, Q, D]; where `is_hidden` ([Q] or [B, Q]) they are slots, which the mask vector is added to."""
        queries = torch.where(is_hidden[..., None], queries + self.mask_vector, queries)
        for layer in self.layers:
            queries = layer(queries, vision_states, attention_mask, **kwargs)
        return self.norm(queries)


@dataclass
class MFDNOutput(ModelOutput):
    """What [`MFDNModel`] returns.

    Args:
        loss: [] weighted sum of the two losses below (Eq. 6); None without labels.
        character_loss: [] cross-entropy of the character (Eq. 4).
        tag_loss: [] cross-entropy of the hidden tags (Eq. 5), exactly 0 when none is scored.
        logits: [B, C] character scores before softmax.
        tag_logits: [B, Q, K] a distribution over all tags for each slot, before softmax. Q = T - 2, or 1 with
            `config.single_tag_query`. None while training, for a model without tag decoder, or on request.
        rating_logits: [B, ratings] before sigmoid, of models that name ratings.
        character_embedding: [B, D] the state that the character head reads.
        picture_embedding: [B, 2D] that, and the mean of the patches before any tag: what [`CharacterGallery`] tells
            characters apart by.
        vision_states: [B, P, D] what the vision encoder makes of the pictures, before any tag: given back to `forward`
            with other tags it saves that work.
        hidden_states, attentions: of the fusion encoder, with `output_hidden_states=True` / `output_attentions=True`.
    """

    loss: torch.Tensor | None = None
    character_loss: torch.Tensor | None = None
    tag_loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    tag_logits: torch.Tensor | None = None
    rating_logits: torch.Tensor | None = None
    character_embedding: torch.Tensor | None = None
    picture_embedding: torch.Tensor | None = None
    vision_states: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class VisibleTags:
    """The tags a model may see, packed to the front so that hidden ones cost nothing.

    Args:
        input_ids: [B, N + 2] [CLS], the visible tags, [PAD] up to the fullest post of the batch, [SEP].
        positions: [B, N + 2] the slot of each. [SEP] always stands in the last slot: behind the last tag, as BERT
            has it, its position would tell how many tags are hidden.
        mask: [B, N + 2] False at [PAD].
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor


class MFDNPreTrainedModel(PreTrainedModel):
    config_class = MFDNConfig
    base_model_prefix = "mfdn"
    main_input_name = "pixel_values"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    # Modules with a parameter of their own beside others, and layers whose input is added to their output.
    _no_split_modules = [
        "MFDNVisionEmbeddings",
        "MFDNTagEmbeddings",
        "MFDNLayer",
        "MFDNDecoderLayer",
        "MFDNTagDecoder",
    ]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {
        "hidden_states": OutputRecorder(MFDNLayer, layer_name="fusion_encoder"),
        "attentions": OutputRecorder(MFDNAttention, index=1, layer_name="fusion_encoder"),
    }
    # The losses are means over this batch; Trainer must not hand over the number of items of the whole step.
    accepts_loss_kwargs = False
    # What the subclasses are made of.
    trunk: PreTrainedModel
    vision_embeddings: MFDNVisionEmbeddings
    vision_encoder: MFDNEncoder
    fusion_encoder: MFDNEncoder
    tag_embeddings: MFDNTagEmbeddings
    character_head: nn.Linear
    tag_head: nn.Linear

    def build_image_stack(self, config: MFDNConfig) -> None:
        """What sees the picture: the paper's patch embedding and vision stack, or a trunk, then the fusion stack."""
        if config.trunk_config is None:
            self.vision_embeddings = MFDNVisionEmbeddings(config)
            self.vision_encoder = MFDNEncoder(config, config.num_vision_layers)
        else:
            self.trunk = AutoModel.from_config(config.trunk_config)
            timm_model: Any = getattr(self.trunk, "timm_model", None)
            for name in ("attn_pool", "fc_norm", "head"):  # of its own answer, which nobody asks for
                if hasattr(timm_model, name):
                    setattr(timm_model, name, nn.Identity())
            width = config.trunk_config.hidden_size if timm_model is None else timm_model.num_features
            is_equal = width == config.hidden_size
            self.trunk_projection = nn.Identity() if is_equal else nn.Linear(width, config.hidden_size)
        # A trunk with nothing behind it has normalised its tokens itself.
        is_bare = config.trunk_config is not None and config.num_fusion_layers == 0
        norms_tokens = not config.pool_norm and not is_bare
        self.fusion_encoder = MFDNEncoder(config, config.num_fusion_layers, final_norm=norms_tokens)
        self.pool_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.pool_norm else nn.Identity()
        )

    def encode_image(self, pixel_values: Any, **kwargs) -> torch.Tensor:
        """Pixels → the states [B, P, D] that the fusion stack reads. Raises ValueError for another size."""
        expected = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"pixel_values must be [batch, {', '.join(map(str, expected))}], got {list(pixel_values.shape)}. "
                "MFDNProcessor makes them from pictures of any size."
            )
        if self.config.trunk_config is None:
            return self.vision_encoder(self.vision_embeddings(pixel_values), **kwargs)
        return self.trunk_projection(self.trunk(pixel_values.to(self.trunk.dtype)).last_hidden_state)

    def pool(self, states: torch.Tensor) -> torch.Tensor:
        """One state [B, D] of a picture: that of [CLS], or the mean of its patches."""
        if self.config.pooling == "cls":
            return self.pool_norm(states[:, 0])
        return self.pool_norm(states[:, self.config.num_prefix_tokens :].mean(dim=1))

    def picture_embedding(self, character_embedding: torch.Tensor, vision_states: torch.Tensor) -> torch.Tensor:
        """[B, 2D]. The mean of the patches forgets less of what the character head has no use for (1 to 2 points of
        accuracy on characters that nobody trained)."""
        patches = vision_states[:, self.config.num_prefix_tokens :].mean(dim=1)
        return torch.cat([character_embedding, patches.to(character_embedding.device)], dim=1)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, MFDNVisionEmbeddings):
            for name in ("cls_token", "register_tokens", "position_embeddings"):
                if hasattr(module, name):
                    init.trunc_normal_(getattr(module, name), std=std)
        elif isinstance(module, MFDNTagDecoder):
            init.trunc_normal_(module.mask_vector, std=std)

    def get_input_embeddings(self) -> nn.Module:
        """Of the tags; of the patches, where a model takes pictures alone, as ViT has it."""
        if self.config.modality == "image+tags":
            return self.tag_embeddings.tag_embeddings
        has_trunk = self.config.trunk_config is not None
        return self.trunk.get_input_embeddings() if has_trunk else self.vision_embeddings.patch_embed

    def set_input_embeddings(self, value: Any):
        if self.config.modality == "image+tags":
            self.tag_embeddings.tag_embeddings = value
        elif self.config.trunk_config is not None:
            self.trunk.set_input_embeddings(value)
        else:
            self.vision_embeddings.patch_embed = value

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args, **kwargs) -> nn.Module:
        """Give the model room for further tags at the end of its vocabulary, or take the last ones away.

        Tags are its answers too, so the tag head gets as many rows. What is new knows nothing until it is trained, and
        the processor's tokenizer and `tag_thresholds` have to be made of the same vocabulary.

        Args:
            new_num_tokens: tags and the special tokens in front of them; None changes nothing.

        Raises:
            ValueError: the model takes pictures alone, or fewer tokens than the special ones.
        """
        if self.config.modality != "image+tags":
            raise ValueError("resize_token_embeddings: this model takes pictures alone, and has no tags to read.")
        if new_num_tokens is not None and new_num_tokens <= self.config.num_special_tokens:
            raise ValueError(
                f"Expected more than the {self.config.num_special_tokens} special tokens, got {new_num_tokens}."
            )
        embeddings = super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        num_tags = embeddings.num_embeddings - self.config.num_special_tokens
        if self.config.predicts_tags and self.tag_head.out_features != num_tags:
            self.tag_head = self._get_resized_lm_head(self.tag_head, num_tags)
        return embeddings

    def vision_features(self, pixel_values: torch.Tensor, **kwargs) -> torch.Tensor:
        """Image tokens alone through vision and fusion stacks, [B, P, D]: what a ViT of both depths gives."""
        return self.fusion_encoder(self.encode_image(pixel_values, **kwargs), **kwargs)

    def character_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Eq. 4, mean over the posts."""
        return nn.functional.cross_entropy(logits.float(), labels.to(logits.device))

    def total_loss(self, character_loss: torch.Tensor | None, tag_loss: torch.Tensor | None) -> torch.Tensor | None:
        """Eq. 6, of whatever was given labels."""
        weighted = [
            weight * loss
            for weight, loss in (
                (self.config.character_loss_weight, character_loss),
                (self.config.tag_loss_weight, tag_loss),
            )
            if loss is not None
        ]
        return sum(weighted) if weighted else None


class MFDNModel(MFDNPreTrainedModel):
    """MFDN with both heads: the character in the picture, and its tags.

    `config.modality="image"` is the unimodal ViT of Tables IV and V, `config.num_decoder_layers=0` MFDN without MLM.

    Example:
        >>> outputs = model(**processor(images=picture, tags=["long_hair"]))
        >>> processor.post_process(outputs)[0]["characters"]
    """

    def __init__(self, config: MFDNConfig):
        super().__init__(config)
        self.build_image_stack(config)
        self.character_head = nn.Linear(config.hidden_size, config.num_labels)  # type: ignore[arg-type]
        if config.modality == "image+tags":
            self.tag_embeddings = MFDNTagEmbeddings(config)
            self.text_encoder = MFDNEncoder(config, config.num_text_layers)
        if config.predicts_tags:
            self.tag_decoder = MFDNTagDecoder(config)
            # Paper: l_t classification headers, one a slot. Here: one shared head, because 30 of them over 25,404
            # tags would be 0.8 B parameters. Special tokens are never predicted.
            self.tag_head = nn.Linear(config.hidden_size, config.num_tags)
        self.packs_tags = True  # see `visible_tags`
        self.post_init()

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        tag_labels: torch.Tensor | None = None,
        vision_states: torch.Tensor | None = None,
        return_tag_logits: bool | None = None,
        **kwargs,
    ) -> MFDNOutput:
        """Identify the character and predict the tags that are not given (Fig. 3).

        Args:
            pixel_values: [B, 3, H, W] of `config.image_size`, normalised by MFDNProcessor.
            input_ids: [B, up to T] `[CLS] tag ... tag [SEP] [PAD] ...`. A tag is hidden where its id is [MASK]. None
                means image only, which equals every tag hidden, exactly.
            attention_mask: [B, up to T] 1 = tag or special token, 0 = padding; a hidden tag is 1. None = no padding.
            labels: [B] character ids. Give `character_loss` (Eq. 4). A stock Trainer that gets these alone takes
                `label_names=["labels"]`.
            tag_labels: like `input_ids`, the label (id minus the special tokens) of each hidden tag, `IGNORE_INDEX`
                where nothing is scored. Give `tag_loss` (Eq. 5).
            vision_states: [B, P, D] of an earlier call, in place of pixel_values.
            return_tag_logits: default: not while training, where [B, T - 2, K] would be 25,404 numbers a slot.

        Raises:
            ValueError: neither or both of pixel_values and vision_states; pixel_values of another size; tags for a
                model of the "image" modality; tag_labels for a model without tag decoder.
        """
        if tag_labels is not None and not self.config.predicts_tags:
            raise ValueError(
                "tag_labels were given, but this model predicts no tags: "
                f"modality={self.config.modality!r}, num_decoder_layers={self.config.num_decoder_layers}."
            )
        visible = self.visible_tags(input_ids, attention_mask) if input_ids is not None else None
        if (pixel_values is None) == (vision_states is None):
            raise ValueError("Give either pixel_values or the vision_states of an earlier call.")
        if vision_states is None:
            vision_states = self.encode_image(pixel_values, **kwargs)  # [B, P, D]
        text_states, text_mask = self.encode_tags(visible, vision_states, **kwargs)  # [B, N + 2, D] or None
        fused_states, text_states = self.fuse(vision_states, text_states, text_mask, **kwargs)

        character_embedding = self.pool(fused_states)
        logits = self.character_head(character_embedding)  # [B, C]
        character_loss = self.character_loss(logits, labels) if labels is not None else None

        tag_loss = tag_logits = None
        if return_tag_logits is None:
            return_tag_logits = not self.training
        if self.config.predicts_tags and (return_tag_logits or tag_labels is not None):
            decode = self.decode_one_slot if self.config.single_tag_query else self.decode_slots
            decoded = decode(self.pool_norm(fused_states), text_states, visible, **kwargs)  # [B, Q, D]
            if tag_labels is not None:
                tag_loss = self.tag_loss(decoded, tag_labels)
            if return_tag_logits:
                tag_logits = self.tag_head(decoded)

        return MFDNOutput(
            loss=self.total_loss(character_loss, tag_loss),
            character_loss=character_loss,
            tag_loss=tag_loss,
            logits=logits,
            tag_logits=tag_logits,
            character_embedding=character_embedding,
            picture_embedding=self.picture_embedding(character_embedding, vision_states),
            vision_states=vision_states,
        )

    def visible_tags(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> VisibleTags | None:
        """The tags that are neither hidden nor unknown nor padding; None when no post of the batch has one.

        With `packs_tags` (the default) only as many slots as the fullest post has, so that hidden tags cost nothing.
        Without, and in a compiled or exported graph, whose shapes are fixed, all T - 2: the same answers.
        """
        config = self.config
        if config.modality == "image":
            raise ValueError('input_ids were given, but config.modality is "image": this model takes pictures alone.')
        if input_ids.shape[1] > config.max_tag_tokens:
            raise ValueError(f"input_ids hold at most {config.max_tag_tokens} tokens, got {input_ids.shape[1]}.")
        tag_ids = input_ids[:, 1 : config.max_tag_tokens - 1]
        is_visible = tag_ids >= config.num_special_tokens  # [B, slots]
        if attention_mask is not None:
            is_visible = is_visible & attention_mask[:, 1 : config.max_tag_tokens - 1].bool()
        if self.packs_tags and not torch.compiler.is_compiling():
            most_tags = int(is_visible.sum(dim=1).max())  # one sync a step, which saves the work of all hidden tags
            if most_tags == 0:
                return None
            slots = is_visible.int().argsort(dim=1, descending=True, stable=True)[:, :most_tags]  # [B, N]
            mask, tag_ids = is_visible.gather(1, slots), tag_ids.gather(1, slots)
        else:
            slots, mask = torch.arange(tag_ids.shape[1], device=tag_ids.device).expand_as(tag_ids), is_visible
        tag_ids = torch.where(mask, tag_ids, config.pad_token_id)
        first = torch.zeros_like(input_ids[:, :1])
        last = first + config.max_tag_tokens - 1
        return VisibleTags(
            input_ids=torch.cat([first + config.cls_token_id, tag_ids, first + config.sep_token_id], dim=1),
            positions=torch.cat([first, slots + 1, last], dim=1),
            mask=nn.functional.pad(mask, (1, 1), value=True),
        )

    def encode_tags(self, visible: VisibleTags | None, vision_states: torch.Tensor, **kwargs):
        """Text states [B, N + 2, D] and their mask (None = nothing is padding); (None, None) without text branch.

        `vision_states` say for how many pictures, and on which device.
        """
        if self.config.modality == "image":
            return None, None
        if visible is None:
            return self.no_tags_states(vision_states.device, **kwargs).expand(vision_states.shape[0], -1, -1), None
        embedded = self.tag_embeddings(visible.input_ids, visible.positions)
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=embedded, attention_mask=visible.mask
        )
        return self.text_encoder(embedded, attention_mask, **kwargs), visible.mask

    def no_tags_states(self, device: torch.device, **kwargs) -> torch.Tensor:
        """[1, 2, D]: [CLS] and [SEP] alone, the same for every picture without visible tags.

        Computed in each call, for one row. Nothing is kept: nothing that torch shows tells of every way in which
        weights change (fused optimizers, `param.data`, adapters and hooks do not raise a parameter's version).
        `device` is that of the inputs: `self.device` is meta where weights are offloaded.
        """
        config = self.config
        input_ids = torch.tensor([[config.cls_token_id, config.sep_token_id]], device=device)
        positions = torch.tensor([[0, config.max_tag_tokens - 1]], device=device)
        return self.text_encoder(self.tag_embeddings(input_ids, positions), **kwargs)

    def fuse(self, vision_states, text_states, text_mask, **kwargs):
        """One stream of both modalities (§IV-B.3), then split: [B, P, D] and [B, N + 2, D]."""
        if text_states is None:
            return self.fusion_encoder(vision_states, **kwargs), None
        num_vision_tokens = vision_states.shape[1]
        text_states = text_states.to(vision_states.device)  # stacks may lie on several devices
        fused = torch.cat([vision_states, text_states], dim=1)
        attention_mask = None
        if text_mask is not None:
            attention_mask = create_bidirectional_mask(
                config=self.config,
                inputs_embeds=fused,
                attention_mask=nn.functional.pad(text_mask, (num_vision_tokens, 0), value=True),
            )
        fused = self.fusion_encoder(fused, attention_mask, **kwargs)
        return fused[:, :num_vision_tokens], fused[:, num_vision_tokens:]

    def decode_slots(self, vision_states, text_states, visible: VisibleTags | None, **kwargs) -> torch.Tensor:
        """Decoded states [B, T - 2, D] of every slot: visible tags ask with their fused state, the others with the
        mask vector, padding too, so that the number of tags does not leak."""
        last = self.config.max_tag_tokens - 1
        positions = torch.arange(last + 1, device=vision_states.device)
        slots = self.tag_embeddings(None, positions).to(vision_states.device)  # [T, D]
        queries = slots.expand(vision_states.shape[0], -1, -1)
        if visible is None:
            queries = torch.cat([text_states[:, :1], queries[:, 1:-1], text_states[:, 1:]], dim=1)
            is_hidden = (positions > 0) & (positions < last)
        else:
            given, mask = visible.positions.to(slots.device), visible.mask.to(slots.device)
            known = torch.where(mask[..., None], text_states, slots[given])
            queries = queries.scatter(1, given[..., None].expand_as(known), known.to(queries.dtype))
            is_hidden = torch.ones_like(queries[..., 0], dtype=torch.bool).scatter(1, given, ~mask)
        return self.tag_decoder(queries, is_hidden, vision_states, **kwargs)[:, 1:last]

    def decode_one_slot(self, vision_states, text_states, visible: VisibleTags | None, **kwargs) -> torch.Tensor:
        """Decoded state [B, 1, D] of one hidden slot: with tags in random order every hidden slot learns the same
        distribution, so one asks for all at a fraction of the decoder's and the head's cost."""
        position = torch.ones(1, dtype=torch.long, device=vision_states.device)
        slot = self.tag_embeddings(None, position).to(vision_states.device)  # [1, D]
        queries = torch.cat([text_states, slot.expand(vision_states.shape[0], 1, -1)], dim=1)
        is_hidden = nn.functional.pad(position.bool(), (text_states.shape[1], 0))
        attention_mask = None
        if visible is not None:
            attention_mask = create_bidirectional_mask(
                config=self.config,
                inputs_embeds=queries,
                attention_mask=nn.functional.pad(visible.mask, (0, 1), value=True),
            )
        return self.tag_decoder(queries, is_hidden, vision_states, attention_mask, **kwargs)[:, -1:]

    def tag_loss(self, decoded: torch.Tensor, tag_labels: torch.Tensor) -> torch.Tensor:
        """Eq. 5: mean over a post's hidden tags, then over the posts. A post that hides none adds 0.

        The head runs only where a tag is scored: no logits of shape [B, T - 2, K] come into being. One query
        (Q = 1) answers for all hidden tags of its post.
        """
        tag_labels = tag_labels[:, 1 : self.config.max_tag_tokens - 1].to(decoded.device)
        is_scored = tag_labels != IGNORE_INDEX
        post, slot = is_scored.nonzero(as_tuple=True)
        if decoded.shape[1] == 1:
            losses = -self.tag_head(decoded[:, 0]).float().log_softmax(dim=1)[post, tag_labels[post, slot]]
        else:
            scored_logits = self.tag_head(decoded[post, slot])  # [scored, K]
            losses = nn.functional.cross_entropy(scored_logits.float(), tag_labels[post, slot], reduction="none")
        per_post = losses.new_zeros(len(tag_labels)).index_add(0, post, losses)
        return (per_post / is_scored.sum(dim=1).clamp(min=1)).mean()


__all__ = ["MFDNModel", "MFDNOutput", "MFDNPreTrainedModel"]
