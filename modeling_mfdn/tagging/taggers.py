"""The model of `mfdn tag` and `mfdn serve`, in PyTorch or ONNX, and what it says of pictures and films."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..data.lists import VOCABULARY_FILE, read_vocabulary
from ..training.terminal import check_model_name
from . import films
from .picture_folder import read_ahead

ONNX_MARKER = "onnx.json"  # of a folder of mfdn export
UNKNOWN_THRESHOLD = 0.5
MAX_CHARACTERS = 32  # of a picture, where each is there or not


def is_onnx(options) -> bool:
    """Whether --model is a folder of mfdn export. Raises ValueError, OSError: it is no model at all."""
    if Path(options.model, ONNX_MARKER).is_file():
        return True
    check_model_name(options.model)
    if options.variant:
        raise ValueError(f"--variant {options.variant} is of a folder of mfdn export; {options.model} is none.")
    return False


def load_tagger(options) -> Any:
    """The model: of a folder of `mfdn export` without PyTorch, else with it.

    Raises ValueError, OSError: there is none, or no such device.
    """
    if not is_onnx(options):
        from .torch_tagger import TorchTagger

        tagger = TorchTagger(options)
    else:
        if options.device not in (None, "cpu", "cuda"):
            raise ValueError(f"An ONNX folder runs on cpu or cuda, got --device {options.device!r}.")
        try:
            from ..publishing.onnx_tagger import OnnxTagger
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{error}. Run: pip install 'mfdn[onnx]'") from error
        tagger = OnnxTagger(options.model, options.variant or "")
    if options.gallery:
        print(f"{options.gallery}: {len(tagger.load_gallery(options.gallery)):,} characters that were taught")
    return tagger


def load_vocabulary(options) -> dict:
    """What --series, --no_implied and --prune_character_tags ask; nothing is read where none of them is given.

    Raises ValueError: it is asked for, and nobody knows it.
    """
    wanted = {
        "series": ("characters", options.series),
        "no_implied": ("implications", options.no_implied),
        "prune_character_tags": ("character_tags", options.prune_character_tags is not None),
    }
    if not any(is_asked for _, is_asked in wanted.values()):
        return {}
    if options.dataset:
        found = read_vocabulary(options.dataset)
    elif Path(options.model).is_dir():
        path = Path(options.model, VOCABULARY_FILE)
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    else:
        from transformers.utils.hub import cached_file

        path = cached_file(options.model, VOCABULARY_FILE, _raise_exceptions_for_missing_entries=False)
        found = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    for option, (part, is_asked) in wanted.items():
        known = found.get(part)
        if option == "series" and known:
            known = any("series" in entry for entry in known.values())
        if is_asked and not known:
            raise ValueError(
                f"--{option}: neither {VOCABULARY_FILE} beside the model nor its data set says it. Pass --dataset, a "
                "folder of build_danmul whose dump had it, or leave the option out."
            )
    return found


def results_of(tagger, paths: list[Path], given: list[list[int]], options) -> Iterator[tuple]:
    """(index, result or None, problem) for every picture or film, in their order.

    Args:
        given: labels of the tags of each that the model is told.
    """
    choose = {
        "top_k": 5 if tagger.activation == "softmax" else MAX_CHARACTERS,
        "tag_threshold": options.tag_threshold,
        "max_tags": options.max_tags,
    }

    def read(path: Path) -> np.ndarray | None:
        try:
            return None if films.is_film(path) else tagger.pixels(path)
        except (ValueError, OSError, TypeError):
            raise
        except Exception as error:  # Pillow's plugins raise whatever their parser stumbles over
            raise ValueError(f"{type(error).__name__}: {error}") from error

    def run(indices: list[int], pixels: list[np.ndarray]) -> list[dict]:
        labels = [given[index] for index in indices]
        return tagger.post_process(tagger.run(np.stack(pixels), labels), labels, **choose)

    waiting: list[tuple[int, np.ndarray]] = []

    def finish() -> Iterator[tuple]:
        if waiting:
            indices, pixels = zip(*waiting, strict=True)
            waiting.clear()
            yield from ((index, result, None) for index, result in zip(indices, run(indices, pixels), strict=True))

    for index, pixels, problem in read_ahead(paths, read, options.num_workers):
        if pixels is not None:
            waiting.append((index, pixels))
        if pixels is None or len(waiting) == options.batch_size:
            yield from finish()
        if problem:
            yield index, None, problem
        elif pixels is None:
            frames = films.pixels_of_frames(paths[index], options.every, tagger.pixels)
            yield index, *film_result(frames, lambda chunk, i=index: run([i] * len(chunk), chunk), options.batch_size)
    yield from finish()


def film_result(frames: Iterator[np.ndarray], run: Callable, batch_size: int) -> tuple[dict | None, str | None]:
    """What the frames of a film show together, or why it cannot be read."""
    found: list[dict] = []
    try:
        while chunk := [*islice(frames, batch_size)]:
            found = [films.join_results([*found, *run(chunk)])]
    except (ValueError, OSError, TypeError, ModuleNotFoundError) as error:
        return None, str(error)
    return (found[0], None) if found else (None, "it has no frame that can be read")
