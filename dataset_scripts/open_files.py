"""Files of a dump, which somebody else made: opened only where they are files."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from upath import UPath


def open_regular(path: str | os.PathLike | UPath) -> BinaryIO:
    """A file to read, local or at a URL that fsspec knows.

    Raises OSError as `open` does, and for what is no file: a pipe without a writer would wait for ever, a device would
    never end.
    """
    if "://" in str(path) or not isinstance(path, str | os.PathLike):
        return UPath(path).open("rb")
    return open(path, "rb", opener=only_regular)


def only_regular(path: str, flags: int) -> int:
    """An opener for `open`. Raises OSError when `path` is a folder, a pipe, a socket or a device."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # to open a pipe would wait for its writer
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file: remove it, or put the file there")
    return descriptor
