"""What MFDN is compared with in Table VI, on the same image stack: Label2Label, and a plain multi-label classifier.

Both have a fixed list of attributes (`config.num_tags`) and answer each with yes or no, where MFDN fills slots
with any of its tags. Both name the character too, by [CLS], so that one script trains and judges all systems.
`tag_logits` are [B, 1, K] logits of a sigmoid: `aggregate_tag_scores` reads them with `tag_aggregation="sigmoid"`.
"""

from typing import ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import initialization as init
from transformers.utils.output_capturing import capture_outputs

from .configuration_mfdn import IGNORE_INDEX, MFDNConfig
from .modeling_mfdn import (
    MFDNDecoderLayer,
    MFDNOutput,
    MFDNPreTrainedModel,
)

MAX_LOGIT = 10.0  # Label2Label's clamp


@strict
class BaselineConfig(MFDNConfig):
    """The sizes of the image stack; the text branch does not exist.

    Args:
        tag_loss: "bce", or "asymmetric" (Ridnik et al. 2021: γ- = 4, γ+ = 0, margin 0.05), as popular taggers train.
        rating_names: of the ratings that a tagger names besides (`rating_logits`); None = none.
    """

    model_class: ClassVar[str]
    tag_loss: str = "bce"
    rating_names: list[str] | None = None

    def __post_init__(self, **kwargs):
        # No text branch, whatever a size of MFDN says of it.
        self.modality, self.num_text_layers, self.num_decoder_layers = "image", 0, 0
        path = f"modeling_baselines_mfdn.{self.model_class}"
        kwargs["auto_map"] = {
            "AutoConfig": f"modeling_baselines_mfdn.{type(self).__name__}",
            "AutoModel": path,
            "AutoModelForImageClassification": path,
        }
        super().__post_init__(**kwargs)

    def validate_tag_loss(self):
        """Called by `@strict` after construction."""
        if self.tag_loss not in TAG_LOSSES:
            raise ValueError(f"tag_loss must be one of {tuple(TAG_LOSSES)}, got {self.tag_loss!r}.")

    @property
    def predicts_tags(self) -> bool:
        """Always: from the image."""
        return True


@strict
class MultiLabelConfig(BaselineConfig):
    """Of [`MultiLabelModel`]."""

    model_type = "mfdn-multi-label"
    model_class: ClassVar[str] = "MultiLabelModel"


@strict
class Label2LabelConfig(BaselineConfig):
    """Of [`Label2LabelModel`].

    Args:
        num_query_layers, num_label_layers: decoder layers of the two stages (Label2Label: 1 and 2).
        label_mask_prob: share of label tokens that are masked in training (0.1).
    """

    model_type = "mfdn-label2label"
    model_class: ClassVar[str] = "Label2LabelModel"
    num_query_layers: int = 1
    num_label_layers: int = 2
    label_mask_prob: float | int = 0.1


def asymmetric_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """ASL (Ridnik et al., ICCV 2021) with its published γ+ = 0, γ- = 4 and margin 0.05, summed over tags: [B]."""
    positive = nn.functional.logsigmoid(logits)
    shifted = (logits.sigmoid() - 0.05).clamp(min=0)  # easy negatives count nothing
    negative = torch.log1p(-shifted) * shifted.detach() ** 4
    return -torch.where(targets, positive, negative).sum(dim=1)


def binary_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy, summed over tags: [B]."""
    loss = nn.functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    return loss.sum(dim=1)


TAG_LOSSES = {"bce": binary_loss, "asymmetric": asymmetric_loss}


class BaselineModel(MFDNPreTrainedModel):
    """The unimodal image stack and a character head; a subclass says how tags are answered."""

    def __init__(self, config: BaselineConfig):
        super().__init__(config)
        self.build_image_stack(config)
        self.character_head = nn.Linear(config.hidden_size, config.num_labels)  # type: ignore[arg-type]
        if config.rating_names:
            self.rating_head = nn.Linear(config.hidden_size, len(config.rating_names))

    def answer_tags(self, vision_states: torch.Tensor, **kwargs) -> list[torch.Tensor]:
        """Logits [B, K] of every stage, the last of which is the answer; each has a loss of its own."""
        raise NotImplementedError

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        tag_labels: torch.Tensor | None = None,
        return_tag_logits: bool | None = None,
        **kwargs,
    ) -> MFDNOutput:
        """Args as of [`MFDNModel`]; `tag_labels` [B, T] holds **all** tags of a post, in any order.

        Returns:
            MFDNOutput with `tag_logits` [B, 1, K], of a sigmoid.
        """
        vision_states = self.encode_image(pixel_values, **kwargs)
        fused_states = self.fusion_encoder(vision_states, **kwargs)  # [B, P, D]
        pooled = self.pool(fused_states)
        logits = self.character_head(pooled)
        character_loss = self.character_loss(logits, labels) if labels is not None else None
        stages = self.answer_tags(fused_states, **kwargs)
        tag_loss = None
        if tag_labels is not None:
            targets = multi_hot(tag_labels.to(logits.device), self.config.num_tags)
            loss = TAG_LOSSES[self.config.tag_loss]
            # Summed over tags and averaged over posts: a mean over 25,404 tags, nearly all absent, would be nothing
            # beside the character's loss.
            tag_loss = torch.stack([loss(stage.float(), targets).mean() for stage in stages]).sum()
        if return_tag_logits is None:
            return_tag_logits = not self.training
        return MFDNOutput(
            loss=self.total_loss(character_loss, tag_loss),
            character_loss=character_loss,
            tag_loss=tag_loss,
            logits=logits,
            tag_logits=stages[-1][:, None] if return_tag_logits else None,
            rating_logits=self.rating_head(pooled) if self.config.rating_names else None,
            character_embedding=pooled,
            picture_embedding=self.picture_embedding(pooled, vision_states),
        )


class MultiLabelModel(BaselineModel):
    """One linear layer over all tags and one over characters, as today's taggers have it (WD taggers)."""

    config_class = MultiLabelConfig

    def __init__(self, config: MultiLabelConfig):
        super().__init__(config)
        self.tag_head = nn.Linear(config.hidden_size, config.num_tags)
        self.post_init()

    def answer_tags(self, vision_states: torch.Tensor, **kwargs) -> list[torch.Tensor]:
        return [self.tag_head(self.pool(vision_states))]


class Label2LabelModel(BaselineModel):
    """Label2Label (Li et al., ECCV 2022; paper ref. [38]) on the image stack of MFDN.

    A query for each attribute reads the image and gives a first answer. The hard answers become label tokens, a tenth
    of which is replaced by mask vectors in training, each attribute having its own; a second decoder over the image
    corrects them. Self-attention over K attributes: time and memory grow with K².
    """

    config_class = Label2LabelConfig

    def __init__(self, config: Label2LabelConfig):
        super().__init__(config)
        num_tags, width = config.num_tags, config.hidden_size
        self.queries = nn.Embedding(num_tags, width)
        self.query_decoder = nn.ModuleList(MFDNDecoderLayer(config) for _ in range(config.num_query_layers))
        self.query_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.query_head = GroupWiseLinear(num_tags, width)
        self.label_embeddings = nn.Embedding(2 * num_tags, width)  # k: attribute k is there; K + k: it is not
        self.mask_embeddings = nn.Embedding(num_tags, width)
        self.label_decoder = nn.ModuleList(MFDNDecoderLayer(config) for _ in range(config.num_label_layers))
        self.label_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.label_head = GroupWiseLinear(num_tags, width)
        self.label_batch_norm = LabelBatchNorm(num_tags)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, GroupWiseLinear):
            init.normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)

    def answer_tags(self, vision_states: torch.Tensor, **kwargs) -> list[torch.Tensor]:
        num_tags = self.config.num_tags
        # Embeddings are called, never read: where weights lie elsewhere (offloaded, sharded) a call fetches them.
        attribute = torch.arange(num_tags, device=vision_states.device)
        states = self.queries(attribute).expand(vision_states.shape[0], -1, -1)  # [B, K, D]
        for layer in self.query_decoder:
            states = layer(states, vision_states, **kwargs)
        first = self.query_head(self.dropout(self.query_norm(states))).clamp(-MAX_LOGIT, MAX_LOGIT)
        attribute = attribute.to(first.device)
        labels = self.label_embeddings(torch.where(first > 0, attribute, attribute + num_tags))  # no gradient to first
        if self.training:
            masked = torch.rand_like(first) < self.config.label_mask_prob
            labels = torch.where(masked[..., None], self.mask_embeddings(attribute), labels)
        for layer in self.label_decoder:
            labels = layer(labels, vision_states, **kwargs)
        second = self.label_batch_norm(self.label_head(self.dropout(self.label_norm(labels))))
        return [first, second.clamp(-MAX_LOGIT, MAX_LOGIT)]


class GroupWiseLinear(nn.Module):
    """[B, K, D] → [B, K]: a weight vector and a bias for each attribute."""

    def __init__(self, num_tags: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_tags, width))
        self.bias = nn.Parameter(torch.zeros(num_tags))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return (states * self.weight).sum(dim=-1) + self.bias


class LabelBatchNorm(nn.BatchNorm1d):
    """[B, K] → [B, K]. One post has no statistics: the last, smallest batch of an epoch takes those so far."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if len(states) > 1:
            return super().forward(states)
        return nn.functional.batch_norm(
            states, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def multi_hot(tag_labels: torch.Tensor, num_tags: int) -> torch.Tensor:
    """[B, T] labels, IGNORE_INDEX where there is none → bool [B, K]."""
    targets = torch.zeros(len(tag_labels), num_tags + 1, dtype=torch.bool, device=tag_labels.device)
    is_tag = tag_labels != IGNORE_INDEX
    targets.scatter_(1, tag_labels.masked_fill(~is_tag, num_tags), True)  # the last column takes what is no tag
    return targets[:, :num_tags]


__all__ = ["Label2LabelConfig", "Label2LabelModel", "MultiLabelConfig", "MultiLabelModel"]
