"""Configuration of MFDN: every number of paper §IV once. `MFDNConfig()` is the model of the paper."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, PreTrainedConfig

IGNORE_INDEX = -100  # `tag_labels` where nothing is scored
PAPER_NUM_CHARACTERS = 14_413  # Table II
MODALITIES = ("image+tags", "image")
POOLINGS = ("cls", "mean")


@strict
class MFDNConfig(PreTrainedConfig):
    """Sizes, dropout, loss weights and token ids of an [`MFDNModel`].

    Token ids 0-4 are special ([PAD] [UNK] [CLS] [SEP] [MASK]); tag k of the vocabulary has the id 5 + k.

    Args:
        image_size, patch_size: in pixels; P = (image_size / patch_size)² + 1 = 65 vision tokens (§IV-B.1).
        pooling: "cls", the paper's; "mean" of the patches, for trunks that were trained so, which have no [CLS].
        pool_norm: normalise what is pooled instead of every token, as such trunks may do.
        num_register_tokens: further tokens between [CLS] and the patches, which nothing reads out.
        trunk_config: of a vision model of transformers (`timm_wrapper`, `dinov3_vit`, …) in place of patch embedding
            and vision stack; None = the ViT of the paper.
        hidden_size, num_attention_heads, intermediate_size: one width for all four stacks (§IV-B.3).
        num_vision_layers, num_text_layers, num_fusion_layers, num_decoder_layers: depths of the stacks (§IV-B).
            `num_decoder_layers=0` is MFDN without MLM (Tables IV and V): no tag head, no tag loss.
        max_tag_tokens: T, with [CLS] and [SEP]; at most T - 2 = 30 tags are seen (§IV-B.2).
        num_tags: K, the tag vocabulary without special tokens (Table II).
        num_labels: C, the number of characters (Table II); names in `id2label`.
        modality: "image+tags", or "image" for the unimodal ViT of Tables IV and V: vision and fusion stacks alone.
        character_loss_weight, tag_loss_weight: λ_cls and λ_mlm of Eq. 6.
        single_tag_query: ask one hidden slot for all tags instead of T - 2 for one each (`tag_logits` [B, 1, K]).
    """

    model_type = "mfdn"

    image_size: int = 128
    patch_size: int = 16
    pooling: str = "cls"
    pool_norm: bool = False
    num_register_tokens: int = 0
    trunk_config: Any = None
    num_channels: int = 3
    hidden_size: int = 1024
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    num_vision_layers: int = 12
    # Paper: "the rest of the structure is the same as BERT-base", whose width is 768. Here: BERT-base's depth at the
    # width of the other stacks, pre-norm like them, because the two are concatenated without a projection (§IV-B.3).
    num_text_layers: int = 12
    num_fusion_layers: int = 12
    num_decoder_layers: int = 4
    max_tag_tokens: int = 32
    num_tags: int = 25_404
    modality: str = "image+tags"
    character_loss_weight: float | int = 1.0
    tag_loss_weight: float | int = 1.0
    hidden_act: str = "gelu"
    # The paper gives no dropout. Here: the values of animesion, whose recipe the paper shares.
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.0
    layer_norm_eps: float = 1e-6  # timm's ViT, whose weights fill the vision and fusion encoders
    initializer_range: float = 0.02
    single_tag_query: bool = False
    pad_token_id: int = 0
    unk_token_id: int = 1
    cls_token_id: int = 2
    sep_token_id: int = 3
    mask_token_id: int = 4

    def __post_init__(self, **kwargs):
        if self.id2label is None:
            kwargs.setdefault("num_labels", PAPER_NUM_CHARACTERS)
        # One repository answers to both: AutoModel gives the whole model, heads included.
        kwargs.setdefault(
            "auto_map",
            {
                "AutoConfig": "configuration_mfdn.MFDNConfig",
                "AutoModel": "modeling_mfdn.MFDNModel",
                "AutoModelForImageClassification": "modeling_mfdn.MFDNModel",
            },
        )
        # A saved folder answers to the task by itself, in a process that never imported this package.
        kwargs.setdefault(
            "custom_pipelines",
            {
                "character-tagging": {
                    "impl": "pipeline_mfdn.MFDNPipeline",
                    "pt": ["AutoModelForImageClassification"],
                    "type": "multimodal",
                }
            },
        )
        if isinstance(self.trunk_config, dict):
            model_type = self.trunk_config.get("model_type")
            if model_type not in CONFIG_MAPPING:
                raise ValueError(f"trunk_config has model_type {model_type!r}, which this transformers does not know.")
            self.trunk_config = CONFIG_MAPPING[model_type].from_dict(self.trunk_config)
        super().__post_init__(**kwargs)

    def validate_sizes(self):
        """Called by `@strict` after construction."""
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size must be a multiple of patch_size, got {self.image_size} and {self.patch_size}."
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, got {self.hidden_size} and "
                f"{self.num_attention_heads}."
            )
        if self.max_tag_tokens < 3:
            raise ValueError(f"max_tag_tokens, with [CLS] and [SEP], must be at least 3, got {self.max_tag_tokens}.")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {POOLINGS}, got {self.pooling!r}.")
        if self.modality not in MODALITIES:
            raise ValueError(f"modality must be one of {MODALITIES}, got {self.modality!r}.")

    @property
    def num_special_tokens(self) -> int:
        """Ids below this are special tokens; the tag with label k has the id `num_special_tokens + k`."""
        return 1 + max(self.pad_token_id, self.unk_token_id, self.cls_token_id, self.sep_token_id, self.mask_token_id)

    @property
    def vocab_size(self) -> int:
        """Rows of the tag embedding: tags and special tokens."""
        return self.num_tags + self.num_special_tokens

    @vocab_size.setter
    def vocab_size(self, value: int):
        if value < self.num_special_tokens:
            raise ValueError(f"vocab_size counts the {self.num_special_tokens} special tokens too, got {value}.")
        self.num_tags = value - self.num_special_tokens

    @property
    def num_vision_tokens(self) -> int:
        """P: image patches, and [CLS] and registers in front of them."""
        return (self.image_size // self.patch_size) ** 2 + self.num_prefix_tokens

    @property
    def num_prefix_tokens(self) -> int:
        """Vision tokens in front of the patches: [CLS], unless patches are pooled, and registers."""
        return (self.pooling == "cls") + self.num_register_tokens

    @property
    def max_tags(self) -> int:
        """Tag slots: T - 2."""
        return self.max_tag_tokens - 2

    @property
    def predicts_tags(self) -> bool:
        """Whether the model has a tag decoder and head (full MFDN)."""
        return self.modality == "image+tags" and self.num_decoder_layers > 0


__all__ = ["IGNORE_INDEX", "MODALITIES", "MFDNConfig"]
