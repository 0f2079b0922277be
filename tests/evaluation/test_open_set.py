"""Characters that nobody trained: refused, learnt, grouped. Against numbers that can be worked out by hand."""

import numpy as np
import pytest
import torch
from character_factory import draw, fitted_gallery, give_statistics, picture_of

from modeling_mfdn.evaluation import open_set as judged
from modeling_mfdn.evaluation.figures import draw_unseen
from modeling_mfdn.evaluation.open_set import draw_lessons, group_pictures, judge_unseen, open_set
from modeling_mfdn.evaluation.results import format_unseen


def test_the_measures_of_a_score_that_was_worked_out_by_hand():
    known, hits = np.array([4.0, 3, 2, 1]), np.array([True, True, False, True])
    unseen = np.array([2.5, 0.5])
    found = open_set(known, hits, unseen)
    assert found["auroc"] == pytest.approx(6 / 8)  # of 8 pairs, 2.5 beats two
    assert found["fpr95"] == pytest.approx(1 / 2)  # 95 % of the known are above 1: so is 2.5
    # Accepted and right: 0.5 until 2.5 is accepted, too, then up to 0.75 before 0.5 is.
    assert found["oscr"] == pytest.approx((0.5 + 0.75) / 2)
    assert found["curve"][0] == [0, 0.5] and found["curve"][-1] == [1, 0.75] and len(found["curve"]) == 51


def test_a_perfect_score_has_perfect_measures_and_oscr_is_at_most_the_accuracy():
    known, unseen = np.linspace(1, 2, 40), np.linspace(-1, 0, 30)
    hits = np.arange(40) % 4 > 0
    found = open_set(known, hits, unseen)
    assert found["auroc"] == 1 and found["fpr95"] == 0 and found["oscr"] == pytest.approx(0.75)
    chance = open_set(np.zeros(40), hits, np.zeros(30))
    assert chance["auroc"] == 0.5 and chance["fpr95"] == 1


def test_lessons_are_drawn_from_characters_with_enough_pictures_and_never_asked():
    labels = torch.tensor([0] * 12 + [1] * 10 + [2] * 30)
    seen = set()
    for lesson, asked in draw_lessons(labels, 2):
        assert [len(pictures) for pictures in lesson] == [2, 2]  # the second has no picture left after ten
        taught = torch.cat(lesson)
        assert not set(taught.tolist()) & set(asked.tolist()) and len(asked) == 38
        assert labels[lesson[0]].unique().tolist() == [0] and labels[lesson[1]].unique().tolist() == [2]
        seen.add(tuple(taught.tolist()))
    assert len(seen) > judged.NUM_DRAWS / 2


def test_too_few_pictures_are_said():
    with pytest.raises(ValueError, match="more than 10 pictures each.*found 20 pictures of 2 characters"):
        next(draw_lessons(torch.arange(20) % 2, 1))


@pytest.fixture(scope="module")
def queries():
    """(known, unseen, processor): 30 characters that the statistics know and 8 that they do not, in two modalities."""
    gallery = fitted_gallery()
    known, labels = draw(30, 34, seed=0)
    is_asked = torch.arange(len(known)) % 34 >= 30
    unseen, unseen_labels = draw(8, 20, seed=50)

    def asked(x, labels):
        z = gallery.statistics.axes(x)
        scores = (-torch.cdist(z, gallery.statistics.means.float())).softmax(dim=1)
        best, label = scores.max(dim=1)
        trained = gallery.statistics.trained_log_odds(z, scores)
        return {"labels": labels, "z": z, "trained": trained, "best": best.log(), "label": label}

    class Processor:
        def known_gallery(self):
            return gallery

    known, unseen = asked(known[is_asked], labels[is_asked]), asked(unseen, unseen_labels)
    return {0: known, 2: known}, {0: unseen, 2: unseen}, Processor()


def test_what_is_judged(queries, tmp_path):
    found = judge_unseen(*queries)
    refused, learnt = found["open_set"], found["few_shot"]
    assert refused["auroc"] > 0.95 and refused["fpr95"] < 0.3 and refused["num_unseen"] == 160
    assert refused["adjusted_rand_index"] > 0.8
    assert refused["hints"]["2"] == {name: refused[name] for name in ("auroc", "fpr95", "oscr")}
    assert list(learnt) == ["1", "2", "5", "10"]
    for lesson in learnt.values():
        low, high = lesson["interval"]["new"]
        assert low <= lesson["new"] <= high
        assert lesson["new_joint"] <= lesson["new"] + 1e-6
        assert lesson["hints"]["2"]["harmonic"] == pytest.approx(lesson["harmonic"])
    assert learnt["1"]["new"] < learnt["10"]["new"] and learnt["10"]["harmonic"] > 0.9
    results = found | {"image": {"top1_accuracy": 0.9}}
    results["open_set"]["unseen"] = "others"
    draw_unseen(results, tmp_path / "unseen.png")
    assert (tmp_path / "unseen.png").stat().st_size > 10_000
    assert f"AUROC {refused['auroc']:.3f}" in "\n".join(format_unseen(results))


def test_one_ranking_is_the_one_that_a_processor_makes(tiny_model, tiny_processor):
    """`few_shot` compares best scores; `rank_characters` makes the whole ranking: the same winner."""
    give_statistics(tiny_model, tiny_processor)
    asked = [picture_of(character, 60 + number) for character in (0, 1, 5, 9, 11, 23) for number in range(4)]
    with torch.no_grad():
        outputs = tiny_model(**tiny_processor(images=asked))
        lessons = tiny_model(**tiny_processor(images=[picture_of(9, number) for number in range(5)]))
    tiny_processor.teach("kiki", lessons.picture_embedding)
    names, scores, unknown = tiny_processor.rank_characters(outputs.logits, outputs.picture_embedding)
    reducer = judged.CharacterQueries(tiny_processor)
    reducer.add({"image": outputs, "labels": torch.zeros(len(asked), dtype=torch.long)})
    said = reducer.compute()[0]
    taught = tiny_processor.gallery.taught_log_odds(said["z"]).amax(dim=1)
    is_taught = taught > said["best"] + said["trained"]
    winners = [names[label] for label in scores.argmax(dim=1).tolist()]
    expected = ["kiki" if wins else names[label] for wins, label in zip(is_taught, said["label"], strict=True)]
    assert winners == expected and {"kiki"} < set(winners)
    assert ((unknown >= 0) & (unknown <= 1)).all()


def test_groups_are_characters(queries):
    _, unseen, processor = queries
    groups = group_pictures(unseen[0]["z"], processor.known_gallery().statistics)
    assert 6 <= len(groups.unique()) <= 20
    assert group_pictures(unseen[0]["z"][:1], processor.known_gallery().statistics).tolist() == [0]
