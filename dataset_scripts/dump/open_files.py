"""Opens untrusted files of a dump: regular files only, and compressed ones to their verified end.

The readers of the standard library take a broken tar header, a broken further stream of an .xz or .bz2 and the end of
a cut .zst for the end of the archive, and what they left out is missing without a word.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import zstandard
from upath import UPath

DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, tarfile.TarError, OSError)
PIECE = 2**20
UNPACKED_FLOOR, MAX_RATIO = 2**26, 100  # metadata shrink to a tenth or a thirtieth; more is a bomb
MAX_DICTIONARY = 2**28  # that a .xz may ask for; `xz -9` asks for 2**26. A .zst may ask for 2**27.
DECODERS = {  # suffix: a decoder of one stream, bytes that it is given at once, the most it gives back if it can tell
    (".gz", ".tgz"): (lambda: zlib.decompressobj(31), 2**16, (PIECE,)),
    (".bz2", ".tbz2"): (bz2.BZ2Decompressor, 2**16, (PIECE,)),
    (".xz", ".txz"): (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_DICTIONARY), 2**16, (PIECE,)),
    (".zst", ".tzst"): (lambda: zstandard.ZstdDecompressor().decompressobj(), 2**11, ()),  # of 2 kB at most 64 MB
}
# Of a pax header; programs add fields of their own, with a dot in their names.
PAX_FIELDS = {
    "atime",
    "charset",
    "comment",
    "ctime",
    "gid",
    "gname",
    "hdrcharset",
    "linkpath",
    "mtime",
    "path",
    "size",
    "uid",
    "uname",
}
MAX_HEADER_BYTES = 2**16  # of a long name in a tar, or of a header's further fields


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


def unpacked(raw: BinaryIO, path: str) -> BinaryIO:
    """A stream of the bytes behind the compression that the name tells; `raw` itself without one.

    Reading it raises one of DAMAGED, perhaps only at its end.
    """
    decoder = next((decoder for suffixes, decoder in DECODERS.items() if path.endswith(suffixes)), None)
    return io.BufferedReader(Unpacked(raw, *decoder), PIECE) if decoder else raw


class Unpacked(io.RawIOBase):
    """The streams of a compressed file, one behind the other; zeros between and behind them are padding.

    Raises EOFError for a cut one, OSError for a bomb, and the error of the decoder for all else that is no stream.
    """

    def __init__(self, raw: BinaryIO, new_decoder: Callable, piece: int, limit: tuple[int, ...]):
        self.raw, self.new_decoder, self.piece, self.limit = raw, new_decoder, piece, limit
        self.decoder, self.ready, self.at_end = new_decoder(), memoryview(b""), False
        self.num_packed = self.num_unpacked = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self.ready and (packed := self.next_packed()) is not None:
            self.ready = memoryview(self.decoder.decompress(packed, *self.limit))
            if self.at_end and not self.ready and not self.decoder.eof:
                raise EOFError("it ends in the middle")
            self.num_unpacked += len(self.ready)
            if self.num_unpacked > max(UNPACKED_FLOOR, MAX_RATIO * self.num_packed):
                raise OSError(f"it unpacks to more than {MAX_RATIO} times its size, which no metadata do")
        part = self.ready[: len(buffer)]
        buffer[: len(part)] = part
        self.ready = self.ready[len(part) :]
        return len(part)

    def next_packed(self) -> bytes | None:
        """What the decoder is to take next: b"" while it still has something to give, None behind the last stream."""
        if self.decoder.eof:
            packed = self.decoder.unused_data.lstrip(b"\0")
            while not packed and not self.at_end:
                packed = self.read_packed().lstrip(b"\0")
            if packed:
                self.decoder = self.new_decoder()
            return packed or None
        if not getattr(self.decoder, "needs_input", True):
            return b""
        return getattr(self.decoder, "unconsumed_tail", b"") or self.read_packed()

    def read_packed(self) -> bytes:
        packed = self.raw.read(self.piece)
        self.num_packed += len(packed)
        self.at_end = not packed
        return packed


def tar_members(file: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    """The members of a tar, each with its content, which can be read until the next member is asked for.

    `offset_data` is where the content lies in the file. Python's own walk over a tar takes a broken header that is not
    the first for the end, may run in circles (CVE-2025-8194), and keeps every header in memory.

    Raises tarfile.ReadError unless the tar ends as it must: with two blocks of zeros, and nothing but zeros behind.
    """
    position, name, fields = 0, None, {}
    while (block := read_whole(file, tarfile.BLOCKSIZE)).strip(b"\0"):
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}, at byte {position:,}") from error
        position += tarfile.BLOCKSIZE
        is_extension = member.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
        if not is_extension and member.type not in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            # The beginning of a long name, cut at a byte, stands in the header too.
            if name is not None and not os.fsencode(name).startswith(os.fsencode(member.name)):
                raise tarfile.ReadError(f"the long name of {member.name} is damaged, at byte {position:,}")
            member.name, member.size = fields.get("path", name or member.name), int(fields.get("size", member.size))
            if "\0" in member.name:
                raise tarfile.ReadError(f"a name that is damaged, at byte {position:,}")
            if member.issparse() or any(key.startswith("GNU.sparse") for key in fields):
                raise tarfile.ReadError(f"{member.name} in it is a sparse file: pack it without")
            if member.type in tarfile.SUPPORTED_TYPES and not member.isreg():
                member.size = 0  # a link names the size of its target
            name, fields = None, {}
        if not 0 <= member.size < (MAX_HEADER_BYTES if is_extension else 2**60):
            raise tarfile.ReadError(f"a member of {member.size:,} bytes, at byte {position:,}")
        content, member.offset_data = Part(file, member.size), position
        if member.type == tarfile.GNUTYPE_LONGNAME:
            name = content.read().rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif is_extension:
            fields |= header_fields(content.read())
        elif member.type not in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            yield member, io.BufferedReader(content)
        position += member.size + -member.size % tarfile.BLOCKSIZE
        skip_to(file, position, content.left + -member.size % tarfile.BLOCKSIZE)
    if read_whole(file, tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"a block of zeros between its members, at byte {position:,}")
    while piece := file.read(PIECE):
        if piece.strip(b"\0"):
            raise tarfile.ReadError("there is something behind its end, as when two are joined")


class Part(io.RawIOBase):
    """The next `size` bytes of a file. Raises tarfile.ReadError where the file ends before."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        part = self.file.read(min(len(buffer), self.left))
        if self.left and not part:
            raise tarfile.ReadError("it ends in the middle of a member")
        buffer[: len(part)] = part
        self.left -= len(part)
        return len(part)


def header_fields(content: bytes) -> dict[str, str]:
    """The fields of an extended header: lines "LENGTH NAME=VALUE". Raises tarfile.ReadError."""
    fields, place = {}, 0
    while place < len(content):
        length = content[place : place + 8].partition(b" ")[0]
        if not length.isdigit() or not len(length) + 3 <= int(length) <= len(content) - place:
            raise tarfile.ReadError("an extended header that is broken")
        line = content[place + len(length) + 1 : place + int(length) - 1].decode("utf-8", "surrogateescape")
        fields.update([line.partition("=")[::2]])
        place += int(length)
    if unknown := [key for key in fields if key not in PAX_FIELDS and "." not in key]:
        raise tarfile.ReadError(f"an extended header with a field {unknown[0][:40]!r}, which there is not")
    if not fields.get("size", "0").isdecimal() or len(fields.get("size", "")) > 20:
        raise tarfile.ReadError(f"an extended header with the size {fields['size'][:40]}")
    return fields


def read_whole(file: BinaryIO, size: int) -> bytes:
    """Exactly so many bytes. Raises tarfile.ReadError where the file ends before."""
    if len(content := file.read(size)) < size:
        raise tarfile.ReadError("it ends without the two blocks of zeros that end a tar")
    return content


def skip_to(file: BinaryIO, position: int, distance: int) -> None:
    """Go on to `position`, `distance` bytes from here. Raises tarfile.ReadError where the file ends before."""
    if file.seekable():
        file.seek(position - 1)
        distance = 1
    while distance:
        if not (piece := file.read(min(distance, PIECE))):
            raise tarfile.ReadError("it ends in the middle of a member")
        distance -= len(piece)
