"""Hair for `character.py`: the mass behind the head, tails, braids, bangs. Units as in `pen.py`."""

import math

from matplotlib.path import Path

from dataset_scripts.mini_booru.draw.pen import HAIR, Look, Pen, curve, ellipse, mix, moved, shade, to_rgb, zigzag

BANGS = {  # the lower edge from right to left: alternately a tip and the gap beside it
    "blunt": [
        (92, 4),
        (74, -12),
        (64, 2),
        (42, -14),
        (32, 3),
        (8, -14),
        (-6, 3),
        (-30, -14),
        (-42, 2),
        (-66, -12),
        (-92, 4),
    ],
    "between_eyes": [(88, 18), (70, -34), (52, 2), (32, -40), (4, 30), (-22, -42), (-48, 4), (-68, -34), (-90, 18)],
    "parted": [(100, 34), (78, -16), (64, -40), (40, -76), (4, -104), (-34, -76), (-62, -40), (-80, -16), (-100, 34)],
    "swept": [
        (100, 40),
        (84, -30),
        (72, 8),
        (48, -48),
        (22, 8),
        (-4, -42),
        (-36, -2),
        (-50, -46),
        (-88, -30),
        (-96, 6),
    ],
    "over_one_eye": [(98, 84), (74, 62), (44, 78), (10, -30), (-14, 4), (-34, -44), (-58, -8), (-74, -44), (-94, 12)],
    "crossed": [
        (94, 22),
        (66, -30),
        (42, 8),
        (26, -34),
        (-10, 14),
        (8, -58),
        (30, -84),
        (-4, -70),
        (-40, -20),
        (-58, 12),
        (-74, -28),
        (-96, 20),
    ],
    "asymmetrical": [(100, 56), (86, 6), (62, 14), (38, -24), (12, -6), (-10, -44), (-38, -36), (-66, -62), (-96, -4)],
    "forehead": [(104, 24), (96, -30), (70, -70), (36, -90), (0, -95), (-36, -90), (-70, -70), (-96, -30), (-104, 24)],
}
BACK_LENGTH = {"short": 78.0, "medium": 158.0, "long": 300.0, "very_long": 470.0}  # units below the eyes
BACK_STYLES = (
    "",
    "twintails",
    "low_twintails",
    "ponytail",
    "side_ponytail",
    "single_hair_bun",
    "double_bun",
    "twin_drills",
    "twin_braids",
    "single_braid",
    "one_side_up",
    "two_side_up",
    "bob_cut",
    "wavy_hair",
    "spiked_hair",
    "hime_cut",
)
UP_STYLES = (
    "twintails",
    "ponytail",
    "single_hair_bun",
    "double_bun",
    "side_ponytail",
    "low_twintails",
    "twin_braids",
    "single_braid",
    "twin_drills",
)  # these tie the back hair up, so little hangs behind the neck


def lock(points: list[tuple], width: list[float]) -> Path:
    """A tail of hair along a spine, `width[i]` units wide at `points[i]`, ending in a tip."""
    left, right = [], []
    for i, (x, y) in enumerate(points):
        ax, ay = points[max(i - 1, 0)]
        bx, by = points[min(i + 1, len(points) - 1)]
        length = math.hypot(bx - ax, by - ay) or 1
        nx, ny = -(by - ay) / length * width[i] / 2, (bx - ax) / length * width[i] / 2
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    return curve([*left[:-1], (*points[-1], 1), *right[-2::-1]])


def hair_tail(pen: Pen, look: Look, spine: list[tuple], width: float, side: int, has_wave: bool = False) -> None:
    """One twintail or ponytail with a darker inside and two strands drawn in."""
    rgb, tip = hair_colors(look)
    if has_wave:
        spine = [(x + (12 if i % 2 else -12), y) for i, (x, y) in enumerate(spine)]
    spine = [(x * side, y) for x, y in spine]
    n = len(spine)
    shape = lock(spine, [width * (0.55, 1.0, 1.08, 0.9, 0.66, 0.4)[min(i * 6 // n, 5)] for i in range(n)])
    pen.path(shape, rgb)
    if look.hair_pattern in ("gradient", "two-tone"):
        for share, alpha in ((0.55, 0.5), (0.72, 0.7)):
            y = spine[0][1] + (spine[-1][1] - spine[0][1]) * share
            pen.path(Path([(-700, y), (700, y), (700, 900), (-700, 900)]), tip, False, alpha=alpha, clip=shape)
    pen.shadow(moved(shape, 15 * side, 6), rgb, 0.17, shape)
    pen.shadow(moved(shape, 30 * side, -4), rgb, 0.26, shape)
    pen.path(shape, None, shade(rgb, 0.6) if not pen.artist.line_color else None)
    for share in (0.18, -0.16):
        pen.path(curve([(x + width * share, y + 14) for x, y in spine[:-1]], False), None, shade(rgb, 0.42), 0.55)


def hair_colors(look: Look) -> tuple[tuple, tuple]:
    """RGB of the hair and of its second colour (the same where there is none)."""
    rgb = to_rgb(HAIR[look.hair])
    return rgb, to_rgb(HAIR[look.second_hair]) if look.second_hair else rgb


def back_hair(pen: Pen, look: Look) -> None:
    """The mass of hair behind the head and the shoulders, and the tails that hang behind the body."""
    rgb, second = hair_colors(look)
    inner = second if look.hair_pattern == "inner" else shade(rgb, 0.26)
    bottom = BACK_LENGTH[look.length]
    if look.style in UP_STYLES:
        bottom = 70.0
    flare = 26 if look.style in ("hime_cut", "bob_cut") else 10
    bottom = 100 if look.style == "bob_cut" else bottom
    half = 118 + flare * min(1, bottom / 150) + (12 if bottom > 250 else 0)
    steps = 8
    tips = [
        (half - 2 * half * i / steps, bottom + (0 if i % 2 else 22) + 10 * ((i * 7) % 3)) for i in range(steps + 1)
    ]
    if look.style in ("bob_cut", "hime_cut"):
        tips = [(x, bottom + 6 * (i % 2)) for i, (x, _) in enumerate(tips)]
    if look.style == "spiked_hair":
        spikes = []
        for i in range(17):
            angle = math.pi * (0.92 + 1.16 * i / 16)
            radius = 168 if i % 2 else 126
            spikes.append((-radius * math.cos(angle) * -1, radius * math.sin(angle) * 0.98 - 18))
        shape = curve(zigzag([(-96, 96), *spikes, (96, 96)], 0.06))
        pen.path(shape, rgb)
        bottom, half = 88, 112
        tips = [(half - 2 * half * i / steps, bottom + (0 if i % 2 else 26)) for i in range(steps + 1)]
    sides = [-60 + (bottom + 60) * i / 5 for i in range(1, 5)] if bottom > 120 else [20]
    wave = 11 if look.style == "wavy_hair" else 0
    right = [(half - 4 + (wave if i % 2 else -wave), y) for i, y in enumerate(sides)]
    left = [(-x, y) for x, y in reversed(right)]
    shape = curve([(0, -148), (84, -124), (120, -56), *right, *zigzag(tips, 0.16), *left, (-120, -56), (-84, -124)])
    pen.path(shape, rgb)
    inside = curve(
        [
            (0, -100),
            (88, -50),
            (half - 26, bottom * 0.5),
            *zigzag([(x * 0.82, y - 14) for x, y in tips], 0.16),
            (-half + 26, bottom * 0.5),
            (-88, -50),
        ]
    )
    pen.path(inside, inner, False, clip=shape)
    if look.hair_pattern == "gradient" and bottom > 120:
        for share, alpha in ((0.5, 0.4), (0.64, 0.55), (0.8, 0.7)):
            band = Path([(-700, bottom * share), (700, bottom * share), (700, 900), (-700, 900)])
            pen.path(band, second, False, alpha=alpha, clip=shape)
    for x in (-0.62, -0.3, 0.34, 0.66) if bottom > 120 else ():
        pen.path(
            curve([(x * half, 40), (x * half * 1.06, bottom * 0.6), (x * half, bottom - 6)], False),
            None,
            shade(rgb, 0.5),
            0.5,
        )
    pen.path(shape, None, shade(rgb, 0.6) if not pen.artist.line_color else None)
    down = min(330.0, BACK_LENGTH[look.length] + 20)
    has_wave = look.length == "very_long"
    if look.style in ("twintails", "two_side_up", "one_side_up"):
        is_small = look.style != "twintails"
        reach = 120 if is_small else down
        spine = [(96, -104), (148, -84), (178, 0), (186, reach * 0.5), (172, reach * 0.8), (186, reach)]
        for side in (1,) if look.style == "one_side_up" else (1, -1):
            hair_tail(pen, look, spine, 40 if is_small else 76, side, has_wave)
    if look.style == "ponytail":
        hair_tail(
            pen, look, [(26, -132), (104, -172), (174, -96), (186, 20), (160, 120), (178, down)], 84, 1, has_wave
        )
    if look.style == "side_ponytail":
        hair_tail(
            pen, look, [(104, -70), (152, -50), (176, 40), (174, down * 0.5), (158, down * 0.8), (170, down)], 72, 1
        )
    for x, y, radius in {"single_hair_bun": [(0, -164, 48)], "double_bun": [(92, -128, 40), (-92, -128, 40)]}.get(
        look.style, []
    ):
        bun = ellipse(x, y, radius, radius * 0.94)
        pen.path(bun, rgb)
        pen.shadow(ellipse(x + 6, y + 14, radius, radius), rgb, 0.2, bun)
        for k in (0.62, 0.3):
            pen.path(
                curve([(x - radius * k, y - radius * 0.3), (x, y - radius * k), (x + radius * k, y)], False),
                None,
                shade(rgb, 0.45),
                0.6,
            )
        pen.path(bun, None, shade(rgb, 0.6) if not pen.artist.line_color else None)


def hair_before_body(pen: Pen, look: Look) -> None:
    """What hangs over the shoulders: low twintails, braids, drills."""
    rgb, second = hair_colors(look)
    down = min(300.0, BACK_LENGTH[look.length])
    if look.style == "low_twintails":
        for side in (1, -1):
            hair_tail(pen, look, [(96, 70), (122, 110), (126, 170), (118, down * 0.8), (112, down + 30)], 50, side)
    sides = {"twin_braids": (1, -1), "single_braid": (1,), "twin_drills": (1, -1)}.get(look.style, ())
    for side in sides:
        x, y, width, count = (104, 82, 25.0, 7) if look.style != "twin_drills" else (134, -34, 45.0, 7)
        for i in range(count):
            size = width * (1 - 0.07 * i)
            centre = (side * (x + (6 * i if look.style == "twin_drills" and i < 4 else 0)), y)
            y += size * 0.96
            color = mix(rgb, second, i / count) if look.hair_pattern in ("gradient", "two-tone") else rgb
            bead = curve(
                [
                    (centre[0] - size, centre[1] - 6),
                    (centre[0], centre[1] - size * 0.62),
                    (centre[0] + size, centre[1] + 4),
                    (centre[0] + side * 4, centre[1] + size * 0.9, 1),
                ]
            )
            pen.path(bead, color)
            pen.shadow(moved(bead, 8 * side, 12), color, 0.2, bead)
            pen.path(
                curve(
                    [
                        (centre[0] - size * 0.7, centre[1] - 2),
                        (centre[0], centre[1] + size * 0.28),
                        (centre[0] + size * 0.7, centre[1]),
                    ],
                    False,
                ),
                None,
                shade(color, 0.45),
                0.55,
            )
        if look.style != "twin_drills":
            end = (side * x, y + 8)
            pen.path(
                curve(
                    [
                        (end[0] - 9, end[1] - 12),
                        (end[0] + 9, end[1] - 12),
                        (end[0] + 15, end[1] + 30, 1),
                        (end[0], end[1] + 22),
                        (end[0] - 14, end[1] + 32, 1),
                    ]
                ),
                second,
            )


def front_hair(pen: Pen, look: Look) -> None:
    """Bangs, side locks, shine and ahoge."""
    rgb, second = hair_colors(look)
    outline = shade(rgb, 0.6) if not pen.artist.line_color else None
    for side in (1, -1) if look.sidelocks > 0 else ():
        end = look.sidelocks
        side_lock = curve(
            [
                (70 * side, -84),
                (112 * side, -50),
                (119 * side, end * 0.4),
                ((106 if end > 60 else 112) * side, end, 1),
                (95 * side, end * 0.62),
                ((82 if look.style == "hime_cut" else 90) * side, 12),
            ]
        )
        if look.style == "hime_cut":
            side_lock = curve(
                [
                    (70 * side, -84),
                    (116 * side, -50),
                    (122 * side, 40),
                    (122 * side, 96, 1),
                    (84 * side, 96, 1),
                    (86 * side, 20),
                ]
            )
        pen.path(side_lock, second if look.hair_pattern == "two-tone" and side > 0 else rgb)
        pen.shadow(moved(side_lock, 10 * side, 16), rgb, 0.16, side_lock)
        pen.path(side_lock, None, outline)
    edge = zigzag(BANGS[look.bangs], 0.09)
    fringe = curve([(-110, 8, 1), (-118, -50), (-88, -124), (0, -153), (88, -124), (118, -50), (110, 8, 1), *edge])
    pen.path(fringe, rgb)
    if look.hair_pattern == "two-tone":
        pen.path(Path([(0, -200), (200, -200), (200, 200), (0, 200)]), second, False, clip=fringe)
    if look.hair_pattern == "gradient":
        pen.path(Path([(-200, -26), (200, -26), (200, 200), (-200, 200)]), second, False, alpha=0.3, clip=fringe)
    lower = curve([(-130, 20), (-104, -46), (-50, -60), (0, -54), (52, -62), (106, -46), (130, 20), (0, 60)])
    pen.shadow(moved(lower, 0, 16), rgb, 0.11, fringe)
    shine = zigzag(
        [(78, -84), (60, -66), (46, -90), (22, -72), (6, -96), (-20, -74), (-38, -94), (-60, -68), (-80, -84)]
    )
    pen.path(curve([*shine, (-60, -101), (0, -118), (60, -101)]), shade(rgb, -0.42), False, alpha=0.62, clip=fringe)
    if look.hair_pattern == "streaked":
        for x in (-52, 34):
            streak = curve([(x * 0.35, -150), (x * 0.6 + 16, -148), (x + 14, -60), (x + 4, 30, 1), (x - 10, -50)])
            pen.path(streak, second, False, clip=fringe)
    for (tx, ty), (_, gy) in zip(BANGS[look.bangs][1::2], BANGS[look.bangs][2::2], strict=False):
        start = min(ty, gy)
        pen.path(
            curve([(tx, start), (tx * 0.86, start - 26), (tx * 0.66, start - 46)], False),
            None,
            shade(rgb, 0.45),
            0.6,
            clip=fringe,
        )
    pen.path(fringe, None, outline)
    if look.ahoge:
        pen.path(
            curve([(-8, -144, 1), (-2, -186), (34, -208), (58, -186, 1), (30, -186), (14, -166), (12, -145, 1)]), rgb
        )
