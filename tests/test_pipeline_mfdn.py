import json
import subprocess
import sys

import pytest
import torch
from character_factory import give_statistics, picture_of
from torch.utils.data import Dataset
from transformers import pipeline

from modeling_mfdn import MFDNModel, MFDNPipeline
from modeling_mfdn.training.tag_tokenizer import build_processor


@pytest.fixture
def tagger(tiny_model, tiny_processor):
    tiny_processor.tag_threshold = 0.1
    return MFDNPipeline(model=tiny_model, processor=tiny_processor, task="character-tagging", device="cpu")


def assert_same(found, expected):
    """Labels equal; scores up to the rounding that another batch size brings."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for kind in ("characters", "tags"):
            assert [entry["label"] for entry in one[kind]] == [entry["label"] for entry in other[kind]]
            scores = [[entry["score"] for entry in result[kind]] for result in (one, other)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_a_picture_gets_what_model_and_processor_give(tagger, picture):
    result = tagger(picture)
    with torch.no_grad():
        outputs = tagger.model(**tagger.processor(images=picture))
    assert result.keys() == {"characters", "tags", "unknown"}
    assert len(result["characters"]) == 5 and result["tags"]
    assert_same([result], tagger.processor.post_process(outputs))


def test_hints_change_the_answer_and_are_not_repeated(tagger, picture):
    plain, hinted = tagger(picture, tag_threshold=0.0), tagger(picture, tags=["Long hair", "hat"], tag_threshold=0.0)
    assert plain["characters"] != hinted["characters"]
    assert len(plain["tags"]) == 11
    assert {entry["label"] for entry in plain["tags"]} - {entry["label"] for entry in hinted["tags"]} == {
        "long_hair",
        "hat",
    }
    for written in ("long_hair, hat", [["long_hair", "hat"]]):
        assert_same([tagger(picture, tags=written, tag_threshold=0.0)], [hinted])
    assert_same([tagger({"image": picture, "tags": ["long_hair", "hat"]}, tag_threshold=0.0)], [hinted])
    assert_same([tagger(picture, tags=[])], [tagger(picture)])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_lists_generators_and_datasets_give_what_single_pictures_give(tagger, pictures, batch_size):
    tags = [["hat"], [], ["smile", "hat"], ["blush"]]  # batches of 3: a ragged last one
    expected = [tagger(image, tags=given) for image, given in zip(pictures, tags, strict=True)]

    class Pictures(Dataset):
        def __len__(self):
            return len(pictures)

        def __getitem__(self, index):
            return pictures[index]

    assert_same(tagger(pictures, tags=tags, batch_size=batch_size), expected)
    assert_same(tagger(tuple(pictures), tags=tags, batch_size=batch_size), expected)
    assert_same(list(tagger((image for image in pictures), tags=tags, batch_size=batch_size)), expected)
    assert_same(list(tagger(Pictures(), tags=tags, batch_size=batch_size)), expected)
    rows = [{"image": image, "tags": given} for image, given in zip(pictures, tags, strict=True)]
    assert_same(tagger(rows, batch_size=batch_size), expected)
    plain = [tagger(image) for image in pictures]
    assert_same(tagger(pictures, batch_size=batch_size), plain)
    assert_same(list(tagger(Pictures(), batch_size=batch_size)), plain)


def test_options_are_kept_and_can_be_set_once(tagger, picture, tiny_model, tiny_processor):
    result = tagger(picture, top_k=1, tag_threshold=0.0, max_tags=2)
    assert (len(result["characters"]), len(result["tags"])) == (1, 2)
    once = MFDNPipeline(model=tiny_model, processor=tiny_processor, task="character-tagging", device="cpu", top_k=2)
    assert len(once(picture)["characters"]) == 2


def test_what_does_not_fit_is_refused(tagger, picture, pictures):
    with pytest.raises(TypeError, match=r"does not know \['topk'\]"):
        tagger(picture, topk=3)
    with pytest.raises(ValueError, match="got 1 for 4 images"):
        tagger(pictures, tags=[["hat"]])
    with pytest.raises(ValueError):
        list(tagger((image for image in pictures), tags=[["hat"]]))
    with pytest.raises(ValueError, match="given twice"):
        tagger({"image": picture, "tags": ["hat"]}, tags=["hat"])
    with pytest.raises(FileNotFoundError, match="absent.png"):
        tagger("absent.png")
    assert tagger([]) == []


def test_models_without_tags_name_characters_alone(tiny_config, tags, picture):
    tiny_config.num_decoder_layers = 0
    processor = build_processor(tiny_config, tags)
    result = MFDNPipeline(model=MFDNModel(tiny_config), processor=processor, device="cpu")(picture, tags=["hat"])
    assert result["characters"] and result["tags"] == []
    tiny_config.modality = "image"
    tagger = MFDNPipeline(model=MFDNModel(tiny_config), processor=processor, device="cpu")
    assert tagger(picture)["characters"]
    with pytest.raises(ValueError, match="takes pictures alone"):
        tagger(picture, tags=["hat"])


def test_names_come_from_the_config_where_the_processor_has_none(tiny_model, tiny_processor, picture, characters):
    tiny_processor.characters = None
    tagger = MFDNPipeline(model=tiny_model, processor=tiny_processor, device="cpu")
    assert tagger(picture, top_k=1)["characters"][0]["label"] in characters


def test_a_low_precision_model_takes_pictures(tiny_model, tiny_processor, picture):
    tagger = MFDNPipeline(model=tiny_model.to(torch.bfloat16), processor=tiny_processor, device="cpu")
    assert len(tagger(picture, tags=["hat"])["characters"]) == 5


def test_a_saved_pipeline_is_a_replace_folder(tagger, picture, tmp_path):
    tagger.save_pretrained(tmp_path)
    entry = json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]["character-tagging"]
    assert entry["impl"] == "pipeline_mfdn.MFDNPipeline"
    assert (tmp_path / "pipeline_mfdn.py").exists() and (tmp_path / "processor_config.json").exists()
    loaded = pipeline("character-tagging", model=str(tmp_path), trust_remote_code=True, device="cpu")
    assert_same([loaded(picture, tags=["hat"])], [tagger(picture, tags=["hat"])])
    loaded.save_pretrained(tmp_path / "again")  # pipeline() has put classes into the config by now
    assert json.loads((tmp_path / "again" / "config.json").read_text())["custom_pipelines"]


# ---------------------------------------------------------------- characters that it is taught


@pytest.fixture
def teachable(tagger):
    give_statistics(tagger.model, tagger.processor)
    return tagger


def test_a_taught_character_stands_in_the_ranking_until_it_is_forgotten(teachable):
    asked = picture_of(9, 50)
    before = teachable(asked)
    assert teachable.teach("kiki", [picture_of(9, number) for number in range(5)]) == []
    after = teachable(asked, top_k=7)
    assert after["characters"][0]["label"] == "kiki" and after["characters"][0]["score"] > 0.5
    assert after["unknown"] < before["unknown"]
    assert sum(entry["score"] for entry in after["characters"]) == pytest.approx(1, abs=1e-5)
    trained = teachable(picture_of(2, 50), top_k=7)["characters"]
    assert {entry["label"] for entry in trained} == {*teachable.processor.characters, "kiki"}
    teachable.forget("kiki")
    assert_same([teachable(asked)], [before])
    assert teachable(asked)["unknown"] == pytest.approx(before["unknown"], abs=1e-5)


def test_hints_reach_the_ranking_of_trained_and_taught(teachable):
    teachable.teach("kiki", [picture_of(9, number) for number in range(5)])
    plain, hinted = teachable(picture_of(9, 50), top_k=7), teachable(picture_of(9, 50), tags=["hat"], top_k=7)
    scores = [{entry["label"]: entry["score"] for entry in result["characters"]} for result in (plain, hinted)]
    assert scores[0]["kiki"] != scores[1]["kiki"] and plain["unknown"] != hinted["unknown"]


def test_a_character_that_was_trained_and_taught_has_one_score(teachable):
    name = teachable.processor.characters[3]
    before = {entry["label"]: entry["score"] for entry in teachable(picture_of(3, 50))["characters"]}
    (sentence,) = teachable.teach(name, [picture_of(3, number) for number in range(5)])
    assert "was trained, too" in sentence
    after = teachable(picture_of(3, 50), top_k=6)["characters"]
    assert sorted(entry["label"] for entry in after) == sorted(teachable.processor.characters)
    assert {entry["label"]: entry["score"] for entry in after}[name] > before.get(name, 0)


def test_a_fresh_process_with_transformers_alone_knows_what_was_taught(teachable, tmp_path):
    teachable.teach("kiki", [picture_of(9, number) for number in range(5)])
    teachable.save_pretrained(tmp_path / "model")
    picture_of(9, 50).save(tmp_path / "asked.png")
    here = teachable(str(tmp_path / "asked.png"))
    code = """
import json, sys
from transformers import pipeline
tagger = pipeline("character-tagging", model=sys.argv[1], trust_remote_code=True, device="cpu")
result = tagger(sys.argv[2])
assert "modeling_mfdn" not in sys.modules
tagger.teach("totoro", [sys.argv[2]])
print(json.dumps([result, tagger.processor.gallery.names]))
"""
    asked = [sys.executable, "-c", code, str(tmp_path / "model"), str(tmp_path / "asked.png")]
    printed = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    result, names = json.loads(printed.strip().splitlines()[-1])
    assert names == ["kiki", "totoro"] and result["characters"][0]["label"] == "kiki"
    assert result["unknown"] == pytest.approx(here["unknown"], abs=1e-2)  # means are kept in half precision
    assert result["characters"][0]["score"] == pytest.approx(here["characters"][0]["score"], abs=1e-2)


def test_what_is_forgotten_is_not_saved(teachable, tmp_path):
    teachable.teach("kiki", picture_of(9, 0))
    teachable.save_pretrained(tmp_path)
    assert (tmp_path / "gallery.safetensors").exists()
    teachable.forget("kiki")
    teachable.save_pretrained(tmp_path)
    assert not (tmp_path / "gallery.safetensors").exists()


def test_a_gallery_is_loaded_by_the_model_that_made_it(teachable, tmp_path):
    teachable.teach("kiki", [picture_of(9, number) for number in range(5)])
    teachable.processor.gallery.save(tmp_path / "g.safetensors")
    teachable.forget("kiki")
    assert teachable.load_gallery(tmp_path / "g.safetensors") == ["kiki"]
    assert teachable(picture_of(9, 50))["characters"][0]["label"] == "kiki"


def test_what_cannot_be_taught_is_said_and_changes_nothing(teachable, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = [picture_of(9, number) for number in range(2)]
    for pictures, said in (([], "at least one picture"), ([*good, str(tmp_path / "broken.png")], "broken.png")):
        with pytest.raises(ValueError, match=said):
            teachable.teach("kiki", pictures)
    with pytest.raises(ValueError, match="name of a character"):
        teachable.teach(" ", good)
    assert teachable.processor.gallery.names == []


def test_a_model_without_statistics_answers_with_a_rough_unknown_and_cannot_be_taught(tagger):
    result = tagger(picture_of(0, 0), top_k=1)
    assert result["unknown"] == pytest.approx(1 - result["characters"][0]["score"], abs=1e-6)
    with pytest.raises(ValueError, match="mfdn teach --statistics DATASET"):
        tagger.teach("kiki", picture_of(9, 0))


def test_statistics_of_other_weights_are_left_out_with_a_warning(teachable, tmp_path):
    with torch.no_grad():
        teachable.model.character_head.weight.mul_(1.5)
    teachable.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="those of other weights"):
        loaded = pipeline("character-tagging", model=str(tmp_path), trust_remote_code=True, device="cpu")
    assert loaded.processor.gallery is None


def test_where_each_character_may_be_there_so_may_a_taught_one(teachable):
    teachable.processor.character_activation = "sigmoid"
    before = {entry["label"]: entry["score"] for entry in teachable(picture_of(9, 50), top_k=6)["characters"]}
    teachable.teach("kiki", [picture_of(9, number) for number in range(5)])
    after = {entry["label"]: entry["score"] for entry in teachable(picture_of(9, 50), top_k=7)["characters"]}
    assert after.pop("kiki") > 0.5
    assert after == pytest.approx(before)  # those of the trained are what they were
