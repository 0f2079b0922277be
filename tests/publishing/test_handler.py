"""handler.py, called as Inference Endpoints call it, from a folder with nothing but what was published."""

import base64
import importlib.util
import io
import struct
import zlib

import pytest
from PIL import Image

from modeling_mfdn.publishing.cards import write_hub_files


@pytest.fixture(scope="module")
def handler(tmp_path_factory):
    from conftest import CHARACTERS, TAGS

    from modeling_mfdn import MFDNConfig, MFDNModel
    from modeling_mfdn.training.tag_tokenizer import build_processor

    folder = tmp_path_factory.mktemp("published")
    sizes = {"image_size": 16, "patch_size": 8, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    depths = {f"num_{stack}_layers": 1 for stack in ("vision", "text", "fusion", "decoder")}
    names = {"id2label": dict(enumerate(CHARACTERS)), "label2id": {name: i for i, name in enumerate(CHARACTERS)}}
    config = MFDNConfig(**sizes, **depths, **names, max_tag_tokens=7, num_tags=len(TAGS))
    MFDNModel(config).save_pretrained(folder)
    build_processor(config, TAGS).save_pretrained(folder)
    write_hub_files(folder)
    spec = importlib.util.spec_from_file_location("published_handler", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EndpointHandler(str(folder))


def png(picture) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_every_way_to_send_a_picture_gives_the_same_answer(handler, picture):
    data = png(picture)
    text = base64.b64encode(data).decode()
    wrapped = base64.encodebytes(data).decode()
    assert "\n" in wrapped.strip()
    ways = [
        picture,
        data,
        text,
        f"data:image/png;base64,{text}",
        {"image": text},
        wrapped,
        wrapped.replace("\n", "\r\n "),
        f"data:image/png;base64,{wrapped}",
        base64.urlsafe_b64encode(data).decode().rstrip("="),
    ]
    answers = [handler({"inputs": way, "parameters": {"top_k": 2}}) for way in ways]
    assert len(answers[0]["characters"]) == 2 and all(answer == answers[0] for answer in answers[1:])


def test_hints_and_parameters_reach_the_model(handler, picture):
    plain = handler({"inputs": picture, "parameters": {"tag_threshold": 0.0}})
    hinted = handler({"inputs": {"image": picture, "tags": ["smile"]}, "parameters": {"tag_threshold": 0.0}})
    other = handler({"inputs": picture, "parameters": {"tag_threshold": 0.0, "tags": ["smile"]}})
    assert hinted == other != plain
    assert len(plain["tags"]) == 11 and "smile" not in [tag["label"] for tag in hinted["tags"]]


@pytest.mark.parametrize(
    "parameters",
    [
        {"top_k": 7},
        {"top_k": 0},
        {"top_k": "2"},
        {"top_k": 1.5},
        {"top_k": True},
        {"max_tags": -3},
        {"max_tags": "x"},
        {"tag_threshold": -0.1},
        {"tag_threshold": "0.5"},
        {"tag_threshold": float("nan")},
        {"tag_threshold": True},
    ],
)
def test_numbers_out_of_range_are_an_answer_that_says_so(handler, picture, parameters):
    (name,) = parameters
    error = handler({"inputs": picture, "parameters": parameters})["error"]
    assert name.replace("_", " ").removeprefix("max ") in error.replace("_", " ")


def test_more_text_than_any_picture_is_refused_at_once(handler, monkeypatch):
    monkeypatch.setitem(type(handler).__call__.__globals__, "MAX_TEXT", 1000)
    assert "Expected at most 1,000 characters of base64, found 1,001" in handler({"inputs": "A" * 1001})["error"]


def huge_header() -> bytes:
    """A PNG that says it has 50,000 x 50,000 pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        {"inputs": None},
        {"inputs": b""},
        {"inputs": b"no picture"},
        {"inputs": "/etc/passwd"},
        {"inputs": "https://example.com/a.png"},
        {"inputs": 7},
        {"inputs": png(Image.new("RGB", (64, 64)))[:60]},
        {"inputs": huge_header()},
        {"inputs": png(Image.new("RGB", (9, 9))), "parameters": {"no_such": 1}},
        {"inputs": png(Image.new("RGB", (9, 9))), "parameters": {"top_k": 99}},
    ],
    ids=str,
)
def test_what_cannot_be_used_is_an_answer_that_says_why(handler, data):
    answer = handler(data)
    assert list(answer) == ["error"] and len(answer["error"]) > 10
