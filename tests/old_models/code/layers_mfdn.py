"""The layers of MFDN: attention, pre-norm transformer layers, embeddings, stacks (paper §IV-B.1 to 5).

Letters in shapes as in modeling_mfdn.py: B batch, P vision tokens, T tag tokens, N visible tags, D width.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_mfdn import MFDNConfig


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
    """[B, 3, H, W] pixels → [B, P, D]: a linear projection of each patch, [CLS] in front, learned positions."""

    def __init__(self, config: MFDNConfig):
        super().__init__()
        self.config = config
        self.patch_embed = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.num_vision_tokens, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values):
        expected = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"pixel_values must be [batch, {', '.join(map(str, expected))}], got {list(pixel_values.shape)}. "
                "MFDNProcessor makes them from pictures of any size."
            )
        pixel_values = pixel_values.to(self.patch_embed.weight.dtype)  # of the processor's, in a model of bfloat16
        patches = self.patch_embed(pixel_values).flatten(2).transpose(1, 2)  # [B, P - 1, D]
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
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
