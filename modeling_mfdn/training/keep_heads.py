"""Rows of heads by name: of last month's model, this month's start (`train_mfdn.py --keep_heads`), and those that stay
after training."""

from pathlib import Path

import torch

from ..modeling_mfdn import MFDNPreTrainedModel
from ..processing_mfdn import MFDNProcessor
from .weight_files import read_json

WITH_SPECIAL_TOKENS = "tag_embeddings.tag_embeddings."  # whose rows stand in front of those of the tags
# Tensors with a row for each name: of what, and in how many blocks. Label2Label has two: a tag is there, it is not.
ROWS = {
    "character_head.": ("characters", 1),
    WITH_SPECIAL_TOKENS: ("tags", 1),
    "tag_head.": ("tags", 1),
    "queries.": ("tags", 1),
    "query_head.": ("tags", 1),
    "label_embeddings.": ("tags", 2),
    "mask_embeddings.": ("tags", 1),
    "label_head.": ("tags", 1),
    "label_batch_norm.": ("tags", 1),
}


def keep_heads(model: MFDNPreTrainedModel, folder: str, tags: list[str]) -> tuple[int, int]:
    """Give a model all that an older one of ours knows: stacks and heads, and the rows of names that both have.

    A new name starts as the mean of the old rows, whose score is never the highest: at first the model names old
    characters exactly as before.

    Args:
        model: new, of the same sizes; its characters are those of its config.
        folder: of the older model.
        tags: of the new model, in the order of their labels.

    Returns:
        How many characters and tags kept their rows.

    Raises:
        ValueError: no model of ours, of another system or modality, or of other sizes.
    """
    if read_json(Path(folder, "config.json")).get("model_type") != model.config.model_type:
        raise ValueError(f"--keep_heads: {folder} is no model of the same --system.")
    old = type(model).from_pretrained(folder)
    old_tags = MFDNProcessor.from_pretrained(folder).tag_names
    old_names = {"characters": list(old.config.id2label.values()), "tags": old_tags}
    names = {"characters": list(model.config.id2label.values()), "tags": tags}
    kept = {kind: len(set(names[kind]) & set(old_names[kind])) for kind in names}
    state, theirs = model.state_dict(), old.state_dict()
    for name, tensor in theirs.items():
        if name.startswith("vision_embeddings.position_embeddings"):
            continue  # resampled already
        if name not in state:
            continue
        kind, blocks = next((rows for prefix, rows in ROWS.items() if name.startswith(prefix)), (None, 0))
        if kind and tensor.ndim:
            first = model.config.num_special_tokens if name.startswith(WITH_SPECIAL_TOKENS) else 0
            tensor = grown(tensor, old_names[kind], names[kind], first, blocks)
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"--keep_heads: {name} is {list(tensor.shape)} in {folder}, {list(state[name].shape)} in the new one."
            )
        state[name] = tensor
    if missing := [name for name, _ in model.named_parameters() if name not in theirs]:
        raise ValueError(f"--keep_heads: {folder} has no {missing[0]}: it is of another modality.")
    model.load_state_dict(state)
    return kept["characters"], kept["tags"]


@torch.no_grad()
def keep_characters(model: MFDNPreTrainedModel, num_characters: int) -> None:
    """Only the first characters of a model, with their rows, are kept."""
    config, old = model.config, model.character_head
    head = torch.nn.Linear(old.in_features, num_characters, device=old.weight.device, dtype=old.weight.dtype)
    head.weight.copy_(old.weight[:num_characters])
    head.bias.copy_(old.bias[:num_characters])
    model.character_head = head
    config.id2label = {label: config.id2label[label] for label in range(num_characters)}
    config.label2id = {name: label for label, name in config.id2label.items()}


def grown(rows: torch.Tensor, old: list[str], new: list[str], first: int, blocks: int) -> torch.Tensor:
    """Rows of the `new` names, in as many blocks: those of the `old`, else their mean. The `first` rows stay."""
    places = {name: place for place, name in enumerate(old)}
    parts = [rows[:first]]
    for part in rows[first:].chunk(blocks):
        mean = part.mean(dim=0)
        parts.append(torch.stack([part[places[name]] if name in places else mean for name in new]))
    return torch.cat(parts)


__all__ = ["keep_characters", "keep_heads"]
