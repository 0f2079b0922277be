"""Neck, shoulders and fourteen outfits for `character.py`. Units as in `pen.py`."""

import math

from matplotlib.path import Path

from dataset_scripts.mini_booru.draw.pen import (
    CLOTH,
    SKIN,
    Look,
    Pen,
    curve,
    ellipse,
    heart,
    mirrored,
    moved,
    polygon,
    shade,
    star,
    to_rgb,
)

WHITE, GOLD = "#f9f7f5", "#e9bf55"


def bow(pen: Pen, x: float, y: float, size: float, color, angle: float = 0.0) -> None:
    """A ribbon bow, about 2 * `size` wide, turned by `angle` radians."""
    c, s = math.cos(angle) * size, math.sin(angle) * size

    def turned(points: list[tuple]) -> Path:
        return curve([(x + px * c - py * s, y + px * s + py * c, *rest) for px, py, *rest in points])

    for side in (1, -1):
        pen.path(
            turned([(side * 0.1, 0, 1), (side * 0.36, 0.5), (side * 0.62, 1.1, 1), (side * 0.28, 0.92, 1)]),
            shade(color, 0.16),
        )
    for side in (1, -1):
        wing = [(0, 0, 1), (side * 0.62, -0.55), (side * 1.0, -0.42), (side * 1.02, 0.3), (side * 0.62, 0.42)]
        pen.path(turned(wing), color)
        pen.path(turned([(side * 0.1, 0.02, 1), (side * 0.5, -0.12), (side * 0.66, 0.1)]), shade(color, 0.3), False)
    pen.path(turned([(-0.17, -0.2), (0.17, -0.2), (0.17, 0.2), (-0.17, 0.2)]), shade(color, -0.08))


def flower(pen: Pen, x: float, y: float, radius: float, color, petals: int = 5) -> None:
    """A flower with round petals."""
    for k in range(petals):
        angle = 2 * math.pi * k / petals
        pen.path(
            ellipse(
                x + radius * 0.6 * math.sin(angle), y - radius * 0.6 * math.cos(angle), radius * 0.48, radius * 0.48
            ),
            color,
            width=0.6,
        )
    pen.path(ellipse(x, y, radius * 0.3, radius * 0.3), "#f5d160", width=0.6)


# ---------------------------------------------------------------------------------------------------------------------
# Clothes
# ---------------------------------------------------------------------------------------------------------------------
NECKLINES = {  # the right half, from the shoulder to the middle
    "v": [(36, 132, 1), (20, 168), (0, 214, 1)],
    "round": [(44, 136, 1), (30, 160), (0, 168)],
    "high": [(33, 108, 1), (18, 114), (0, 116)],
    "low": [(96, 186, 1), (50, 206), (0, 200)],
    "wide": [(66, 144, 1), (40, 172), (0, 180)],
}


def garment(pen: Pen, color, neckline: str = "round", sleeves: str = "long") -> Path:
    """Fill the upper body with cloth and return its outline. `sleeves` is long, short or none."""
    neck = NECKLINES[neckline]
    arm = {
        "long": [(128, 168), (154, 250), (166, 440, 1)],
        "short": [(128, 168), (150, 232), (156, 262, 1), (104, 268, 1), (100, 340), (96, 440, 1)],
        "none": [(84, 150, 1), (92, 200), (104, 244, 1), (100, 330), (98, 440, 1)],
    }[sleeves]
    if neckline == "low":
        arm = [(104, 244, 1), (98, 330), (98, 440, 1)]
    elif neckline == "high":
        neck = [(33, 108, 1), *neck[1:]]
        arm = [(38, 134), *arm]
    half = [*reversed(neck[:-1]), *arm]
    shape = curve([neck[-1], *half, *[(-p[0], *p[1:]) for p in reversed(half)]])
    pen.path(shape, color)
    pen.shadow(curve([(-200, 130), (-118, 160), (-96, 250), (-84, 440), (-200, 440)]), color, 0.17, shape)
    pen.shadow(curve([(0, 96), (66, 126), (56, 176), (0, 206), (-56, 176), (-66, 126)]), color, 0.15, shape)
    pen.shadow(curve([(90, 250), (118, 300), (120, 440), (84, 440)]), color, 0.17, shape)
    for side in (1, -1) if sleeves == "long" else ():
        pen.path(curve([(103 * side, 228), (98 * side, 300), (100 * side, 440)], False), None, shade(color, 0.5), 0.8)
    pen.path(shape, None, shade(color, 0.6) if not pen.artist.line_color else None)
    return shape


def both(pen: Pen, points: list[tuple], color, clip: Path | None = None, width: float = 0.9) -> None:
    """A shape and its mirror image."""
    shape = curve(points)
    pen.path(shape, color, width=width, clip=clip)
    pen.path(mirrored(shape), color, width=width, clip=clip)


def body(pen: Pen, look: Look) -> None:
    """Neck, shoulders and outfit."""
    skin = to_rgb(SKIN[look.skin])
    main, second, third = (to_rgb(CLOTH[name]) for name in look.cloth)
    half = [(29, 92), (28, 124), (64, 141), (122, 164), (148, 250), (156, 440, 1)]
    shape = curve([*half, *[(-p[0], *p[1:]) for p in reversed(half)]])
    pen.path(shape, skin)
    pen.shadow(curve([(-34, 80), (34, 80), (31, 124), (6, 140), (-30, 118)]), skin, 0.24, shape)
    for side in (1, -1):
        pen.path(curve([(12 * side, 150), (36 * side, 147), (58 * side, 151)], False), None, shade(skin, 0.35), 0.6)
        pen.path(curve([(103 * side, 232), (98 * side, 300), (100 * side, 440)], False), None, shade(skin, 0.5), 0.8)
    match look.outfit:
        case "serafuku":
            top = garment(pen, main, "v")
            collar = [(34, 128, 1), (96, 152), (108, 206, 1), (56, 196), (0, 224, 1), (18, 172)]
            both(pen, collar, second, width=1)
            for k in (7, 13):
                line = [(102 - k * 0.4, 202 - k, 1), (56, 195 - k), (8, 214 - k, 1)]
                for path in (curve(line, False), mirrored(curve(line, False))):
                    pen.path(path, None, "#f6f4f4" if sum(second) < 2 else "#45517a", 0.7)
            both(pen, [(0, 214, 1), (30, 226), (44, 290, 1), (22, 276), (6, 240)], third, top)
            pen.path(curve([(-13, 208), (13, 208), (15, 232), (-15, 232)]), shade(third, 0.1), width=0.9)
        case "blazer":
            garment(pen, WHITE, "v")
            both(pen, [(34, 126, 1), (52, 152), (24, 184, 1), (2, 160, 1)], "#fdfcfb")
            if pen.artist.line > 0:
                tie = [(-10, 166), (10, 166), (12, 184), (18, 300), (0, 330, 1), (-18, 300), (-12, 184)]
                pen.path(curve(tie), third)
                for y in (210, 250, 290):
                    pen.path(Path([(-18, y + 12), (18, y)]), None, shade(third, -0.5), 1.2, clip=curve(tie))
            for side in (1, -1):
                front = curve(
                    [
                        (side * x, y, *r)
                        for x, y, *r in [
                            (44, 134, 1),
                            (128, 166),
                            (154, 250),
                            (166, 440, 1),
                            (20, 440, 1),
                            (16, 330),
                            (30, 240),
                        ]
                    ]
                )
                pen.path(front, main)
                pen.shadow(moved(front, 62 * side, 30), main, 0.16, front)
                lapel = curve(
                    [
                        (side * x, y, *r)
                        for x, y, *r in [
                            (42, 133, 1),
                            (70, 150, 1),
                            (74, 192, 1),
                            (58, 198, 1),
                            (62, 214, 1),
                            (18, 322, 1),
                            (28, 236),
                        ]
                    ]
                )
                pen.path(lapel, shade(main, -0.06))
                pen.path(
                    curve([(103 * side, 230), (98 * side, 300), (100 * side, 440)], False), None, shade(main, 0.5), 0.8
                )
            pen.path(star(88, 236, 13), second, width=0.6)
        case "kimono":
            shape = garment(pen, main, "v")
            for x, y in ((-118, 220), (-60, 250), (118, 250), (70, 224), (-128, 320), (134, 340)):
                flower(pen, x, y, 15, third)
            pen.path(
                curve([(-40, 130, 1), (-20, 130, 1), (34, 214), (70, 290, 1), (44, 300, 1), (0, 224)]),
                WHITE,
                clip=shape,
            )
            pen.path(
                curve([(44, 132, 1), (22, 128, 1), (-26, 206), (-76, 300, 1), (-46, 304, 1), (4, 226)]),
                shade(main, -0.35),
            )
            pen.path(curve([(-104, 290, 1), (0, 298), (104, 290, 1), (104, 390, 1), (0, 398), (-104, 390, 1)]), second)
            pen.path(polygon((-104, 336), (104, 336), (104, 346), (-104, 346)), third, False)
        case "hoodie":
            both(pen, [(28, 96, 1), (66, 106), (92, 140), (60, 164), (14, 176, 1)], shade(main, 0.14), width=1)
            garment(pen, main, "wide")
            both(pen, [(30, 118, 1), (64, 130), (72, 160), (20, 196, 1), (0, 182, 1), (34, 152)], shade(main, -0.08))
            for side in (1, -1):
                pen.path(curve([(20 * side, 188), (24 * side, 220), (20 * side, 262)], False), None, second, 1.6)
                pen.path(ellipse(20 * side, 266, 5, 8), second, width=0.6)
            both(pen, [(10, 330, 1), (70, 334, 1), (92, 400), (10, 410, 1)], shade(main, 0.06))
        case "maid":
            garment(pen, main, "round")
            apron = curve([(-52, 220, 1), (0, 230), (52, 220, 1), (60, 300), (84, 440, 1), (-84, 440, 1), (-60, 300)])
            pen.path(apron, WHITE)
            for side in (1, -1):
                frill = zigzag_frill([(46, 140), (76, 152), (100, 176), (84, 214), (56, 240)], 9)
                pen.path(
                    curve([(side * x, y, *r) for x, y, *r in [*frill, (50, 232, 1), (58, 190), (38, 142, 1)]]),
                    "#ffffff",
                )
            both(pen, [(0, 136, 1), (34, 122), (52, 150), (24, 170), (0, 158, 1)], "#ffffff")
            bow(pen, 0, 166, 27, third)
        case "dress":
            top = garment(pen, main, "low", "none")
            both(pen, [(52, 138, 1), (64, 142, 1), (76, 196, 1), (62, 202, 1)], shade(main, 0.1))
            frill = zigzag_frill([(104, 186), (60, 212), (0, 206), (-60, 212), (-104, 186)], 12)
            pen.path(curve([*frill, (-96, 172, 1), (-50, 192), (0, 188), (50, 192), (96, 172, 1)]), second)
            pen.path(polygon((-110, 318), (110, 318), (110, 342), (-110, 342)), second, None, 0.8, clip=top)
            bow(pen, 0, 222, 22, third)
        case "t-shirt":
            garment(pen, main, "round", "short")
            pen.path(curve([(-46, 137), (-30, 162), (0, 170), (30, 162), (46, 137)], False), None, second, 2.2)
            pen.path(star(0, 262, 42) if sum(third) > 1.6 else heart(0, 262, 36), third, width=0.8)
        case "sweater":
            garment(pen, main, "round")
            pen.path(curve([(-38, 104), (0, 112), (38, 104), (46, 144), (0, 158), (-46, 144)]), shade(main, -0.08))
            for x in range(-32, 33, 13):
                pen.path(Path([(x, 112), (x * 1.14, 150)]), None, shade(main, 0.35), 0.6)
            for x in (-58, -20, 20, 58):
                pen.path(curve([(x, 190), (x + 7, 250), (x - 7, 310), (x, 430)], False), None, shade(main, 0.3), 0.8)
        case "armor":
            garment(pen, second, "high")
            pen.path(
                curve(
                    [
                        (-92, 190, 1),
                        (-40, 176),
                        (0, 190, 1),
                        (40, 176),
                        (92, 190, 1),
                        (90, 290),
                        (60, 400),
                        (0, 420, 1),
                        (-60, 400),
                        (-90, 290),
                    ]
                ),
                main,
            )
            pen.shadow(curve([(-92, 190), (-50, 240), (-30, 410), (-100, 400)]), main, 0.25)
            pen.path(Path([(0, 190), (0, 420)]), None, shade(main, 0.5), 0.9)
            both(
                pen,
                [(60, 146, 1), (112, 142), (168, 190), (170, 246, 1), (112, 232), (74, 196)],
                shade(main, -0.15),
                width=1,
            )
            both(pen, [(70, 156), (114, 156), (152, 196), (116, 186)], GOLD, width=0.6)
            pen.path(star(0, 232, 24, 4, 0.5), third)
        case "military":
            garment(pen, main, "high")
            pen.path(curve([(-34, 106), (0, 116), (34, 106), (42, 144), (0, 156), (-42, 144)]), shade(main, 0.16))
            pen.path(Path([(0, 152), (0, 440)]), None, GOLD, 1.4)
            for y in (190, 240, 290, 340):
                for x in (-26, 26):
                    pen.path(ellipse(x, y, 7, 7), GOLD, width=0.6)
                pen.path(Path([(-26, y), (26, y)]), None, GOLD, 0.9)
            both(pen, [(72, 140, 1), (126, 156), (142, 184, 1), (84, 166, 1)], GOLD, width=0.8)
            pen.path(polygon((-104, 170), (-84, 160), (108, 392), (96, 412)), second, None, 0.8)
        case "china_dress":
            top = garment(pen, main, "high", "none")
            pen.path(curve([(-33, 104), (0, 114), (33, 104), (36, 138), (0, 150), (-36, 138)]), main)
            for edge in ([(0, 148), (40, 180), (98, 232)], [(-35, 138), (0, 150), (35, 138)]):
                pen.path(curve(edge, False), None, second, 2.6)
            for x, y in ((20, 164), (62, 196)):
                pen.path(ellipse(x, y, 7, 7), second, width=0.6)
            for x, y in ((-50, 250), (30, 300), (-24, 370)):
                flower(pen, x, y, 17, third)
            both(pen, [(84, 146, 1), (97, 152, 1), (112, 240, 1), (98, 244)], second, top)
        case "capelet":
            garment(pen, second, "high")
            cape = curve(
                [
                    (0, 128),
                    (44, 126),
                    (122, 158),
                    (170, 296, 1),
                    (90, 322),
                    (0, 308),
                    (-90, 322),
                    (-170, 296, 1),
                    (-122, 158),
                    (-44, 126),
                ]
            )
            pen.path(cape, main)
            pen.shadow(moved(cape, -70, 34), main, 0.18, cape)
            pen.path(curve([(-168, 284), (-90, 310), (0, 296), (90, 310), (168, 284)], False), None, third, 1.8)
            bow(pen, 0, 156, 40, third)
            pen.path(ellipse(0, 156, 11, 11), GOLD, width=0.8)
        case "track_jacket":
            garment(pen, main, "round")
            pen.path(curve([(-38, 108, 1), (-4, 150, 1), (-4, 172), (-52, 142)]), shade(main, 0.08))
            pen.path(curve([(38, 108, 1), (4, 150, 1), (4, 172), (52, 142)]), shade(main, 0.08))
            pen.path(Path([(0, 168), (0, 440)]), None, "#e9e9ee", 1.8)
            for side in (1, -1):
                for k in (0, 13):
                    pen.path(
                        curve(
                            [((112 - k) * side, 156 - k * 0.4), ((140 - k) * side, 240), ((150 - k) * side, 430)],
                            False,
                        ),
                        None,
                        second,
                        1.7,
                    )
        case "cardigan":
            garment(pen, WHITE, "round")
            both(pen, [(4, 150, 1), (36, 126, 1), (52, 152), (20, 178, 1)], "#ffffff")
            for side in (1, -1):
                front = curve(
                    [
                        (side * x, y, *r)
                        for x, y, *r in [
                            (58, 140, 1),
                            (128, 166),
                            (154, 250),
                            (166, 440, 1),
                            (12, 440, 1),
                            (12, 310),
                            (46, 220),
                        ]
                    ]
                )
                pen.path(front, main)
                pen.shadow(moved(front, 62 * side, 30), main, 0.16, front)
                pen.path(
                    curve([(103 * side, 230), (98 * side, 300), (100 * side, 440)], False), None, shade(main, 0.5), 0.8
                )
            for y in (330, 370, 410):
                pen.path(ellipse(6, y, 6, 6), second, width=0.6)
            bow(pen, 0, 172, 34, third)


def zigzag_frill(points: list[tuple[float, float]], bumps: int) -> list[tuple]:
    """A scalloped line along `points`, for the edge of a frill."""
    result = []
    for k in range(bumps * 2 + 1):
        t = k / (bumps * 2) * (len(points) - 1)
        i = min(int(t), len(points) - 2)
        (ax, ay), (bx, by) = points[i], points[i + 1]
        length = math.hypot(bx - ax, by - ay) or 1
        out = 10 if k % 2 else 0
        x, y = ax + (bx - ax) * (t - i), ay + (by - ay) * (t - i)
        result.append((x - (by - ay) / length * -out, y + abs(bx - ax) / length * out, *(() if k % 2 else (1,))))
    return result
