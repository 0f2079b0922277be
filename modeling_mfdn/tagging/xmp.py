"""Tags as XMP, where digiKam, Lightroom, Immich and exiftool read them: PICTURE.EXT.xmp, or in a copy of the picture.

`dc:subject` holds every name; `digiKam:TagsList` and `lr:hierarchicalSubject` hold characters, series and ratings
below a word of their own, `character/hatsune_miku`. What else stands in a sidecar, and in the XMP of a picture, stays.
"""

import os
import shutil
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from dataclasses import dataclass
from pathlib import Path

from ..training.files import whole_file
from .tag_files import Wording, check_caption

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": RDF,
    "dc": "http://purl.org/dc/elements/1.1/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
}
SUBJECT = f"{{{NAMESPACES['dc']}}}subject"
HIERARCHIES = {  # property → (the kind of its list, what stands between its levels)
    f"{{{NAMESPACES['digiKam']}}}TagsList": ("Seq", "/"),
    f"{{{NAMESPACES['lr']}}}hierarchicalSubject": ("Bag", "|"),
}
PACKET = ('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n', '\n<?xpacket end="w"?>\n')
JPEG_NAME = b"http://ns.adobe.com/xap/1.0/\0"
PNG_NAME = b"XML:com.adobe.xmp\0"
MAX_SEGMENT = 65_533  # bytes of a JPEG's
XMP_FLAG, ALPHA_FLAG = 0x04, 0x10  # of WebP's VP8X


@dataclass
class Sidecar:
    """What stands beside a picture as XMP, or will.

    Attributes:
        path: of it.
        content: as it stands there; None where nothing does.
    """

    path: Path
    content: bytes | None = None

    def words(self) -> list[str]:
        """The subjects."""
        return subjects(parse(self.content, self.path.name)) if self.content else []

    def write(self, chosen: dict[str, list[tuple]], wording: Wording, append: bool) -> None:
        """Replace the tags, or add to them with `append`; whole or not at all."""
        packet = xmp_packet(self.content, chosen, wording, append, self.path.name)
        with whole_file(self.path) as unfinished:
            unfinished.write_bytes(packet)


def read_sidecar(path: Path) -> Sidecar:
    """Raises ValueError: it is no file, no XML, or XML that declares entities, which may grow without end."""
    if not os.path.lexists(path):
        return Sidecar(path)
    check_caption(path)
    content = path.read_bytes()
    parse(content, path.name)
    return Sidecar(path, content)


def parse(content: bytes, name: str) -> ElementTree.Element:
    """The XML of a packet. Its prefixes are kept. Raises ValueError."""
    if b"<!" in content.replace(b"<!--", b""):
        raise ValueError(f"{name} declares what XMP never does (<!DOCTYPE or <!ENTITY), and is left alone")
    try:
        parser = ElementTree.XMLPullParser(["start", "start-ns"])
        parser.feed(content.strip(b"\0"))
        parser.close()
        root = None
        for event, found in parser.read_events():
            if event == "start":
                root = found if root is None else root
            elif found[0] and not found[0].removeprefix("ns").isdecimal():
                ElementTree.register_namespace(*found)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{name} is no XMP ({error}), and is left alone") from error
    if root is None:
        raise ValueError(f"{name} is no XMP, and is left alone")
    return root


def subjects(root: ElementTree.Element, name: str = SUBJECT) -> list[str]:
    found = root.find(f".//{name}")
    return [] if found is None else [(item.text or "").strip() for item in found.iter(f"{{{RDF}}}li")]


def xmp_packet(
    before: bytes | None, chosen: dict[str, list[tuple]], wording: Wording, append: bool, name: str
) -> bytes:
    """A packet with the tags that were chosen, and all else that `before` says.

    Raises ValueError: `before` is no XMP.
    """
    for prefix, address in NAMESPACES.items():
        ElementTree.register_namespace(prefix, address)
    root = parse(before, name) if before else ElementTree.Element(f"{{{NAMESPACES['x']}}}xmpmeta")
    rdf = root if root.tag == f"{{{RDF}}}RDF" else root.find(f"{{{RDF}}}RDF")
    if rdf is None:
        rdf = ElementTree.SubElement(root, f"{{{RDF}}}RDF")
    words = wording.words(chosen)
    levels = [(kind, wording.spelled(row[0])) for kind in ("character", "series", "tag") for row in chosen[kind]]
    if wording.options.rating or wording.options.use_rating_tags:
        levels += [("rating", row[0]) for row in chosen["rating"]]
    edges = [("tag", tag) for tag in [*wording.firsts, *wording.lasts]]
    put_list(rdf, SUBJECT, "Bag", [*wording.firsts, *words, *wording.lasts], append)
    for property_name, (kind_of_list, separator) in HIERARCHIES.items():
        found = [
            tag if kind == "tag" else f"{kind}{separator}{tag}"
            for kind, tag in ((kind, tag.replace(separator, "-")) for kind, tag in [*levels, *edges])
        ]
        put_list(rdf, property_name, kind_of_list, found, append)
    ElementTree.indent(root, " ")
    return (PACKET[0] + ElementTree.tostring(root, "unicode") + PACKET[1]).encode()


def put_list(rdf: ElementTree.Element, name: str, kind: str, words: list[str], append: bool) -> None:
    """Set a list of words, in the description that has it or else in the first."""
    if append:
        words = [*subjects(rdf, name), *words]
    owner = next((part for part in rdf if part.find(name) is not None), rdf[0] if len(rdf) else None)
    if owner is None:
        owner = ElementTree.SubElement(rdf, f"{{{RDF}}}Description", {f"{{{RDF}}}about": ""})
    for old in owner.findall(name):
        owner.remove(old)
    items = ElementTree.SubElement(ElementTree.SubElement(owner, name), f"{{{RDF}}}{kind}")
    for word in dict.fromkeys(words):
        ElementTree.SubElement(items, f"{{{RDF}}}li").text = "".join(c for c in word if c.isprintable())


def copy_with_tags(source: Path, target: Path, chosen: dict[str, list[tuple]], wording: Wording) -> None:
    """A copy of a picture that holds its tags: the same bytes but for the XMP. A JPEG, PNG or WebP.

    Raises ValueError: it is another kind of file, or damaged.
    """
    content = source.read_bytes()
    kind = next((kind for kind in (Jpeg, Png, WebP) if kind.is_one(content)), None)
    if kind is None:
        raise ValueError(f"{source.name}: only JPEG, PNG and WebP hold tags; its sidecar does")
    try:
        before = kind.xmp(content)
        whole = kind.with_xmp(content, xmp_packet(before, chosen, wording, False, source.name))
    except (struct.error, IndexError) as error:
        raise ValueError(f"{source.name} is damaged, so nothing is put into it") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as unfinished:
        unfinished.write_bytes(whole)
        shutil.copystat(source, unfinished)


class Jpeg:
    """Segments FF, kind, two bytes of length, content; after the first scan nothing is looked at."""

    @staticmethod
    def is_one(content: bytes) -> bool:
        return content.startswith(b"\xff\xd8\xff")

    @staticmethod
    def segments(content: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
        """(kind, content) of those before the scan, and the rest."""
        found, position = [], 2
        while content[position] == 0xFF and content[position + 1] not in (0xDA, 0xD9):
            (length,) = struct.unpack(">H", content[position + 2 : position + 4])
            found.append((content[position + 1], content[position + 4 : position + 2 + length]))
            position += 2 + length
        return found, content[position:]

    @classmethod
    def xmp(cls, content: bytes) -> bytes | None:
        found = [part for kind, part in cls.segments(content)[0] if kind == 0xE1 and part.startswith(JPEG_NAME)]
        return found[0][len(JPEG_NAME) :] if found else None

    @classmethod
    def with_xmp(cls, content: bytes, packet: bytes) -> bytes:
        if len(JPEG_NAME) + len(packet) > MAX_SEGMENT:
            raise ValueError(f"{len(packet):,} bytes of tags do not fit into a JPEG: --max_tags, or its sidecar")
        segments, rest = cls.segments(content)
        segments = [(kind, part) for kind, part in segments if not (kind == 0xE1 and part.startswith(JPEG_NAME))]
        place = next((i for i, (kind, _) in enumerate(segments) if kind not in (0xE0, 0xE1)), len(segments))
        segments.insert(place, (0xE1, JPEG_NAME + packet))
        return b"\xff\xd8" + b"".join(b"\xff" + struct.pack(">BH", k, len(p) + 2) + p for k, p in segments) + rest


class Png:
    """Chunks: four bytes of length, kind, content, sum."""

    @staticmethod
    def is_one(content: bytes) -> bool:
        return content.startswith(b"\x89PNG\r\n\x1a\n")

    @staticmethod
    def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
        found, position = [], 8
        while position + 12 <= len(content):
            (length,) = struct.unpack(">I", content[position : position + 4])
            found.append((content[position + 4 : position + 8], content[position + 8 : position + 8 + length]))
            position += 12 + length
        return found

    @classmethod
    def xmp(cls, content: bytes) -> bytes | None:
        found = [part for kind, part in cls.chunks(content) if kind == b"iTXt" and part.startswith(PNG_NAME)]
        if not found or found[0][len(PNG_NAME)]:  # compressed, which no writer of XMP does
            return None
        return found[0][len(PNG_NAME) + 2 :].split(b"\0", 2)[2]

    @classmethod
    def with_xmp(cls, content: bytes, packet: bytes) -> bytes:
        chunks = [(k, p) for k, p in cls.chunks(content) if not (k == b"iTXt" and p.startswith(PNG_NAME))]
        chunks.insert(1, (b"iTXt", PNG_NAME + b"\0\0\0\0" + packet))
        return content[:8] + b"".join(
            struct.pack(">I", len(p)) + k + p + struct.pack(">I", zlib.crc32(k + p)) for k, p in chunks
        )


class WebP:
    """RIFF chunks; VP8X, the first of an extended file, says that one with XMP is there."""

    @staticmethod
    def is_one(content: bytes) -> bool:
        return content[:4] == b"RIFF" and content[8:12] == b"WEBP"

    @staticmethod
    def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
        found, position = [], 12
        while position + 8 <= len(content):
            (length,) = struct.unpack("<I", content[position + 4 : position + 8])
            found.append((content[position : position + 4], content[position + 8 : position + 8 + length]))
            position += 8 + length + length % 2
        return found

    @classmethod
    def xmp(cls, content: bytes) -> bytes | None:
        return next((part for kind, part in cls.chunks(content) if kind == b"XMP "), None)

    @classmethod
    def with_xmp(cls, content: bytes, packet: bytes) -> bytes:
        chunks = [(kind, part) for kind, part in cls.chunks(content) if kind != b"XMP "]
        kind, part = chunks[0]
        if kind == b"VP8X":
            chunks[0] = (kind, bytes([part[0] | XMP_FLAG]) + part[1:])
        else:
            if kind == b"VP8L":
                (bits,) = struct.unpack("<I", part[1:5])
                width, height, flags = bits & 0x3FFF, bits >> 14 & 0x3FFF, XMP_FLAG | ALPHA_FLAG * (bits >> 28 & 1)
            else:  # both are one less than they are in VP8X and VP8L
                width, height = (side & 0x3FFF for side in struct.unpack("<HH", part[6:10]))
                width, height, flags = width - 1, height - 1, XMP_FLAG
            sizes = width.to_bytes(3, "little") + height.to_bytes(3, "little")
            chunks.insert(0, (b"VP8X", bytes([flags, 0, 0, 0]) + sizes))
        chunks.append((b"XMP ", packet))
        body = b"".join(k + struct.pack("<I", len(p)) + p + b"\0" * (len(p) % 2) for k, p in chunks)
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
