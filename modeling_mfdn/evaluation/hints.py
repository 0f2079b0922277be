"""What true tags are worth: accuracy by how many of them are given, the curve between the two columns of Table V."""

from collections.abc import Iterable, Sequence

import torch
from accelerate import Accelerator
from torch import nn

from ..data.images import apply_color
from .predictions import gather_readable, show_some

HINTS = (0, 1, 2, 4, 8, 16)


def accuracy_by_hints(
    model: nn.Module,
    dataloader: Iterable[dict[str, torch.Tensor]],
    accelerator: Accelerator,
    numbers: Sequence[int] = HINTS,
) -> dict[str, float]:
    """Top-1 accuracy with 0, 1, 2, … true tags of each post given, and with all of them (up to T - 2).

    Args:
        model: MFDNModel of the modality "image+tags", prepared; its training mode is restored.
        dataloader: batches of `MFDNCollator(training=False)`, prepared by `accelerator`.
        numbers: of tags; a post with fewer gives those that it has.

    Returns:
        `{"0": accuracy, …, "all": accuracy}`, the same on every process.

    Raises:
        ValueError: the model takes pictures alone, or there is no batch.
    """
    config = accelerator.unwrap_model(model).config
    if config.modality != "image+tags":
        raise ValueError("Hints need a model that reads tags; this one takes pictures alone.")
    columns = [*map(str, numbers), "all"]
    hits, was_training = [], model.training
    model.eval()
    try:
        for batch in dataloader:
            pixel_values = apply_color(batch["pixel_values"], batch.get("color_matrix"))
            found = []
            with torch.inference_mode():
                for number in [*numbers, config.max_tags]:
                    input_ids = show_some(batch["input_ids"], batch["post_id"], config, number)
                    with accelerator.autocast():
                        logits = model(
                            pixel_values=pixel_values,
                            input_ids=input_ids,
                            attention_mask=batch["attention_mask"],
                            return_tag_logits=False,
                        ).logits
                    found.append(logits.argmax(dim=1) == batch["labels"])
                hits.append(gather_readable(accelerator, torch.stack(found, dim=1), batch)[0])  # [b, columns]
    finally:
        model.train(was_training)
    if not hits:
        raise ValueError("The data loader gave no batch: the split is empty.")
    return dict(zip(columns, torch.cat(hits).cpu().double().mean(dim=0).tolist(), strict=True))
