"""The pictures of a folder: found, read by workers, and given to a model batch by batch."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import AutoModelForImageClassification

from .. import MFDNProcessor
from ..training.terminal import check_device, check_model_name, printable
from .tag_files import CAPTION_SUFFIXES

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")


class Pictures(Dataset):
    """Pictures as model inputs; a broken one as the sentence that says why."""

    def __init__(self, paths: list[Path], hints: list[list[str]], processor: MFDNProcessor):
        self.paths, self.hints, self.processor = paths, hints, processor

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        try:
            inputs = self.processor(images=[str(self.paths[index])], tags=[self.hints[index]])
            return {"index": index, **{name: values[0] for name, values in inputs.items()}}
        except (ValueError, OSError, TypeError) as error:
            return {"index": index, "problem": str(error)}


def collate(items: list[dict]) -> dict:
    """The pictures that could be read as one batch; the others by index."""
    good = [item for item in items if "problem" not in item]
    batch = {name: torch.stack([item[name] for item in good]) for name in (good[0] if good else ()) if name != "index"}
    problems = {item["index"]: item["problem"] for item in items if "problem" in item}
    return {"batch": batch, "indices": [item["index"] for item in good], "problems": problems}


def find_pictures(folder: Path, recursive: bool) -> tuple[list[Path], dict[Path, set[str]], Counter[str]]:
    """Pictures in a folder, sorted; the names beside them that end like a caption, by folder; and what was left out,
    by suffix or kind.

    Raises FileNotFoundError when there are no pictures.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder of pictures, {folder} is none.")
    paths, beside, left_out = [], {}, Counter()
    for parent, folders, names in os.walk(folder, onerror=_raise):
        parent = Path(parent)
        left_out["linked folders"] += sum((parent / name).is_symlink() for name in folders)
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in CAPTION_SUFFIXES:
                beside.setdefault(parent, set()).add(name)
            elif suffix not in SUFFIXES:
                left_out[suffix or "no suffix"] += 1
            elif not (parent / name).is_file():
                left_out["pipes, devices and broken links"] += 1
            else:
                paths.append(parent / name)
        if not recursive:
            break
    if not paths:
        raise FileNotFoundError(f"Expected pictures ({' '.join(SUFFIXES)}) in {folder}, found none.")
    return sorted(paths), beside, +left_out


def _raise(error: OSError) -> None:
    raise error


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def load_model(options) -> tuple[Any, MFDNProcessor]:
    """--model on its --device, and its processor.

    Raises ValueError, OSError: there is no such model or device.
    """
    model = AutoModelForImageClassification.from_pretrained(check_model_name(options.model)).eval()
    processor = MFDNProcessor.from_pretrained(options.model)
    processor.check_gallery(model)
    return model.to(check_device(options.device or best_device())), processor


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
        pictures = Pictures(self.paths, [[]] * len(self.paths), self.processor)
        workers = {"num_workers": self.options.num_workers}
        loader = DataLoader(pictures, self.options.batch_size, collate_fn=collate, **workers)
        with tqdm(total=len(self.paths), desc=self.title, unit=" pictures", disable=None) as bar:
            for items in loader:
                bar.update(len(items["indices"]) + len(items["problems"]))
                self.problems += [f"{self.paths[index]}: {problem}" for index, problem in items["problems"].items()]
                if not items["indices"]:
                    continue
                pixel_values = items["batch"]["pixel_values"]
                with torch.inference_mode():
                    seen = pixel_values.to(self.model.device, self.model.dtype)
                    outputs = self.model(pixel_values=seen, return_tag_logits=False)
                yield items["indices"], pixel_values, outputs


def show_problems(problems: list[str]) -> None:
    """One line each, for who runs the command."""
    for problem in problems:
        print(f"not done: {printable(' '.join(problem.split()))}", file=sys.stderr)
