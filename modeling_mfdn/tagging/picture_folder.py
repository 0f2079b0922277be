"""The pictures of a folder: found, and read by threads ahead of who needs them. Nothing here needs PyTorch."""

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..training.terminal import printable

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")
CAPTION_SUFFIXES = (".txt", ".caption")
READ_AHEAD = 32  # pictures that are decoded and wait, at most


def find_pictures(
    folder: Path,
    recursive: bool,
    suffixes: Sequence[str] = SUFFIXES,
    caption_suffixes: Sequence[str] = CAPTION_SUFFIXES,
) -> tuple[list[Path], dict[Path, set[str]], Counter[str]]:
    """Pictures in a folder, sorted; the names beside them that end like a caption, by folder; and what was left out,
    by suffix or kind: what is hidden, too, such as .thumbnails/ or ._picture.jpg.

    Raises FileNotFoundError when there are no pictures.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder of pictures, {folder} is none.")
    paths, beside, left_out = [], {}, Counter()
    for parent, folders, names in os.walk(folder, onerror=_raise):
        parent = Path(parent)
        left_out["linked folders"] += sum((parent / name).is_symlink() for name in folders)
        left_out["hidden folders"] += sum(name.startswith(".") for name in folders)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                left_out["hidden files"] += 1
            elif suffix in caption_suffixes:
                beside.setdefault(parent, set()).add(name)
            elif suffix not in suffixes:
                left_out[suffix or "no suffix"] += 1
            elif not (parent / name).is_file():
                left_out["pipes, devices and broken links"] += 1
            else:
                paths.append(parent / name)
        if not recursive:
            break
    if not paths:
        raise FileNotFoundError(f"Expected pictures ({' '.join(suffixes)}) in {folder}, found none.")
    return sorted(paths), beside, +left_out


def _raise(error: OSError) -> None:
    raise error


def read_ahead(items: Sequence, read: Callable, num_workers: int) -> Iterator[tuple[int, Any, str | None]]:
    """(index, what `read` gives of an item, None), or (index, None, why it cannot be read), in their order.

    Threads are enough: Pillow decodes and resizes without holding Python's lock.

    Args:
        num_workers: threads; 0 = read when asked.
    """

    def attempt(item: Any) -> tuple[Any, str | None]:
        try:
            return read(item), None
        except (ValueError, OSError, TypeError) as error:
            return None, str(error)

    if num_workers == 0:
        yield from ((index, *attempt(item)) for index, item in enumerate(items))
        return
    with ThreadPoolExecutor(num_workers) as pool:
        waiting: deque = deque()
        try:
            for index, item in enumerate(items):
                waiting.append((index, pool.submit(attempt, item)))
                if len(waiting) >= max(READ_AHEAD, 2 * num_workers):
                    done, future = waiting.popleft()
                    yield done, *future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, *future.result()
        finally:  # also where nobody asks for the rest
            for _, future in waiting:
                future.cancel()


def show_problems(problems: list[str]) -> None:
    """One line each, for who runs the command."""
    for problem in problems:
        print(f"not done: {printable(' '.join(problem.split()))}", file=sys.stderr)
