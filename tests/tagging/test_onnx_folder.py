"""A folder of `mfdn export` tags by itself: the pixels, scores and names of PyTorch, without it."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from character_factory import picture_of
from conftest import CHARACTERS
from hostile_pictures import whole_pictures
from PIL import Image

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from modeling_mfdn import commands
from modeling_mfdn.gallery_mfdn import CharacterGallery
from modeling_mfdn.publishing.onnx_tagger import OnnxTagger

WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "safetensors", "huggingface_hub"):
    sys.modules[name] = None  # an import of it fails
"""


def test_pixels_are_those_of_pytorch_for_pictures_of_every_kind(models, pipeline, tmp_path):
    tagger, seen = OnnxTagger(models / "onnx"), 0
    for name, content in whole_pictures(random.Random(5)):
        path = tmp_path / f"{seen}.bin"
        path.write_bytes(content)
        wanted = pipeline.processor(images=[str(path)])["pixel_values"][0].numpy()
        assert np.array_equal(tagger.pixels(path), wanted), name
        seen += 1
    assert seen > 5


def close(found: dict, wanted: dict, tolerance: float = 1e-4) -> None:
    assert found.keys() == wanted.keys()
    assert found["unknown"] == pytest.approx(wanted["unknown"], abs=tolerance)
    for kind in ("characters", "tags"):
        assert [row["label"] for row in found[kind]] == [row["label"] for row in wanted[kind]]
        assert [row["score"] for row in found[kind]] == pytest.approx(
            [row["score"] for row in wanted[kind]], abs=tolerance
        )


@pytest.mark.parametrize("tags", [[], ["long_hair"], ["Long hair", "smile", ">_<", "hat", "blush", "1girl", ":d"]])
def test_what_it_says_is_what_the_pipeline_says(models, pipeline, tags):
    """Also with hints, in any spelling, and of more than it reads the same are drawn; and of whom it was taught."""
    tagger = OnnxTagger(models / "onnx")
    assert tagger.character_names == [*CHARACTERS, "kiki"]
    for number in (0, 3, 9, 31):
        image = picture_of(number, 70)
        close(tagger(image, tags=tags, top_k=7), pipeline(image, tags=tags, top_k=7))
    assert tagger(picture_of(9, 71))["characters"][0]["label"] == "kiki"
    several = [picture_of(number, 72) for number in range(5)]
    for found, wanted in zip(tagger(several), pipeline(several), strict=True):
        close(found, wanted)


def test_unknown_hints_are_dropped_with_a_warning(models):
    with pytest.warns(UserWarning, match="nonsuch"):
        OnnxTagger(models / "onnx")(picture_of(0, 1), tags=["nonsuch"])


def test_a_gallery_is_added_and_that_of_another_model_refused(models, pipeline, tmp_path):
    tagger = OnnxTagger(models / "onnx")
    z = tagger.run(np.stack([tagger.pixels(picture_of(12, number)) for number in range(5)]))["picture_embedding"]
    tagger.teach("nausicaa", z)
    assert tagger(picture_of(12, 80))["characters"][0]["label"] == "nausicaa"
    gallery = models / "onnx" / "gallery.safetensors"
    content = gallery.read_bytes()
    (tmp_path / "other.safetensors").write_bytes(
        content.replace(pipeline.processor.gallery.statistics.fingerprint.encode(), b"0" * 32)
    )
    (tmp_path / "cut.safetensors").write_bytes(content[:-30])
    (tmp_path / "text.safetensors").write_bytes(b"hello, this is no tensor")
    for name, reason in (("other", "of this model"), ("cut", "damaged"), ("text", "damaged")):
        with pytest.raises(ValueError, match=reason):
            tagger.load_gallery(tmp_path / f"{name}.safetensors")
    assert tagger.taught == ["kiki", "nausicaa"]
    tagger.load_gallery(gallery)
    assert tagger.counts.tolist() == [10, 5], "one that is known takes the pictures of both"
    tagger.save_gallery(tmp_path / "saved.safetensors")
    again = CharacterGallery(pipeline.processor.gallery.statistics)
    assert again.load(tmp_path / "saved.safetensors") == ["kiki", "nausicaa"], "PyTorch reads what numpy wrote"
    assert again.counts.tolist() == [10, 5]
    tagger.forget("kiki")
    assert tagger.taught == ["nausicaa"] and tagger(picture_of(12, 80))["characters"][0]["label"] == "nausicaa"


@pytest.mark.slow
def test_smaller_graphs_say_nearly_the_same_and_how_nearly_is_written_down(models, tmp_path):
    argv = ["export", "--model", str(models / "model"), "--output", str(tmp_path / "onnx"), "--int8", "--fp16"]
    assert commands.main(argv) == 0
    whole, image = OnnxTagger(tmp_path / "onnx"), picture_of(2, 5)
    report = json.loads((tmp_path / "onnx" / "onnx.json").read_text())["graphs"]
    for variant in ("int8", "fp16"):
        small = OnnxTagger(tmp_path / "onnx", variant)
        for name, graphs in report.items():
            entry = graphs[f"{name}_{variant}"]
            assert graphs[name]["largest_difference"] < entry["largest_difference"] < 0.3
            assert entry["bytes"] < graphs[name]["bytes"]
        assert small(image)["unknown"] == pytest.approx(whole(image)["unknown"], abs=0.2)
        assert small(image) != whole(image), "another graph"
        assert small(image, tags=["long_hair"])["characters"], "of both graphs"


def test_the_script_beside_the_graphs_needs_no_torch_and_goes_on_where_it_stopped(models, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(models / "onnx", folder)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        picture_of(number, 90).save(pictures / f"{number}.png")
    (pictures / "broken.png").write_bytes(b"<html>")
    (pictures / "2.txt").write_text("mine")
    script = f"""{WITHOUT_TORCH}
import runpy
sys.argv[0] = {str(folder / "tag.py")!r}
sys.path.insert(0, {str(folder)!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""

    def run(*argv):
        return subprocess.run([sys.executable, "-c", script, *map(str, argv)], capture_output=True, text=True)

    done = run(pictures)
    assert done.returncode == 1 and "broken.png" in done.stderr and "Traceback" not in done.stderr
    assert (pictures / "2.txt").read_text() == "mine"
    wanted = OnnxTagger(folder)(picture_of(0, 90))
    words = (pictures / "0.txt").read_text().strip().split(", ")
    assert words[-len(wanted["tags"]) :] == [row["label"] for row in wanted["tags"]]
    done = run(pictures / "1.png")
    assert done.returncode == 0 and json.loads(done.stdout)["characters"][0]["label"]
    assert len((folder / "README.md").read_text().splitlines()) == 5


def test_the_command_takes_the_folder_without_importing_torch(models, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    picture_of(0, 91).save(pictures / "a.png")
    picture_of(9, 91).save(pictures / "b.png")
    (tmp_path / "danmul").mkdir()
    (tmp_path / "danmul" / "implications.json").write_text('[{"tag": "smile", "implies": ["blush"]}]')
    argv = ["tag", str(pictures), "--model", str(models / "onnx"), "--format", "jsonl"]
    argv += ["--no_implied", "--dataset", str(tmp_path / "danmul")]
    program = f"""{WITHOUT_TORCH}
sys.argv = ["mfdn"]
from modeling_mfdn.commands import main
sys.exit(main({argv!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (pictures / "tags.jsonl").read_text().splitlines()]
    assert rows[1]["characters"] == ["kiki"]
    shutil.copy(pictures / "tags.jsonl", tmp_path / "onnx.jsonl")
    assert (
        commands.main(["tag", str(pictures), "--model", str(models / "model"), "--format", "jsonl", "--overwrite"])
        == 0
    )
    torch_rows = [json.loads(line) for line in (pictures / "tags.jsonl").read_text().splitlines()]
    for row, torch_row in zip(rows, torch_rows, strict=True):
        assert row.pop("unknown") == pytest.approx(torch_row.pop("unknown"), abs=1e-3) and row == torch_row


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "preprocess.json").write_text("{"), "preprocess.json is damaged"),
        (lambda folder: (folder / "preprocess.json").write_text("{}"), "preprocess.json is damaged"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"nonsense"), "cannot be opened"),
        (lambda folder: (folder / "model.onnx").unlink(), "holds no model.onnx"),
        (lambda folder: (folder / "preprocess.json").unlink(), "has no preprocess.json"),
    ],
)
def test_a_folder_that_is_damaged_is_a_sentence(models, tmp_path, capsys, spoil, reason):
    shutil.copytree(models / "onnx", tmp_path / "onnx")
    spoil(tmp_path / "onnx")
    picture_of(0, 1).save(tmp_path / "a.png")
    assert commands.main(["tag", str(tmp_path), "--model", str(tmp_path / "onnx")]) == 2
    said = capsys.readouterr().err
    assert reason in said and "Traceback" not in said and not list(tmp_path.glob("*.txt"))


def test_a_picture_that_is_taken_as_an_object_is_taken_as_a_file_is(models, tmp_path):
    image = Image.new("RGBA", (30, 9), (200, 10, 10, 100))
    image.save(tmp_path / "a.png")
    tagger = OnnxTagger(models / "onnx")
    assert np.array_equal(tagger.pixels(image), tagger.pixels(tmp_path / "a.png"))
    assert np.array_equal(tagger.pixels(image), tagger.pixels(Path(tmp_path / "a.png").read_bytes()))
