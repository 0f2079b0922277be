"""Which posts show the same drawing: the hash, the exact search, groups, the split, what is dropped."""

import io

import numpy as np
import pytest
from PIL import Image
from planted_copies import COPIES, drawings, jpeg

from dataset_scripts.dump.check_images import check_content
from dataset_scripts.rules.near_duplicates import (
    Images,
    OtherPosts,
    alike_pictures,
    copies,
    describe_duplicates,
    find_near_train,
    group_posts,
    is_near,
    join_families,
    joined,
)
from dataset_scripts.rules.picture_hash import MIRRORED_BITS, from_text, to_text
from dataset_scripts.rules.posts_table import PostsTable
from dataset_scripts.rules.split_posts import assign_splits, split_sizes

RNG = np.random.default_rng(0)
NONE = np.zeros(4, np.uint64)
DRAWING, FAR, FARTHER = RNG.integers(1, 2**63, (3, 4), dtype=np.uint64)


def hash_of(content: bytes) -> np.ndarray:
    return np.array(check_content(content, hashes=True).picture_hash, np.uint64)


def ids(*values):
    return np.array(values, np.int64)


def hashes(*rows):
    return np.array(rows, np.uint64).reshape(-1, 4)


def files(*values):
    return np.array(values, np.uint64)


def posts_of(post_ids, families=None, file_hashes=None, characters=None) -> PostsTable:
    number = len(post_ids)
    zeros, names = np.zeros(number, np.int32), ["alice", "bob"]
    return PostsTable(
        post_ids,
        zeros if characters is None else characters,
        zeros,
        zeros.astype(bool),
        post_ids if families is None else families,
        files(*[0] * number) if file_hashes is None else file_hashes,
        zeros,
        ids(),
        names,
        ["s"],
        [],
    )


def images_of(pictures, num_pixels=None, num_bytes=None) -> Images:
    one = np.ones(len(pictures), np.int64)
    num_pixels, num_bytes = (one if values is None else values for values in (num_pixels, num_bytes))
    return Images(one, num_bytes, num_pixels, pictures, {})


def flipped(hash_, *bits):
    """With these of its 256 bits the other way round."""
    changed = hash_.copy()
    for bit in bits:
        changed[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return changed


def test_copies_are_found_and_other_pictures_are_not():
    """Recall of each kind of copy, and precision, at the default distance. Larger crops are beyond 64 bits."""
    pairs = drawings(25)
    own = np.array([hash_of(jpeg(picture)) for picture, _ in pairs])
    assert (own != 0).all()
    assert all(np.array_equal(from_text(to_text(own[i : i + 3])), own[i : i + 3]) for i in range(3))
    recall = {}
    for name, copy in COPIES.items():
        found = [is_near(hash_of(copy(picture)), own, 6) for picture, _ in pairs]
        recall[name] = np.mean([row[place] for place, row in enumerate(found)])
        assert sum(map(sum, found)) == recall[name] * len(pairs), name  # nothing but its own picture
    assert {name for name, share in recall.items() if share < 0.95} <= {
        *("hue shifted by 20°", "cropped by 2 %", "cropped by 3 %", "cropped by 5 %")
    }
    assert min(recall["hue shifted by 20°"], recall["cropped by 2 %"]) > 0.6
    same_pose = [
        is_near(hash_of(jpeg(other)), hash_[None], 6)[0] for (_, other), hash_ in zip(pairs, own, strict=True)
    ]
    assert np.mean(same_pose) < 0.05


def test_a_plain_picture_has_no_hash_and_kinds_of_files_do_not_matter():
    picture = Image.fromarray(RNG.integers(0, 256, (9, 7, 3), np.uint8)).resize((350, 450), Image.Resampling.BICUBIC)
    saved = {}
    for kind, options in {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        saved[kind] = hash_of(buffer.getvalue())
    buffer = io.BytesIO()
    picture.convert("CMYK").save(buffer, "JPEG", quality=95)
    saved["CMYK"] = hash_of(buffer.getvalue())
    saved["large"] = hash_of(jpeg(picture.resize((2100, 2700))))
    assert (saved["PNG"] == saved["WEBP"]).all()
    assert is_near(saved["PNG"], np.array(list(saved.values())), 4).all()
    for color in ("white", "#7f8081"):
        assert not hash_of(jpeg(Image.new("RGB", (300, 200), color))).any()
    assert to_text(hashes(NONE, DRAWING))[0] is None


@pytest.mark.parametrize("distance", [0, 3, 4, 7])
def test_the_search_finds_exactly_what_comparing_all_would(distance):
    """In hashes that are much more alike than chance, some of them mirrored."""
    some = RNG.integers(1, 2**63, (40, 4), dtype=np.uint64)[RNG.integers(0, 40, 3_000)]
    for _ in range(5):
        some[:, 0] ^= np.uint64(1) << RNG.integers(0, 64, len(some), dtype=np.uint64)
    for _ in range(24):  # so that some agree in the first word and not in the others
        some[:, RNG.integers(1, 4)] ^= np.uint64(1) << RNG.integers(0, 64, len(some), dtype=np.uint64)
    some[::3] ^= MIRRORED_BITS
    some[::50] = 0
    characters = RNG.integers(0, 2, len(some))
    near = np.stack([is_near(value, some, distance) for value in some])
    first, second = np.nonzero(near & (characters[:, None] == characters))
    assert (alike_pictures(some, characters, distance) == joined(len(some), first, second)).all()
    differ = some[:, None, 0] ^ some[None, :, 0]
    in_first_word = np.minimum(np.bitwise_count(differ), np.bitwise_count(differ ^ MIRRORED_BITS[0])) <= distance
    assert distance < 6 or 3_500 < near.sum() < 0.9 * in_first_word.sum()
    with pytest.raises(ValueError, match="0 to 7 bits, got 8"):
        alike_pictures(some, characters, 8)


def test_no_posts_and_no_hashes():
    assert len(alike_pictures(hashes(), ids(), 6)) == 0
    assert alike_pictures(hashes(NONE, NONE, FAR, FAR, FAR), ids(0, 0, 0, 0, 1), 6).tolist() == [0, 1, 2, 2, 4]
    assert len(group_posts(posts_of(ids()), hashes(), 6)["any"]) == 0
    assert not copies(posts_of(ids()), images_of(hashes()), 6).any()


def test_families_of_parents():
    """A parent that is not there joins its children; a circle is a family; a post may be its own parent."""
    post_ids = ids(10, 11, 12, 13, 14, 15, 16, 17)
    parents = ids(99, 99, 12, 14, 13, 13, 10, 17)
    assert join_families(post_ids, parents).tolist() == [10, 10, 12, 13, 13, 13, 10, 17]
    assert join_families(post_ids, post_ids) is post_ids
    doubled = join_families(ids(5, 5, 6), ids(5, 4, 6))  # two records of a post
    assert doubled.tolist() == [4, 4, 6]


def test_groups_join_parents_files_and_pictures():
    post_ids = ids(50, 10, 20, 30, 40, 60)
    families = ids(50, 10, 10, 30, 40, 60)
    pictures = hashes(NONE, FAR, FARTHER, DRAWING, flipped(DRAWING, 3, 9, 30, 64, 200) ^ MIRRORED_BITS, NONE)
    groups = group_posts(posts_of(post_ids, families, files(0, 0, 7, 7, 0, 0)), pictures, 6)
    assert groups["parent"].tolist() == [50, 10, 10, 30, 40, 60]
    assert groups["file"].tolist() == [50, 10, 20, 20, 40, 60]
    assert groups["picture"].tolist() == [50, 10, 20, 30, 30, 60]
    assert groups["any"].tolist() == [50, 10, 10, 10, 10, 60]


def test_test_posts_near_train_are_told_also_those_of_another_data_set():
    posts = posts_of(ids(1, 2, 3, 4, 5), ids(1, 1, 3, 4, 3))
    pictures = hashes(NONE, NONE, NONE, DRAWING, NONE)
    found = find_near_train(group_posts(posts, pictures, 6), np.array([0, 2, 1, 2, 2], np.int8))
    assert found.near_train.tolist() == [False, True, False, False, False]
    assert found.statistics == {
        "groups": 2,
        "posts_in_groups": 4,
        "largest_group": 2,
        "posts_by_relation": {"parent": 4, "file": 0, "picture": 0},
        "groups_across_splits": 2,
        "near_train": {"validation": 0, "test": 1},
    }
    assert "1 test" in describe_duplicates(found.statistics)
    alike = hashes(NONE, flipped(DRAWING, 5))
    for names, is_near_other in ((["carol", "alice"], True), (["alice", "carol"], False)):
        others = OtherPosts(ids(90, 91), ids(3, 91), alike, ids(0, 1), names)
        relations = group_posts(posts, pictures, 6, others)
        found = find_near_train(relations, np.array([1, 2, 1, 2, 2], np.int8))
        assert found.near_train.tolist() == [False, False, True, is_near_other, True]


def test_groups_stay_in_one_split_and_the_counts_are_those_of_the_rule():
    number = 3_000
    post_ids = np.arange(number)
    characters = (RNG.pareto(1.0, number) * 2).astype(np.int64) % 40
    characters = np.unique(characters, return_inverse=True)[1]
    groups = post_ids - post_ids % RNG.choice([1, 1, 1, 2, 3], number)  # some join posts of several characters
    groups = joined(number, post_ids, groups)
    splits = assign_splits(post_ids, characters, 0, groups=groups)
    for group in np.unique(groups):
        assert len(np.unique(splits[groups == group])) == 1
    counts = np.stack([np.bincount(characters[splits == split], minlength=characters.max() + 1) for split in range(3)])
    wanted = np.stack(split_sizes(np.bincount(characters)))
    large = wanted.sum(axis=0) >= 40
    assert large.sum() > 5 and (counts == wanted)[:, large].all()
    assert abs(counts - wanted).sum() < 0.02 * number
    sizes = np.bincount(groups, minlength=number)[groups]
    shares = [np.mean(sizes[splits == split] > 1) for split in range(3)]
    assert max(shares) - min(shares) < 0.15  # test is not made of lonely posts
    again = RNG.permutation(number)
    assert (assign_splits(post_ids[again], characters[again], 0, groups=groups[again]) == splits[again]).all()
    other = assign_splits(post_ids, characters, 1, groups=groups)
    assert (other != splits).any()


def test_a_group_larger_than_a_split_goes_to_train():
    post_ids, characters = np.arange(20), np.repeat([0, 1], 10)
    groups = np.where(post_ids < 9, 0, post_ids)  # 9 of 10 posts of character 0; its train has 7
    splits = assign_splits(post_ids, characters, 0, groups=groups)
    assert (splits[:9] == 0).all() and splits[9] == 2
    assert np.bincount(splits[10:]).tolist() == [7, 1, 2]
    held_out = assign_splits(post_ids, characters, 0, held_out=True, groups=groups)
    assert len(set(held_out[:9])) == 1 and not (held_out == 0).any()


def test_the_best_picture_of_a_copy_stays():
    """Better is more pixels, then more bytes, then the lower id. Another character is no copy, nor is a child."""
    mirrored = flipped(DRAWING, 2) ^ MIRRORED_BITS
    #           copies ─────────────────────────────────┐ other character, alone, alone, same file, same file
    pictures = hashes(DRAWING, flipped(DRAWING, 1), mirrored, DRAWING, FAR, FARTHER, NONE, NONE)
    same_files = files(0, 0, 0, 0, 0, 0, 3, 3)
    post_ids, characters = ids(7, 8, 9, 10, 11, 12, 13, 14), ids(0, 0, 0, 1, 0, 0, 0, 0)
    pixels, num_bytes = ids(100, 400, 400, 900, 1, 1, 5, 5), ids(1, 5, 6, 1, 1, 1, 2, 2)
    posts = posts_of(post_ids, None, same_files, characters)
    dropped = copies(posts, images_of(pictures, pixels, num_bytes), 6)
    assert post_ids[dropped].tolist() == [7, 8, 14]
    earlier = OtherPosts(ids(1, 2), ids(1, 2), hashes(NONE, flipped(DRAWING, 7)), ids(0, 0), ["alice"])
    dropped = copies(posts, images_of(pictures, pixels, num_bytes), 6, earlier)
    assert post_ids[dropped].tolist() == [7, 8, 9, 14]


def test_nothing_goes_that_is_like_nothing_that_stays():
    """In a chain of pictures of which only neighbours are alike."""
    chain = [DRAWING]
    for step in range(8):
        chain.append(flipped(chain[-1], *range(6 * step, 6 * step + 6)))
    pictures = np.array(chain)
    assert (alike_pictures(pictures, np.zeros(9, int), 6) == 0).all()
    dropped = copies(posts_of(np.arange(9)), images_of(pictures), 6)
    kept = pictures[~dropped]
    assert 0 < dropped.sum() < 8
    for value in pictures[dropped]:
        assert is_near(value, kept, 6).any()
    for place, value in enumerate(kept):
        assert is_near(value, kept, 6).sum() == 1, place
