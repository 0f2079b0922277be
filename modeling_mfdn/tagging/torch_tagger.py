"""A model in PyTorch as what tags, teaches and groups pictures: it answers as `OnnxTagger` does."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import AutoModelForImageClassification

from .. import MFDNProcessor
from ..training.terminal import check_device, check_model_name
from .picture_folder import read_ahead


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def load_model(options) -> tuple[Any, MFDNProcessor]:
    """--model on its --device, and its processor.

    Raises ValueError, OSError: there is no such model or device.
    """
    device = check_device(options.device or best_device())
    model = AutoModelForImageClassification.from_pretrained(check_model_name(options.model)).eval()
    processor = MFDNProcessor.from_pretrained(options.model)
    processor.check_gallery(model)
    return model.to(device), processor


class TorchTagger:
    """Pictures → characters, tags and "unknown"; methods as those of `publishing.onnx_tagger.OnnxTagger`."""

    def __init__(self, options):
        self.model, self.processor = load_model(options)
        self.tags, self.ratings = self.processor.tag_names, self.processor.ratings or []
        self.tag_labels = {tag: label for label, tag in enumerate(self.tags)}
        self.activation = self.processor.character_activation
        self.character_threshold = self.processor.character_threshold
        self.takes_tags = self.model.config.modality != "image"
        threads = f", {torch.get_num_threads()} threads" if self.model.device.type == "cpu" else ""
        self.described = f"device: {self.model.device}{threads}"

    @property
    def character_names(self) -> list[str]:
        return self.processor.character_names

    @property
    def has_statistics(self) -> bool:
        return self.processor.gallery is not None

    def load_gallery(self, file: str | os.PathLike) -> list[str]:
        return self.processor.known_gallery().load(file)

    def save_gallery(self, file: str | os.PathLike) -> None:
        self.processor.known_gallery().save(file)

    def pixels(self, picture: Any) -> np.ndarray:
        return self.processor(images=[picture])["pixel_values"][0].numpy()

    def given_labels(self, tags: list[str]) -> list[int]:
        if tags and not self.takes_tags:
            raise ValueError(f"Tags {tags} were given, but this model takes pictures alone.")
        return [number - len(self.processor.tokenizer.all_special_tokens) for number in self.processor.tag_ids(tags)]

    def run(self, pixel_values: np.ndarray, labels: list[list[int]] | None = None) -> Any:
        inputs = {"pixel_values": torch.from_numpy(pixel_values)}
        if self.takes_tags:
            named = [[self.tags[label] for label in given] for given in labels or [[]] * len(pixel_values)]
            inputs |= self.processor(tags=named)
        device = self.model.device
        inputs = {name: values.to(device) for name, values in inputs.items()}
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        with torch.inference_mode():
            return self.model(**inputs)

    def post_process(self, outputs: Any, given: list[list[int]] | None = None, **options) -> list[dict]:
        named = None
        if given and any(given):
            named = [[self.tags[label] for label in labels] for labels in given]
        most = len(self.character_names)
        options["top_k"] = min(options.get("top_k", 5), most)
        return self.processor.post_process(outputs, given_tags=named, **options)

    def row(self, outputs: Any, index: int) -> dict[str, torch.Tensor | None]:
        """Outputs of one picture of several."""
        names = ("logits", "tag_logits", "rating_logits", "picture_embedding")
        found = {name: outputs.get(name) for name in names}
        return {name: None if value is None else value[index : index + 1] for name, value in found.items()}

    def teach(self, name: str, picture_embeddings: np.ndarray) -> list[str]:
        return self.processor.teach(name, torch.from_numpy(picture_embeddings))

    def forget(self, name: str) -> None:
        self.processor.known_gallery().forget(name)

    def fingerprint(self) -> str:
        """Of weights, names, thresholds and what was taught."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        processor = self.processor
        made_by = [self.model.config.id2label, processor.to_dict(), processor.tokenizer.get_vocab()]
        if processor.gallery is not None:
            taught = processor.gallery
            made_by += [taught.statistics.fingerprint, vars(taught.statistics.calibration), taught.names]
            digest.update(taught.means.numpy().tobytes() + taught.counts.numpy().tobytes())
        digest.update(json.dumps(made_by, sort_keys=True, default=str).encode())
        return digest.hexdigest()


@dataclass
class Looking:
    """Pictures on their way through a model, without any tag.

    Attributes:
        problems: what could not be read so far, a sentence each.
    """

    model: Any
    processor: MFDNProcessor
    paths: list[Path]
    options: Any  # with batch_size and num_workers
    title: str
    problems: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[list[int], torch.Tensor, Any]]:
        """Which of the paths they are, `pixel_values` [b, 3, S, S] and the model's outputs, batch by batch."""

        def pixels(path: Path) -> torch.Tensor:
            return self.processor(images=[str(path)])["pixel_values"][0]

        waiting: list[tuple[int, torch.Tensor]] = []
        found = read_ahead(self.paths, pixels, self.options.num_workers)
        for index, values, problem in tqdm(found, self.title, len(self.paths), unit=" pictures", disable=None):
            if problem:
                self.problems.append(f"{self.paths[index]}: {problem}")
            else:
                waiting.append((index, values))
            if len(waiting) == self.options.batch_size:
                yield self.look(waiting)
                waiting = []
        if waiting:
            yield self.look(waiting)

    def look(self, waiting: list[tuple[int, torch.Tensor]]) -> tuple[list[int], torch.Tensor, Any]:
        indices, pixel_values = zip(*waiting, strict=True)
        stacked = torch.stack(pixel_values)
        with torch.inference_mode():
            seen = stacked.to(self.model.device, self.model.dtype)
            return list(indices), stacked, self.model(pixel_values=seen, return_tag_logits=False)
