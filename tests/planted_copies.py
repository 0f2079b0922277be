"""Copies of a picture as image boards have them, and pictures that are none: to measure what finds the ones alone."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from dataset_scripts.mini_booru.draw.character import draw
from dataset_scripts.mini_booru.posts import Post, make_posts

Picture = Image.Image


def drawings(number: int, seed: int = 5) -> list[tuple[Picture, Picture]]:
    """So many pictures, and for each another character in the same pose by the same artist, elsewhere."""
    posts = [post for post in make_posts(max(100, 2 * number), seed) if len(post.characters) == 1][:number]
    others = [*posts[1:], posts[0]]
    return [
        (drawn(post, seed), drawn(same_pose(post, other), seed)) for post, other in zip(posts, others, strict=True)
    ]


def same_pose(post: Post, other: Post) -> Post:
    scene = replace(post.scene, background=other.scene.background, backdrop=other.scene.backdrop)
    return replace(post, looks=other.looks, scene=scene)


def drawn(post: Post, seed: int) -> Picture:
    return Image.fromarray(draw(post.looks, post.scene, np.random.default_rng([seed, post.id, 1])))


def jpeg(picture: Picture, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def cropped(picture: Picture, share: float) -> Picture:
    """Without `share` of the picture on each side."""
    width, height = picture.size
    return picture.crop((int(width * share), int(height * share), width - int(width * share), height))


def other_hue(picture: Picture, degrees: float) -> Picture:
    pixels = np.array(picture.convert("HSV"))
    pixels[..., 0] += np.uint8(degrees * 256 / 360)
    return Image.fromarray(pixels, "HSV").convert("RGB")


def watermarked(picture: Picture) -> Picture:
    marked, (width, height) = picture.copy(), picture.size
    ImageDraw.Draw(marked).text((width * 0.6, height * 0.9), "@artist 2026", fill="grey", font_size=width // 16)
    return marked


COPIES: dict[str, Callable[[Picture], bytes]] = {
    "half the size": lambda picture: jpeg(picture.resize([side // 2 for side in picture.size])),
    "a third of the size": lambda picture: jpeg(picture.resize([side // 3 for side in picture.size])),
    "JPEG of quality 25": lambda picture: jpeg(picture, 25),
    "darker by 20 %": lambda picture: jpeg(ImageEnhance.Brightness(picture).enhance(0.8)),
    "more contrast by 30 %": lambda picture: jpeg(ImageEnhance.Contrast(picture).enhance(1.3)),
    "hue shifted by 20°": lambda picture: jpeg(other_hue(picture, 20)),
    "a watermark": lambda picture: jpeg(watermarked(picture)),
    "cropped by 2 %": lambda picture: jpeg(cropped(picture, 0.02)),
    "cropped by 3 %": lambda picture: jpeg(cropped(picture, 0.03)),
    "cropped by 5 %": lambda picture: jpeg(cropped(picture, 0.05)),
    "mirrored": lambda picture: jpeg(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}
