"""What teaching and "unknown" stand on, fitted from pictures whose characters are known."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from character_factory import draw, fitted_gallery, head, picture_of
from datasets import ClassLabel, Dataset

from modeling_mfdn.data.parquet_rows import ParquetRows
from modeling_mfdn.gallery_mfdn import CharacterGallery
from modeling_mfdn.training.character_statistics import CharacterSums, first_of_each, fit_character_statistics


def test_batches_give_what_all_at_once_gives():
    x, labels = draw(6, 9, seed=0)
    whole, parts = CharacterSums(6), CharacterSums(6)
    whole.add(x, labels)
    for part, their_labels in zip(x.split(7), labels.split(7), strict=True):
        parts.add(part, their_labels)
    one, other = (sums.statistics(head(6)) for sums in (whole, parts))
    # An axis may point either way.
    torch.testing.assert_close(one.spread, other.spread, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.means.abs(), other.means.abs(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("labels", [[], [0, 1, 2], [0, 0, 1]])
def test_too_few_pictures_are_said(labels):
    sums = CharacterSums(3)
    if labels:
        sums.add(torch.randn(len(labels), 8), torch.tensor(labels))
    with pytest.raises(ValueError, match="two characters, two of each at least; found"):
        sums.statistics(head(3))


def test_a_character_without_pictures_is_like_nothing():
    x, labels = draw(5, 6, seed=1)
    sums = CharacterSums(7)  # two of whom there is none
    sums.add(x, labels)
    statistics = sums.statistics(head(7))
    likeness = statistics.likeness_of(statistics.axes(x), torch.tensor([[5, 6]]).expand(len(x), -1))
    assert likeness.abs().max() < 1e-4


def nearness(gallery, z: torch.Tensor) -> torch.Tensor:
    """What a good head would score: [B, C]."""
    return (-torch.cdist(z, gallery.statistics.means.float())).softmax(dim=1)


def test_of_a_character_without_pictures_the_score_is_all_that_counts():
    x, labels = draw(5, 6, seed=1)
    sums = CharacterSums(6)
    sums.add(x, labels)
    statistics = sums.statistics(head(6))
    z = statistics.axes(x[:1] + 1000)  # nothing that is known
    for score in (0.9, 0.2):
        scores = torch.tensor([[0.0, 0, 0, 0, 0, score]])
        assert statistics.trained_log_odds(z, scores).sigmoid().item() == pytest.approx(score, abs=1e-4)


def test_unknown_is_a_probability_that_holds_for_characters_that_were_not_fitted():
    """Half of the pictures show characters that the statistics know: said of those, and of the others."""
    gallery = fitted_gallery(60, seed=2)
    known, labels = draw(60, 40, seed=2)
    unseen, _ = draw(60, 10, seed=77)
    known = known[torch.arange(len(known)) % 40 >= 30]
    log_odds = []
    for x in (known, unseen):
        z = gallery.statistics.axes(x)
        log_odds.append(gallery.statistics.trained_log_odds(z, nearness(gallery, z)))
    said = [(-odds).sigmoid() for odds in log_odds]
    assert said[0].mean() < 0.2 and said[1].mean() > 0.8
    assert torch.cat(said).mean().item() == pytest.approx(len(unseen) / (len(known) + len(unseen)), abs=0.08)


def test_trained_and_taught_characters_can_be_compared():
    gallery = fitted_gallery(40, seed=3)
    known, known_labels = draw(40, 32, seed=3)
    new, new_labels = draw(10, 30, seed=78)
    for label in range(10):
        gallery.teach(str(label), new[new_labels == label][:5])
    statistics, right = gallery.statistics, {}
    for kind, x in (("known", known[torch.arange(len(known)) % 32 >= 30]), ("new", new)):
        z = statistics.axes(x)
        trained = statistics.trained_log_odds(z, nearness(gallery, z))
        is_taught = gallery.taught_log_odds(z).amax(dim=1) > trained
        right[kind] = (is_taught == (kind == "new")).float().mean().item()
    assert right["known"] > 0.85 and right["new"] > 0.85


def test_of_each_character_as_many_rows_as_asked():
    assert first_of_each([2, 0, 2, 2, 1, 0], 2) == [0, 1, 2, 4, 5]


@pytest.fixture
def posts(characters, tmp_path):
    """Six pictures of each of the model's characters, and of one that it does not know."""
    import io

    rows = []
    for number in range(6):
        for character in range(len(characters) + 1):
            picture_of(character, number).save(content := io.BytesIO(), "PNG")
            post = {"post_id": len(rows), "image": {"bytes": content.getvalue(), "path": None}, "character": character}
            rows.append(post)
    table = Dataset.from_list(rows).cast_column("character", ClassLabel(names=[*characters, "stranger"]))
    table.to_parquet(tmp_path / "posts.parquet")
    return ParquetRows([str(tmp_path / "posts.parquet")])


def test_statistics_of_a_model_are_fitted_on_the_pictures_that_it_knows(tiny_model, tiny_processor, posts, characters):
    maps = [[*range(len(characters)), -100]] * 2
    accelerator = Accelerator(cpu=True)
    options = {"label_maps": maps, "batch_size": 5}
    statistics = fit_character_statistics(tiny_model, tiny_processor, posts, posts, accelerator, **options)
    assert statistics.projection.shape == (48, 48) and statistics.counts.tolist() == [6] * 6
    assert CharacterGallery(statistics).fits(tiny_model) and not tiny_model.training
    outputs = tiny_model(**tiny_processor(images=[picture_of(0, 0), picture_of(4, 0)]))
    z = statistics.axes(outputs.picture_embedding.detach())
    likeness = statistics.likeness_of(z, torch.arange(6).expand(2, -1))
    assert likeness.argmax(dim=1).tolist() == [0, 4]
    assert statistics.calibration != replace(statistics.calibration, taught_bias=0.0)


def test_without_a_validation_split_there_are_statistics_that_nobody_calibrated(tiny_model, tiny_processor, posts):
    maps, nobody = [[*range(6), -100]] * 2, posts.select([])
    options = {"label_maps": maps, "batch_size": 64}
    statistics = fit_character_statistics(tiny_model, tiny_processor, posts, nobody, Accelerator(cpu=True), **options)
    assert statistics.calibration.trained_likeness == 1
