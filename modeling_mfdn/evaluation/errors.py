"""Where a model is wrong: accuracy by the number of training images, and the characters it takes for one another."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from PIL import Image
from torch import nn

from ..data.images import apply_color, decode_image
from ..image_processing_mfdn import pad_to_square
from .figures import BLUE, GRID, INK, MUTED, TEAL, new_figure, shortened, tidy
from .predictions import gather_readable

MAX_BINS = 8
MAX_PAIRS = 6


def predict_characters(
    model: nn.Module,
    dataloader: Iterable[dict[str, torch.Tensor]],
    accelerator: Accelerator,
    temperatures: Sequence[float] = (1.0,),
) -> dict[str, torch.Tensor]:
    """What the model says of every picture of a split, from the image alone, the same on every process.

    Args:
        model: prepared; its training mode is restored.
        dataloader: batches of `MFDNCollator(training=False)`, prepared by `accelerator`.
        temperatures: n of them, which divide the logits.

    Returns:
        `labels` and `predicted` labels [N], `confidence` [N, n] of the latter, in [0, 1], and `loss` [N, n], the
        negative log likelihood of the former.
    """
    found, was_training = [], model.training
    model.eval()
    try:
        for batch in dataloader:
            pixel_values = apply_color(batch["pixel_values"], batch.get("color_matrix"))
            with torch.inference_mode(), accelerator.autocast():
                logits = model(pixel_values=pixel_values, return_tag_logits=False).logits.float()
            labels = batch["labels"]
            scores = [(logits / temperature).log_softmax(dim=1) for temperature in temperatures]
            confidence = torch.stack([score.amax(dim=1).exp() for score in scores], dim=1)
            loss = torch.stack([nn.functional.nll_loss(score, labels, reduction="none") for score in scores], dim=1)
            said = {"labels": labels, "predicted": logits.argmax(dim=1), "confidence": confidence, "loss": loss}
            found.append(gather_readable(accelerator, said, batch)[0])
    finally:
        model.train(was_training)
    return {name: torch.cat([batch[name] for batch in found]).cpu() for name in found[0]}


def accuracy_by_training_images(
    labels: torch.Tensor, predicted: torch.Tensor, training_images: Sequence[int]
) -> list[dict]:
    """The long tail: accuracy in bins of characters that had about as many images to learn from.

    Args:
        labels, predicted: [N].
        training_images: [C] of each character.

    Returns:
        At most 8 bins of equal width on a log scale, those that have images, rarest first: `{"from", "to" (number of
        training images, inclusive), "characters", "images", "top1_accuracy"}`.
    """
    counts = np.asarray(training_images)
    known = np.unique(labels.numpy())  # characters of this split
    low, high = max(1, counts[known].min()), max(2, counts[known].max())
    edges = np.unique(np.geomspace(low, high + 1, MAX_BINS + 1).round().astype(int))
    edges[0] = min(edges[0], counts[known].min())
    found = []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        members = known[(counts[known] >= start) & (counts[known] < end)]
        in_bin = np.isin(labels.numpy(), members)
        if in_bin.any():
            accuracy = float((labels == predicted).numpy()[in_bin].mean())
            found.append(
                {
                    "from": int(start),
                    "to": int(end - 1),
                    "characters": len(members),
                    "images": int(in_bin.sum()),
                    "top1_accuracy": accuracy,
                }
            )
    return found


def most_confused(labels: torch.Tensor, predicted: torch.Tensor, names: Sequence[str], number: int = 20) -> list[dict]:
    """Pairs of characters taken for one another, in either direction, most often first.

    Returns:
        `{"characters": [a, b], "errors": pictures of one that were given the other's name, "images": of both}`.
    """
    images = Counter(labels.tolist())
    wrong = torch.stack([labels, predicted], dim=1)[labels != predicted]
    pairs = Counter(tuple(sorted(pair)) for pair in wrong.tolist())
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:number]
    return [
        {"characters": [names[a], names[b]], "errors": errors, "images": images[a] + images[b]}
        for (a, b), errors in ranked
    ]


def draw_errors(errors: dict, rows: Dataset, names: Sequence[str], folder: Path) -> None:
    """Write long_tail.png and confused.png, and say so.

    Args:
        errors: `{"by_training_images", "most_confused"}` from the functions above.
        rows: of the split, with `names` of their labels; the first picture of each character is shown.
    """
    long_tail_plot(errors["by_training_images"], folder / "long_tail.png")
    print(f"Accuracy by the number of training images: {folder / 'long_tail.png'}")
    labels = list(rows["character"])
    shown = {names[label] for label in labels}  # a model may name characters of which the split has no picture
    pairs = [pair for pair in errors["most_confused"] if set(pair["characters"]) <= shown][:MAX_PAIRS]
    if pairs:
        places = [[labels.index(names.index(name)) for name in pair["characters"]] for pair in pairs]
        examples = [tuple(decode_image(rows[place]["image"]["bytes"]) for place in pair) for pair in places]
        confused_picture(pairs, examples, folder / "confused.png")
        print(f"Characters taken for one another: {folder / 'confused.png'}")


def long_tail_plot(bins: Sequence[dict], path: str | Path) -> None:
    """Top-1 accuracy by the number of training images; the bars below say how many test images each bin has."""
    figure = new_figure(6.4, 4.2)
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    places = range(len(bins))
    accuracy = [entry["top1_accuracy"] for entry in bins]
    # Two standard errors of a share: a bin of twenty pictures cannot tell ten points.
    errors = [2 * (a * (1 - a) / entry["images"]) ** 0.5 for a, entry in zip(accuracy, bins, strict=True)]
    ax.errorbar(places, accuracy, yerr=errors, fmt="o-", color=BLUE, markersize=5, linewidth=1.8, capsize=3)
    ax.set_ylim(-0.03, 1.05)
    ax.set_title("top-1 accuracy, with two standard errors", loc="left", fontsize=10, fontweight="bold", color=INK)
    below.bar(places, [entry["images"] for entry in bins], color=TEAL, width=0.7)
    below.set_ylabel("test images", color=MUTED)
    spans = [f"{e['from']}" if e["from"] == e["to"] else f"{e['from']}–{e['to']}" for e in bins]
    below.set_xticks(list(places), spans)
    below.set_xlabel("training images of a character", color=MUTED)
    for part in (ax, below):
        tidy(part)
    figure.savefig(path)


def confused_picture(
    pairs: Sequence[dict], examples: Sequence[tuple[Image.Image, Image.Image]], path: str | Path
) -> None:
    """The most confused characters side by side, at most six pairs.

    Args:
        pairs: as of [`most_confused`].
        examples: for each pair a picture of the one and of the other.

    Raises:
        ValueError: there is no pair, or not as many examples.
    """
    if not pairs or len(pairs) != len(examples):
        raise ValueError(f"There must be as many examples as pairs, at least one; got {len(examples)}, {len(pairs)}.")
    pairs, examples = pairs[:MAX_PAIRS], examples[:MAX_PAIRS]
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = new_figure(3.7 * columns, 2.35 * rows)
    parts = figure.subfigures(rows, columns, wspace=0.05, squeeze=False).flat
    for part, pair, images in zip(parts, pairs, examples, strict=False):
        axes = part.subplots(1, 2)
        for ax, name, image in zip(axes, pair["characters"], images, strict=True):
            ax.imshow(np.asarray(pad_to_square(image)))
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color(GRID)
            ax.set_title(shortened(name, 22), fontsize=8, color=INK, parse_math=False)
        mistaken = f"{pair['errors']} of {pair['images']} pictures mistaken"
        axes[0].set_xlabel(mistaken, fontsize=8, color=MUTED, loc="left")
    figure.savefig(path)
