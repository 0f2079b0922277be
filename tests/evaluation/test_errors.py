"""Where a model is wrong: bins of training images, confused pairs, and their pictures."""

import pytest
import torch
from PIL import Image

from modeling_mfdn.evaluation.figures import confused_picture, long_tail_plot
from modeling_mfdn.evaluation.metrics import accuracy_by_training_images, most_confused

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])
PREDICTED = torch.tensor([0, 1, 1, 0, 1, 2, 2, 2, 0, 3])
NAMES = ["saber", "rin", "holo", "rem"]


def test_every_image_is_in_one_bin_and_rare_characters_come_first():
    bins = accuracy_by_training_images(LABELS, PREDICTED, [7, 9, 1000, 7])
    assert [entry["images"] for entry in bins] == [6, 4] and [entry["characters"] for entry in bins] == [3, 1]
    assert bins[0]["top1_accuracy"] == pytest.approx(3 / 6) and bins[1]["top1_accuracy"] == pytest.approx(3 / 4)
    assert bins[0]["from"] <= 7 and bins[0]["to"] >= 9 and bins[1]["from"] <= 1000 <= bins[1]["to"]


@pytest.mark.parametrize("counts", [[5, 5, 5, 5], [0, 0, 0, 0], [0, 1, 2, 3]])
def test_equal_counts_and_characters_without_training_images_are_no_error(counts):
    assert sum(entry["images"] for entry in accuracy_by_training_images(LABELS, PREDICTED, counts)) == 10


def test_confusions_count_both_directions_and_leave_out_what_is_right():
    pairs = most_confused(LABELS, PREDICTED, NAMES)
    assert pairs[0] == {"characters": ["saber", "rin"], "errors": 3, "images": 5}
    assert pairs[1] == {"characters": ["saber", "holo"], "errors": 1, "images": 7} and len(pairs) == 2
    assert most_confused(LABELS, LABELS, NAMES) == []


def test_pictures_are_drawn_for_any_number_of_pairs_and_any_name(tmp_path):
    long_tail_plot(accuracy_by_training_images(LABELS, PREDICTED, [7, 9, 1000, 7]), tmp_path / "tail.png")
    for number in (1, 2, 7):
        pairs = [{"characters": ["$_$", "a" * 60], "errors": 3, "images": 9}] * number
        examples = [(Image.new("RGB", (9, 20)), Image.new("RGBA", (20, 9)))] * number
        confused_picture(pairs, examples, tmp_path / f"{number}.png")
    assert (tmp_path / "tail.png").exists() and (tmp_path / "7.png").exists()
    with pytest.raises(ValueError, match="got 0, 1"):
        confused_picture(pairs[:1], [], tmp_path / "none.png")
