"""The posts of the embedded dump, without drawing: who is on them, what is tagged, and the dirt."""

from dataclasses import dataclass

import numpy as np

from dataset_scripts.mini_booru.cast import (
    FORGOTTEN_TAG,
    TRAIT,
    WRONG_TAG,
    Character,
    invent_look,
    make_cast,
    pick,
    pose,
    stage,
)
from dataset_scripts.mini_booru.draw.pen import Look, Scene
from dataset_scripts.mini_booru.tags import DETAILS, drop_colors, visible_tags

# The dirt: shares of all posts, or plain numbers where a few are enough.
NO_CHARACTER, SEVERAL_CHARACTERS = 0.06, 0.05
QUESTIONABLE, EXPLICIT = 0.055, 0.025  # ratings without a picture: nothing is drawn for them
MISSING_IMAGE, TRUNCATED_IMAGE, EMPTY_IMAGES = 0.005, 0.003, 1
DELETED = 0.02
NO_TAGS, MANY_TAGS = 0.004, 0.015  # posts with no general tag, and with 31 to 60
TAGS_SEEN_ONCE = 40  # fewer in a dump of less than 800 posts
DETAILS_A_POST = 1.3  # mean; drawn by a Zipf law
TAIL = 0.2  # share of the characters that have fewer than 10 posts
LAST_ID = 5_020_995  # of Danbooru2021


@dataclass
class Post:
    """One post of the dump. `image` is valid, missing, truncated, empty or hidden (a rating without pictures)."""

    id: int
    characters: list[str]
    copyrights: list[str]
    artist: str
    general: list[str]
    meta: list[str]
    rating: str
    is_deleted: bool
    image: str
    looks: list[Look]
    scene: Scene


def class_sizes(posts: int) -> np.ndarray:
    """Posts of each character among `posts` posts of one character, largest first (a Zipf law with a long tail)."""
    count = max(8, round(55 * (posts / 2225) ** 0.6))
    tail = [2 + k * 8 // max(1, round(count * TAIL)) for k in range(round(count * TAIL))]
    weights = 1 / (np.arange(count - len(tail)) + 7.0)
    head = np.maximum(2, np.floor((posts - sum(tail)) * weights / weights.sum())).astype(int)
    sizes = np.array(sorted([*head, *tail], reverse=True))
    sizes[0] += posts - sizes.sum()
    return sizes


def kinds_of_crowd(posts: int) -> tuple[int, int]:
    """How many posts show nobody, and how many show several characters."""
    return max(1, round(posts * NO_CHARACTER)), max(2, round(posts * SEVERAL_CHARACTERS))


def draw_ids(posts: int, rng: np.random.Generator) -> np.ndarray:
    """So many ids of posts, rising."""
    return np.sort(rng.choice(np.arange(1_000_000, LAST_ID), posts, replace=False))


def make_posts(posts: int, seed: int, earlier: int = 0) -> list[Post]:
    """Invent all posts of a dump, sorted by id.

    Args:
        posts: number of distinct posts, >= 100.
        seed: of everything. What a post looks like depends on the seed, its id and its characters, not on other posts.
        earlier: the posts of a dump of the same seed whose characters are drawn further: its cast in the same shares,
            no post of it again. 0: a dump of its own.
    """
    if posts < 100:
        raise ValueError(f"posts must be at least 100 to hold every kind of dirt, got {posts}.")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    if earlier:
        rng = np.random.default_rng([seed, 0, earlier])
        free = np.setdiff1d(np.arange(1_000_000, LAST_ID), draw_ids(earlier, np.random.default_rng([seed, 0])))
        ids = np.sort(rng.choice(free, posts, replace=False))
    else:
        rng = np.random.default_rng([seed, 0])
        ids = draw_ids(posts, rng)
    nobody, several = kinds_of_crowd(posts)
    sizes = class_sizes(posts - nobody - several)
    if earlier:
        shares = class_sizes(earlier - sum(kinds_of_crowd(earlier)))
        sizes = (posts - nobody - several) * shares // shares.sum()
        sizes[0] += posts - nobody - several - sizes.sum()
    cast = make_cast(len(sizes), seed, DETAILS[: len(DETAILS) // 2])
    who = [[i] for i, size in enumerate(sizes) for _ in range(size)] + [[]] * nobody
    for _ in range(several):
        people = 3 if rng.random() < 0.15 else 2
        who.append(sorted(int(i) for i in rng.choice(len(sizes), people, replace=False, p=sizes / sizes.sum())))
    order = rng.permutation(posts)
    table = [make_post(seed, int(ids[k]), [cast[i] for i in who[order[k]]]) for k in range(posts)]
    spread_dirt(table, rng)
    once = DETAILS[-min(TAGS_SEEN_ONCE, posts // 20) :]
    tagged = [post for post in table if 0 < len(post.general) < 30]
    for tag, k in zip(once, rng.choice(len(tagged), len(once), replace=False), strict=True):
        tagged[k].general = sorted({*tagged[k].general, tag})
    return table


def make_post(seed: int, post_id: int, characters: list[Character]) -> Post:
    """One clean post of these characters, or of nobody in particular."""
    rng = np.random.default_rng([seed, post_id])
    looks, known = [], []
    for character in characters:
        look, words = pose(rng, character.look, has_prop=len(characters) == 1)
        looks.append(look)
        known += words + [trait for trait in character.traits if rng.random() < TRAIT]
    copyrights = sorted({character.series for character in characters})
    if not characters:
        copyrights = ["original"]
        if rng.random() < 0.7:
            looks = [pose(rng, invent_look(rng, pick(rng, ("starlit_academy", "pocket_orbit", "summer_postbox"))))[0]]
    scene = stage(rng, len(looks))
    common = DETAILS[:-TAGS_SEEN_ONCE]
    zipf = 1 / (np.arange(len(common)) + 2.0)
    details = [common[i] for i in rng.choice(len(common), rng.poisson(DETAILS_A_POST), p=zipf / zipf.sum())]
    general = [tag for tag in visible_tags(looks, scene) if rng.random() >= FORGOTTEN_TAG]
    general = {*general, *drop_colors([*details, *known], scene)}
    if rng.random() < WRONG_TAG:
        general.add(pick(rng, ("glasses", "hat", "twintails", "ponytail", "bow", "short_hair", "smile")))
    if rng.random() < MANY_TAGS:
        goal = int(rng.integers(34, 61))
        extra = [common[i] for i in rng.choice(len(common), 60, replace=False)]
        general |= set(drop_colors(extra, scene)[: max(0, goal - len(general))])
    if rng.random() < NO_TAGS:
        general = set()
    meta = [
        tag
        for tag, share in (("highres", 0.6), ("absurdres", 0.15), ("commentary", 0.2), ("translated", 0.05))
        if rng.random() < share
    ]
    names = sorted(character.name for character in characters)
    return Post(
        post_id, names, copyrights, scene.artist.name, sorted(general), meta, "s", False, "valid", looks, scene
    )


def spread_dirt(table: list[Post], rng: np.random.Generator) -> None:
    """Give posts other ratings, bad images and odd numbers of tags: at least one of each kind in any dump."""
    posts = len(table)
    shuffled = [table[i] for i in rng.permutation(posts)]

    def take(share: float) -> list[Post]:
        number = max(1, round(posts * share))
        taken = shuffled[:number]
        del shuffled[:number]
        return taken

    for rating, share in (("q", QUESTIONABLE), ("e", EXPLICIT)):
        for post in take(share):
            post.rating, post.image = rating, "hidden"
    for image, share in (("missing", MISSING_IMAGE), ("truncated", TRUNCATED_IMAGE), ("empty", EMPTY_IMAGES / posts)):
        for post in take(share):
            post.image = image
    for post in take(DELETED):
        post.is_deleted = True
    if all(post.general for post in table):
        take(0)[0].general = []
    if all(len(post.general) <= 30 for post in table):
        post = next(post for post in shuffled if post.general)
        post.general = sorted({*post.general, *drop_colors(DETAILS[:60], post.scene)[:40]})
