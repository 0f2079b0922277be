"""Films and animations: frames every so many seconds, equal ones once, and what they show together."""

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from ..pictures_mfdn import check_size, open_picture, to_rgb

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")
ANIMATED_SUFFIXES = (".gif", ".webp", ".png", ".apng", ".avif")
# What a file of another kind, a playlist for example, would make ffmpeg open is nobody's business.
VIDEO_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
MAX_FRAMES = 20_000  # that are decoded; a film goes on, but is not looked at any further
EQUAL = 0.01  # mean difference of the pixels as the model sees them, in [-1, 1], up to which two frames are one
DEFAULT_SECONDS = 0.1  # that a frame without a duration is shown


def is_film(path: Path) -> bool:
    """Whether a file is a video, or a picture with several frames. One that cannot be read is none."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return True
    if suffix not in ANIMATED_SUFFIXES:
        return False
    try:
        with warnings.catch_warnings(action="ignore"), open_picture(path) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # who reads it says why
        return False


def frames_of(path: Path, seconds: float) -> Iterator[Image.Image]:
    """Frames of a film, RGB: those that are shown at the beginning and then every `seconds`.

    Raises:
        ValueError, OSError: it cannot be read.
        ModuleNotFoundError: a video needs PyAV, which is not there.
    """
    is_video = path.suffix.lower() in VIDEO_SUFFIXES
    wanted = 0.0
    for until, frame in video_frames(path) if is_video else animation_frames(path):
        if until > wanted:
            yield to_rgb(frame())
            wanted += seconds * math.ceil((until - wanted) / seconds)


def animation_frames(path: Path) -> Iterator[tuple[float, Callable[[], Image.Image]]]:
    """(seconds until which it is shown, what gives the picture) of each frame."""
    until = 0.0
    with open_picture(path) as image:
        check_size(image, image.width * image.height)
        for number, frame in enumerate(ImageSequence.Iterator(image)):
            if number == MAX_FRAMES:
                return
            try:
                frame.load()
            except (OSError, ValueError, SyntaxError, EOFError):
                if number == 0:
                    raise
                return  # the file is cut: what was whole is looked at
            until += (frame.info.get("duration") or 1000 * DEFAULT_SECONDS) / 1000
            yield until, frame.copy


def video_frames(path: Path) -> Iterator[tuple[float, Callable[[], Image.Image]]]:
    """The same of a video."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Videos need PyAV: pip install 'mfdn[video]'") from error
    try:
        with path.open("rb") as file, av.open(file, options={"format_whitelist": VIDEO_FORMATS}) as container:
            if not container.streams.video:
                raise ValueError("it holds no moving pictures")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            lasts = float(1 / stream.average_rate) if stream.average_rate else DEFAULT_SECONDS
            for number, frame in enumerate(container.decode(stream)):
                if number == MAX_FRAMES * 10:
                    return
                yield float(frame.time or 0) + lasts, frame.to_image
    except av.error.FFmpegError as error:
        raise ValueError(f"it cannot be read as a video ({error})") from error


def pixels_of_frames(path: Path, seconds: float, pixels) -> Iterator[np.ndarray]:
    """float32 [3, S, S] of each frame that differs from the one before, by `pixels` of a tagger."""
    before = None
    for frame in frames_of(path, seconds):
        values = pixels(frame)
        if before is None or np.abs(values - before).mean() > EQUAL:
            before = values
            yield values


def join_results(results: list[dict]) -> dict:
    """What the frames of a film show together: whatever one of them shows, with the highest of its scores. It is as
    unknown as its best known frame."""
    if len(results) == 1:
        return results[0]
    joined: dict = {"unknown": min(result["unknown"] for result in results)}
    for kind in ("characters", "tags", "ratings"):
        best: dict[str, float] = {}
        for result in results:
            for entry in result.get(kind, ()):
                best[entry["label"]] = max(best.get(entry["label"], 0.0), entry["score"])
        if kind != "ratings" or best:
            ordered = sorted(best.items(), key=lambda row: -row[1])
            joined[kind] = [{"label": label, "score": score} for label, score in ordered]
    return joined
