"""Backgrounds and foreground effects for `character.py`, drawn in pixels on the 512 x 512 picture."""

import math

import numpy as np
from matplotlib.path import Path

from dataset_scripts.mini_booru.draw.pen import (
    CLOTH,
    SIZE,
    Pen,
    Scene,
    curve,
    ellipse,
    heart,
    mix,
    polygon,
    shade,
    star,
    to_rgb,
)

BACKGROUNDS = (
    "simple",
    "gradient",
    "two-tone",
    "striped",
    "polka_dot",
    "checkered",
    "sunburst",
    "hearts",
    "starry_sky",
    "night_city",
    "clouds",
    "sunset",
    "ocean",
    "cherry_blossoms",
    "forest",
    "snow",
    "window",
    "bookshelf",
    "bokeh",
    "brush",
)
EFFECTS = ("petals", "snow", "hearts", "sparkle", "leaves")


def vertical(pen: Pen, *stops) -> None:
    """Fill the picture with a gradient from top to bottom through the given colours."""
    colors = np.array([pen.ink(stop) for stop in stops]) * 255
    at = np.linspace(0, len(stops) - 1, SIZE)
    ramp = np.stack([np.interp(at, np.arange(len(stops)), colors[:, c]) for c in range(3)], axis=1)
    pen.pixels[..., :3] = ramp[:, None, :]
    pen.pixels[..., 3] = 255


def cloud(pen: Pen, x: float, y: float, size: float, alpha: float = 0.9) -> None:
    """A heap of white puffs."""
    for dx, dy, r in ((-0.9, 0.1, 0.5), (-0.35, -0.2, 0.62), (0.3, -0.12, 0.55), (0.85, 0.12, 0.42), (0, 0.2, 0.6)):
        pen.path(ellipse(x + dx * size, y + dy * size, r * size, r * size * 0.72), "#ffffff", False, alpha=alpha)


def background(pen: Pen, scene: Scene) -> None:
    """Paint the background that `scene` names."""
    rng = pen.rng
    first, second = (to_rgb(CLOTH[name]) for name in scene.backdrop)
    soft, soft2 = shade(first, -0.45), shade(second, -0.45)
    vertical(pen, soft, soft)
    match scene.background:
        case "simple":
            vertical(
                pen,
                first if scene.backdrop[0] in ("white", "black", "grey") else shade(first, -0.3),
                first if scene.backdrop[0] in ("white", "black", "grey") else shade(first, -0.3),
            )
        case "gradient":
            vertical(pen, shade(first, -0.2), soft2, shade(second, -0.7))
        case "two-tone":
            cut = rng.uniform(-160, 160)
            pen.path(polygon((256 + cut, 0), (512, 0), (512, 512), (256 - cut, 512)), shade(second, -0.3), False)
        case "striped":
            step, lean = rng.uniform(36, 80), rng.uniform(-200, 200)
            for k in range(-8, 24):
                x = k * step
                pen.path(polygon((x, 0), (x + step / 2, 0), (x + step / 2 + lean, 512), (x + lean, 512)), soft2, False)
        case "polka_dot":
            step = rng.uniform(44, 84)
            for row in range(int(560 / step) + 1):
                for column in range(int(560 / step) + 1):
                    x = column * step + (step / 2 if row % 2 else 0)
                    pen.path(ellipse(x, row * step * 0.86, step * 0.2, step * 0.2), soft2, False)
        case "checkered":
            step = rng.uniform(50, 100)
            for row in range(int(512 / step) + 1):
                for column in range(row % 2, int(512 / step) + 1, 2):
                    x, y = column * step, row * step
                    pen.path(polygon((x, y), (x + step, y), (x + step, y + step), (x, y + step)), soft2, False)
        case "sunburst":
            start = rng.uniform(0, 1)
            for k in range(14):
                a, b = (k + start) * math.pi / 7, (k + start + 0.5) * math.pi / 7
                pen.path(
                    polygon(
                        (256, 256),
                        (256 + 500 * math.cos(a), 256 + 500 * math.sin(a)),
                        (256 + 500 * math.cos(b), 256 + 500 * math.sin(b)),
                    ),
                    soft2,
                    False,
                )
        case "hearts":
            for _ in range(26):
                x, y, size = rng.uniform(0, 512), rng.uniform(0, 512), rng.uniform(10, 34)
                pen.path(heart(x, y, size), soft2, False, alpha=0.9)
        case "starry_sky":
            vertical(pen, "#141b45", "#2b3474", "#6d5aa5")
            for _ in range(90):
                size = rng.uniform(0.8, 2.6)
                pen.path(ellipse(rng.uniform(0, 512), rng.uniform(0, 512), size, size), "#fff8e0", False)
            for _ in range(6):
                pen.path(star(rng.uniform(0, 512), rng.uniform(0, 380), rng.uniform(8, 18), 4, 0.2), "#fff4c8", False)
            if rng.random() < 0.5:
                x, y = rng.uniform(40, 470), rng.uniform(40, 130)
                pen.path(ellipse(x, y, 40, 40), "#fdf0c2", False)
        case "night_city":
            vertical(pen, "#1d2050", "#4a3b78", "#b06a86")
            x = -20.0
            while x < 512:
                width, top = rng.uniform(44, 96), rng.uniform(130, 330)
                pen.path(
                    polygon((x, top), (x + width, top), (x + width, 512), (x, 512)),
                    mix((0.13, 0.13, 0.27), (0.3, 0.22, 0.4), rng.uniform()),
                    False,
                )
                for wx in np.arange(x + 9, x + width - 10, 17):
                    for wy in np.arange(top + 12, 500, 24):
                        if rng.random() < 0.4:
                            pen.path(
                                polygon((wx, wy), (wx + 8, wy), (wx + 8, wy + 11), (wx, wy + 11)), "#ffdf8e", False
                            )
                x += width + rng.uniform(0, 10)
        case "clouds":
            vertical(pen, "#5ba6e8", "#a4d5f6", "#e4f4fb")
            for _ in range(6):
                cloud(pen, rng.uniform(0, 512), rng.uniform(30, 420), rng.uniform(40, 100))
        case "sunset":
            vertical(pen, "#6a5aa8", "#ee8a7c", "#fccf85")
            pen.path(ellipse(rng.uniform(80, 430), 330, 66, 66), "#fff0b8", False, alpha=0.9)
            for _ in range(4):
                y = rng.uniform(60, 400)
                pen.path(
                    ellipse(rng.uniform(0, 512), y, rng.uniform(80, 200), rng.uniform(6, 16)),
                    "#ffd9c4",
                    False,
                    alpha=0.6,
                )
            pen.path(curve([(-20, 420), (140, 380), (300, 430), (540, 390), (540, 560), (-20, 560)]), "#6b4673", False)
        case "ocean":
            vertical(pen, "#7cc3f2", "#cdecfa", "#cdecfa")
            cloud(pen, rng.uniform(0, 512), rng.uniform(60, 160), 80)
            horizon = rng.uniform(230, 330)
            pen.path(polygon((0, horizon), (512, horizon), (512, 512), (0, 512)), "#3d93cf", False)
            for _ in range(22):
                y = rng.uniform(horizon + 8, 512)
                pen.path(ellipse(rng.uniform(0, 512), y, rng.uniform(12, 44), 2.4), "#d6f1fb", False, alpha=0.7)
        case "cherry_blossoms":
            vertical(pen, "#bfe0f7", "#fbe4ee", "#f9cfe0")
            pen.path(
                curve(
                    [
                        (-20, 40, 1),
                        (150, 70),
                        (330, 50),
                        (540, 120, 1),
                        (540, 136, 1),
                        (330, 70),
                        (150, 90),
                        (-20, 70, 1),
                    ]
                ),
                "#7c5a55",
                False,
            )
            for _ in range(70):
                x, y = rng.uniform(0, 512), rng.normal(74, 52)
                pen.path(
                    ellipse(x, y, rng.uniform(9, 20), rng.uniform(8, 17)),
                    ("#f9b9d0", "#fbd0de", "#f5a4c2")[rng.integers(3)],
                    False,
                    alpha=0.9,
                )
        case "forest":
            vertical(pen, "#d9efc2", "#a7d59b", "#6cab74")
            for _ in range(9):
                x, width = rng.uniform(0, 512), rng.uniform(14, 40)
                pen.path(
                    polygon((x, 0), (x + width, 0), (x + width * 1.2, 512), (x - width * 0.2, 512)),
                    "#7a6a50",
                    False,
                    alpha=0.75,
                )
            for _ in range(60):
                x, y = rng.uniform(0, 512), rng.choice([rng.normal(30, 50), rng.normal(480, 40)])
                pen.path(
                    ellipse(x, y, rng.uniform(20, 50), rng.uniform(16, 36)),
                    ("#5d9f62", "#7dbb72", "#8fcb84")[rng.integers(3)],
                    False,
                    alpha=0.85,
                )
        case "snow":
            vertical(pen, "#a9c3df", "#d7e4f0", "#f3f7fb")
            for k in range(7):
                x, height = k * 84 + rng.uniform(-20, 20), rng.uniform(120, 220)
                for part in range(3):
                    y = 460 - height * part / 3
                    pen.path(
                        polygon((x - 50 + part * 12, y), (x + 50 - part * 12, y), (x, y - height * 0.5)),
                        "#7ea09d" if part % 2 else "#8db0ab",
                        False,
                    )
            pen.path(curve([(-20, 450), (160, 430), (360, 460), (540, 436), (540, 560), (-20, 560)]), "#ffffff", False)
        case "window":
            wall = mix(soft, (0.95, 0.9, 0.84), 0.5)
            vertical(pen, wall, wall)
            x, sky = rng.uniform(20, 230), ("#a5d5f5", "#fbcf9a", "#2d356f")[rng.integers(3)]
            pen.path(polygon((x, 40), (x + 260, 40), (x + 260, 360), (x, 360)), sky, "#f4efe8", 5)
            for line in ([(x + 130, 40), (x + 130, 360)], [(x, 200), (x + 260, 200)]):
                pen.path(Path(line), None, "#f4efe8", 4)
            for side, edge in ((-1, x), (1, x + 260)):
                curtain = [
                    (edge - side * 46, 24, 1),
                    (edge + side * 44, 24, 1),
                    (edge + side * 50, 420, 1),
                    (edge - side * 8, 420, 1),
                ]
                pen.path(curve(curtain), shade(second, -0.35), width=0.8)
        case "bookshelf":
            vertical(pen, "#6e4c38", "#5b3d2e")
            for row in range(5):
                top, x = row * 110 - 20, -10.0
                pen.path(polygon((0, top + 96), (512, top + 96), (512, top + 110), (0, top + 110)), "#8f6747", False)
                while x < 512:
                    width, height = rng.uniform(13, 32), rng.uniform(56, 88)
                    color = ("#b25548", "#4f6d94", "#c9a35a", "#5d8465", "#86627f", "#d8ccb4")[rng.integers(6)]
                    pen.path(
                        polygon(
                            (x, top + 96 - height),
                            (x + width, top + 96 - height),
                            (x + width, top + 96),
                            (x, top + 96),
                        ),
                        color,
                        "#4a3126",
                        0.5,
                    )
                    x += width
        case "bokeh":
            vertical(pen, shade(first, 0.15), shade(second, -0.2))
            for _ in range(30):
                radius = rng.uniform(10, 46)
                pen.path(
                    ellipse(rng.uniform(0, 512), rng.uniform(0, 512), radius, radius),
                    shade((first, second)[rng.integers(2)], -0.6),
                    False,
                    alpha=0.35,
                )
        case "brush":
            vertical(pen, "#fbfaf8", "#fbfaf8")
            for k in range(7):
                y = 60 + k * 64 + rng.uniform(-14, 14)
                stroke = curve(
                    [
                        (rng.uniform(10, 120), y),
                        (256, y - 22),
                        (rng.uniform(400, 500), y + 6),
                        (rng.uniform(390, 500), y + 44),
                        (256, y + 30),
                        (rng.uniform(20, 110), y + 46),
                    ]
                )
                pen.path(stroke, (soft, soft2)[k % 2], False, alpha=0.9)


def foreground(pen: Pen, scene: Scene) -> None:
    """Things that float before the figure."""
    rng = pen.rng
    if not scene.effect:
        return
    for _ in range({"petals": 22, "snow": 46, "hearts": 12, "sparkle": 16, "leaves": 16}[scene.effect]):
        x, y, angle = rng.uniform(0, 512), rng.uniform(0, 512), rng.uniform(0, 2 * math.pi)
        c, s = math.cos(angle), math.sin(angle)
        match scene.effect:
            case "petals":
                size = rng.uniform(6, 13)
                petal = [(0, -size, 1), (size * 0.6, 0), (0, size), (-size * 0.6, 0)]
                pen.path(
                    curve([(x + px * c - py * s, y + px * s + py * c, *r) for px, py, *r in petal]),
                    "#f8b6cd",
                    "#e58fae",
                    0.4,
                )
            case "leaves":
                size = rng.uniform(9, 17)
                leaf = [(0, -size, 1), (size * 0.5, 0), (0, size, 1), (-size * 0.5, 0)]
                color = ("#d9693a", "#e6a23f", "#b8473c")[rng.integers(3)]
                pen.path(
                    curve([(x + px * c - py * s, y + px * s + py * c, *r) for px, py, *r in leaf]),
                    color,
                    "#7a3f2c",
                    0.4,
                )
            case "snow":
                size = rng.uniform(1.6, 6)
                pen.path(ellipse(x, y, size, size), "#ffffff", False, alpha=0.9)
            case "hearts":
                pen.path(heart(x, y, rng.uniform(8, 18)), "#f47c9c", "#ffffff", 0.7)
            case "sparkle":
                pen.path(star(x, y, rng.uniform(7, 18), 4, 0.18), "#fffbe0", "#f1cf74", 0.35)
