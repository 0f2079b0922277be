"""The people of the embedded dump: invents characters, poses and frames them for a post.

Characters are `Look`s that stay the same from post to post; `pose` changes what fan art changes.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_scripts.mini_booru.draw.background import BACKGROUNDS, EFFECTS
from dataset_scripts.mini_booru.draw.hair import BACK_LENGTH, BACK_STYLES, BANGS, UP_STYLES
from dataset_scripts.mini_booru.draw.pen import ARTISTS, CLOTH, DRAWING_VERSION, EYES, HAIR, Look, Scene
from dataset_scripts.mini_booru.tags import HEADWEAR, MOUTH_TAGS, OUTFIT_TAGS, PATTERN_TAGS, PROPS

# How far posts of one character differ. These decide how hard the dump is for a model that sees only the image.
DEFAULT_OUTFIT = 0.75  # share of posts in the character's own clothes
WRONG_ATTRIBUTE = 0.03  # share of posts with hair style, hair colour, length or eye colour other than usual
MISSING_ORNAMENT = 0.08  # share of posts without a given signature ornament
EXTRA_ORNAMENT = 0.05  # share of posts with an ornament that is not the character's
CLOSED_EYES = 0.05
GREYSCALE = 0.01  # besides the monochrome artist
LIGHT, LIGHT_COLOUR = 0.5, 0.02  # how much darker a scene may be lit, and by how much its colours may shift
BACKDROP_LIGHT, BACKDROP_COLOUR = 0.7, 0.25  # the same for the background, unless it is plain
MAX_ROTATION = 12.0  # degrees; most pictures are straighter
POSITION_JITTER = 20.0  # pixels of 512, standard deviation to the left and right
CLOSE_UP, PORTRAIT = 0.06, 0.5  # shares of the framings; the rest shows the upper body
TWO_TONE_HAIR, DARK_SKIN, BOYS = 0.2, 0.1, 0.12  # shares of the characters
# How well the tags know the character.
FORGOTTEN_TAG = 0.18  # share of visible tags that the tagger leaves out
WRONG_TAG = 0.01  # share of posts with a tag of something that is not there
TRAIT = 0.1  # share of posts that carry a given one of a character's three traits, too small to draw

SURNAMES = (
    "hoshino amamiya kisaragi tachibana mizuno shirogane kuroda asahina minase tsukishima hanasaki fujimori akatsuki "
    "yukishiro komori natsume ichinose kamiya sakuraba otonashi kazahaya mikazuki aoyama shinonome takamine inuyama "
    "arisugawa nanase kujo momozono"
).split()
GIRLS = (
    "akane sumire hotaru chinatsu mirei koharu rinne ayame nagisa tsubaki yuzuha shizuku kanade mikoto hinata suzu "
    "ichika mashiro kurumi fuyumi karin misaki sayo tsumugi wakana yayoi chisato emi iroha kotone lilia marika noa "
    "ritsu serina towa urara yume azusa"
).split()
BOYS_NAMES = "haruto ren sora itsuki kaoru minato tsubasa yuuma ryouta shun akira natsuki toma kei hayate".split()
WESTERN = "alice clara elise fiona greta helena iris johanna lotte marie nora odette petra rosa sylvia theresa".split()
SERIES = {  # an invented series -> the clothes of its people
    "starlit_academy": ("serafuku", ("white", "navy", "red")),
    "clockwork_garden": ("maid", ("black", "white", "blue")),
    "lanterns_of_yomi": ("kimono", ("red", "yellow", "white")),
    "harbor_seven": ("military", ("navy", "red", "yellow")),
    "witch_of_the_ninth_hill": ("capelet", ("purple", "black", "yellow")),
    "after_school_encore": ("blazer", ("brown", "yellow", "red")),
    "iron_petal_saga": ("armor", ("grey", "navy", "red")),
    "pocket_orbit": ("hoodie", ("aqua", "white", "yellow")),
    "jade_tea_house": ("china_dress", ("green", "yellow", "pink")),
    "the_last_ferry": ("sweater", ("white", "brown", "navy")),
    "sunday_relay": ("track_jacket", ("blue", "white", "yellow")),
    "summer_postbox": ("dress", ("white", "aqua", "yellow")),
    "midnight_library": ("cardigan", ("navy", "yellow", "red")),
    "bakery_cat_days": ("t-shirt", ("yellow", "brown", "red")),
}
BOY_OUTFITS = ("blazer", "hoodie", "military", "t-shirt", "sweater", "armor", "track_jacket", "kimono", "cardigan")
ANIMAL_EARS = ("cat_ears", "fox_ears", "rabbit_ears")
ORNAMENTS = (
    "hair_ribbon",
    "hairband",
    "hairclip",
    "x_hair_ornament",
    "star_hair_ornament",
    "heart_hair_ornament",
    "crescent_hair_ornament",
    "snowflake_hair_ornament",
    "butterfly_hair_ornament",
    "hair_flower",
    "hair_bobbles",
    "hair_bell",
    "glasses",
    "round_eyewear",
    "eyepatch",
    "earrings",
    "choker",
    "scarf",
    "demon_horns",
    "antlers",
    "feathered_wings",
    "demon_wings",
    "halo",
    "hair_bow",
    *ANIMAL_EARS,
    *HEADWEAR,
)
SMALL_ORNAMENTS = (
    "earrings",
    "choker",
    "glasses",
    "hairclip",
    "x_hair_ornament",
    "hair_ribbon",
    "hair_flower",
    "scarf",
    "hairband",
)
MARKS = (
    "freckles",
    "mole_under_eye",
    "mole_under_mouth",
    "bandaid_on_face",
    "whisker_markings",
    "facial_mark",
    "scar_across_eye",
    "pointy_ears",
)


@dataclass
class Character:
    """A character tag, its series, what it always looks like and three habits that only tags know."""

    name: str
    series: str
    look: Look
    traits: tuple[str, ...]


def pick(rng: np.random.Generator, choices, weights=None):
    """One of `choices` (`weights` need not sum to 1)."""
    choices = list(choices)
    p = None if weights is None else np.array(weights, float) / sum(weights)
    return choices[int(rng.choice(len(choices), p=p))]


def make_cast(count: int, seed: int, trait_pool: list[str]) -> list[Character]:
    """Invent `count` characters; one in twenty is the twin and one in twenty the sister of the one before."""
    rng = np.random.default_rng([seed, 1])
    cast: list[Character] = []
    names, seen = set(), set()
    while len(cast) < count:
        kin = {8: "twin", 15: "sister"}.get(len(cast) % 20)
        elder = cast[-1] if cast else None
        if kin and elder:
            look = dataclasses.replace(elder.look, ornaments=dict(elder.look.ornaments))
            look.eyes = (pick(rng, [eye for eye in EYES if eye not in look.eyes]),) * 2
            look.ornaments.pop(next(iter(look.ornaments), ""), None)
            spare = [kind for kind in SMALL_ORNAMENTS if kind not in look.ornaments]
            look.ornaments[pick(rng, spare)] = pick(rng, CLOTH)
            if kin == "sister":
                look.style = pick(rng, [style for style in BACK_STYLES if style != look.style])
                look.length, look.bangs = pick(rng, BACK_LENGTH), pick(rng, BANGS)
            series, surname, is_boy = elder.series, elder.name.split("_(")[0].split("_")[-1], look.is_boy
        else:
            series = pick(rng, SERIES)
            look = invent_look(rng, series)
            if (look.hair, look.second_hair, look.style) in seen and len(seen) < 200:
                continue
            seen.add((look.hair, look.second_hair, look.style))
            surname, is_boy = pick(rng, SURNAMES), look.is_boy
        given = pick(rng, BOYS_NAMES if is_boy else GIRLS)
        name = f"{given}_{surname}" if rng.random() < 0.8 or kin else pick(rng, WESTERN)
        if rng.random() < 0.35 or name in names:
            name = f"{name}_({series})"
        if name in names:
            name = f"{given}_{surname}_({series})" if not kin else f"{given}_{surname}_{len(cast)}_({series})"
        if name in names:
            name = f"{given}_{surname}_{len(cast)}"  # a dump of many thousand posts runs out of names
        names.add(name)
        traits = tuple(trait_pool[i] for i in rng.choice(len(trait_pool), 3, replace=False))
        cast.append(Character(name, series, look, traits))
    return cast


def invent_look(rng: np.random.Generator, series: str) -> Look:
    """A new character of `series`."""
    is_boy = rng.random() < BOYS
    style = pick(rng, ("", "spiked_hair", "ponytail", "wavy_hair"), (4, 3, 1, 1)) if is_boy else pick(rng, BACK_STYLES)
    length = "short" if is_boy else pick(rng, BACK_LENGTH, (2, 2, 4, 2))
    if style in ("bob_cut", "spiked_hair"):
        length = "short"
    if style in ("twintails", "wavy_hair", "hime_cut") and length == "short" and not is_boy:
        length = "long"
    hair = pick(rng, HAIR)
    pattern = pick(rng, PATTERN_TAGS) if rng.random() < TWO_TONE_HAIR else ""
    if pattern == "inner" and style in UP_STYLES:
        pattern = "streaked"  # tied up, the inside of the hair does not show
    eye = pick(rng, EYES)
    eyes = (eye, pick(rng, EYES)) if rng.random() < 0.07 else (eye, eye)
    kinds = [pick(rng, ORNAMENTS) for _ in range(pick(rng, (1, 2, 3), (3, 4, 1)))]
    kinds = [
        kind for kind in kinds if not is_boy or kind not in ("hair_bow", "hair_flower", "tiara", "maid_headdress")
    ]
    while sum(kind in HEADWEAR or kind in ANIMAL_EARS for kind in kinds) > 1:
        kinds.pop(next(i for i, kind in enumerate(kinds) if kind in HEADWEAR or kind in ANIMAL_EARS))
    ears = {kind: pick(rng, CLOTH) for kind in kinds}
    for kind in ANIMAL_EARS:
        if kind in ears:
            ears[kind] = {"blonde": "yellow", "light_blue": "aqua", "light_brown": "brown"}.get(hair, hair)
    outfit, cloth = SERIES[series]
    if is_boy and outfit not in BOY_OUTFITS:
        outfit, cloth = "blazer", (cloth[0], cloth[1], cloth[2])
    if rng.random() < 0.45:
        outfit, cloth = pick(rng, BOY_OUTFITS if is_boy else OUTFIT_TAGS), tuple(pick(rng, CLOTH) for _ in range(3))
    return Look(
        hair,
        pick(rng, [c for c in HAIR if c != hair]) if pattern else "",
        pattern,
        length,
        style,
        pick(rng, BANGS),
        rng.random() < 0.22,
        float(pick(rng, (0, 66, 104, 140))),
        eyes,
        pick(rng, ("", "tsurime", "tareme"), (3, 1, 1)),
        skin="dark" if rng.random() < DARK_SKIN else pick(rng, ("fair", "pale", "tan"), (6, 2, 1)),
        is_boy=is_boy,
        marks=(pick(rng, MARKS),) if rng.random() < 0.3 else (),
        ornaments=ears,
        outfit=outfit,
        cloth=cloth,
    )


def pose(rng: np.random.Generator, usual: Look, has_prop: bool = True) -> tuple[Look, list[str]]:
    """The look of one post, and the tags that only one who knows the character can set (alternate_costume, ...)."""
    look = dataclasses.replace(usual, ornaments={})
    known = []
    if rng.random() < WRONG_ATTRIBUTE:
        change = pick(rng, ("style", "length", "hair", "eyes"))
        if change == "style":
            look.style = pick(rng, [style for style in BACK_STYLES if style != usual.style])
            known.append("alternate_hairstyle")
        elif change == "length":
            look.length = pick(rng, [length for length in BACK_LENGTH if length != usual.length])
            known.append("alternate_hair_length")
        elif change == "hair":
            look.hair, look.second_hair, look.hair_pattern = (
                pick(rng, [hair for hair in HAIR if hair != usual.hair]),
                "",
                "",
            )
            known.append("alternate_hair_color")
        else:
            look.eyes = (pick(rng, EYES),) * 2
    for kind, color in usual.ornaments.items():
        if rng.random() >= MISSING_ORNAMENT:
            look.ornaments[kind] = color if rng.random() < 0.92 else pick(rng, CLOTH)
    if rng.random() < EXTRA_ORNAMENT:
        kind = pick(rng, ORNAMENTS)
        if kind not in HEADWEAR or not any(worn in HEADWEAR or worn in ANIMAL_EARS for worn in look.ornaments):
            look.ornaments.setdefault(kind, pick(rng, CLOTH))
    if rng.random() >= DEFAULT_OUTFIT:
        look.outfit = pick(rng, BOY_OUTFITS if usual.is_boy else OUTFIT_TAGS)
        look.cloth = tuple(pick(rng, CLOTH) for _ in range(3))
        known.append("alternate_costume")
        if look.outfit == "maid":
            look.cloth = (pick(rng, ("black", "navy", "brown", "purple")), "white", look.cloth[2])
            known.append("enmaided")
    look.mouth = pick(rng, MOUTH_TAGS, (8, 5, 5, 4, 1, 2, 1, 2, 1, 1, 1, 0.4))
    look.eye_state = pick(rng, ("open", "half", "wink", "stars"), (20, 1, 1, 0.4))
    if rng.random() < CLOSED_EYES:
        look.eye_state = pick(rng, ("closed", "happy", "squeeze", "line"), (3, 3, 1.5, 1))
    look.brows = pick(rng, ("", "angry", "sad", "raised"), (6, 1, 1, 1))
    look.blush = float(rng.uniform(0, 1))
    look.prop = pick(rng, PROPS) if has_prop and rng.random() < 0.16 else ""
    return look, known


def stage(rng: np.random.Generator, people: int) -> Scene:
    """Choose artist, background and framing for a post with so many people in it."""
    artist = pick(rng, ARTISTS, [artist.weight for artist in ARTISTS])
    framing = rng.random()
    if people > 1:
        scale, y = rng.uniform(0.62, 0.86) / (1 if people == 2 else 1.25), rng.uniform(190, 240)
    elif framing < CLOSE_UP:
        scale, y = rng.uniform(1.6, 2.0), rng.uniform(240, 270)
    elif framing < CLOSE_UP + PORTRAIT:
        scale, y = rng.uniform(1.25, 1.5), rng.uniform(225, 255)
    else:
        scale, y = rng.uniform(0.95, 1.25), rng.uniform(205, 245)
    y = max(y, 512 - 420 * scale)  # a figure is drawn down to 440 units
    rotation = float(
        np.clip(rng.normal(0, 2) if rng.random() < 0.85 else rng.normal(0, 8), -MAX_ROTATION, MAX_ROTATION)
    )
    colors = [pick(rng, CLOTH), pick(rng, CLOTH)]
    background = pick(rng, BACKGROUNDS, [2, 2, 2] + [1] * (len(BACKGROUNDS) - 3))
    if background == "simple" and rng.random() < 0.6:
        colors[0] = pick(rng, ("white", "grey", "white", "black"), (5, 2, 2, 1))
    light = (1 - LIGHT * rng.beta(1, 1.5)) * rng.normal(1, LIGHT_COLOUR, 3).clip(0.8, 1.2)
    backdrop = (1.2 - BACKDROP_LIGHT * rng.random()) * rng.normal(1, BACKDROP_COLOUR, 3).clip(0.4, 1.6)
    if background == "simple":
        backdrop = np.ones(3)  # its colour is a tag
    return Scene(
        artist,
        background,
        tuple(colors),
        float(scale),
        float(256 + rng.normal(0, POSITION_JITTER if people == 1 else 6)),
        float(y),
        rotation,
        float(rng.normal(0, 4)),
        float(rng.uniform(-1, 1)),
        bool(rng.random() < 0.5),
        bool(rng.random() < GREYSCALE),
        tuple(float(factor) for factor in light),
        tuple(float(factor) for factor in backdrop),
        pick(rng, EFFECTS) if rng.random() < 0.16 else "",
    )


def read_earlier(dump: Path) -> tuple[int, int]:
    """(seed, posts) of a dump of this program, whose characters are to be drawn further.

    Raises:
        FileNotFoundError: it is no such dump.
        ValueError: it was drawn by another version, is itself a continuation, or its record is damaged.
    """
    try:
        drawn = json.loads((dump / "mini_booru.json").read_text(encoding="utf-8"))
        version, seed, posts = drawn["drawing_version"], drawn["seed"], drawn["posts"]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--more_of expects a dump of this command: {dump} has no mini_booru.json.") from error
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"--more_of: {dump}/mini_booru.json is cut or damaged ({error!r}).") from error
    if version != DRAWING_VERSION:
        raise ValueError(
            f"--more_of expects a dump of drawing version {DRAWING_VERSION}, but {dump} is of version "
            f"{version}: its characters would look different. Draw it anew."
        )
    if "more_of" in drawn:
        raise ValueError(f"--more_of expects a dump of its own, but {dump} is itself more of another one: name that.")
    return seed, posts
