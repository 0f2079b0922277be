"""Batches of MFDNCollator: what they hold, and that they depend on nothing but seed, epoch and post."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from textbook import TextbookCollator
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from modeling_mfdn.configuration_mfdn import MFDNConfig
from modeling_mfdn.data.collator import EXCHANGES, MFDNCollator
from modeling_mfdn.data.dataset import load_split, read_characters, read_tag_vocabulary, rows_of
from modeling_mfdn.data.images import apply_color, color_matrices, decode_image
from modeling_mfdn.data.parquet_rows import ParquetRows
from modeling_mfdn.training.tag_tokenizer import build_processor

SIZE = 32
TAGS = [f"tag_{label}" for label in range(60)]
CONFIG = MFDNConfig(
    image_size=SIZE, patch_size=8, hidden_size=16, num_attention_heads=2, max_tag_tokens=32, num_tags=60, num_labels=3
)


def smooth_picture(width=200, height=200, seed=0) -> PILImage.Image:
    noise = np.random.default_rng(seed).integers(60, 190, (6, 6, 3), dtype=np.uint8)
    return PILImage.fromarray(noise).resize((width, height), PILImage.Resampling.BICUBIC)


def encoded(picture: PILImage.Image, format="JPEG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **({"quality": 95, "subsampling": 0} if format == "JPEG" else {}) | options)
    return file.getvalue()


def row(post_id=1, picture=None, tags=("tag_3", "tag_1"), character=0, **options) -> dict:
    picture = picture or smooth_picture(seed=post_id)
    return {
        "post_id": post_id,
        "image": {"bytes": encoded(picture, **options), "path": None},
        "character": character,
        "tags": list(tags),
    }


def many_rows(count=12) -> list[dict]:
    return [row(post_id, tags=TAGS[: 3 * post_id], character=post_id % 3) for post_id in range(1, count + 1)]


def by_post(batches) -> dict[int, dict[str, torch.Tensor]]:
    return {
        int(post_id): {name: values[i] for name, values in batch.items()}
        for batch in batches
        for i, post_id in enumerate(batch["post_id"])
    }


def assert_same_posts(left: dict, right: dict):
    assert left.keys() == right.keys()
    for post_id, tensors in left.items():
        for name, values in tensors.items():
            assert torch.equal(values, right[post_id][name]), (post_id, name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set folder as dataset_scripts writes it."""
    folder = tmp_path_factory.mktemp("danmul")
    features = Features(
        post_id=Value("int64"),
        image=Image(),
        character=ClassLabel(names=["hatsune_miku", "ibuki_suika", "kirby"]),
        tags=List(Value("string")),
        rating=Value("string"),
    )
    rows = [one | {"rating": "s"} for one in many_rows()]
    columns = {name: [one[name] for one in rows] for name in features}
    (folder / "data").mkdir()
    Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: 'data/train-*.parquet'}\n---\n"
    )
    entries = [{"tag": tag, "posts": 100 - label, "score": 0.5} for label, tag in enumerate(TAGS)]
    (folder / "tags.json").write_text(json.dumps(entries))
    return folder


# Reading


def test_load_split_gives_encoded_images_and_names(folder):
    rows = load_split(str(folder), "train")
    first = next(iter(rows))
    assert set(first) == {"post_id", "image", "character", "tags"}
    assert first["image"]["bytes"][:2] == b"\xff\xd8"
    assert read_characters(rows) == ["hatsune_miku", "ibuki_suika", "kirby"]


def test_vocabulary_is_most_frequent_first(folder):
    assert read_tag_vocabulary(str(folder)) == TAGS


def test_missing_folder_split_column_and_vocabulary_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match="no_such_folder.*build_danmul"):
        load_split(str(tmp_path / "no_such_folder"), "train")
    with pytest.raises(ValueError, match="holdout"):
        load_split(str(folder), "holdout")
    (tmp_path / "bare").mkdir()
    Dataset.from_dict({"post_id": [1]}).to_parquet(tmp_path / "bare" / "train-0.parquet")
    with pytest.raises(ValueError, match="image, character, tags missing"):
        load_split(str(tmp_path / "bare"), "train")
    with pytest.raises(ValueError, match="tags.json"):
        read_tag_vocabulary(str(tmp_path / "bare"))


def test_characters_without_names_are_an_error(tmp_path):
    Dataset.from_dict({"character": [1]}).to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(ValueError, match="ClassLabel"):
        read_characters(ParquetRows([str(tmp_path / "plain.parquet")]))


# Reproducible draws


def test_a_post_is_the_same_in_any_order_batch_and_worker(folder):
    rows = load_split(str(folder), "train")
    collator = MFDNCollator(CONFIG, TAGS, training=True)
    alone = by_post(collator([one]) for one in rows)
    together = by_post(DataLoader(rows, batch_size=5, collate_fn=collator, shuffle=True))
    from_workers = by_post(DataLoader(rows, batch_size=4, collate_fn=collator, num_workers=2))
    assert_same_posts(alone, together)
    assert_same_posts(alone, from_workers)


def test_the_global_random_state_is_left_alone():
    state = torch.get_rng_state()
    MFDNCollator(CONFIG, TAGS, training=True)(many_rows(2))
    assert torch.equal(state, torch.get_rng_state())


def test_another_epoch_and_another_seed_draw_anew():
    collator = MFDNCollator(CONFIG, TAGS, training=True)
    other_seed = MFDNCollator(CONFIG, TAGS, training=True, seed=1)
    rows = many_rows(4)
    first, other = collator(rows), other_seed(rows)
    collator.set_epoch(1)
    second = collator(rows)
    collator.set_epoch(0)
    again = collator(rows)
    for name in ("pixel_values", "input_ids"):
        assert not torch.equal(first[name], second[name])
        assert not torch.equal(first[name], other[name])
        assert torch.equal(first[name], again[name])


def test_set_epoch_reaches_running_workers(folder):
    collator = MFDNCollator(CONFIG, TAGS, training=True)
    rows = load_split(str(folder), "train")
    loader = DataLoader(rows, batch_size=6, collate_fn=collator, num_workers=2, persistent_workers=True)
    by_post(loader)
    collator.set_epoch(3)
    from_workers = by_post(loader)
    assert_same_posts(from_workers, by_post(collator([one]) for one in rows))


def test_evaluation_ignores_epoch_and_seed():
    rows = many_rows()
    collator = MFDNCollator(CONFIG, TAGS, training=False, seed=7)
    first = collator(rows)
    collator.set_epoch(5)
    assert_same_posts(by_post([first]), by_post([collator(rows)]))
    assert_same_posts(by_post([first]), by_post([MFDNCollator(CONFIG, TAGS, training=False, seed=8)(rows)]))


# Tags


def test_token_layout_and_targets():
    batch = MFDNCollator(CONFIG, TAGS, training=False, tag_order="frequency")([row(tags=["tag_9", "tag_0", "tag_9"])])
    offset = CONFIG.num_special_tokens
    assert batch["input_ids"].tolist() == [[2, offset, offset + 9, 3] + [0] * 28]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1] + [0] * 28]
    assert batch["tag_targets"].nonzero().tolist() == [[0, 0], [0, 9]]
    assert batch["labels"].tolist() == [0] and batch["post_id"].tolist() == [1]


def test_a_post_without_tags_is_cls_and_sep():
    batch = MFDNCollator(CONFIG, TAGS, training=False)([row(tags=[])])
    assert batch["input_ids"][0, :3].tolist() == [2, 3, 0]
    assert not batch["tag_targets"].any()


@pytest.mark.parametrize("tag_order", ["random", "alphabetical", "frequency"])
def test_thirty_of_forty_five_tags_are_drawn_in_the_order_asked_for(tag_order):
    collator = MFDNCollator(CONFIG, TAGS, training=True, tag_order=tag_order)
    draws = []
    for epoch in range(2):
        collator.set_epoch(epoch)
        ids = collator([row(tags=TAGS[:45])])["input_ids"][0]
        assert ids[0] == 2 and ids[-1] == 3
        draws.append((ids[1:-1] - CONFIG.num_special_tokens).tolist())
    assert all(len(set(draw)) == 30 and max(draw) < 45 for draw in draws)
    assert set(draws[0]) != set(draws[1])
    ordered = {"frequency": sorted(draws[0]), "alphabetical": sorted(draws[0], key=lambda label: TAGS[label])}
    assert draws[0] == ordered.get(tag_order, draws[0])
    if tag_order == "random":
        assert draws[0] != sorted(draws[0])


def test_evaluation_targets_hold_tags_beyond_the_slots():
    batch = MFDNCollator(CONFIG, TAGS, training=False)([row(tags=TAGS[:45])])
    assert batch["tag_targets"].sum() == 45
    assert (batch["input_ids"] >= CONFIG.num_special_tokens).sum() == 30


def test_the_order_of_tags_in_the_data_does_not_matter():
    collator = MFDNCollator(CONFIG, TAGS, training=True)
    forward, backward = collator([row(tags=TAGS[:45])]), collator([row(tags=TAGS[:45][::-1])])
    assert torch.equal(forward["input_ids"], backward["input_ids"])


def test_unknown_tags_are_counted_dropped_and_warned_of_once(caplog):
    collator = MFDNCollator(CONFIG, TAGS, training=False)
    batch = collator([row(1, tags=["tag_1", "no_such_tag"]), row(2, tags=["a", "b"])])
    assert collator.num_unknown_tags == 3
    assert batch["tag_targets"].sum() == 1
    assert [record.getMessage() for record in caplog.records] == [
        "Post 1: tag 'no_such_tag' is not in the vocabulary; dropped."
    ]


def test_labels_are_mapped_to_those_of_the_model():
    collator = MFDNCollator(CONFIG, TAGS, training=False, label_map=[2, 0, 1])
    assert collator([row(character=0), row(character=2)])["labels"].tolist() == [2, 1]


@pytest.mark.parametrize("options", [{"tag_order": "size"}, {"tags": TAGS[:3]}])
def test_wrong_options_are_errors(options):
    with pytest.raises(ValueError, match="size|3"):
        MFDNCollator(**({"config": CONFIG, "tags": TAGS, "training": True} | options))


# Pixels


def test_own_and_textbook_batches_have_the_same_range_and_nearly_the_same_evaluation_pixels():
    rows = many_rows(4)
    pixels = {}
    for collator in (MFDNCollator, TextbookCollator):
        for training in (False, True):
            found = collator(CONFIG, TAGS, training=training)(rows)["pixel_values"]
            assert found.dtype == torch.float32 and found.shape == (4, 3, SIZE, SIZE)
            assert found.min() >= -1 and found.max() <= 1
            pixels[collator, training] = found
    assert (pixels[MFDNCollator, False] - pixels[TextbookCollator, False]).abs().mean() < 1.5 / 127.5
    # In training the crops differ; over many posts the colours are alike.
    assert abs(pixels[MFDNCollator, True].mean() - pixels[TextbookCollator, True].mean()) < 0.15


@pytest.mark.parametrize("width, height", [(512, 512), (400, 200), (150, 301), (20, 24)])
def test_evaluation_pixels_are_those_of_the_processor_that_ships(width, height):
    one = row(picture=smooth_picture(width, height))
    batch = MFDNCollator(CONFIG, TAGS, training=False)([one])
    shipped = build_processor(CONFIG, TAGS)(images=one["image"]["bytes"])["pixel_values"]
    assert torch.equal(batch["pixel_values"], shipped)


def test_crops_cover_four_fifths_of_the_side_and_half_of_them_are_mirrored():
    ramp = np.tile(np.linspace(0, 250, 400)[None, :, None], (400, 1, 3)).astype(np.uint8)  # grey = x, a fraction
    ramp[:, :, 1] = ramp[:, :, 0].T  # green = y
    rows = [row(post_id, picture=PILImage.fromarray(ramp)) for post_id in range(60)]
    collator = MFDNCollator(CONFIG, TAGS, training=True, color_jitter=(0, 0, 0, 0))
    pixels = (collator(rows)["pixel_values"] + 1) / 2 * 255 / 250
    left, right = pixels[:, 0, :, 0].mean(1), pixels[:, 0, :, -1].mean(1)
    top, bottom = pixels[:, 1, 0].mean(1), pixels[:, 1, -1].mean(1)
    # First and last pixel centres are one pixel of the crop less apart than its sides.
    np.testing.assert_allclose((right - left).abs(), 0.8 * (SIZE - 1) / SIZE, atol=0.02)
    np.testing.assert_allclose(bottom - top, 0.8 * (SIZE - 1) / SIZE, atol=0.02)
    assert 15 <= int((left > right).sum()) <= 45
    for start in (torch.minimum(left, right), top):
        assert start.min() < 0.06 and start.max() > 0.16 and start.max() < 0.24


def test_crops_cover_the_shares_asked_for():
    ramp = np.tile(np.linspace(0, 250, 400)[None, :, None], (400, 1, 3)).astype(np.uint8)
    rows = [row(post_id, picture=PILImage.fromarray(ramp)) for post_id in range(60)]
    collator = MFDNCollator(CONFIG, TAGS, training=True, flip=False, crop_share=(0.5, 0.9), color_jitter=(0, 0, 0, 0))
    batch = collator(rows)
    pixels = (batch["pixel_values"] + 1) / 2 * 255 / 250
    shares = (pixels[:, 0, :, -1] - pixels[:, 0, :, 0]).mean(1) * SIZE / (SIZE - 1)
    assert 0.45 < shares.min() < 0.6 and 0.8 < shares.max() < 0.95


@pytest.mark.parametrize("crop_share", [(0.0, 1.0), (0.9, 0.8), (0.5, 1.1), (0.5,)])
def test_impossible_crops_are_refused(crop_share):
    with pytest.raises(ValueError, match="crop_share must be two rising numbers"):
        MFDNCollator(CONFIG, TAGS, training=True, crop_share=crop_share)


def test_flip_false_never_mirrors():
    ramp = np.tile(np.linspace(0, 250, 100)[None, :, None], (100, 1, 3)).astype(np.uint8)
    rows = [row(post_id, picture=PILImage.fromarray(ramp)) for post_id in range(16)]
    pixels = MFDNCollator(CONFIG, TAGS, training=True, flip=False)(rows)["pixel_values"].float()
    assert (pixels[..., -1].mean((1, 2)) > pixels[..., 0].mean((1, 2))).all()


def test_fused_color_equals_sequential_torchvision_where_nothing_clips():
    pixels = torch.from_numpy(np.asarray(smooth_picture(40, 40)).copy()).permute(2, 0, 1)
    brightness, contrast, saturation = 1.08, 0.93, 1.07
    expected = pixels.float() / 255
    luminance = 255 * F.rgb_to_grayscale(expected).mean().item()
    expected = F.adjust_brightness(expected, brightness)
    expected = F.adjust_contrast(expected, contrast)
    expected = F.adjust_saturation(expected, saturation)
    matrix = color_matrices(np.array([[brightness, contrast, saturation, 0.0]]), np.array([luminance]))
    fused = apply_color(pixels[None], torch.from_numpy(matrix))[0]
    assert (fused - (2 * expected - 1)).abs().max() < 2e-3


@pytest.mark.parametrize("hue", [-0.1, 0.1])
def test_fused_hue_turns_the_way_of_torchvision_and_keeps_the_luminance(hue):
    pixels = torch.from_numpy(np.asarray(smooth_picture(40, 40)).copy()).permute(2, 0, 1)
    plain = pixels.float() / 255
    fused = apply_color(pixels[None], torch.from_numpy(color_matrices(np.array([[1, 1, 1, hue]]), np.zeros(1))))[0]
    fused = (fused + 1) / 2
    torch.testing.assert_close(F.rgb_to_grayscale(fused), F.rgb_to_grayscale(plain), atol=0.01, rtol=0)
    right, wrong = F.adjust_hue(plain, hue), F.adjust_hue(plain, -hue)
    assert (fused - right).abs().mean() < 0.5 * (fused - wrong).abs().mean()
    assert (fused - right).abs().mean() < 0.05


def test_jpeg_is_decoded_at_the_smallest_scale_that_suffices():
    data = encoded(smooth_picture(512, 300))
    assert decode_image(data, 160).size == (192, 113)
    assert decode_image(data, 256).size == (256, 150)
    assert decode_image(data, 4000).size == decode_image(data).size == (512, 300)


@pytest.mark.parametrize(
    "mode, format", [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("RGB", "WEBP")]
)
def test_other_formats_and_modes_become_rgb(mode, format):
    picture = smooth_picture(90, 90)
    decoded = decode_image(encoded(picture.convert(mode), format), 64)
    assert decoded.mode == "RGB"
    expected = picture.convert("L") if mode == "L" else picture
    difference = np.asarray(decoded.resize((8, 8)), float) - np.asarray(expected.convert("RGB").resize((8, 8)), float)
    assert np.abs(difference).mean() < 12


def test_exif_rotation_is_obeyed():
    picture = PILImage.new("RGB", (90, 60), "black")
    exif = PILImage.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert decode_image(encoded(picture, exif=exif), 64).size in ((60, 90), (30, 45))


@pytest.mark.parametrize("broken", [b"", b"<html>", encoded(smooth_picture())[:400]])
def test_a_broken_image_is_named_and_costs_no_other_row(broken, caplog):
    rows = [row(1), row(4711) | {"image": {"bytes": broken, "path": None}}, row(2, tags=["tag_5"])]
    whole = [rows[0], rows[2]]
    train = MFDNCollator(CONFIG, TAGS, training=True)
    left_out = train(rows)
    assert "Post 4711 is left out" in caplog.text and left_out["num_broken"].tolist() == [1, 0]
    left_out["num_broken"].zero_()
    assert_same_posts(by_post([train(whole)]), by_post([left_out]))
    judge = MFDNCollator(CONFIG, TAGS, training=False)
    marked = judge(rows)
    assert marked["readable"].tolist() == [True, False, True] and marked["post_id"].tolist() == [1, 4711, 2]
    marked = by_post([marked])
    white = marked.pop(4711)["pixel_values"]
    assert (white == 1).all()
    assert_same_posts(by_post([judge(whole)]), marked)
    with pytest.raises(ValueError, match="None of the 1 pictures.*--verify full"):
        train(rows[1:2])


def test_a_data_set_lies_in_a_folder_of_any_name(folder, tmp_path):
    strange = tmp_path / "out[v1] {a,b} *" / "danmul?"
    shutil.copytree(folder, strange)
    plain, found = load_split(str(folder), "train"), load_split(str(strange), "train")
    assert read_characters(found) == read_characters(plain) and found[:] == plain[:]
    with pytest.raises(ValueError, match="'holdout'.*it has the splits train"):
        load_split(str(strange), "holdout")


def test_pictures_alone_need_no_tags(folder, tmp_path):
    (tmp_path / "data").mkdir()
    without_tags = Dataset.from_parquet(str(folder / "data/train-00000-of-00001.parquet")).remove_columns("tags")
    without_tags.to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="tags missing"):
        load_split(str(tmp_path), "train")
    with pytest.raises(ValueError, match="needs a tags.json"):
        read_tag_vocabulary(str(tmp_path))
    rows = load_split(str(tmp_path), "train", needs_tags=False)
    assert read_tag_vocabulary(str(tmp_path), needs_tags=False) == []
    config = MFDNConfig(image_size=SIZE, patch_size=8, modality="image", num_tags=0, num_labels=3)
    batch = MFDNCollator(config, [], training=True)([rows[0], rows[1]])
    assert batch["labels"].tolist() == [1, 2] and batch["attention_mask"].sum() == 4  # [CLS] and [SEP]


def test_a_cut_shard_is_a_sentence(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "cut")
    (shard,) = (tmp_path / "cut" / "data").iterdir()
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(ValueError, match="Cannot read split 'train' of .*cut.*not a parquet file.*build_danmul"):
        load_split(str(tmp_path / "cut"), "train")


def test_color_jitter_is_asked_for_in_four_numbers():
    rows = many_rows(3)
    still = MFDNCollator(CONFIG, TAGS, training=True, color_jitter=(0, 0, 0, 0), flip=False, crop_share=(1.0, 1.0))
    jittered = MFDNCollator(CONFIG, TAGS, training=True, flip=False, crop_share=(1.0, 1.0))
    plain = MFDNCollator(CONFIG, TAGS, training=False)(rows)["pixel_values"]
    assert (still(rows)["pixel_values"] - plain).abs().mean() < 1.5 / 127.5
    assert (jittered(rows)["pixel_values"] - plain).abs().mean() > 3 / 127.5
    for wrong in ((0.1,), (0.1, 0.1, 0.1, 0.6), (-0.1, 0, 0, 0)):
        with pytest.raises(ValueError, match="color_jitter must be four numbers"):
            MFDNCollator(CONFIG, TAGS, training=True, color_jitter=wrong)


def test_exchanged_colors_make_another_character_without_tags():
    rows = [row(post_id, tags=["tag_0", "tag_3"], character=post_id % 3) for post_id in range(60)]
    config = MFDNConfig(**CONFIG.to_dict() | {"num_labels": 18, "id2label": None, "label2id": None})
    options = {"flip": False, "color_jitter": (0, 0, 0, 0), "crop_share": (1, 1)}
    plain = MFDNCollator(config, TAGS, True, **options)(rows)
    mixed = MFDNCollator(config, TAGS, True, exchanged_share=0.5, **options)(rows)
    orders = mixed["labels"] // 3
    assert (orders == 0).sum() in range(18, 43) and set(orders.tolist()) == {0, 1, 2, 3, 4, 5}
    assert torch.equal(mixed["labels"] % 3, plain["labels"])
    for i, order in enumerate(orders.tolist()):
        expected = plain["pixel_values"][i, list([(0, 1, 2), *EXCHANGES][order])]
        assert torch.equal(mixed["pixel_values"][i], expected)
        assert (mixed["attention_mask"][i].sum() == 2) == (order > 0)  # [CLS] and [SEP] alone
    assert torch.equal(mixed["input_ids"][orders == 0], plain["input_ids"][orders == 0])
    evaluated = MFDNCollator(config, TAGS, False, exchanged_share=0.5)(rows)
    assert torch.equal(evaluated["labels"], plain["labels"])


def test_rows_of_some_characters(folder):
    rows = load_split(str(folder), "train")
    kept = rows_of(rows, {"kirby", "hatsune_miku"})
    assert 0 < len(kept) < len(rows) and set(kept.column("character").to_pylist()) == {0, 2}
    assert rows_of(rows, read_characters(rows)) is rows
