"""The Gradio page: its function without gradio, its parts with it; no server is started."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import modeling_mfdn
from modeling_mfdn import image_processing_mfdn
from modeling_mfdn.publishing import gradio_app
from modeling_mfdn.publishing.gradio_app import build_app, main, name_new_picture, name_picture


@pytest.fixture
def tagger(tiny_model, tiny_processor, characters):
    tiny_processor.characters = characters
    return modeling_mfdn.MFDNPipeline(model=tiny_model, processor=tiny_processor)


def test_characters_tags_and_a_line_to_copy(tagger, picture):
    characters, tags, line = name_picture(tagger, picture, ["smile"], 0.0)
    assert len(characters) == 5 and len(tags) == 10 and "smile" not in tags
    sure = [name for name, score in characters.items() if score >= 0.5]
    assert line == ", ".join([*sure, "smile", *tags])
    assert name_picture(tagger, picture, None, 0.0)[0] != characters
    assert name_picture(tagger, None, None, 0.0) == ({}, {}, "")


def test_the_line_has_a_character_that_the_model_is_sure_of(tagger, picture):
    with torch.no_grad():
        tagger.model.character_head.weight.mul_(0)
        tagger.model.character_head.bias.copy_(torch.tensor([0.0, 0, 9, 0, 0, 0]))
    assert name_picture(tagger, picture, ["smile"], 0.0)[2].startswith("saber, smile, ")
    with torch.no_grad():
        tagger.model.character_head.bias.zero_()
    assert name_picture(tagger, picture, ["smile"], 0.0)[2].startswith("smile, ")


def test_hints_are_of_one_picture(tagger, pictures):
    hints, had_picture, *found = name_new_picture(tagger, pictures[0], ["smile"], 0.0, False)
    assert hints == ["smile"] and had_picture and tuple(found) == name_picture(tagger, pictures[0], ["smile"], 0.0)
    hints, had_picture, *found = name_new_picture(tagger, pictures[1], hints, 0.0, had_picture)
    assert hints == [] and had_picture and tuple(found) == name_picture(tagger, pictures[1], None, 0.0)
    assert name_new_picture(tagger, None, ["smile"], 0.0, True) == ([], False, {}, {}, "")


def test_only_the_pipeline_opens_pictures(tagger, tmp_path, monkeypatch):
    """Pillow would hand an EPS to Ghostscript, whatever it is called; the page gives the path, never a PIL picture."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        name_picture(tagger, str(tmp_path / "a.png"), None, 0.0)
    Image.new("L", (300, 300)).save(tmp_path / "large.png")
    monkeypatch.setattr(image_processing_mfdn, "MAX_MEMORY", 90_000 * 8 - 1)
    with pytest.raises(ValueError, match="300 x 300 pixels, which takes 1 MB to decode"):
        name_picture(tagger, str(tmp_path / "large.png"), None, 0.0)
    assert 'gradio.Image(type="filepath"' in Path(gradio_app.__file__).read_text(encoding="utf-8")


def test_a_model_that_is_not_there_is_a_sentence(capsys):
    assert main(["--model", "nonsuch"]) == 2
    assert capsys.readouterr().err.startswith("error: There is no model 'nonsuch'")


def test_the_page_has_all_tags_as_hints(tagger):
    gradio = pytest.importorskip("gradio")
    app = build_app(tagger)
    dropdown = next(block for block in app.blocks.values() if isinstance(block, gradio.Dropdown))
    assert len(dropdown.choices) == 11 and dropdown.multiselect
