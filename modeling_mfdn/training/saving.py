"""What is written is whole or not there, replaces nothing but its own kind, and says nothing about this machine."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """The name of a new, empty file beside `path` to write to: moved into place when the block ends, else removed.

    It is created exclusively, so nothing is written through a link that somebody laid there, and its name is short and
    always the same: a long `path` is no problem, and what a killed run left is replaced.

    Raises:
        IsADirectoryError: a folder has that name.
        OSError: the folder cannot be written to, or is full.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"Expected {path} to be a file or not there, found a folder of that name.")
    temporary = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        temporary.open("xb").close()
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file, see [`whole_file`]."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_replaceable(output: Path, marker: str, overwrite: bool) -> None:
    """Whether a folder may be made at `output`: nothing is there, an empty folder, or one of the same kind.

    Args:
        marker: the file that every folder of this kind holds, and no other.
        overwrite: whether one of the same kind may be replaced.

    Raises:
        FileExistsError: it may not.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / marker).is_file():
        raise FileExistsError(
            f"{output} is there already and was not written by this command (it has no {marker}), so it is never "
            "replaced. Pass another --output."
        )
    if not overwrite:
        raise FileExistsError(f"{output} is there already. Pass --overwrite to replace it, or another --output.")


def replace_folder(unfinished: Path, output: Path, marker: str) -> None:
    """Move a complete folder to `output`; asks [`check_replaceable`] once more, for work takes time."""
    check_replaceable(output, marker, overwrite=True)
    if output.exists():
        shutil.rmtree(output)
    os.replace(unfinished, output)


def public_name(name: str) -> str:
    """A folder or file of this machine by its last part, an id on the Hub as it is: for what others will read."""
    path = Path(name).expanduser()
    return path.resolve().name if path.exists() or path.is_absolute() or name.startswith((".", "~")) else name
