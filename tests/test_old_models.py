"""Model folders that were saved before the house was rebuilt (commit 8354b66), one of each system.

They carry the code of their day; where the package is installed, its own classes are what loads them.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoModelForImageClassification, AutoProcessor, AutoTokenizer, pipeline

import modeling_mfdn

OLD = Path(__file__).parent / "old_models"
SYSTEMS = {
    "mfdn": "MFDNModel",
    "vit": "MFDNModel",
    "multi_label": "MultiLabelModel",
    "label2label": "Label2LabelModel",
}
TAGS = {"image": None, "image+tags": [["tag_3", "tag_1"]]}


@pytest.fixture(params=SYSTEMS)
def system(request):
    return request.param


@pytest.fixture
def folder(system, tmp_path):
    """The folder as it was saved: its own files and, once for all, the code that travelled with them."""
    shutil.copytree(OLD / system, tmp_path / system)
    shutil.copytree(OLD / "code", tmp_path / system, dirs_exist_ok=True)
    return tmp_path / system


@pytest.fixture
def expected(system):
    return json.loads((OLD / system / "expected.json").read_text())


@pytest.fixture
def picture():
    return Image.open(OLD / "picture.png").convert("RGB")


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForImageClassification])
def test_the_auto_classes_load_an_old_folder_and_it_answers_as_it_did(folder, system, expected, picture, auto_class):
    model = auto_class.from_pretrained(folder, trust_remote_code=True)
    assert type(model) is getattr(modeling_mfdn, SYSTEMS[system])
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    for modality, answer in expected.items():
        with torch.no_grad():
            outputs = model(**processor(images=picture, tags=TAGS[modality]))
        expected = torch.tensor(answer["logits"])
        torch.testing.assert_close(outputs.logits[0], expected, rtol=0, atol=2e-4)  # other releases, other kernels
        found = processor.post_process(outputs)[0]
        for kind in ("characters", "tags"):
            assert [entry["label"] for entry in found[kind]] == [entry["label"] for entry in answer["answer"][kind]]


def test_an_old_folder_answers_in_its_pipelines(folder, expected, picture):
    answer = pipeline("character-tagging", model=str(folder), trust_remote_code=True)(picture)
    assert answer["characters"][0]["label"] == expected["image"]["answer"]["characters"][0]["label"]
    names = pipeline("image-classification", model=str(folder), trust_remote_code=True)(picture)
    assert {entry["label"] for entry in names} == {"aka", "ao", "midori"}


def test_the_tags_of_an_old_folder_are_read_without_its_code(folder):
    assert AutoTokenizer.from_pretrained(folder)("tag_3, tag_1").input_ids[1:-1] == [8, 6]
