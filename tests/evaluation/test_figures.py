"""Figures are drawn from what the Trainer and the processor give, also when some of it is missing."""

import pytest
from PIL import Image

from modeling_mfdn.evaluation.figures import example_picture, hints_curves, training_curves

LOG = [
    {"step": 10, "loss": 5.0, "character_loss": 3.0, "tag_loss": 2.0, "mask_ratio": 0.0, "learning_rate": 1e-3},
    {"step": 20, "loss": 4.0, "character_loss": 2.0, "tag_loss": 2.0, "mask_ratio": 1.0, "learning_rate": 6e-4},
    {"step": 20, "eval_image_top1_accuracy": 0.2, "eval_image+tags_top1_accuracy": 0.7},
    {"step": 30, "loss": 4.0, "character_loss": 2.0, "tag_loss": 2.0, "mask_ratio": 1.0, "learning_rate": 0.0},
    {"step": 30, "train_runtime": 3.0, "train_loss": 4.5},
]
UNIMODAL_LOG = [{"step": 10, "loss": 3.0, "character_loss": 3.0, "learning_rate": 0.0}]


def height(path) -> int:
    with Image.open(path) as figure:
        return figure.height


def test_training_curves_leave_out_what_was_never_logged(tmp_path):
    training_curves(LOG, tmp_path / "all.png")
    training_curves(UNIMODAL_LOG, tmp_path / "unimodal.png")
    assert height(tmp_path / "unimodal.png") < height(tmp_path / "all.png")


def test_a_log_without_a_curve_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="log_history"):
        training_curves([{"step": 1, "train_runtime": 3.0}], tmp_path / "curves.png")


def result(num_tags=3) -> dict:
    tags = [{"label": f"$_${i}", "score": 0.5} for i in range(num_tags)]
    return {"characters": [{"label": "holo_$x$", "score": 0.9}, {"label": "saber", "score": 0.1}], "tags": tags}


@pytest.mark.parametrize("truth", [None, {"character": "rem", "tags": ["$_$1", "smile"]}])
@pytest.mark.parametrize("num_tags", [0, 3, 400])
def test_example_pictures_take_any_picture_and_any_number_of_tags(tmp_path, truth, num_tags):
    pictures = [Image.new("RGB", (30, 90)), Image.new("RGBA", (50, 50)), Image.new("P", (9, 9))]
    truths = None if truth is None else [truth] * 3
    example_picture(pictures, [result(num_tags)] * 3, tmp_path / "three.png", truths)
    example_picture(pictures[:1], [result(num_tags)], tmp_path / "one.png", truths and truths[:1])
    assert height(tmp_path / "one.png") < height(tmp_path / "three.png")


def test_at_most_four_pictures_are_shown(tmp_path):
    for count in (4, 6):
        example_picture([Image.new("RGB", (9, 9))] * count, [result()] * count, tmp_path / f"{count}.png")
    assert height(tmp_path / "4.png") == height(tmp_path / "6.png")


def test_different_numbers_of_pictures_and_results_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"\[1, 2, 1\]"):
        example_picture([Image.new("RGB", (9, 9))], [result()] * 2, tmp_path / "figure.png")


def test_hints_have_a_panel_for_each_data_set(tmp_path):
    curve = {"0": 0.1, "4": 0.5, "all": 0.9}
    hints_curves({"one": {"a": curve, "$b$": curve}}, tmp_path / "one.png")
    hints_curves({"one": {"a": curve}, "two": {"b": curve}}, tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert two.width == 2 * one.width
