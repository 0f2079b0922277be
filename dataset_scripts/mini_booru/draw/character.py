"""Draws one picture of illustrated characters, in the hand of one of eight artists.

`draw(looks, scene,
      rng)` is the door. A `Look` says everything that is visible of one character, a `Scene` says how the
picture is framed and who drew it; both are in `pen.py`. This file draws the face and puts the parts together.
"""

import math

import numpy as np
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from dataset_scripts.mini_booru.draw import background as draw_background
from dataset_scripts.mini_booru.draw import costume as draw_costume
from dataset_scripts.mini_booru.draw import hair as draw_hair
from dataset_scripts.mini_booru.draw import ornaments as draw_ornaments
from dataset_scripts.mini_booru.draw.pen import (
    EYES,
    HAIR,
    SIZE,
    SKIN,
    Look,
    Pen,
    Scene,
    curve,
    ellipse,
    mirrored,
    moved,
    shade,
    to_rgb,
    zigzag,
)


def face_shape(pen: Pen) -> Path:
    """Outline of the face, ears excluded."""
    w = 93 * pen.artist.face_width
    half = [(w, -40), (w * 1.0, 14), (w * 0.88, 56), (w * 0.5, 90)]
    return curve([*half, (0, 106), *[(-x, y) for x, y in reversed(half)], (0, -120)])


def face(pen: Pen, look: Look, scene: Scene) -> None:
    """Head without hair: skin, shadow of the fringe, blush, nose, mouth, eyes, brows."""
    skin = to_rgb(SKIN[look.skin])
    for side in (1, -1):
        ear = [(92, -8), (106, -18), (110, 6), (98, 34), (88, 32)]
        if "pointy_ears" in look.marks:
            ear = [(88, -6), (112, -18), (164, -44, 1), (130, 14), (90, 34)]
        pen.path(curve([(side * p[0], *p[1:]) for p in ear]), skin)
    shape = face_shape(pen)
    pen.path(shape, skin)
    fringe = curve(
        [(-120, 8, 1), (-118, -60), (0, -153), (118, -60), (120, 8, 1), *zigzag(draw_hair.BANGS[look.bangs], 0.09)]
    )
    pen.shadow(moved(fringe, 3, 13), skin, 0.17, shape)
    pen.shadow(
        moved(mirrored(shape) if scene.turn > 0 else shape, 168 if scene.turn <= 0 else -168, 8), skin, 0.1, shape
    )
    shift = 13 * scene.turn
    for side in (1, -1):
        x = 54 * side + shift
        for radius in (24, 17, 10):
            pen.path(
                ellipse(x, 54, radius * 1.1, radius * 0.62),
                "#f2736f",
                False,
                alpha=0.13 * (0.4 + look.blush),
                clip=shape,
            )
        for k in range(3) if look.blush > 0.7 else ():
            pen.path(Path([(x - 12 + k * 11, 60), (x - 6 + k * 11, 47)]), None, "#d8565c", 0.8, alpha=0.8)
    pen.path(Path([(shift * 1.4 + 1, 40), (shift * 1.4 - 2, 46)]), None, shade(skin, 0.45), 0.9)
    face_marks(pen, look, shift, shape)
    mouth(pen, look.mouth, shift * 1.15, skin)
    for side in (-1, 1):
        # A turned head shows the far eye narrower.
        narrow = 1 - 0.13 * max(0, side * scene.turn)
        eye(pen, look, side, shift + side * 46, 16, narrow)
    pen.path(shape, None, shade(skin, 0.55) if not pen.artist.line_color else None)


def face_marks(pen: Pen, look: Look, shift: float, shape: Path) -> None:
    """Freckles, moles and the like; small on purpose: at 64 px the tags know more than the picture."""
    if "freckles" in look.marks:
        for x, y in ((-64, 50), (-54, 56), (-46, 49), (46, 49), (55, 56), (65, 50), (-56, 45), (56, 45)):
            pen.path(ellipse(x + shift, y, 2.2, 2.2), "#b9683f", False, alpha=0.8)
    if "mole_under_eye" in look.marks:
        pen.path(ellipse(52 + shift, 53, 3, 3), "#3a2a30", False)
    if "mole_under_mouth" in look.marks:
        pen.path(ellipse(15 + shift, 86, 3, 3), "#3a2a30", False)
    if "bandaid_on_face" in look.marks:
        plaster = Path([(-72, 58), (-42, 50), (-39, 62), (-69, 70)], closed=False)
        pen.path(Path([*plaster.vertices, plaster.vertices[0]]), "#e9bd8f", None, 0.6)
        pen.path(ellipse(-55, 60, 5, 5), "#f7dcb8", False)
    if "whisker_markings" in look.marks:
        for side in (1, -1):
            for k in range(3):
                pen.path(Path([(side * 58, 52 + 9 * k), (side * 84, 48 + 12 * k)]), None, "#9a5b48", 0.8, clip=shape)
    if "facial_mark" in look.marks:
        pen.path(
            Path([(46 + shift, 48), (56 + shift, 70), (66 + shift, 48), (46 + shift, 48)]), "#c93c53", False, alpha=0.9
        )
    if "scar_across_eye" in look.marks:
        pen.path(curve([(-58, -24), (-50, 20), (-38, 66)], False), None, "#b5605a", 1.5, alpha=0.9)


def mouth(pen: Pen, kind: str, x: float, skin: tuple) -> None:
    """The mouth at (x, 74)."""
    line, inside, tongue = "#8a3d45", "#a8424d", "#ee8d8d"
    y = 74
    lines = {
        "smile": [(-15, -4), (-6, 3), (6, 3), (15, -4)],
        "closed": [(-9, 0), (0, 1), (9, 0)],
        "frown": [(-12, 5), (0, -2), (12, 5)],
        "cat": [(-16, -3), (-9, 5), (0, -2), (9, 5), (16, -3)],
        "wavy": [(-18, 1), (-9, -4), (0, 3), (9, -4), (18, 1)],
        "pout": [(-8, 5), (0, -3, 1), (8, 5)],
        "tongue": [(-15, -4), (-6, 3), (6, 3), (15, -4)],
    }
    if kind in lines:
        if kind == "tongue":
            pen.path(curve([(0, 1, 1), (14, -1, 1), (13, 14), (4, 14)]), None, line)
            pen.path(moved(curve([(0, 1, 1), (14, -1, 1), (13, 14), (4, 14)]), x, y), tongue, line, 0.8)
        pen.path(moved(curve(lines[kind], False), x, y), None, line, 1.0)
        return
    shapes = {
        "open": [(-13, -5, 1), (13, -5, 1), (9, 13), (-9, 13)],
        "grin": [(-24, -8, 1), (24, -8, 1), (15, 15), (-15, 15)],
        "o": [(0, -8), (8, 1), (0, 11), (-8, 1)],
        "fang": [(-20, -7, 1), (20, -7, 1), (12, 13), (-12, 13)],
        "kiss": [(-4, -8, 1), (6, -4), (0, 0, 1), (6, 4), (-4, 9, 1), (0, 4), (-2, 0), (0, -4)],
    }
    shape = moved(curve(shapes[kind]), x, y)
    pen.path(shape, inside, line, 0.9)
    if kind not in ("o", "kiss"):
        pen.path(ellipse(x, y + 14, 12, 8), tongue, False, clip=shape)
    if kind == "grin":
        pen.path(
            Path([(x - 30, y - 12), (x + 30, y - 12), (x + 30, y - 3), (x - 30, y - 3)]), "#ffffff", False, clip=shape
        )
    if kind == "fang":
        pen.path(Path([(x + 8, y - 7), (x + 17, y - 7), (x + 12, y + 3)]), "#ffffff", False, clip=shape)


def eye(pen: Pen, look: Look, side: int, x: float, y: float, narrow: float) -> None:
    """One eye with lashes, iris in three tones, lights, and its brow. `side` is -1 (left in the picture) or 1."""
    w = 27 * pen.artist.eye_width * narrow * (0.92 if look.is_boy else 1)
    h = 33 * pen.artist.eye_height * (0.78 if look.is_boy else 1)
    lash, skin = "#352430", to_rgb(SKIN[look.skin])
    slant = {"tsurime": -7, "tareme": 7}.get(look.eye_shape, 0)  # of the outer corner, y down

    def at(points: list[tuple]) -> list[tuple]:
        # px = 1 is the outer corner, py = 1 the lower lid.
        return [(x + side * p[0] * w, y + p[1] * h + slant * p[0], *p[2:]) for p in points]

    brow = to_rgb(HAIR[look.hair])
    lift, angle = {"angry": (6, 9), "sad": (-2, -9), "raised": (-8, 0)}.get(look.brows, (0, 0))
    brow_line = [
        (x - side * 20, y - h - 16 + lift + angle),
        (x + side * 2, y - h - 23 + lift),
        (x + side * 25, y - h - 14 + lift - angle),
    ]
    pen.path(curve(brow_line, False), None, shade(brow, 0.5), 2.0 if look.is_boy else 1.3)
    state = look.eye_state
    if state == "wink":
        state = "happy" if side > 0 else "open"
    if state in ("happy", "closed", "line", "squeeze"):
        closed = {
            "happy": [(-0.95, 0.35), (0, -0.18), (1.0, 0.35)],
            "closed": [(-0.95, 0.1), (0, 0.5), (1.05, 0.12)],
            "line": [(-0.9, 0.2), (0.9, 0.2)],
            "squeeze": [(0.9, -0.35), (-0.7, 0.15, 1), (0.9, 0.6)],
        }[state]
        pen.path(curve(at(closed), False), None, lash, 1.9)
        if state == "closed" and not look.is_boy:
            pen.path(Path(at([(0.75, 0.34), (1.15, 0.55)])), None, lash, 1.1)
        return
    top = 0.15 if state == "half" else -0.86
    white = curve(
        at([(-0.92, 0.35), (-0.62, top + 0.12), (0.1, top), (0.8, top + 0.3), (1.0, 0.2), (0.62, 0.86), (-0.5, 0.88)])
    )
    pen.path(white, "#fffdfd", False)
    rgb = to_rgb(EYES[look.eyes[0 if side < 0 else 1]])
    iris = ellipse(x, y + 1, w * 0.74, h * 0.9)
    pen.path(iris, shade(rgb, 0.42), False, clip=white)
    pen.path(ellipse(x, y + h * 0.30, w * 0.64, h * 0.62), rgb, False, clip=white)
    pen.path(ellipse(x, y + h * 0.58, w * 0.5, h * 0.3), shade(rgb, -0.45), False, clip=white)
    pen.path(ellipse(x, y, w * 0.3, h * 0.4), shade(rgb, 0.78), False, clip=white)
    pen.path(iris, None, shade(rgb, 0.7), 0.6, clip=white)
    pen.path(moved(white, 0, -h * 1.42), "#5a4a78", False, alpha=0.38, clip=white)
    if state == "stars":
        star = [
            (
                math.sin(math.pi * k / 4) * (15 if k % 2 == 0 else 4),
                math.cos(math.pi * k / 4) * (15 if k % 2 == 0 else 4),
            )
            for k in range(9)
        ]
        pen.path(moved(Path(star), x, y + 2), "#ffffff", False, clip=white)
    else:
        pen.path(ellipse(x - w * 0.26, y - h * 0.34, w * 0.24, h * 0.22), "#ffffff", False, clip=white)
        pen.path(ellipse(x + w * 0.3, y + h * 0.42, w * 0.12, h * 0.1), "#ffffff", False, alpha=0.9, clip=white)
    flick = 1.12 if look.is_boy else 1.32
    upper = [
        (-1.02, 0.12, 1),
        (-0.66, top + 0.06),
        (0.1, top - 0.16),
        (0.84, top + 0.14),
        (flick, top + 0.5, 1),
        (1.02, top + 0.52),
        (1.0, top + 0.86, 1),
        (0.76, top + 0.42),
        (0.08, top + 0.12),
        (-0.6, top + 0.26),
    ]
    pen.path(curve(at(upper)), lash, False)
    pen.path(curve(at([(-0.36, 0.95), (0.14, 1.0), (0.6, 0.86)]), False), None, shade(skin, 0.6), 0.7)
    pen.path(
        curve(at([(-0.5, top - 0.24), (0.1, top - 0.36), (0.74, top - 0.12)]), False), None, shade(skin, 0.42), 0.55
    )


def draw(looks: list[Look], scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw a picture of one or more characters, or of nobody.

    Args:
        looks: who is in the picture, from left to right; an empty list leaves the background.
        scene: framing, background and artist.
        rng: decides the details that no tag names (stars, petals, grain); the same state gives the same pixels.

    Returns:
        uint8 array [512, 512, 3], RGB.
    """
    pen = Pen(scene.artist, rng)
    pen.place(Affine2D(), 1.0)
    draw_background.background(pen, scene)
    lit = pen.pixels[..., :3] * np.array(scene.backdrop_light, np.float32)
    pen.pixels[..., :3] = np.clip(lit, 0, 255).astype(np.uint8)
    for i, look in enumerate(looks):
        spread = (i - (len(looks) - 1) / 2) * 250 * scene.scale
        mirror = -1 if scene.is_mirrored else 1
        body = (
            Affine2D()
            .scale(scene.scale * mirror, scene.scale)
            .rotate_deg(scene.rotation)
            .translate(scene.x + spread, scene.y + (14 if i % 2 else 0) * scene.scale)
        )
        head = Affine2D().translate(0, -100).rotate_deg(scene.tilt).translate(0, 100) + body
        pen.place(head, scene.scale)
        draw_ornaments.behind_head(pen, look)
        draw_hair.back_hair(pen, look)
        pen.place(body, scene.scale)
        draw_costume.body(pen, look)
        pen.place(head, scene.scale)
        face(pen, look, scene)
        draw_hair.front_hair(pen, look)
        draw_hair.hair_before_body(pen, look)
        draw_ornaments.ornaments(pen, look, scene.turn)
        pen.place(body, scene.scale)
        draw_ornaments.prop(pen, look)
    pen.place(Affine2D(), 1.0)
    draw_background.foreground(pen, scene)
    return finish(pen, scene)


def finish(pen: Pen, scene: Scene) -> np.ndarray:
    """The picture as uint8 [512, 512, 3] with the artist's paper, glow or grain on it."""
    picture = pen.pixels[..., :3].astype(np.float32)
    kind = scene.artist.finish
    if kind in ("paper", "grain"):
        coarse = pen.rng.normal(0, 1, (SIZE // 2, SIZE // 2, 1)).astype(np.float32).repeat(2, 0).repeat(2, 1)
        picture += coarse * (2.6 if kind == "paper" else 4.0)
    if kind == "bloom":
        small = picture.reshape(64, 8, 64, 8, 3).mean((1, 3))
        small = (
            small + np.roll(small, 1, 0) + np.roll(small, -1, 0) + np.roll(small, 1, 1) + np.roll(small, -1, 1)
        ) / 5
        picture = 255 - (255 - picture) * (1 - 0.09 * (small.repeat(8, 0).repeat(8, 1) / 255) ** 2)
    picture *= scene.light  # the whole scene is lit: by day, by a lamp, at night
    if scene.is_greyscale:
        picture = (picture @ np.array([0.299, 0.587, 0.114], np.float32))[..., None].repeat(3, 2)
    return np.clip(picture, 0, 255).astype(np.uint8)
