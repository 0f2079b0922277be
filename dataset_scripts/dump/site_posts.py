"""A post beside its picture, in the words of the site it comes from, as gallery-dl writes it down.

Danbooru: `tags_character` and `tag_string_character`. Gelbooru, Moebooru (yande.re): `tags_character` as one string.
Sankaku: lists, ids of letters. e621: `tags` is a dictionary by category. Zerochan: `tags` are "Character:Kafuu Chino".
"""

from __future__ import annotations

import hashlib
import html
import re

from dataset_scripts.dump.records import TAG_KEYS, ListedPost, Tags, parent_of, split_tags

# Posts of Danbooru, and records that name no site, keep their number. A number of another site is another picture, so
# its id here is a hash of both: whatever else lies in the folder, so that posts of two downloads are still the same.
HOME_SITES = ("", "danbooru")
ENTITY = re.compile(r"&#?\w{1,31};")  # Gelbooru's tags: jeanne_d&#039;arc
LETTERS_AND_DIGITS = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SitePost(ListedPost, gc=False):
    """A post of any site; its id is that of this data set once `settle` was called."""

    id: int | str | None = None
    category: object = None  # gallery-dl: the site
    tags: dict[str, Tags] | list | str | None = None
    flags: object = None  # e621: {"deleted": true}

    @property
    def site(self) -> str:
        return self.category if isinstance(self.category, str) else ""

    def by_category(self, name: str) -> set[str]:
        """The tags of a category, of those sites that have them in `tags`."""
        if isinstance(self.tags, dict):
            return split_tags(self.tags.get(name))
        if self.site == "zerochan" and isinstance(self.tags, list):
            words = {
                "character": ("Character:", "VTuber:", "Vtuber:"),
                "general": ("Theme:",),
                "copyright": ("Series:", "Game:"),
            }[name]
            tags = [tag for tag in self.tags if isinstance(tag, str) and tag.startswith(words)]
            return split_tags([tag.partition(":")[2].lower() for tag in tags])
        return set()

    def characters(self) -> set[str]:
        return self.spelled(self.by_category("character") | super().characters())

    def general_tags(self) -> set[str]:
        return self.spelled(self.by_category("general") | super().general_tags())

    def series(self) -> set[str]:
        return self.spelled(self.by_category("copyright") | super().series())

    def spelled(self, tags: set[str]) -> set[str]:
        """Without what HTML makes of quotes."""
        return tags if self.site in HOME_SITES else {ENTITY.sub(lambda name: html.unescape(name[0]), t) for t in tags}


def settle(post: SitePost) -> SitePost:
    """The post with the id it has in this data set.

    Raises ValueError for an id that is none, and where nothing says which of its tags are characters.
    """
    number, is_home = post.id, post.site in HOME_SITES
    if isinstance(number, str) and number.isascii() and number.isdigit():
        number = int(number)
    if isinstance(number, int) and not 0 <= number < 2**63:
        raise ValueError("Expected a number from 0 to 2**63 - 1 - at `$.id`")
    if isinstance(number, str) and (is_home or not LETTERS_AND_DIGITS.fullmatch(number)):
        raise ValueError("Expected a number (or letters and digits, of a site that `category` names) - at `$.id`")
    has_prefixes = post.site == "zerochan" and any(":" in tag for tag in post.tags or () if isinstance(tag, str))
    if not (isinstance(post.tags, dict) or has_prefixes or any(getattr(post, key) is not None for key in TAG_KEYS)):
        found = "tags without categories" if post.tags else "no tags"
        raise ValueError(
            f"Expected general and character tags (tags_general, tags_character, ...), found {found}: get the "
            'metadata again with gallery-dl\'s option "tags" or "metadata" of that site'
        )
    post.is_deleted = post.is_deleted or (isinstance(post.flags, dict) and post.flags.get("deleted") is True)
    post.id = number if is_home or number is None else hash_text(f"{post.site}/{number}")
    if not is_home:
        post.parent_id = hash_text(f"{post.site}/{post.parent_id}") if parent_of(post.parent_id) else None
    return post


def hash_text(text: str) -> int:
    """An id of 63 bits from a name or a relative path: the same on every machine and in every folder."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()) >> 1
