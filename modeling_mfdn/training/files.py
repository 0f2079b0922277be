"""Writing files and folders whole or not at all, and replacing only what the same command wrote."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


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


@contextmanager
def replace_folder(output: str | Path, marker: str, overwrite: bool) -> Iterator[Path]:
    """A new, empty folder to write to: moved to `output` when the block ends, else removed; see [`check_replaceable`].

    It lies in a hidden folder beside `output` whose name is always the same, so what a killed run left is removed by
    the next. A lock on it, which ends with its process, tells the two apart.

    Raises:
        FileExistsError: what is at `output` may not be replaced, or another run is writing it.
        OSError: the disk is full, or cannot be written to.
    """
    output = Path(output).resolve()
    check_replaceable(output, marker, overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    work = output.with_name(f".{hashlib.sha256(os.fsencode(output.name)).hexdigest()[:16]}.unfinished")
    work.mkdir(exist_ok=True)
    with claim(work, output):
        try:
            for left in work.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            (work / "new").mkdir()
            yield work / "new"
            check_replaceable(output, marker, overwrite=True)  # once more: work takes time
            if output.exists():
                os.replace(output, work / "old")
            os.replace(work / "new", output)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OSError(
                f"The disk of {output} is full; nothing was written there. Make room, or pass another --output."
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def claim(path: Path, output: Path) -> Iterator[None]:
    """Lock a file or folder of unfinished work until the block, or the process, ends; no lock where there are none.

    Raises FileExistsError: another process holds it, and so is writing `output`.
    """
    if fcntl is None:  # Windows
        yield
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"Another run is writing {output} at this moment. Wait for it, or end it."
            raise FileExistsError(message) from error
        except OSError:  # file systems without locks
            pass
        yield
    finally:
        os.close(descriptor)


def check_room(folder: Path, needed: int) -> None:
    """Raises OSError where `needed` bytes do not fit onto the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"The disk of the output has {free / 1e6:,.1f} MB free, this needs about {needed / 1e6:,.1f} MB. Make "
            "room, or pass another --output."
        )


def public_name(name: str) -> str:
    """A folder or file of this machine by its last part, an id on the Hub as it is: for what others will read."""
    path = Path(name).expanduser()
    return path.resolve().name if path.exists() or path.is_absolute() or name.startswith((".", "~")) else name
