"""Shared tiny fixtures. Sizes differ pairwise where they can, so that a swapped axis fails."""

import io
import json
import os
import tempfile

# Before anything imports the libraries: no test may reach the network or a developer's cache.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="mfdn-tests-")
# Tiny tensors gain nothing from threads, and on a busy machine threads that wait for each other cost 20 times as much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from character_factory import give_statistics, picture_of
from datasets import Dataset
from PIL import Image

from modeling_mfdn import MFDNConfig, MFDNModel, MFDNPipeline, MFDNProcessor, commands
from modeling_mfdn.training.tag_tokenizer import build_processor

CHARACTERS = ["hatsune_miku", "rem_(re:zero)", "saber", "kaname_madoka", "asuka_langley", "holo"]
TAGS = ["1girl", "long_hair", "smile", ">_<", ":d", "\\m/", "hatsune_miku_(append)", "hello,_good-bye", "école"]
TAGS += ["blush", "hat"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def tags() -> list[str]:
    """11 tags."""
    return list(TAGS)


@pytest.fixture
def characters() -> list[str]:
    """6 characters."""
    return list(CHARACTERS)


@pytest.fixture
def tiny_config(tags, characters) -> MFDNConfig:
    """P = 5 vision tokens, T = 7 tag tokens, C = 6 characters, K = 11 tags."""
    return make_config(tags, characters)


def make_config(tags: list[str], characters: list[str]) -> MFDNConfig:
    """`tiny_config` for fixtures that live longer than a test."""
    return MFDNConfig(
        image_size=16,
        patch_size=8,
        hidden_size=24,
        num_attention_heads=3,
        intermediate_size=40,
        num_vision_layers=2,
        num_text_layers=1,
        num_fusion_layers=3,
        num_decoder_layers=1,
        max_tag_tokens=7,
        num_tags=len(tags),
        id2label=dict(enumerate(characters)),
        label2id={name: label for label, name in enumerate(characters)},
    )


@pytest.fixture
def tiny_model(tiny_config) -> MFDNModel:
    return make_model(tiny_config)


def make_model(config: MFDNConfig) -> MFDNModel:
    """With weights so large that differences between inputs show in the outputs."""
    torch.manual_seed(0)
    model = MFDNModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture
def tiny_processor(tiny_config, tags) -> MFDNProcessor:
    return build_processor(tiny_config, tags)


@pytest.fixture
def picture() -> Image.Image:
    """RGB, wider than high."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8))


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Four RGB pictures of different sizes."""
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (16 + i, 25 - 3 * i, 3), dtype=np.uint8)) for i in range(4)]


@pytest.fixture
def rows(pictures, tags) -> Dataset:
    """Four posts as `load_split` gives them, of the characters 1 to 4, with 1 to 4 tags."""
    posts = []
    for i, picture in enumerate(pictures):
        picture.save(content := io.BytesIO(), "PNG")
        posts.append({"post_id": 7 + i, "image": {"bytes": content.getvalue(), "path": None}, "character": i + 1})
        posts[-1]["tags"] = tags[i : 2 * i + 1]
    return Dataset.from_list(posts)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The same model in PyTorch, `model`, and as ONNX, `onnx`; it has statistics and was taught kiki. Made once for
    all files of tests that a process runs, for it takes long: nobody writes into it."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("models")
    config = make_config(TAGS, CHARACTERS)
    model, processor = make_model(config), build_processor(config, TAGS)
    processor.characters, processor.tag_threshold = CHARACTERS, 0.2
    processor.temperature = 1.5
    give_statistics(model, processor)
    lessons = model(**processor(images=[picture_of(9, number) for number in range(5)]))
    processor.teach("kiki", lessons.picture_embedding.detach())
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "model" / "vocabulary.json").write_text(
        json.dumps(
            {
                "tags": {tag: 100 - i for i, tag in enumerate(TAGS)},
                "characters": {"hatsune_miku": {"posts": 50, "series": "vocaloid"}, "holo": {"posts": 7}},
                "implications": {"long_hair": ["hat"]},
                "character_tags": {"hatsune_miku": {"long_hair": 0.9, ">_<": 0.6}},
            }
        )
    )
    assert commands.main(["export", "--model", str(folder / "model"), "--output", str(folder / "onnx")]) == 0
    return folder


@pytest.fixture(scope="session")
def pipeline(models):
    model = MFDNModel.from_pretrained(models / "model").eval()
    return MFDNPipeline(model=model, processor=MFDNProcessor.from_pretrained(models / "model"))
