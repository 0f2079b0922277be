"""The Gradio page: its function without gradio, its parts with it; no server is started."""

import pytest

import modeling_mfdn
from modeling_mfdn.publishing.gradio_app import build_app, name_picture


@pytest.fixture
def tagger(tiny_model, tiny_processor, characters):
    tiny_processor.characters = characters
    return modeling_mfdn.MFDNPipeline(model=tiny_model, processor=tiny_processor)


def test_characters_tags_and_a_line_to_copy(tagger, picture):
    characters, tags, line = name_picture(tagger, picture, ["smile"], 0.0)
    assert len(characters) == 5 and len(tags) == 10 and "smile" not in tags
    assert line.split(", ")[0] == "smile" and len(line.split(", ")) == 11
    assert name_picture(tagger, picture, None, 0.0)[0] != characters
    assert name_picture(tagger, None, None, 0.0) == ({}, {}, "")


def test_the_page_has_all_tags_as_hints(tagger):
    gradio = pytest.importorskip("gradio")
    app = build_app(tagger)
    dropdown = next(block for block in app.blocks.values() if isinstance(block, gradio.Dropdown))
    assert len(dropdown.choices) == 11 and dropdown.multiselect
