"""A model in the layout of WD taggers, which the front ends of the field read as they are: kohya's tagger, taggui,
ComfyUI's node, Hydrus tools.

    mfdn export --model mfdn --output mfdn_wd --layout wd

`model.onnx`: `input` float32 [B, S, S, 3], BGR in [0, 255], the picture on a white square; `output` [B, N], a score in
[0, 1] for each row of `selected_tags.csv`: four ratings (category 9) first, since front ends count on them, then tags
(0), then characters (4), also those that were taught. A score is what the pipeline says; a front end asks nobody about
"unknown", so it names a character where its threshold is passed. It resizes the picture itself, mostly with bicubic.
"""

import json
from pathlib import Path

import onnx
import torch
from torch import nn
from transformers import PreTrainedModel

from .. import MFDNProcessor
from ..processing_mfdn import aggregate_tag_scores
from ..training.files import check_room
from ..training.tag_tokenizer import CHARACTER, GENERAL, RATING, TAG_LIST
from .cards import plain
from .onnx_export import (
    CHECKED_BATCHES,
    MARKER,
    MAX_BYTES,
    TOLERANCE,
    load_model,
    open_graph,
    read_counts,
    write_tag_table,
)

RATINGS = ("general", "sensitive", "questionable", "explicit")
# What front ends of 2023 load, with onnxruntime 1.16.
OPSET, IR_VERSION = 18, 9
README = """# {title}, as front ends of WD taggers read it

`model.onnx` takes [B, {size}, {size}, 3] BGR in [0, 255] on a white square and gives one score a row of
`selected_tags.csv`. Put both files where the front end keeps SmilingWolf's, or give it this repository's name.
{ratings}Characters are scored among those it knows; from {threshold:g} on one is there.
"""


class WDGraph(nn.Module):
    """(pixels [B, S, S, 3], BGR in [0, 255]) → scores [B, N] of ratings, tags and characters; and the embedding."""

    def __init__(self, model: PreTrainedModel, processor: MFDNProcessor, with_embedding: bool):
        super().__init__()
        self.model, self.processor, self.with_embedding = model, processor, with_embedding
        images = processor.image_processor
        for name in ("mean", "std"):
            values = torch.tensor(getattr(images, f"image_{name}")) * (1 / images.rescale_factor)
            self.register_buffer(name, values[:, None, None])

    def forward(self, pixels: torch.Tensor):
        rgb = pixels.flip(-1).permute(0, 3, 1, 2)
        config = self.model.config
        outputs = self.model(pixel_values=(rgb - self.mean) / self.std, return_tag_logits=config.predicts_tags)
        found = []
        if outputs.rating_logits is not None:
            found.append(outputs.rating_logits.sigmoid())
        num_missing = len(rating_names(self.processor)) - len(self.processor.ratings or ())
        if num_missing:
            found.append(torch.zeros_like(outputs.logits[:, :1]).repeat(1, num_missing))
        if config.predicts_tags:
            method = self.processor.tag_aggregation
            found.append(aggregate_tag_scores(outputs.tag_logits, method, config.max_tags))
        _, characters, _ = self.processor.rank_characters(outputs.logits, outputs.picture_embedding)
        scores = torch.cat([*found, characters], dim=1)
        return (scores, outputs.picture_embedding) if self.with_embedding else scores


def rating_names(processor: MFDNProcessor) -> list[str]:
    """The model's, and so many of WD's behind them that there are four: front ends take the first four rows for
    ratings, whatever stands there."""
    named = list(processor.ratings or ())
    return named + [name for name in RATINGS if name not in named][: max(0, len(RATINGS) - len(named))]


def export_wd(model_folder: str, output: Path, dataset: str | None, with_embedding: bool) -> dict:
    """All files into an empty folder. Returns what onnx.json says. Raises ValueError where the graph differs."""
    model, processor = load_model(model_folder)
    config = model.config
    if not processor.image_processor.do_pad:
        raise ValueError("This model stretches pictures (do_pad is False); front ends of WD pad them to a square.")
    check_room(output, model.get_memory_footprint())
    processor.characters = [config.id2label[label] for label in range(config.num_labels)]
    graph, path = WDGraph(model, processor, with_embedding).eval(), output / "model.onnx"
    with torch.no_grad():
        graph(example_pixels(config.image_size, 1))  # what was taught is weighed once, before it is a constant
        batch = torch.export.Dim("batch_size", min=1, max=4096)
        torch.onnx.export(
            graph,
            (example_pixels(config.image_size, 2),),
            path,
            dynamo=True,
            input_names=["input"],
            output_names=["output", "picture_embedding"][: 1 + with_embedding],
            dynamic_shapes=[{0: batch}],
            opset_version=OPSET,
            external_data=model.get_memory_footprint() > MAX_BYTES,
            verbose=False,
        )
    with_older_readers(path)
    rows = [(name, RATING) for name in rating_names(processor)]
    rows += [(tag, GENERAL) for tag in processor.tag_names] * bool(config.predicts_tags)
    rows += [(name, CHARACTER) for name in processor.character_names]
    difference = largest_difference(graph, path, len(rows))
    if difference > TOLERANCE:
        raise ValueError(f"The graph differs from PyTorch by {difference:.1e}, allowed is {TOLERANCE:.0e}.")
    counts = read_counts(model_folder, dataset)
    without = sum(name not in counts for name, category in rows if category != RATING)
    write_tag_table(output / TAG_LIST, rows, counts)
    readme = README.format(
        title=plain(Path(model_folder).name),
        size=config.image_size,
        ratings="" if processor.ratings else "It names no ratings: the four rows of them are 0. ",
        threshold=processor.character_threshold,
    )
    (output / "README.md").write_text(readme, encoding="utf-8")
    entry = {
        "bytes": path.stat().st_size,
        "largest_difference": difference,
        "rows": len(rows),
        "without_count": without,
    }
    report = {"tolerance": TOLERANCE, "layout": "wd", "graphs": {"model": {"model": entry}}}
    (output / MARKER).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def example_pixels(size: int, batch_size: int) -> torch.Tensor:
    """Noise in [0, 255]."""
    generator = torch.Generator().manual_seed(batch_size)
    return torch.randint(0, 256, (batch_size, size, size, 3), generator=generator).float()


def with_older_readers(path: Path) -> None:
    """Mark a graph as what it is, of no newer format than it needs."""
    proto = onnx.load(path, load_external_data=False)
    proto.ir_version = min(proto.ir_version, IR_VERSION)
    onnx.save(proto, path)


@torch.no_grad()
def largest_difference(graph: WDGraph, path: Path, num_rows: int) -> float:
    session = open_graph(path)
    largest = 0.0
    for batch_size in CHECKED_BATCHES:
        pixels = example_pixels(graph.model.config.image_size, batch_size)
        found = torch.from_numpy(session.run(None, {"input": pixels.numpy()})[0])
        outputs = graph(pixels)
        wanted = outputs[0] if graph.with_embedding else outputs
        if list(found.shape) != [batch_size, num_rows]:
            raise ValueError(f"Expected {[batch_size, num_rows]} scores of the graph, found {list(found.shape)}.")
        largest = max(largest, (found - wanted).abs().max().item())
    return largest
