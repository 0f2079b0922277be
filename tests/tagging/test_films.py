"""Animations and videos: frames every so many seconds, equal ones once, tags of all together."""

import numpy as np
import pytest
from character_factory import picture_of
from PIL import Image

from modeling_mfdn import commands
from modeling_mfdn.publishing.onnx_tagger import OnnxTagger
from modeling_mfdn.tagging import films


def solid(*color) -> Image.Image:
    return Image.new("RGB", (32, 32), color)


def animate(path, frames, milliseconds, **options) -> None:
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, **options)


@pytest.fixture(params=["gif", "webp", "png", "mp4"])
def film(request, tmp_path):
    """Three seconds: red, red, green, blue, half a second each, then blue."""
    frames = [
        solid(255, 0, 0),
        solid(255, 0, 0),
        solid(0, 255, 0),
        solid(0, 0, 255),
        solid(0, 0, 255),
        solid(0, 0, 255),
    ]
    path = tmp_path / f"film.{request.param}"
    if request.param != "mp4":
        animate(path, frames, 500, **({"lossless": True} if request.param == "webp" else {}))
        return path
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return path


def colors(frames) -> list[int]:
    """Which channel is the strongest in each."""
    return [int(np.asarray(frame).mean(axis=(0, 1)).argmax()) for frame in frames]


def test_frames_are_taken_by_time_and_equal_ones_once(film):
    assert films.is_film(film)
    found = colors(films.frames_of(film, 0.5))
    assert list(dict.fromkeys(found)) == [0, 1, 2] and found[0] == 0
    assert colors(films.frames_of(film, 1.0)) == [0, 1, 2], "at 0, 1 and 2 seconds"
    assert colors(films.frames_of(film, 100)) == [0]
    kept = list(films.pixels_of_frames(film, 0.25, lambda frame: np.asarray(frame, np.float32) / 127.5 - 1))
    assert len(kept) == 3


def test_a_still_picture_is_no_film_and_what_is_broken_is_none(tmp_path):
    for name in ("a.gif", "a.png", "a.webp", "a.jpg"):
        solid(1, 2, 3).save(tmp_path / name)
        assert not films.is_film(tmp_path / name)
    (tmp_path / "b.gif").write_bytes(b"GIF89a")
    assert not films.is_film(tmp_path / "b.gif")


def test_a_film_shows_what_any_of_its_frames_shows(models, tmp_path):
    """Two characters, one after the other, in one caption."""
    tagger = OnnxTagger(models / "onnx")
    frames = [picture_of(9, 1), picture_of(2, 1)]
    animate(tmp_path / "film.webp", frames, 1000, lossless=True)
    frames[1].save(tmp_path / "still.png")
    alone = [tagger(frame) for frame in frames]
    argv = ["tag", str(tmp_path), "--model", str(models / "onnx"), "--format", "jsonl", "--scores"]
    assert commands.main([*argv, "--character_threshold", "0.3", "--batch_size", "1", "--unknown_threshold", "1"]) == 0
    import json

    film, still = map(json.loads, (tmp_path / "tags.jsonl").read_text().splitlines())
    assert set(film["tags"]) == {row["label"] for result in alone for row in result["tags"]}
    assert film["unknown"] == pytest.approx(min(result["unknown"] for result in alone), abs=1e-3)
    assert {result["characters"][0]["label"] for result in alone} <= set(film["characters"])
    assert len(film["characters"]) > len(still["characters"])
    assert film["tag_scores"] == sorted(film["tag_scores"], reverse=True)


def test_broken_films_cost_themselves_alone(models, tmp_path, capsys):
    pytest.importorskip("av")
    solid(1, 2, 3).save(tmp_path / "a.png")
    animate(tmp_path / "cut.gif", [picture_of(n, 1) for n in range(6)], 500)
    content = (tmp_path / "cut.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(content[: len(content) // 2])
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    assert commands.main(["tag", str(tmp_path), "--model", str(models / "onnx")]) == 1
    said = capsys.readouterr().err
    assert "not done: 'broken.mp4'" in said and "not done: 'list.mp4'" in said and "Traceback" not in said
    assert (tmp_path / "a.txt").exists() and (tmp_path / "cut.txt").exists(), "what was whole of it is looked at"


def test_without_pyav_a_video_is_a_sentence(models, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"x")
    solid(1, 2, 3).save(tmp_path / "a.png")
    assert commands.main(["tag", str(tmp_path), "--model", str(models / "onnx"), "--full_names"]) == 1
    assert "pip install 'mfdn[video]'" in capsys.readouterr().err and (tmp_path / "a.png.txt").exists()


def test_a_film_of_ever_so_many_frames_is_looked_at_up_to_a_limit(tmp_path, monkeypatch):
    animate(tmp_path / "long.gif", [picture_of(n, 1) for n in range(30)], 100)
    monkeypatch.setattr(films, "MAX_FRAMES", 5)
    assert len(list(films.frames_of(tmp_path / "long.gif", 0.01))) == 5
