import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_mfdn import MFDNProcessor
from modeling_mfdn.modeling_mfdn import MFDNOutput
from modeling_mfdn.processing_mfdn import aggregate_tag_scores

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
    tiny_processor.image_processor.do_pad = False
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
    with pytest.raises(ValueError, match="two names for the same"):
        tiny_processor(images=pictures[:1], tags=["hat"], text=["hat"])


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


def test_text_is_another_name_for_tags_and_call_time_options_are_obeyed(tiny_processor, picture):
    named, generic = tiny_processor(images=picture, tags=["hat"]), tiny_processor(images=picture, text=["hat"])
    assert all(torch.equal(named[name], generic[name]) for name in named)
    assert tiny_processor(text=["hat", "smile"], padding=False).input_ids.tolist() == [[2, 15, 7, 3]]
    assert tiny_processor(text=[["hat"], ["hat", "smile"]], padding=True).input_ids.shape == (2, 4)
    assert tiny_processor(text=[["hat"]], max_length=5).input_ids.shape == (1, 5)
    small = tiny_processor(images=picture, size={"height": 8, "width": 8})
    assert small.pixel_values.shape == (1, 3, 8, 8)
    raw = tiny_processor(images=picture, do_normalize=False, return_tensors="np").pixel_values
    assert raw.min() >= 0 and raw.max() <= 1


@pytest.mark.parametrize("options", [{"foo": 1}, {"stride": 3}, {"text_kwargs": {"stride": 3}}])
def test_call_time_options_that_mean_nothing_here_are_refused(tiny_processor, options):
    with pytest.raises(TypeError, match="foo|stride"):
        tiny_processor(tags=["hat"], **options)


def test_everything_comes_back_from_the_disk(tiny_config, tags, picture, tmp_path):
    from modeling_mfdn.training.tag_tokenizer import build_processor

    processor = build_processor(tiny_config, tags)
    processor.tag_aggregation, processor.tag_threshold, processor.tag_order = "max", 0.2, "frequency"
    processor.image_processor.do_pad = False
    processor.save_pretrained(tmp_path)
    assert MFDNProcessor.from_pretrained(tmp_path).characters is None
    tiny_config.save_pretrained(tmp_path)
    loaded = MFDNProcessor.from_pretrained(tmp_path)
    for name in ("characters", "tag_aggregation", "tag_threshold", "tag_order", "tag_names"):
        assert getattr(loaded, name) == getattr(processor, name)
    assert not loaded.image_processor.do_pad
    assert "hatsune_miku" not in (tmp_path / "processor_config.json").read_text()  # names stand in the config alone
    assert (tmp_path / "preprocessor_config.json").exists()
    before, after = processor(images=picture, tags=tags[:3]), loaded(images=picture, tags=tags[:3])
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_wrong_settings_are_refused(tiny_processor):
    parts = tiny_processor.image_processor, tiny_processor.tokenizer
    with pytest.raises(ValueError, match="got 'sum'"):
        MFDNProcessor(*parts, tag_aggregation="sum")
    with pytest.raises(ValueError, match="got 2"):
        MFDNProcessor(*parts, tag_threshold=2)
