"""Writing files and folders whole or not at all; a build that was killed is resumed.

`write_whole` and `replace_folder` have twins in `modeling_mfdn/training/files.py`: neither package imports the other.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout
from upath import UPath


@contextmanager
def whole_file(path: Path | UPath) -> Iterator[Path | UPath]:
    """A name beside `path` to write to: moved into place when the block ends well, else removed.

    It carries the machine and the process, so that two jobs that share a folder never write into one file.
    """
    temporary = path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path) if is_local(path) else temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path | UPath, text: str) -> None:
    """Write a text file, see [`whole_file`]."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_replaceable(output: Path | UPath, marker: str, overwrite: bool) -> None:
    """Whether a folder may be made at `output`: nothing is there, an empty folder, or one of the same kind.

    Args:
        marker: the file that every folder of this kind holds, and no other; a pattern of its name.
        overwrite: whether one of the same kind may be replaced.

    Raises:
        FileExistsError: it may not.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not any(output.glob(marker)):
        found = ", ".join(sorted(path.name for path in output.iterdir())[:5]) if output.is_dir() else "a file"
        raise FileExistsError(
            f"{output} exists and was not written by this command (no {marker}; found {found}), so it is never "
            "replaced: choose another name or remove it yourself."
        )
    if not overwrite:
        raise FileExistsError(f"{output} exists: replace it with --overwrite, or choose another name.")


@contextmanager
def replace_folder(output: Path, marker: str, overwrite: bool) -> Iterator[Path]:
    """A new, empty folder to write to: moved to `output` when the block ends well, else removed.

    What a killed run left is removed by the next; a lock, which ends with its process, tells the two apart.

    Raises:
        FileExistsError: what is at `output` may not be replaced, see [`check_replaceable`].
        BlockingIOError: another run is writing it.
    """
    output = output.absolute()
    check_replaceable(output, marker, overwrite)
    work = output.with_name(f".{output.name}.unfinished")
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(work / ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(f"Another run is writing {output}: wait for it or choose another name.") from error
    try:
        for name in ("new", "old"):
            shutil.rmtree(work / name, ignore_errors=True)
        (work / "new").mkdir()
        yield work / "new"
        check_replaceable(output, marker, overwrite=True)  # once more: work takes time
        if output.exists():
            output.rename(work / "old")
        (work / "new").rename(output)
    finally:
        lock.release()
        shutil.rmtree(work, ignore_errors=True)


# ---------------------------------------------------------------- the folder danmul/, which takes hours


def refuse_existing(output: UPath, overwrite: bool) -> None:
    """Raises FileExistsError when something stands at `output` that this build may not replace."""
    restore_old(output)
    check_replaceable(output, "build.json", overwrite)


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


def is_local(path: Path | UPath) -> bool:
    """Whether a path is on a file system of this machine."""
    return not isinstance(path, UPath) or path.protocol in ("", "file")
