"""Characters that were taught: the formulas, the file, and what is said to who teaches."""

import json

import pytest
import torch
from character_factory import WIDTH, draw, fitted_gallery, head
from safetensors import safe_open
from safetensors.torch import save_file

from modeling_mfdn.gallery_mfdn import CharacterGallery, CharacterStatistics


@pytest.fixture(scope="module")
def fitted():
    return fitted_gallery()


@pytest.fixture
def gallery(fitted):
    return CharacterGallery(fitted.statistics)


def test_within_the_axes_pictures_of_one_character_have_the_covariance_1_and_characters_a_diagonal_one(fitted):
    x, labels = draw(400, 20, seed=1)
    z = fitted.statistics.axes(x).reshape(400, 20, WIDTH)
    within = (z - z.mean(dim=1, keepdim=True)).flatten(0, 1)
    assert torch.allclose(within.T @ within / (400 * 19), torch.eye(WIDTH), atol=0.25)
    between = z.mean(dim=1).T.cov()
    assert (between - between.diagonal().diag()).abs().max() < 0.35 * between.diagonal().max()
    assert fitted.statistics.spread.tolist() == sorted(fitted.statistics.spread.tolist(), reverse=True)


def test_likeness_is_the_log_of_two_densities(fitted):
    """Against torch.distributions: with n pictures known, and with none."""
    statistics, (z, mean) = fitted.statistics, torch.randn(2, WIDTH)
    for count in (1.0, 4.0, 250.0):
        shrunk = count * statistics.spread / (count * statistics.spread + 1)
        known = torch.distributions.Normal(
            shrunk * mean, (1 + statistics.spread / (count * statistics.spread + 1)).sqrt()
        )
        unknown = torch.distributions.Normal(torch.zeros(WIDTH), (1 + statistics.spread).sqrt())
        expected = (known.log_prob(z) - unknown.log_prob(z)).sum()
        found = statistics.likeness(z, mean, torch.tensor(count))
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert statistics.likeness(z, mean, torch.tensor(0.0)).item() == pytest.approx(0, abs=1e-5)


def test_thousands_at_once_get_what_each_alone_gets(gallery):
    x, labels = draw(7, 5, seed=2)
    z = gallery.statistics.axes(x)
    for label, count in enumerate((1, 5, 2, 5, 3, 1, 4)):
        gallery.teach(f"character {label}", x[labels == label][:count])
    fitted = gallery.statistics.calibration
    for column, count in enumerate((1, 5, 2, 5, 3, 1, 4)):
        mean = z[labels == column][:count].mean(dim=0)
        alone = gallery.statistics.likeness(z, mean, torch.tensor(float(count)))
        expected = fitted.taught_bias + fitted.taught_likeness * alone
        torch.testing.assert_close(gallery.taught_log_odds(z)[:, column], expected, atol=1e-3, rtol=1e-4)


def test_a_taught_character_is_found_among_others_and_pictures_of_nobody_are_like_none(gallery):
    x, labels = draw(12, 25, seed=3)
    for label in range(8):
        gallery.teach(str(label), x[labels == label][:5])
    z = gallery.statistics.axes(x).reshape(12, 25, -1)[:, 5:].flatten(0, 1)
    truth = torch.arange(12).repeat_interleave(20)
    log_odds = gallery.taught_log_odds(z)
    is_taught = truth < 8
    assert (log_odds[is_taught].argmax(dim=1) == truth[is_taught]).float().mean() > 0.9
    assert (log_odds.amax(dim=1) > 0)[is_taught].float().mean() > 0.9
    assert (log_odds.amax(dim=1) > 0)[~is_taught].float().mean() < 0.2


def test_more_pictures_are_added_to_a_name_as_if_they_had_come_at_once(gallery):
    x, _ = draw(1, 7, seed=4)
    whole = CharacterGallery(gallery.statistics)
    whole.teach("holo", x)
    assert gallery.teach("holo", x[:5]) == []
    (sentence,) = gallery.teach(" holo ", x[5:])
    assert "taught before" in sentence and "makes 7" in sentence
    assert gallery.names == ["holo"] and gallery.counts.tolist() == [7]
    torch.testing.assert_close(gallery.means, whole.means)


def test_one_picture_works_and_says_what_to_expect(gallery):
    (sentence,) = gallery.teach("holo", draw(1, 1, seed=5)[0])
    assert "one picture" in sentence and gallery.names == ["holo"]


def test_the_odd_one_out_is_named(gallery):
    x, labels = draw(2, 5, seed=6)
    mixed = torch.cat([x[:4], x[9:]])
    (sentence,) = gallery.teach("holo", mixed, pictures=["a.png", "b.png", "c.png", "d.png", "other.png"])
    assert "other.png" in sentence and "a.png" not in sentence
    gallery.forget("holo")
    assert "picture 5 of 5" in gallery.teach("holo", mixed)[0]
    gallery.forget("holo")
    gallery.teach("holo", x[:5])
    assert "picture 1 of 1" in " ".join(gallery.teach("holo", x[7:8]))  # one picture against those that were taught


def test_few_pictures_of_one_character_are_called_odd(gallery):
    x, labels = draw(100, 5, seed=7)
    odd = [gallery.odd_pictures(gallery.statistics.axes(x[labels == label])) for label in range(100)]
    assert sum(map(bool, odd)) <= 20


def test_forgetting_leaves_the_others_as_they_were(gallery):
    x, labels = draw(3, 4, seed=8)
    for label, name in enumerate(("a", "b", "c")):
        gallery.teach(name, x[labels == label], thumbnail=name.encode())
    before = gallery.taught_log_odds(gallery.statistics.axes(x))
    gallery.forget("b")
    assert gallery.names == ["a", "c"] and gallery.thumbnails == [b"a", b"c"]
    torch.testing.assert_close(gallery.taught_log_odds(gallery.statistics.axes(x)), before[:, [0, 2]])
    gallery.teach("d", x[:4])
    assert gallery.names == ["a", "c", "d"]
    with pytest.raises(ValueError, match="'holo' was not taught.*3 others"):
        gallery.forget("holo")


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "x" * 201, None, "\x1b[31mred"])
def test_what_cannot_be_a_name_is_refused(gallery, name):
    with pytest.raises(ValueError, match="Expected the name of a character"):
        gallery.teach(name, torch.zeros(1, WIDTH))
    assert gallery.names == []


def test_no_picture_is_refused(gallery):
    with pytest.raises(ValueError, match="'holo': expected at least one picture"):
        gallery.teach("holo", torch.zeros(0, WIDTH))


# ---------------------------------------------------------------- files


def test_a_gallery_goes_through_its_file(gallery, tmp_path):
    x, labels = draw(3, 4, seed=9)
    for label, name in enumerate(("hatsune_miku", "né(e)", "c")):
        gallery.teach(name, x[labels == label], thumbnail=b"jpeg" * label)
    gallery.save(tmp_path / "mine.safetensors")
    other = CharacterGallery(gallery.statistics)
    assert other.load(tmp_path / "mine.safetensors") == gallery.names == other.names
    assert other.thumbnails == gallery.thumbnails and other.counts.tolist() == [4, 4, 4]
    torch.testing.assert_close(other.means, gallery.means, atol=1e-2, rtol=1e-2)  # half precision
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]


def test_an_empty_gallery_has_a_file_too(gallery, tmp_path):
    gallery.save(tmp_path / "g.safetensors")
    assert CharacterGallery(gallery.statistics).load(tmp_path / "g.safetensors") == []


def test_two_galleries_are_joined(gallery, tmp_path):
    x, labels = draw(2, 6, seed=10)
    gallery.teach("a", x[:2])
    gallery.save(tmp_path / "g.safetensors")
    other = CharacterGallery(gallery.statistics)
    other.teach("a", x[2:6])
    other.teach("b", x[6:])
    other.load(tmp_path / "g.safetensors")
    assert other.names == ["a", "b"] and other.counts.tolist() == [6, 6]
    torch.testing.assert_close(other.means[0], gallery.statistics.axes(x[:6]).mean(dim=0), atol=2e-2, rtol=1e-2)


def test_the_gallery_of_another_model_is_refused_and_nothing_is_added(gallery, tmp_path):
    other = fitted_gallery(seed=1)
    other.teach("holo", draw(1, 3, seed=11)[0])
    other.save(tmp_path / "g.safetensors")
    gallery.teach("mine", draw(1, 3, seed=12)[0])
    with pytest.raises(ValueError, match="another model made this gallery"):
        gallery.load(tmp_path / "g.safetensors")
    assert gallery.names == ["mine"]


def damaged(change):
    """A gallery's tensors and metadata after a change, as file."""

    def write(gallery, path):
        gallery.teach("a", draw(1, 3, seed=13)[0])
        gallery.teach("b", draw(1, 3, seed=14)[0])
        gallery.save(path)
        with safe_open(path, "pt") as opened:
            tensors, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
        change(tensors, metadata)
        save_file(tensors, path, metadata)

    return write


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda gallery, path: path.write_bytes(b"no gallery at all"), id="no safetensors"),
        pytest.param(lambda gallery, path: gallery.statistics.save(path), id="another file of ours"),
        pytest.param(damaged(lambda t, m: m.update(names='["a"]')), id="a name too few"),
        pytest.param(damaged(lambda t, m: m.update(names='["a", "a"]')), id="a name twice"),
        pytest.param(damaged(lambda t, m: m.update(names='["a", "b\\nc"]')), id="a name of two lines"),
        pytest.param(damaged(lambda t, m: m.update(names="{")), id="no JSON"),
        pytest.param(damaged(lambda t, m: t.update(means=t["means"][:, :3].contiguous())), id="other axes"),
        pytest.param(damaged(lambda t, m: t["means"].fill_(torch.nan)), id="no numbers"),
        pytest.param(damaged(lambda t, m: t["counts"].fill_(0)), id="no pictures"),
        pytest.param(damaged(lambda t, m: t["thumbnail_ends"].fill_(10**9)), id="thumbnails beyond the end"),
        pytest.param(damaged(lambda t, m: t.pop("counts")), id="a tensor too few"),
    ],
)
def test_a_file_that_is_no_gallery_is_refused_in_a_sentence(gallery, fitted, tmp_path, write):
    write(CharacterGallery(fitted.statistics), tmp_path / "g.safetensors")
    with pytest.raises(ValueError, match="gallery"):
        gallery.load(tmp_path / "g.safetensors")
    assert gallery.names == []


def test_a_missing_gallery_is_refused_in_a_sentence(gallery, tmp_path):
    with pytest.raises(ValueError, match="expected a file with gallery, found none"):
        gallery.load(tmp_path / "g.safetensors")


def test_a_save_that_fails_leaves_the_old_gallery(gallery, tmp_path, monkeypatch):
    gallery.teach("holo", draw(1, 3, seed=15)[0])
    gallery.save(tmp_path / "g.safetensors")
    before = (tmp_path / "g.safetensors").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    gallery.teach("miku", draw(1, 3, seed=16)[0])
    with pytest.raises(KeyboardInterrupt):
        gallery.save(tmp_path / "g.safetensors")
    assert (tmp_path / "g.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_statistics_go_through_their_file(fitted, tmp_path):
    fitted.statistics.save(tmp_path / "s.safetensors")
    loaded = CharacterStatistics.load(tmp_path / "s.safetensors")
    assert loaded.fingerprint == fitted.statistics.fingerprint
    assert loaded.calibration == fitted.statistics.calibration and loaded.head_size == fitted.statistics.head_size
    z = torch.randn(4, WIDTH)
    scores = torch.rand(4, 30)
    expected = fitted.statistics.trained_log_odds(z, scores)
    torch.testing.assert_close(loaded.trained_log_odds(z, scores), expected, atol=5e-2, rtol=1e-2)


@pytest.mark.parametrize("change", ["calibration", "mean", "cut"])
def test_damaged_statistics_are_refused_in_a_sentence(fitted, tmp_path, change):
    path = tmp_path / "s.safetensors"
    fitted.statistics.save(path)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        with safe_open(path, "pt") as opened:
            tensors, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
        metadata |= {"calibration": json.dumps({"trained_bias": 1})} if change == "calibration" else {}
        tensors |= {"mean": tensors["mean"][:-1].contiguous()} if change == "mean" else {}
        save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="character statistics"):
        CharacterStatistics.load(path)


def test_statistics_fit_the_weights_that_they_were_fitted_with():
    model = head(6)
    gallery = fitted_gallery(6)
    model.character_head.load_state_dict(model.character_head.state_dict())
    gallery.statistics.__dict__["head_size"] = model.character_head.weight.abs().mean().item()
    assert gallery.fits(model)
    model.character_head.bfloat16()
    assert gallery.fits(model)  # half precision is the same model
    with torch.no_grad():
        model.character_head.weight.mul_(1.01)
    assert not gallery.fits(model)
    assert not gallery.fits(head(7))
