"""The folder `danmul/`: it appears complete or not at all, a killed build goes on; its lists, its record, its card."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from filelock import FileLock, Timeout
from upath import UPath


def refuse_existing(output: UPath, overwrite: bool) -> None:
    """Raises FileExistsError when something stands at `output` that this run may not replace."""
    restore_old(output)
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / "build.json").is_file():
        raise FileExistsError(
            f"--output expects a new folder, but {output} exists and is no data set of this command (it has no "
            "build.json): choose another name or remove it yourself."
        )
    if not overwrite:
        raise FileExistsError(
            f"--output expects a new folder, but {output} holds a data set already: "
            "choose another name or replace it with --overwrite."
        )


def restore_old(output: UPath) -> None:
    """A run that was killed between moving the old data set away and the new one in leaves only `output.old`.

    Raises FileExistsError when what stands there is none of ours.
    """
    old = sibling(output, "old")
    if not old.exists():
        return
    if not (old / "build.json").is_file():
        raise FileExistsError(f"{old} is where --overwrite keeps the old data set for a moment: move yours away.")
    if output.exists():
        shutil.rmtree(old)  # the run was killed after both moves
    else:
        old.rename(output)


def sibling(output: UPath, suffix: str) -> UPath:
    """`output.partial`, where a build is at work, or `output.old`, while it takes another's place."""
    return output.with_name(f"{output.name}.{suffix}")


@contextmanager
def work_folder(output: UPath) -> Iterator[UPath]:
    """`output.partial`, to write in. It stays when the block fails after a shard was finished: a rerun goes on there.

    Raises:
        FileExistsError: what stands there was written by no build.
        BlockingIOError: another build writes there.
    """
    partial = sibling(output, "partial")
    if partial.exists() and any(partial.iterdir()) and not (partial / "data").is_dir():
        raise FileExistsError(f"{partial} is where this build would write, and is no build: move yours away.")
    (partial / "data").mkdir(parents=True, exist_ok=True)
    locked = is_local(output)
    try:
        with FileLock(str(partial / ".lock")).acquire(timeout=0) if locked else nullcontext():
            yield partial
    except Timeout as error:
        raise BlockingIOError(f"Another build writes to {partial}: wait for it or choose another --output.") from error
    except BaseException as error:
        num_finished = len(list(partial.glob("plans/*.json")))
        if num_finished:
            if isinstance(error, OSError | ValueError):
                print(f"{num_finished:,} finished shards stay in {partial}; a rerun goes on.", file=sys.stderr)
        elif locked:  # else another machine may be at work there
            shutil.rmtree(partial, ignore_errors=True)
        raise


def move_into_place(partial: UPath, output: UPath, shards: list[dict], overwrite: bool) -> None:
    """Move a complete work folder to `output`. Shards of another plan and the notes of this one go.

    On a file system that is one rename. An object store has none for folders: there the files are moved one by one,
    the shards first and README.md, which names the splits, last.
    """
    refuse_existing(output, overwrite)  # again: a build takes hours
    expected = {shard["file"] for shard in shards}
    for path in list((partial / "data").iterdir()):
        if path.name not in expected:
            path.unlink()
    if not is_local(output):
        move_files(partial, output)
        return
    for path in (partial / "data").iterdir():  # here and not after each shard: by now most is on the disk
        with path.open("rb") as file:
            os.fsync(file.fileno())
    old = sibling(output, "old")
    if output.exists():
        output.rename(old)
    shutil.rmtree(partial / "plans", ignore_errors=True)
    (partial / ".lock").unlink(missing_ok=True)
    partial.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def move_files(partial: UPath, output: UPath) -> None:
    """Every file below `partial` to its place below `output`, README.md last; an older data set there goes first."""
    if output.exists():
        output.fs.rm(output.path, recursive=True)
    files = [path for path in partial.rglob("*") if path.is_file() and path.parent.name != "plans"]
    for path in sorted(files, key=lambda path: (path.name == "README.md", path.parent.name != "data", str(path))):
        target = output / str(path)[len(str(partial)) :].lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        output.fs.mv(path.path, target.path)
    if partial.exists():
        partial.fs.rm(partial.path, recursive=True)


def is_local(path: UPath) -> bool:
    """Whether a path is on a file system of this machine."""
    return path.protocol in ("", "file")
