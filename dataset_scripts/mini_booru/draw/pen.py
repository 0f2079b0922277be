"""Colours, artists and the pen with which `character.py` draws.

Units: a figure is drawn around the middle of its face at (0,
    0), x to the right and y down; the face is about 190 units
wide, the chin is at y = 104 and the shoulders at y = 160. At scale 1 a unit is a pixel of the 512 x 512 picture.
Rendering is matplotlib's Agg (anti-aliased, in every wheel), used below the figure level because a figure is slow.
"""

import colorsys
import math
from dataclasses import dataclass, field

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, TransformedPath

SIZE = 512  # pixels, both sides
DRAWING_VERSION = "1"  # raise when the same posts table gives other pixels

HAIR = {
    "black": "#3a3644",
    "brown": "#7d5242",
    "blonde": "#f3d57f",
    "blue": "#4f74c8",
    "light_blue": "#a2d3ee",
    "aqua": "#59cbc9",
    "green": "#67ab62",
    "pink": "#f3a0bc",
    "purple": "#8a66b8",
    "red": "#c2434b",
    "orange": "#ee9350",
    "white": "#eeedf3",
    "grey": "#a3a5b1",
    "light_brown": "#b98d68",
}
EYES = {
    "blue": "#3f7ad6",
    "red": "#cf3440",
    "green": "#3f9d59",
    "brown": "#8c5536",
    "purple": "#8a52c0",
    "yellow": "#e6b52c",
    "pink": "#ea6fa3",
    "aqua": "#36bcc2",
    "orange": "#ea7c2e",
    "grey": "#7f8696",
}
CLOTH = {
    "white": "#f7f5f3",
    "black": "#3b3b47",
    "red": "#cf4149",
    "blue": "#4a70bd",
    "navy": "#39446f",
    "green": "#5f9a68",
    "yellow": "#f1cb58",
    "pink": "#f2a3b9",
    "purple": "#8464ad",
    "brown": "#8c674e",
    "grey": "#a2a4ae",
    "orange": "#ec924d",
    "aqua": "#73c6c6",
}
SKIN = {"fair": "#fde6d8", "pale": "#fbeeea", "tan": "#eebf97", "dark": "#b27c5b"}


@dataclass(frozen=True)
class Artist:
    """A drawing hand. Lines in units, colour changes as factors (1 = as named), `hue` in turns of the colour wheel."""

    name: str
    weight: float  # share of the posts
    line: float = 2.6
    line_color: str = ""  # empty: a dark shade of what is outlined
    saturation: float = 1.0
    brightness: float = 1.0
    hue: float = 0.0
    tint: str = "#ffffff"
    tint_share: float = 0.0
    shading: str = "cel"  # flat, cel or soft
    eye_width: float = 1.0
    eye_height: float = 1.0
    face_width: float = 1.0
    finish: str = ""  # paper, bloom or grain, laid over the finished picture


ARTISTS = (
    Artist("minato_kobo", 0.25),
    Artist(
        "shirokuma_neiro", 0.17, 1.7, "#5b4450", 0.86, 1.03, 0.012, "#fff1f4", 0.05, "soft", 1.04, 1.06, 1.03, "bloom"
    ),
    Artist("tetsu_(inkwell)", 0.14, 4.2, "#26222c", 1.14, 0.97, 0.0, "#ffffff", 0.0, "cel", 0.94, 0.90, 0.95),
    Artist("yuzu_shio", 0.13, 2.2, "#8a6f7c", 0.76, 1.03, 0.0, "#fdeff6", 0.17, "flat", 1.10, 1.00, 1.06, "paper"),
    Artist(
        "karasuma_ren", 0.11, 2.8, "#2b2540", 1.02, 0.86, -0.02, "#4b4f9a", 0.14, "soft", 0.95, 0.94, 0.94, "grain"
    ),
    Artist("mochi_mochi", 0.10, 3.4, "", 1.10, 1.05, 0.015, "#fff6dc", 0.08, "flat", 1.16, 1.16, 1.10),
    Artist("aoi_sunset", 0.08, 2.2, "#6b3a3a", 1.08, 0.98, 0.022, "#ffb27a", 0.16, "cel", 1.0, 1.02, 0.98, "grain"),
    Artist("sumi_sketch", 0.02, 2.0, "#3c3a40", 0.0, 1.0, 0.0, "#fbf8f0", 0.12, "flat", 1.0, 0.96, 0.98, "paper"),
)


@dataclass
class Look:
    """All that is visible of one character in one picture. Names are those of HAIR, EYES, CLOTH and SKIN."""

    hair: str = "brown"
    second_hair: str = ""
    hair_pattern: str = ""  # streaked, gradient, inner or two-tone; empty: one colour
    length: str = "long"  # short, medium, long or very_long
    style: str = ""  # see BACK_STYLES
    bangs: str = "blunt"  # see BANGS
    ahoge: bool = False
    sidelocks: float = 100.0  # how far down they hang, units below the eyes
    eyes: tuple[str, str] = ("blue", "blue")  # (left, right) in the picture
    eye_shape: str = ""  # tsurime, tareme or empty
    eye_state: str = "open"  # open, half, closed, happy, wink, squeeze, line, stars
    mouth: str = "smile"  # smile, open, grin, closed, frown, o, cat, fang, wavy, pout, tongue
    brows: str = ""  # angry, sad, raised or empty
    blush: float = 0.3
    skin: str = "fair"
    is_boy: bool = False
    marks: tuple[str, ...] = ()  # freckles, mole_under_eye, bandaid, whiskers, pointy_ears, facial_mark
    ornaments: dict[str, str] = field(default_factory=dict)  # ornament -> CLOTH colour, see cast.ORNAMENTS
    outfit: str = "serafuku"
    cloth: tuple[str, str, str] = ("white", "navy", "red")  # main colour, second colour, detail
    prop: str = ""


@dataclass
class Scene:
    """How the picture is framed and who drew it."""

    artist: Artist
    background: str = "simple"
    backdrop: tuple[str, str] = ("white", "grey")
    scale: float = 1.0  # pixels a unit
    x: float = 256.0  # pixels, where the middle of the face comes
    y: float = 215.0
    rotation: float = 0.0  # degrees, the whole picture
    tilt: float = 0.0  # degrees, head against body
    turn: float = 0.0  # -1 (face turned left) to 1 (right)
    is_mirrored: bool = False
    is_greyscale: bool = False
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factors of red, green and blue
    backdrop_light: tuple[float, float, float] = (1.0, 1.0, 1.0)  # the same for what is behind the figure alone
    effect: str = ""  # petals, snow, hearts or sparkles in the foreground


def to_rgb(color: str) -> tuple[float, float, float]:
    """`#rrggbb` as three numbers in [0, 1]."""
    return tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))


def mix(a: tuple, b: tuple, share: float) -> tuple[float, float, float]:
    """`a` with `share` of `b`; RGB in [0, 1]."""
    return tuple(x + (y - x) * share for x, y in zip(a, b, strict=True))


def shade(rgb: tuple | str, amount: float) -> tuple[float, float, float]:
    """A darker (`amount` > 0) or lighter (< 0) colour as painters mix it: shadows turn to violet, lights to white."""
    rgb = to_rgb(rgb) if isinstance(rgb, str) else rgb
    if amount < 0:
        return mix(rgb, (1, 1, 1), -amount)
    return mix(tuple(x * (1 - amount) for x in rgb), (0.30, 0.16, 0.38), amount * 0.35)


def curve(points: list[tuple], is_closed: bool = True) -> Path:
    """A smooth path through `points`, (x, y) or (x, y, 1) for a corner."""
    n = len(points)
    steps = n if is_closed else n - 1
    vertices, codes = [points[0][:2]], [Path.MOVETO]

    def tangent(i: int, a: tuple, b: tuple) -> tuple[float, float]:
        # A corner, or an open end, looks only along its own side, so hair tips stay sharp.
        if len(points[i % n]) > 2 or (not is_closed and i % n in (0, n - 1)):
            dx, dy = b[0] - a[0], b[1] - a[1]
        else:
            before, after = points[(i - 1) % n], points[(i + 1) % n]
            dx, dy = after[0] - before[0], after[1] - before[1]
        length = math.hypot(dx, dy) or 1.0
        reach = math.hypot(b[0] - a[0], b[1] - a[1]) / 3 / length
        return dx * reach, dy * reach

    for i in range(steps):
        a, b = points[i], points[(i + 1) % n]
        (ax, ay), (bx, by) = tangent(i, a, b), tangent(i + 1, a, b)
        vertices += [(a[0] + ax, a[1] + ay), (b[0] - bx, b[1] - by), b[:2]]
        codes += [Path.CURVE4] * 3
    return Path(vertices, codes)


def zigzag(points: list[tuple[float, float]], bulge: float = 0.1) -> list[tuple]:
    """Corners joined by slightly bent sides, as locks of hair end; for `curve`. `bulge` is a share of each side."""
    result = []
    for a, b in zip(points, points[1:], strict=False):
        side = 1 if b[1] > a[1] else -1  # both sides of a lock bend outwards
        middle = ((a[0] + b[0]) / 2 - (b[1] - a[1]) * bulge * side, (a[1] + b[1]) / 2 + (b[0] - a[0]) * bulge * side)
        result += [(*a, 1), middle]
    return [*result, (*points[-1], 1)]


def ellipse(x: float, y: float, rx: float, ry: float) -> Path:
    """An ellipse around (x, y)."""
    return Path(Path.unit_circle().vertices * (rx, ry) + (x, y), Path.unit_circle().codes)


def mirrored(path: Path) -> Path:
    """The path on the other side of the face."""
    return Path(path.vertices * (-1, 1), path.codes)


def moved(path: Path, dx: float, dy: float) -> Path:
    """The path shifted by (dx, dy) units."""
    return Path(path.vertices + (dx, dy), path.codes)


def polygon(*points: tuple[float, float]) -> Path:
    """A closed straight-sided shape."""
    return Path([*points, points[0]])


def star(x: float, y: float, radius: float, tips: int = 5, depth: float = 0.45, angle: float = 0.0) -> Path:
    """A star around (x, y) with one tip up."""
    steps = [(radius * (depth if k % 2 else 1), angle + math.pi * k / tips) for k in range(2 * tips)]
    return polygon(*[(x + r * math.sin(a), y - r * math.cos(a)) for r, a in steps])


def heart(x: float, y: float, size: float) -> Path:
    """A heart around (x, y), about 2 * `size` wide."""
    s = size
    return curve(
        [
            (x, y - s * 0.45, 1),
            (x + s * 0.55, y - s),
            (x + s, y - s * 0.3),
            (x, y + s, 1),
            (x - s, y - s * 0.3),
            (x - s * 0.55, y - s),
        ]
    )


class Pen:
    """Draws paths in one artist's lines and colours on one 512 x 512 picture.

    `matrix` places what is drawn (units to pixels, y down); `draw` moves it from the body to the head and back.
    """

    def __init__(self, artist: Artist, rng: np.random.Generator):
        self.artist, self.rng = artist, rng
        self.renderer = RendererAgg(SIZE, SIZE, 72)  # at 72 dpi a point of line width is a pixel
        self.pixels = np.asarray(self.renderer.buffer_rgba())  # a view: backgrounds are painted straight into it
        self.matrix, self.scale, self.clips = Affine2D(), 1.0, []
        self.flip = Affine2D().scale(1, -1).translate(0, SIZE)  # Agg counts y upwards

    def place(self, matrix: Affine2D, scale: float) -> None:
        """Draw from now on through `matrix`, with lines `scale` times as wide as in units."""
        self.matrix, self.scale = matrix + self.flip, scale

    def ink(self, rgb: tuple[float, float, float] | str) -> tuple[float, float, float]:
        """The colour as this artist would mix it."""
        artist = self.artist
        hue, saturation, value = colorsys.rgb_to_hsv(*(to_rgb(rgb) if isinstance(rgb, str) else rgb))
        rgb = colorsys.hsv_to_rgb(
            (hue + artist.hue) % 1, min(1, saturation * artist.saturation), min(1, value * artist.brightness)
        )
        return mix(rgb, to_rgb(artist.tint), artist.tint_share)

    def path(self, path: Path, fill=None, line=None, width: float = 1.0, alpha: float = 1.0, clip: Path | None = None):
        """Fill and outline a path.

        Args:
            fill: RGB or `#rrggbb`, None for no filling.
            line: RGB or `#rrggbb`; None outlines in the artist's way; False does not outline.
            width: line width as a multiple of the artist's.
            alpha: opacity in (0, 1].
            clip: draw only inside this path.
        """
        gc = self.renderer.new_gc()
        gc.set_alpha(alpha)
        gc.set_joinstyle("round")
        gc.set_capstyle("round")
        gc.set_linewidth(0 if line is False else self.artist.line * width * self.scale)
        if line is not False:
            own = shade(to_rgb(fill) if isinstance(fill, str) else fill, 0.62) if line is None and fill else "#4a3440"
            gc.set_foreground(
                self.ink(self.artist.line_color or own) if line is None else self.ink(line), isRGBA=False
            )
        if clip is not None:
            # Agg keeps the last clip mask by the address of its path: a freed one would lend its mask to a newcomer.
            self.clips.append(clip_path := TransformedPath(clip, self.matrix))
            gc.set_clip_path(clip_path)
        self.renderer.draw_path(gc, path, self.matrix, None if fill is None else (*self.ink(fill), alpha))

    def shadow(self, path: Path, rgb: tuple, amount: float = 0.2, clip: Path | None = None) -> None:
        """A shadow (`amount` > 0) or a light (< 0) on something of colour `rgb`, in the artist's shading."""
        if self.artist.shading == "flat":
            amount *= 0.45
        if self.artist.shading == "soft":
            for offset in (-7, 0, 7):
                self.path(moved(path, offset * 0.6, offset), shade(rgb, amount), False, alpha=0.36, clip=clip)
        else:
            self.path(path, shade(rgb, amount), False, alpha=0.85, clip=clip)
