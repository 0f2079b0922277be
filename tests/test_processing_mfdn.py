import base64
import io
import threading
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_scripts.train_ready import train_ready
from modeling_mfdn import MFDNProcessor, image_reading_mfdn
from modeling_mfdn.image_reading_mfdn import read_image
from modeling_mfdn.modeling_mfdn import MFDNOutput
from modeling_mfdn.processing_mfdn import aggregate_tag_scores, pad_to_square, to_rgb
from modeling_mfdn.publishing.handler import to_picture
from modeling_mfdn.training.images import decode_image

# Pictures


def colour(image):
    return to_rgb(image).getpixel((0, 0))


def test_transparent_pixels_become_white():
    for mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        assert colour(Image.new(mode, (3, 2))) == (255, 255, 255), mode
    half = Image.new("RGBA", (3, 2), (255, 0, 0, 128))
    assert colour(half) == (255, 127, 127)


def test_a_transparent_palette_entry_becomes_white():
    image = Image.new("P", (3, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert colour(image) == (10, 20, 30)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=1)
    assert colour(Image.open(buffer)) == (255, 255, 255)


def test_a_transparent_colour_of_an_rgb_png_becomes_white():
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(buffer, "PNG", transparency=(1, 2, 3))
    assert colour(Image.open(buffer)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16", "I;16B"])
def test_every_other_mode_becomes_rgb(mode):
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"
    assert pad_to_square(Image.new(mode, (3, 2))).size == (3, 3)


def test_16_bit_and_float_pictures_are_scaled_not_cut():
    grey16 = Image.fromarray(np.full((2, 3), 0x8080, dtype=np.uint16))
    assert colour(grey16) == (128, 128, 128)
    assert colour(Image.fromarray(np.full((2, 3), 0x8080, dtype=np.int32))) == (128, 128, 128)
    assert colour(Image.fromarray(np.full((2, 3), 7, dtype=np.int32))) == (7, 7, 7)
    assert colour(Image.fromarray(np.full((2, 3), 0.5, dtype=np.float32))) == (128, 128, 128)
    assert colour(Image.fromarray(np.full((2, 3), 200.0, dtype=np.float32))) == (200, 200, 200)
    with pytest.raises(ValueError, match="-4 to -4"):
        to_rgb(Image.fromarray(np.full((2, 3), -4, dtype=np.int32)))


def test_cmyk_colours_survive():
    assert colour(Image.new("CMYK", (3, 2), (0, 255, 255, 0))) == (255, 0, 0)


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20), "white")
    image.paste((0, 0, 0), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    image.save(tmp_path / "turned.jpg", exif=exif)
    upright = read_image(tmp_path / "turned.jpg")
    assert upright.size == (20, 40)
    assert max(upright.getpixel((10, 5))) < 20 and min(upright.getpixel((10, 35))) > 235


def test_padding_is_white_and_centred():
    square = np.asarray(pad_to_square(Image.new("RGB", (2, 6), "black")))
    assert square.shape == (6, 6, 3)
    assert (square[:, 2:4] == 0).all() and (square[:, :2] == 255).all() and (square[:, 4:] == 255).all()


def test_a_long_strip_does_not_fill_the_memory_with_white():
    assert pad_to_square(Image.new("RGB", (1, 60_000))).size == (4096, 4096)


def test_arrays_tensors_and_paths_give_the_picture_they_hold(picture, tmp_path):
    pixels = np.asarray(picture)
    picture.save(tmp_path / "picture.png")
    sources = [
        pixels,
        pixels.transpose(2, 0, 1),
        torch.from_numpy(pixels.copy()),
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        pixels / 255.0,
        torch.from_numpy(pixels / 255).permute(2, 0, 1).float(),
        np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
        tmp_path / "picture.png",
        str(tmp_path / "picture.png"),
    ]
    for source in sources:
        np.testing.assert_array_equal(np.asarray(read_image(source)), pixels)
    grey = pixels[:, :, 0]
    for source in (grey, grey[:, :, None], torch.from_numpy(grey.copy())[None]):
        np.testing.assert_array_equal(np.asarray(read_image(source)), np.dstack([grey] * 3))
    ambiguous = torch.zeros(3, 5, 3)
    ambiguous[0] = 1
    assert read_image(ambiguous).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((5, 4, 3), np.uint16), r"dtype uint16 and shape \[5, 4, 3\]"),
        (np.zeros((5, 4, 3), bool), "dtype bool"),
        (np.full((5, 4, 3), 17.5), "from 17.5 to 17.5"),
        (np.full((5, 4, 3), np.nan), "nan"),
        (np.zeros((2, 5, 4, 3), np.uint8), r"\[2, 5, 4, 3\]. Pass several pictures as a list"),
        (np.zeros((5, 4, 2), np.uint8), r"\[5, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        read_image(array)


def test_files_that_are_no_pictures_are_refused_by_name(picture, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.png"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="text.png cannot be read as a picture"):
        read_image(tmp_path / "text.png")
    for suffix in ("png", "jpg"):
        path = tmp_path / f"cut.{suffix}"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(ValueError, match=f"cut.{suffix} cannot be read.*truncated"):
            read_image(path)
    with pytest.raises(ValueError, match="0 x 5 pixels"):
        read_image(Image.new("RGB", (0, 5)))
    with pytest.raises(TypeError, match="got int"):
        read_image(7)


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path, monkeypatch):
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="bomb.png cannot be read.*900000000 pixels"):
        read_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow's own limit taken away
    with pytest.raises(ValueError, match="30000 x 30000 pixels, which takes 10,300 MB"):
        read_image(tmp_path / "bomb.png")


def test_of_an_animation_the_first_frame_is_read_and_said(tmp_path):
    frames = [Image.new("RGB", (4, 4), name) for name in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="several frames"):
        assert read_image(tmp_path / "moving.gif").getpixel((0, 0)) == (255, 0, 0)


def test_addresses_are_fetched_with_a_limit_and_read_like_files(monkeypatch, tmp_path):
    Image.new("RGBA", (3, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/clear.png"
    try:
        assert read_image(address).getpixel((0, 0)) == (255, 255, 255), "transparency lies on white"
        monkeypatch.setattr(image_reading_mfdn, "MAX_BYTES", 20)
        with pytest.raises(ValueError, match="more than 20 bytes"):
            read_image(address)
    finally:
        server.shutdown()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("door", ["read_image", "bytes", "decode_image", "train_ready", "endpoint"])
def test_postscript_never_reaches_ghostscript(tmp_path, monkeypatch, door):
    def run(*_):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    path = tmp_path / "picture.jpg"
    path.write_bytes(EPS)
    doors = {
        "read_image": lambda: read_image(path),
        "bytes": lambda: read_image(EPS),
        "decode_image": lambda: decode_image(EPS),
        "train_ready": lambda: train_ready(EPS, 8),
        "endpoint": lambda: read_image(to_picture(base64.b64encode(EPS).decode())),
    }
    with pytest.raises((ValueError, OSError), match="cannot"):
        doors[door]()


# Tag scores


def test_tag_scores_are_what_their_names_say():
    tag_logits = torch.randn(4, 3, 7) * 2
    p = tag_logits.softmax(-1)
    torch.testing.assert_close(aggregate_tag_scores(tag_logits), 1 - (1 - p).prod(1))
    torch.testing.assert_close(aggregate_tag_scores(tag_logits, "max"), p.amax(1))
    torch.testing.assert_close(aggregate_tag_scores(tag_logits, "mean"), p.mean(1))


def test_one_slot_stands_for_all_when_all_say_the_same():
    tag_logits = torch.randn(4, 1, 7)
    for method in ("noisy_or", "max", "mean"):
        torch.testing.assert_close(
            aggregate_tag_scores(tag_logits, method, num_slots=5),
            aggregate_tag_scores(tag_logits.expand(-1, 5, -1), method),
        )


def test_rare_tags_keep_their_order_and_certain_ones_are_1():
    tag_logits = torch.tensor([[[40.0, 0.0, -1.0, -2.0]] * 3])
    certain, *rare = aggregate_tag_scores(tag_logits)[0].tolist()
    assert certain == 1.0
    assert 2e-17 > rare[0] > rare[1] > rare[2] > 0


def test_scores_do_not_depend_on_how_the_batch_is_cut(monkeypatch):
    tag_logits = torch.randn(5, 3, 7)
    whole = aggregate_tag_scores(tag_logits)
    monkeypatch.setattr("modeling_mfdn.processing_mfdn.CHUNK_ELEMENTS", 2 * 3 * 7)
    assert torch.equal(aggregate_tag_scores(tag_logits), whole)
    assert aggregate_tag_scores(tag_logits.bfloat16()).dtype == torch.float32


def test_slots_that_do_not_count_change_nothing():
    tag_logits = torch.randn(2, 3, 7)
    hidden_slots = torch.tensor([[False, True, True], [False, False, False]])
    for method in ("noisy_or", "max", "mean"):
        scores = aggregate_tag_scores(tag_logits, method, hidden_slots=hidden_slots)
        torch.testing.assert_close(scores[:1], aggregate_tag_scores(tag_logits[:1, 1:], method))
        assert (scores[1] == 0).all()


def test_wrong_aggregations_are_refused():
    with pytest.raises(ValueError, match="noisy_or.*got 'sum'"):
        aggregate_tag_scores(torch.zeros(1, 2, 3), "sum")
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        aggregate_tag_scores(torch.zeros(2, 3))


# Inputs


def test_pictures_become_normalised_squares(tiny_processor, pictures):
    pixel_values = tiny_processor(images=pictures).pixel_values
    assert pixel_values.shape == (4, 3, 16, 16) and pixel_values.dtype == torch.float32
    black, white = Image.new("RGB", (9, 9)), Image.new("RGB", (9, 9), "white")
    assert (tiny_processor(images=black).pixel_values == -1).all()
    assert (tiny_processor(images=white).pixel_values == 1).all()
    assert set(tiny_processor(images=black)) == {"pixel_values"}


def test_padding_can_be_left_out(tiny_processor):
    strip = Image.new("RGB", (4, 12))
    assert (tiny_processor(images=strip).pixel_values == 1).any()
    tiny_processor.pad_square = False
    assert (tiny_processor(images=strip).pixel_values == -1).all()


def test_tags_become_ids_padded_to_the_same_length(tiny_processor, pictures):
    batch = tiny_processor(images=pictures, tags=[["smile", "long_hair"], [], None, "Long hair, >_<"])
    assert batch.input_ids.tolist() == [
        [2, 7, 6, 3, 0, 0, 0],
        [2, 3, 0, 0, 0, 0, 0],
        [2, 3, 0, 0, 0, 0, 0],
        [2, 6, 8, 3, 0, 0, 0],
    ]
    assert batch.attention_mask.tolist() == [[1] * n + [0] * (7 - n) for n in (4, 2, 2, 4)]


@pytest.mark.parametrize(
    "written",
    [
        ["long_hair", "hat"],
        [["long_hair", "hat"]],
        "long_hair, hat",
        "long_hair,hat,",
        ["long_hair, hat"],
        ["  Long hair", "HAT", "hat", "long hair"],
        ("long_hair", "hat"),
    ],
)
def test_tags_of_one_picture_can_be_written_in_many_ways(tiny_processor, picture, written):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for images in (picture, [picture], None):
            assert tiny_processor(images=images, tags=written).input_ids.tolist() == [[2, 6, 15, 3, 0, 0, 0]]


def test_a_tag_with_a_comma_is_one_tag(tiny_processor):
    assert tiny_processor(tags="hello,_good-bye, hat").input_ids[0, :4].tolist() == [2, 12, 15, 3]


def test_more_tags_than_slots_are_drawn_always_the_same(tiny_processor, tags):
    with pytest.warns(UserWarning, match="11 tags were given, the model sees 5 at most"):
        first = tiny_processor(tags=tags).input_ids
    with pytest.warns(UserWarning):
        again = tiny_processor(tags=tags[::-1]).input_ids
    drawn = first[0, 1:6].tolist()
    assert drawn == sorted(drawn) and drawn != [5, 6, 7, 8, 9]  # given order kept; not simply the first ones
    assert again[0, 1:6].tolist() == drawn[::-1]
    assert first[0, 6] == 3


def test_unknown_tags_are_dropped_with_one_warning_that_names_them(tiny_processor):
    with pytest.warns(UserWarning) as caught:
        batch = tiny_processor(tags=["hat", "long hairs", "qqq"])
    assert batch.input_ids.tolist() == [[2, 15, 3, 0, 0, 0, 0]]
    assert len(caught) == 1
    assert "'long_hairs' (closest known: 'long_hair'), 'qqq' (nothing close is known)" in str(caught[0].message)


def test_special_tokens_are_no_tags(tiny_processor):
    for special in ("[MASK]", " [sep] ", "hat, [PAD]"):
        with pytest.raises(ValueError, match="special token"):
            tiny_processor(tags=[special])


def test_inputs_that_do_not_fit_are_refused(tiny_processor, pictures):
    with pytest.raises(ValueError, match="got 2 for 4 images"):
        tiny_processor(images=pictures, tags=[["hat"], ["hat"]])
    with pytest.raises(ValueError, match="got 2 for 1 images"):
        tiny_processor(images=pictures[:1], tags=[["hat"], ["hat"]])
    with pytest.raises(ValueError, match="got neither"):
        tiny_processor()
    with pytest.raises(ValueError, match="empty list"):
        tiny_processor(images=[])
    with pytest.raises(TypeError, match="got int"):
        tiny_processor(tags=3)
    with pytest.raises(TypeError, match=r"\['hat', 3\]"):
        tiny_processor(tags=[["hat", 3]])
    with pytest.raises(TypeError, match="text"):
        tiny_processor(images=pictures, text=["hat"])


def test_other_tensor_types_hold_the_same(tiny_processor, picture):
    tensors = tiny_processor(images=picture, tags=["hat"])
    arrays = tiny_processor(images=picture, tags=["hat"], return_tensors="np")
    lists = tiny_processor(images=picture, tags=["hat"], return_tensors=None)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(arrays[name], tensor.numpy())
        np.testing.assert_array_equal(np.stack(lists[name]), tensor.numpy())


# Outputs


@pytest.fixture
def outputs():
    """Two pictures; all slots say the same, tags 2 and 5 of 11 being likely."""
    tag_logits = torch.full((2, 5, 11), -9.0)
    tag_logits[:, :, 2], tag_logits[:, :, 5] = 0.0, 1.0
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0, -2.0, -3.0], [3.0, 2.0, 1.0, 0.0, -1.0, -2.0]])
    return MFDNOutput(logits=logits, tag_logits=tag_logits)


def test_outputs_get_names_and_come_best_first(tiny_processor, outputs, characters, tags):
    first, second = tiny_processor.post_process(outputs, top_k=3)
    assert [entry["label"] for entry in first["characters"]] == [characters[k] for k in (1, 2, 0)]
    assert first["characters"][0]["score"] == pytest.approx(outputs.logits.softmax(-1)[0, 1].item())
    assert [entry["label"] for entry in second["tags"]] == [tags[5], tags[2]]
    assert second["tags"][1]["score"] == pytest.approx(1 - (1 - 1 / (1 + np.e)) ** 5, abs=1e-3)
    assert len(tiny_processor.post_process(outputs)[0]["characters"]) == 5


def test_threshold_and_number_of_tags_are_kept(tiny_processor, outputs, tags):
    def named(**options):
        return [entry["label"] for entry in tiny_processor.post_process(outputs, **options)[0]["tags"]]

    assert named(max_tags=1) == [tags[5]]
    assert named(tag_threshold=0.9) == [tags[5]]
    assert len(named(tag_threshold=0.0)) == 11
    assert named(max_tags=0) == []


def test_each_tag_may_have_a_threshold_of_its_own(tiny_processor, outputs, tags, tmp_path):
    tiny_processor.tag_thresholds = [0.0 if k == 7 else 0.9 for k in range(11)]
    named = [entry["label"] for entry in tiny_processor.post_process(outputs)[0]["tags"]]
    assert named == [tags[5], tags[7]]
    hinted = tiny_processor.post_process(outputs, given_tags=[[tags[7]], []])[0]["tags"]
    assert [entry["label"] for entry in hinted] == [tags[5]]  # 0 does not name a tag that was given
    assert len(tiny_processor.post_process(outputs, tag_threshold=0.5)[0]["tags"]) == 2
    tiny_processor.temperature = 4.0
    tiny_processor.save_pretrained(tmp_path)
    loaded = MFDNProcessor.from_pretrained(tmp_path)
    score = loaded.post_process(outputs, top_k=1)[0]["characters"][0]["score"]
    assert score == pytest.approx((outputs.logits / 4).softmax(-1)[0, 1].item())
    with pytest.raises(ValueError, match="3 tag_thresholds"):
        loaded.tag_thresholds = [0.1, 0.2, 0.3]
        loaded.post_process(outputs)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"tag_thresholds": [0.2, 1.2]}])
def test_impossible_calibrations_are_refused(tiny_processor, options):
    with pytest.raises(ValueError, match="above 0|lie in"):
        MFDNProcessor(tiny_processor.image_processor, tiny_processor.tokenizer, **options)


def test_given_tags_and_their_slots_are_left_out(tiny_processor, outputs, tags):
    outputs.tag_logits[0, 0] = 0.0
    outputs.tag_logits[0, 0, 7] = 50.0  # what the slot of a given tag says is nothing that was learned
    labels = {entry["label"] for entry in tiny_processor.post_process(outputs)[0]["tags"]}
    assert labels == {tags[2], tags[5], tags[7]}
    with_hints = tiny_processor.post_process(outputs, given_tags=[[tags[5]], []])
    assert [entry["label"] for entry in with_hints[0]["tags"]] == [tags[2]]
    assert len(with_hints[1]["tags"]) == 2
    assert len(tiny_processor.post_process(outputs, tag_threshold=0.0, given_tags=[[tags[5]], []])[0]["tags"]) == 10


def test_a_model_without_tags_names_none(tiny_processor, outputs):
    outputs = MFDNOutput(logits=outputs.logits)
    assert [result["tags"] for result in tiny_processor.post_process(outputs)] == [[], []]


def test_fewer_characters_than_five_are_all_named(tiny_processor, outputs):
    tiny_processor.characters = None
    outputs.logits = outputs.logits[:, :3]
    named = tiny_processor.post_process(outputs)[0]["characters"]
    assert [entry["label"] for entry in named] == ["LABEL_1", "LABEL_2", "LABEL_0"]
    with pytest.raises(ValueError, match="top_k must be 1 to the number of characters, 3, got 5"):
        tiny_processor.post_process(outputs, top_k=5)


def test_outputs_that_do_not_fit_are_refused(tiny_processor, outputs):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 1.5"):
        tiny_processor.post_process(outputs, tag_threshold=1.5)
    with pytest.raises(ValueError, match="top_k.* got 0"):
        tiny_processor.post_process(outputs, top_k=0)
    outputs.tag_logits = outputs.tag_logits[:, :, :4]
    with pytest.raises(ValueError, match="scores 4 tags but the tokenizer knows 11"):
        tiny_processor.post_process(outputs)
    outputs.logits = outputs.logits[:, :4]
    with pytest.raises(ValueError, match="knows 4 characters but this processor names 6"):
        tiny_processor.post_process(outputs)


def test_everything_comes_back_from_the_disk(tiny_config, tags, picture, tmp_path):
    from modeling_mfdn.tag_tokenizer import build_processor

    processor = build_processor(tiny_config, tags)
    processor.tag_aggregation, processor.tag_threshold, processor.pad_square = "max", 0.2, False
    processor.save_pretrained(tmp_path)
    loaded = MFDNProcessor.from_pretrained(tmp_path)
    for name in ("characters", "tag_aggregation", "tag_threshold", "pad_square"):
        assert getattr(loaded, name) == getattr(processor, name)
    assert (tmp_path / "preprocessor_config.json").exists()
    before, after = processor(images=picture, tags=tags[:3]), loaded(images=picture, tags=tags[:3])
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_wrong_settings_are_refused(tiny_processor):
    parts = tiny_processor.image_processor, tiny_processor.tokenizer
    with pytest.raises(ValueError, match="got 'sum'"):
        MFDNProcessor(*parts, tag_aggregation="sum")
    with pytest.raises(ValueError, match="got 2"):
        MFDNProcessor(*parts, tag_threshold=2)
