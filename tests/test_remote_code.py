"""A saved folder in the world outside: other processes, another directory, our package not importable, no network."""

import os
import subprocess
import sys

import pytest
import torch

CHILD = """
import json, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_mfdn", "dataset_scripts", "timm", "datasets", "simplejpeg"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
import torch
from PIL import Image
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoProcessor, AutoTokenizer, pipeline,
)

source, work = sys.argv[1:]
expected = torch.load("expected.pt")
images = [Image.open("wide.png"), Image.open("high.png")]
trust = {"trust_remote_code": True}

def assert_equal(found, wanted):
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name

def check(folder):
    config = AutoConfig.from_pretrained(folder, **trust)
    assert config.model_type == "mfdn" and config.num_tags == 11
    processor = AutoProcessor.from_pretrained(folder, **trust)
    inputs = processor(images=images, tags=[["long hair", ">_<"], []])
    assert_equal(inputs, expected["inputs"])
    for auto_class in (AutoModel, AutoModelForImageClassification):
        model = auto_class.from_pretrained(folder, **trust)
        assert type(model).__name__ == "MFDNModel" and not model.training
        with torch.no_grad():
            outputs = model(**inputs)
            assert_equal(outputs, expected["outputs"])
            assert_equal(model(pixel_values=inputs["pixel_values"]), expected["image_outputs"])
    found = processor.post_process(outputs)
    assert found == expected["results"], found
    for options in (trust, {"trust_remote_code": False}):
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        assert tokenizer("Long hair, >_<").input_ids == [2, 6, 8, 3]
    image_processor = AutoImageProcessor.from_pretrained(folder, **trust)
    assert image_processor(images[0], return_tensors="pt").pixel_values.shape == (1, 3, 16, 16)
    return model, processor

def check_pipelines(folder):
    names = expected["characters"]
    answer = pipeline("image-classification", model=folder, **trust)("wide.png")
    assert len(answer) == 5 and {entry["label"] for entry in answer} <= set(names)
    tagger = pipeline("character-tagging", model=folder, **trust)
    plain, hinted = tagger("wide.png"), tagger("wide.png", tags=["long_hair"], top_k=1)
    assert len(plain["characters"]) == 5 and len(hinted["characters"]) == 1
    assert plain["characters"][0]["score"] != hinted["characters"][0]["score"]
    assert "long_hair" not in {entry["label"] for entry in hinted["tags"]}
    pair = tagger(images, tags=[["long_hair"], []], batch_size=2)
    assert len(pair) == 2 and pair[0].keys() == {"characters", "tags", "unknown"}
    assert type(pipeline(model=folder, **trust)).__name__ == "MFDNPipeline"
    return tagger

model, processor = check(source)
model.save_pretrained(work + "/again")
processor.save_pretrained(work + "/again")
if "again" in source:
    check_pipelines(source)
else:
    check_pipelines(source).save_pretrained(work + "/from_pipeline")
assert not [name for name in sys.modules if name.split(".")[0] == "modeling_mfdn"]
print("ok")
"""


@pytest.fixture
def world(tiny_model, tiny_processor, pictures, characters, tmp_path):
    """Folder with `saved/`, two pictures and what the parent process made of them."""
    images = [pictures[0], pictures[3]]
    for name, image in zip(("wide.png", "high.png"), images, strict=True):
        image.save(tmp_path / name)
    tiny_model.save_pretrained(tmp_path / "saved")
    tiny_processor.save_pretrained(tmp_path / "saved")
    inputs = tiny_processor(images=images, tags=[["long_hair", ">_<"], []])
    with torch.no_grad():
        outputs = tiny_model(**inputs)
        image_outputs = tiny_model(pixel_values=inputs["pixel_values"])
    expected = {
        "inputs": dict(inputs),
        "outputs": dict(outputs),
        "image_outputs": dict(image_outputs),
        "results": tiny_processor.post_process(outputs),
        "characters": characters,
    }
    torch.save(expected, tmp_path / "expected.pt")
    return tmp_path


def run_elsewhere(world, folder, work):
    """A fresh Python in another directory, with a module cache of its own."""
    (world / work).mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(world / work / "home")}
    environment |= {"HF_MODULES_CACHE": str(world / work / "modules")}
    command = [sys.executable, "-c", CHILD, str(world / folder), str(world / work)]
    done = subprocess.run(command, cwd=world, env=environment, capture_output=True, text=True)
    assert done.stdout.strip().endswith("ok"), done.stdout + done.stderr


def test_a_saved_folder_works_without_this_project_and_can_be_saved_again_from_there(world):
    files = {path.name for path in (world / "saved").iterdir()}
    assert files >= {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"}
    run_elsewhere(world, "saved", "first")
    again = world / "first" / "again"
    assert {path.name for path in again.iterdir()} == files
    assert {path.name for path in (world / "first" / "from_pipeline").iterdir()} == files
    for path in again.glob("*.py"):
        assert path.read_text() == (world / "saved" / path.name).read_text()
    run_elsewhere(world, "first/again", "second")
