"""Tags as XMP: beside pictures and in copies of them, where other programs read them, and nothing else is lost."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from test_tag_folder import model, picture, pictures, run  # noqa: F401 (fixtures)

from modeling_mfdn.tagging.xmp import parse, read_sidecar, subjects

EXIFTOOL = shutil.which("exiftool")
WORDS = ["hatsune_miku", "long_hair", ">_<"]
LIGHTROOM = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
   xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" xmp:Rating="4" crs:Exposure2012="+0.50">
   <dc:subject><rdf:Bag><rdf:li>mine</rdf:li><rdf:li>long_hair</rdf:li></rdf:Bag></dc:subject>
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">A day &amp; a night</rdf:li></rdf:Alt></dc:title>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def test_a_sidecar_holds_names_flat_and_in_levels(pictures, model):
    assert run(pictures, model, "--format", "xmp", "--first", "my/style") == 0
    root = parse((pictures / "a.png.xmp").read_bytes(), "a.png.xmp")
    assert subjects(root) == ["my/style", *WORDS]
    digikam = subjects(root, "{http://www.digikam.org/ns/1.0/}TagsList")
    assert digikam == ["character/hatsune_miku", "long_hair", ">_<", "my-style"], "a / would be a level"
    lightroom = subjects(root, "{http://ns.adobe.com/lightroom/1.0/}hierarchicalSubject")
    assert lightroom == ["character|hatsune_miku", "long_hair", ">_<", "my/style"]
    before = (pictures / "a.png.xmp").read_bytes()
    assert run(pictures, model, "--format", "xmp") == 0 and (pictures / "a.png.xmp").read_bytes() == before


def test_what_else_a_sidecar_says_stays(pictures, model):
    place = pictures / "a.png.xmp"
    place.write_text(LIGHTROOM)
    assert run(pictures, model, "--format", "xmp") == 0 and place.read_text() == LIGHTROOM
    assert run(pictures, model, "--format", "xmp", "--append") == 0
    assert read_sidecar(place).words() == ["mine", "long_hair", "hatsune_miku", ">_<"]
    assert run(pictures, model, "--format", "xmp", "--overwrite") == 0
    assert read_sidecar(place).words() == WORDS
    text = place.read_text()
    for part in ('xmp:Rating="4"', 'crs:Exposure2012="+0.50"', "A day &amp; a night"):
        assert part in text


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        b"no xml",
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>',
        b"\xff\xfe\x00",
        b"x" * (2**20 + 1),
    ],
    ids=["html", "text", "entities", "bytes", "huge"],
)
def test_what_is_no_xmp_is_left_alone_and_costs_that_picture_alone(pictures, model, capsys, content):
    (pictures / "a.png.xmp").write_bytes(content)
    assert run(pictures, model, "--format", "xmp", "--append") == 1
    assert (pictures / "a.png.xmp").read_bytes() == content and (pictures / "b.png.xmp").exists()
    assert "not done: 'a.png': a.png.xmp" in capsys.readouterr().err


def drawn(mode="RGB", size=(37, 21)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    return Image.fromarray(pixels, mode)


def test_a_copy_holds_its_tags_and_the_same_pixels(tmp_path, model, capsys):
    folder, copies = tmp_path / "pictures", tmp_path / "copies"
    (folder / "sub").mkdir(parents=True)
    xmp = LIGHTROOM.encode()
    drawn().save(folder / "sub" / "a.jpg", exif=Image.Exif(), quality=90)
    drawn().save(folder / "b.jpg", xmp=xmp)
    drawn("RGBA").save(folder / "c.png")
    drawn().save(folder / "d.webp", lossless=True)
    drawn("RGBA").save(folder / "e.webp", lossless=True)
    drawn().save(folder / "f.webp", quality=80)
    drawn("RGBA").save(folder / "g.webp", xmp=xmp)
    drawn().save(folder / "h.bmp")
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    assert run(folder, model, "--format", "xmp", "--copy_to", str(copies)) == 1
    assert "h.bmp: only JPEG, PNG and WebP hold tags" in capsys.readouterr().err
    assert (folder / "h.bmp.xmp").exists()
    assert all(path.read_bytes() == content for path, content in before.items()), "the pictures themselves stay"
    found = sorted(path.relative_to(copies).as_posix() for path in copies.rglob("*.*"))
    assert found == ["b.jpg", "c.png", "d.webp", "e.webp", "f.webp", "g.webp", "sub/a.jpg"]
    for name in found:
        with Image.open(folder / name) as old, Image.open(copies / name) as new:
            assert old.mode == new.mode and np.array_equal(np.asarray(old), np.asarray(new)), name
            packet = new.info.get("xmp") or new.info["XML:com.adobe.xmp"].encode()
            assert subjects(parse(packet, name)) == WORDS, name
            assert (b"A day &amp; a night" in packet) == (name in ("b.jpg", "g.webp"))
    if EXIFTOOL:
        done = subprocess.run(
            [
                EXIFTOOL,
                "-j",
                "-r",
                "-Subject",
                "-TagsList",
                "-HierarchicalSubject",
                "-Warning",
                "-Title",
                str(copies),
                str(folder),
            ],
            capture_output=True,
            text=True,
        )  # noqa: E501
        for row in json.loads(done.stdout):
            if row["SourceFile"].startswith(str(copies)):
                assert row["Subject"] == WORDS and row["HierarchicalSubject"][0] == "character|hatsune_miku", row
                assert row["TagsList"][0] == "character/hatsune_miku" and "Warning" not in row, row


@pytest.mark.skipif(EXIFTOOL is None, reason="no exiftool here")
def test_exiftool_reads_a_sidecar(pictures, model):
    assert run(pictures, model, "--format", "xmp", "--spaces") == 0
    done = subprocess.run([EXIFTOOL, "-j", str(pictures / "a.png.xmp")], capture_output=True, text=True, check=True)
    (row,) = json.loads(done.stdout)
    assert row["Subject"] == ["hatsune miku", "long hair", ">_<"] and "Warning" not in row
    assert row["TagsList"][0] == "character/hatsune miku"


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_a_copy_of_a_damaged_picture_is_a_sentence_or_a_copy(tmp_path, kind):
    """Whatever byte is gone."""
    from types import SimpleNamespace

    from modeling_mfdn.tagging.xmp import copy_with_tags

    drawn().save(tmp_path / f"a.{kind}")
    content = (tmp_path / f"a.{kind}").read_bytes()
    wording = SimpleNamespace(
        words=lambda chosen: ["x"],
        spelled=str,
        firsts=[],
        lasts=[],
        options=SimpleNamespace(rating=0, use_rating_tags=0),
    )
    chosen = {"character": [], "series": [], "tag": [("x", 1)], "rating": []}
    refused = 0
    for cut in [*range(0, 60), *range(60, len(content), 97)]:
        (tmp_path / f"b.{kind}").write_bytes(content[:cut])
        try:
            copy_with_tags(tmp_path / f"b.{kind}", tmp_path / "c", chosen, wording)
        except ValueError:
            refused += 1
    assert refused > 5
