"""What is worn on the head and the neck or held in the hand, for `character.py`. Units as in `pen.py`."""

from matplotlib.path import Path

from dataset_scripts.mini_booru.draw.costume import GOLD, WHITE, both, bow, flower, zigzag_frill
from dataset_scripts.mini_booru.draw.pen import (
    CLOTH,
    SKIN,
    Look,
    Pen,
    curve,
    ellipse,
    heart,
    polygon,
    shade,
    star,
    to_rgb,
)


def behind_head(pen: Pen, look: Look) -> None:
    """Wings and halo, which the hair covers."""
    for kind, color in look.ornaments.items():
        rgb = to_rgb(CLOTH[color])
        if kind == "feathered_wings":
            for reach in (1.0, 0.78, 0.56):
                wing = [
                    (40, 150, 1),
                    (120 * reach + 40, 40),
                    (250 * reach, -10, 1),
                    (236 * reach, 90),
                    (200 * reach, 110, 1),
                    (196 * reach, 170),
                    (150 * reach, 176, 1),
                    (140 * reach, 220),
                    (60, 210),
                ]
                both(pen, wing, shade(rgb, 0.05 + 0.12 * (1 - reach)))
        elif kind == "demon_wings":
            both(
                pen,
                [
                    (40, 170, 1),
                    (120, 40),
                    (252, -20, 1),
                    (236, 80),
                    (246, 150, 1),
                    (196, 130),
                    (176, 206, 1),
                    (140, 176),
                    (60, 230, 1),
                ],
                rgb,
            )
        elif kind == "halo":
            pen.path(ellipse(0, -190, 78, 20), None, rgb, 5.5)
            pen.path(ellipse(0, -190, 78, 20), None, shade(rgb, -0.6), 2.0)
        elif kind == "hair_bow":
            bow(pen, 0, -138, 82, rgb)


def animal_ear(pen: Pen, kind: str, color) -> None:
    """A pair of ears on the hair."""
    pink = "#f4b6bd"
    if kind == "cat_ears":
        outer, inner = (
            [(34, -136, 1), (70, -206), (96, -220, 1), (114, -160), (108, -88, 1)],
            [(56, -134, 1), (80, -184), (94, -198, 1), (102, -150), (96, -104, 1)],
        )
    elif kind == "fox_ears":
        outer, inner = (
            [(24, -140, 1), (60, -216), (104, -250, 1), (122, -170), (110, -84, 1)],
            [(50, -138, 1), (76, -196), (100, -226, 1), (106, -160), (96, -104, 1)],
        )
        pink = WHITE
    else:
        outer, inner = (
            [(24, -140, 1), (22, -220), (46, -300), (78, -292), (88, -210), (74, -126, 1)],
            [(38, -146, 1), (38, -220), (54, -278), (70, -262), (72, -200), (62, -138, 1)],
        )
    both(pen, outer, color, width=1)
    both(pen, inner, pink, width=0.5)


def hat(pen: Pen, kind: str, rgb) -> None:
    """A hat over the hair."""
    if kind == "beret":
        pen.path(curve([(-104, -88), (-132, -150), (-60, -196), (50, -190), (116, -140), (96, -90), (0, -112)]), rgb)
        pen.shadow(curve([(-120, -110), (0, -128), (110, -112), (90, -90), (0, -110), (-104, -88)]), rgb, 0.2)
        pen.path(curve([(-6, -194), (-2, -214), (8, -214), (8, -194)]), rgb)
    elif kind == "witch_hat":
        pen.path(curve([(-192, -66), (-90, -102), (90, -102), (192, -66), (100, -60), (0, -74), (-100, -60)]), rgb)
        pen.path(
            curve(
                [
                    (-98, -92, 1),
                    (-70, -170),
                    (-30, -256),
                    (52, -300, 1),
                    (24, -240),
                    (66, -170),
                    (98, -92, 1),
                    (0, -106),
                ]
            ),
            rgb,
        )
        pen.path(
            curve([(-94, -98, 1), (0, -114), (94, -98, 1), (82, -130, 1), (0, -146), (-83, -130, 1)]), shade(rgb, -0.5)
        )
    elif kind == "straw_hat":
        straw = to_rgb("#ecca86")
        pen.path(ellipse(0, -86, 196, 44), straw)
        pen.path(curve([(-104, -92, 1), (-84, -176), (0, -198), (84, -176), (104, -92, 1), (0, -78)]), straw)
        pen.path(curve([(-104, -92, 1), (0, -76), (104, -92, 1), (98, -122, 1), (0, -106), (-98, -122, 1)]), rgb)
    else:  # baseball_cap
        pen.path(curve([(-112, -70, 1), (-98, -150), (0, -182), (98, -150), (112, -70, 1), (0, -96)]), rgb)
        pen.path(curve([(-104, -72, 1), (0, -104), (104, -72, 1), (86, -36), (0, -62), (-86, -36)]), shade(rgb, 0.14))
        pen.path(star(0, -130, 20), WHITE, width=0.7)


def eyewear(pen: Pen, kind: str, rgb, turn: float) -> None:
    """Glasses and eyepatches, at the eyes."""
    shift = 13 * turn
    if kind in ("glasses", "round_eyewear", "sunglasses"):
        for side in (1, -1):
            x = shift + side * 46
            frame = (
                ellipse(x, 20, 39, 38)
                if kind == "round_eyewear"
                else curve([(x - 38, -6), (x, -10), (x + 38, -6), (x + 34, 42), (x, 50), (x - 34, 42)])
            )
            pen.path(
                frame, rgb if kind == "sunglasses" else "#dff1fb", False, alpha=0.82 if kind == "sunglasses" else 0.22
            )
            pen.path(frame, None, shade(rgb, 0.1), 1.6)
            pen.path(Path([(x + side * 37, 8), (side * 104, 0)]), None, shade(rgb, 0.1), 1.4)
        pen.path(curve([(shift - 9, 14), (shift, 9), (shift + 9, 14)], False), None, shade(rgb, 0.1), 1.4)
    elif kind == "eyepatch":
        x = shift + 46
        pen.path(Path([(x - 30, -14), (-108, -64)]), None, shade(rgb, 0.3), 1.6)
        pen.path(Path([(x + 30, 0), (110, -8)]), None, shade(rgb, 0.3), 1.6)
        pen.path(curve([(x - 38, -10), (x, -22), (x + 38, -8), (x + 32, 36), (x, 50), (x - 32, 36)]), rgb)


def ornaments(pen: Pen, look: Look, turn: float) -> None:
    """Everything worn on the head and the neck, over the hair."""
    for kind, color in look.ornaments.items():
        rgb = to_rgb(CLOTH[color])
        match kind:
            case "hair_ribbon":
                high = {
                    "twintails": [(104, -100, 0.5), (-104, -100, -0.5)],
                    "low_twintails": [(100, 74, 0.4), (-100, 74, -0.4)],
                    "twin_braids": [(104, 78, 0.3), (-104, 78, -0.3)],
                    "twin_drills": [(118, -74, 0.6), (-118, -74, -0.6)],
                    "ponytail": [(66, -146, 0.5)],
                    "side_ponytail": [(112, -66, 0.7)],
                    "single_hair_bun": [(0, -124, 0)],
                    "double_bun": [(84, -96, 0.4), (-84, -96, -0.4)],
                    "single_braid": [(104, 78, 0.3)],
                }
                for x, y, angle in high.get(look.style, [(90, -92, 0.6)]):
                    bow(pen, x, y, 36, rgb, angle)
            case "hairband":
                pen.path(
                    curve(
                        [
                            (-118, -22, 1),
                            (-108, -92),
                            (-56, -134),
                            (0, -144),
                            (56, -134),
                            (108, -92),
                            (118, -22, 1),
                            (102, -84),
                            (54, -118),
                            (0, -127),
                            (-54, -118),
                            (-102, -84),
                        ]
                    ),
                    rgb,
                )
            case "hairclip":
                for k in (0, 17):
                    pen.path(curve([(54, -62 + k), (88, -48 + k), (87, -38 + k), (53, -52 + k)]), rgb, width=0.8)
            case "x_hair_ornament":
                for a, b in (((54, -72), (88, -34)), ((88, -72), (54, -34))):
                    pen.path(Path([a, b]), None, shade(rgb, 0.55), 4.6)
                    pen.path(Path([a, b]), None, rgb, 3.0)
            case "star_hair_ornament":
                pen.path(star(74, -58, 27), rgb)
            case "heart_hair_ornament":
                pen.path(heart(74, -58, 22), rgb)
            case "crescent_hair_ornament":
                pen.path(curve([(66, -86, 1), (96, -76), (98, -40), (64, -30, 1), (82, -46), (82, -70)]), rgb)
            case "snowflake_hair_ornament":
                pen.path(star(74, -58, 28, 6, 0.28), rgb, width=0.8)
            case "butterfly_hair_ornament":
                for side in (1, -1):
                    pen.path(
                        curve(
                            [
                                (76, -62, 1),
                                (76 + 16 * side, -96),
                                (76 + 40 * side, -92),
                                (76 + 32 * side, -62),
                                (76 + 24 * side, -36),
                            ]
                        ),
                        rgb,
                        width=0.8,
                    )
            case "hair_flower":
                flower(pen, 82, -70, 34, rgb)
            case "hair_bobbles":
                for side in (1, -1):
                    pen.path(ellipse(104 * side, -92, 17, 17), rgb)
                    pen.path(ellipse(104 * side - 5, -98, 5, 5), WHITE, False, alpha=0.8)
            case "hair_bell":
                for side in (1, -1):
                    pen.path(ellipse(100 * side, -76, 19, 19), GOLD)
                    pen.path(Path([(100 * side, -76), (100 * side, -60)]), None, "#5b4026", 1.4)
            case "tiara":
                pen.path(
                    curve(
                        [
                            (-62, -112, 1),
                            (-44, -140),
                            (-26, -126, 1),
                            (0, -182, 1),
                            (26, -126, 1),
                            (44, -140),
                            (62, -112, 1),
                            (0, -126),
                        ]
                    ),
                    GOLD,
                )
                pen.path(ellipse(0, -142, 8, 10), rgb, width=0.7)
            case "maid_headdress":
                frill = zigzag_frill([(108, -98), (58, -150), (0, -166), (-58, -150), (-108, -98)], 9)
                top = [(x * 1.04, y - 14 if len(r) == 0 else y, *r) for x, y, *r in frill]
                pen.path(curve([*top, (-98, -84, 1), (-52, -126), (0, -140), (52, -126), (98, -84, 1)]), "#ffffff")
            case "beret" | "witch_hat" | "straw_hat" | "baseball_cap":
                hat(pen, kind, rgb)
            case "cat_ears" | "fox_ears" | "rabbit_ears":
                animal_ear(pen, kind, rgb)
            case "demon_horns":
                both(pen, [(58, -128, 1), (72, -176), (112, -214, 1), (110, -160), (94, -104, 1)], rgb, width=1)
            case "antlers":
                for side in (1, -1):
                    for line in ([(50, -132), (78, -190), (70, -250)], [(74, -182), (104, -206), (112, -240)]):
                        pen.path(curve([(side * x, y) for x, y in line], False), None, shade(rgb, 0.5), 5)
                        pen.path(curve([(side * x, y) for x, y in line], False), None, rgb, 3.4)
            case "goggles_on_head":
                pen.path(curve([(-118, -60), (0, -126), (118, -60), (112, -88), (0, -150), (-112, -88)]), "#6b4a3a")
                for side in (1, -1):
                    pen.path(ellipse(40 * side, -112, 34, 27), "#b9a27a")
                    pen.path(ellipse(40 * side, -112, 24, 18), rgb)
            case "headphones":
                pen.path(
                    curve([(-126, 0), (-122, -100), (0, -170), (122, -100), (126, 0)], False), None, shade(rgb, 0.5), 7
                )
                pen.path(curve([(-126, 0), (-122, -100), (0, -170), (122, -100), (126, 0)], False), None, rgb, 5)
                for side in (1, -1):
                    pen.path(ellipse(120 * side, 10, 25, 38), rgb)
                    pen.path(ellipse(124 * side, 10, 13, 24), shade(rgb, -0.45), width=0.7)
            case "glasses" | "round_eyewear" | "sunglasses" | "eyepatch":
                eyewear(pen, kind, rgb, turn)
            case "earrings":
                for side in (1, -1):
                    pen.path(star(102 * side, 58, 15, 4, 0.5), rgb, width=0.7)
            case "choker":
                pen.path(curve([(-30, 112), (0, 122), (30, 112), (30, 124), (0, 134), (-30, 124)]), rgb, width=0.8)
                pen.path(ellipse(0, 134, 7, 7), GOLD, width=0.7)
            case "scarf":
                pen.path(
                    curve([(52, 140), (92, 150), (96, 270), (80, 300, 1), (50, 296, 1), (44, 200)]), shade(rgb, 0.1)
                )
                pen.path(curve([(-74, 112), (0, 100), (74, 112), (86, 150), (40, 176), (-40, 176), (-86, 150)]), rgb)
                for line in ([(-70, 124), (0, 146), (72, 128)], [(-60, 158), (0, 162), (60, 152)]):
                    pen.path(curve(line, False), None, shade(rgb, 0.42), 0.8)


def prop(pen: Pen, look: Look) -> None:
    """What the character holds, in the lower left of the figure, with the hand that holds it."""
    if not look.prop:
        return
    x, y, skin = -112, 262, to_rgb(SKIN[look.skin])
    main = to_rgb(CLOTH[look.cloth[2]])
    match look.prop:
        case "book":
            pen.path(polygon((x - 62, y - 54), (x + 6, y - 38), (x + 6, y + 50), (x - 62, y + 34)), main)
            pen.path(polygon((x + 6, y - 38), (x + 74, y - 54), (x + 74, y + 34), (x + 6, y + 50)), shade(main, 0.2))
        case "sword":
            pen.path(polygon((x - 6, y - 20), (x + 6, y - 20), (x + 5, y - 350), (x - 4, y - 366)), "#dfe4ee")
            pen.path(polygon((x - 38, y - 26), (x + 38, y - 26), (x + 38, y - 14), (x - 38, y - 14)), GOLD)
            pen.path(polygon((x - 7, y - 14), (x + 7, y - 14), (x + 7, y + 60), (x - 7, y + 60)), "#6b3f3a")
        case "staff":
            pen.path(polygon((x - 6, y - 240), (x + 6, y - 240), (x + 7, y + 190), (x - 7, y + 190)), "#8c674e")
            pen.path(ellipse(x, y - 268, 36, 36), None, GOLD, 4)
            pen.path(star(x, y - 268, 24), main)
        case "cup":
            pen.path(curve([(x - 34, y - 66, 1), (x + 34, y - 66, 1), (x + 26, y + 10), (x - 26, y + 10)]), WHITE)
            pen.path(polygon((x - 32, y - 46), (x + 32, y - 46), (x + 30, y - 30), (x - 30, y - 30)), main, False)
            for k in (-10, 10):
                pen.path(
                    curve([(x + k, y - 78), (x + k + 8, y - 96), (x + k - 4, y - 116)], False),
                    None,
                    "#ffffff",
                    1.4,
                    alpha=0.8,
                )
        case "rose":
            pen.path(curve([(x, y + 60), (x + 6, y), (x, y - 70)], False), None, "#4f8a4e", 2.6)
            for radius, amount in ((36, 0.15), (26, 0.0), (16, -0.15), (7, 0.2)):
                pen.path(
                    ellipse(x + radius * 0.1, y - 92 + radius * 0.1, radius, radius * 0.9),
                    shade(main, amount),
                    width=0.7,
                )
        case "microphone":
            pen.path(polygon((x - 10, y - 40), (x + 10, y - 40), (x + 7, y + 60), (x - 7, y + 60)), "#3b3b47")
            pen.path(ellipse(x, y - 58, 25, 25), "#a8acb8")
        case "stuffed_cat":
            for side in (1, -1):
                pen.path(polygon((x + 14 * side, y - 60), (x + 46 * side, y - 92), (x + 50 * side, y - 40)), main)
            pen.path(ellipse(x, y + 20, 44, 50), main)
            pen.path(ellipse(x, y - 34, 54, 44), main)
            for side in (1, -1):
                pen.path(ellipse(x + 20 * side, y - 36, 5, 6), "#2c2430", False)
        case "balloon":
            pen.path(curve([(x, y), (x - 20, y - 110), (x - 14, y - 200)], False), None, "#8d8d99", 0.8)
            pen.path(ellipse(x - 14, y - 262, 54, 64), main)
            pen.path(ellipse(x - 32, y - 288, 12, 16), WHITE, False, alpha=0.7)
        case "candy":
            pen.path(polygon((x - 3, y - 60), (x + 3, y - 60), (x + 3, y + 60), (x - 3, y + 60)), WHITE)
            for radius, amount in ((44, 0), (32, -0.6), (21, 0), (10, -0.6)):
                pen.path(ellipse(x, y - 92, radius, radius), shade(main, amount), width=0.7)
    pen.path(
        curve(
            [(x - 26, y + 6), (x - 4, y - 16), (x + 24, y - 6), (x + 30, y + 28), (x + 2, y + 46), (x - 24, y + 36)]
        ),
        skin,
    )
    for k in (4, 15, 26):
        pen.path(Path([(x - 20, y + k), (x - 2, y + k - 4)]), None, shade(skin, 0.5), 0.8)
    sleeve = skin if look.outfit in ("dress", "t-shirt", "china_dress") else to_rgb(CLOTH[look.cloth[0]])
    pen.path(curve([(x - 24, y + 30, 1), (x + 28, y + 34, 1), (x + 40, y + 220, 1), (x - 50, y + 220, 1)]), sleeve)
