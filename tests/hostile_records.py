"""Metadata as strangers have them, damaged in every way that comes to mind; what was whole must come out whole.

    python -m tests.hostile_records --number 20000 --seed 18

For each input the posts that nothing touched are known. They are read with their own characters and tags, or the file
is refused in a sentence that names it; anything else is counted here, with the seed that makes it again.
"""

import argparse
import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from upath import UPath

sys.path.insert(0, str(Path(__file__).parent))

from dump_factory import Post, picture  # noqa: E402
from test_parse import rows  # noqa: E402

from dataset_scripts.dump.find_dump import find_dump  # noqa: E402
from dataset_scripts.dump.parse import merge, parse  # noqa: E402

WORDS = ["long_hair", "smile", "1girl", "帽子", "hello,_good-bye", ">_<", "a_b_(c)", "été", "x" * 60, ":3"]
PACKERS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
SECONDS = 20  # after which an input counts as a hang


@dataclass
class Dump:
    """An input: what was done to it, which posts are whole, and whether damage can be told at all."""

    name: str
    posts: list[Post]
    touched: set[int] = field(default_factory=set)
    is_whole: bool = False  # nothing was done: it must be read without a word


def make_posts(rng: random.Random) -> list[Post]:
    ids = rng.sample(range(1, 10_000), rng.randrange(2, 30))
    return [Post(i, [rng.choice(["rem", "saber_(alter)", "初音"])], rng.sample(WORDS, rng.randrange(5))) for i in ids]


def spoil_text(rng: random.Random, line: str) -> bytes:
    """One record, damaged, that begins and ends where it did."""
    content = bytearray(line.encode())
    place = rng.randrange(len(content))
    way = rng.randrange(12)
    if way == 0:
        del content[place:]
    elif way == 1:
        content[place] ^= 1 << rng.randrange(8)
    elif way == 2:
        content[place:place] = rng.randbytes(rng.randrange(1, 20))
    elif way == 3:
        content[place:place] = rng.choice([b"[", b"]", b"{", b"}", b'"', b"\\", b"\0", b"\xff", b"\xef\xbb\xbf", b","])
    elif way == 4:
        content = bytearray(
            rng.choice([b"null", b"[]", b"{}", b"1", b'"a"', b"NaN", b"<html>", b"[" * 5000, b"tag_string"])
        )
    elif way == 5:
        content = bytearray(
            content.replace(b'"id": "', b'"id": "' + rng.choice([b"-", b"1.5", b"9" * 25, b"x", b" "]))
        )
    elif way == 6:
        content += b" " * rng.choice([10, 2**20 + 5])
    elif way == 7:
        content = bytearray(
            json.dumps({"tag_string": "a", "id": None, "tags": rng.choice([1, "a", {}, [[]], [None]])}).encode()
        )
    elif way == 8:
        del content[place : place + rng.randrange(1, 30)]
    elif way == 9:
        content[:] = content.replace(b"tag", b"gat")
    elif way == 10:
        content[:] = bytes(reversed(content))
    else:
        content[place : place + 8] = bytes(8)
    return bytes(content.replace(b"\n", b" ").replace(b"\r", b" "))


def write_json(rng: random.Random, folder: Path) -> Dump:
    """Lines or an array, packed or not, in a tar or not; records or bytes of it damaged."""
    posts, generation = make_posts(rng), rng.choice(["flat", "nested"])
    shape, packer = rng.choice(["lines", "array", "pretty"]), rng.choice(["", "", *PACKERS])
    in_tar = rng.random() < 0.4
    damage = rng.choice(["none", "records", "bytes"])
    dump = Dump(f"{shape} of {generation} posts{' in a tar' * in_tar}{packer}, damage of {damage}", posts)
    dump.is_whole = damage == "none"
    records = [getattr(post, generation)().encode() for post in posts]
    if damage == "records":
        for place in rng.sample(range(len(posts)), rng.randrange(1, len(posts))):
            records[place] = spoil_text(rng, records[place].decode())
            dump.touched.add(posts[place].id)
    glue = {"lines": b"\n", "array": b",", "pretty": b",\n\n  "}[shape]
    content = glue.join(records) if shape == "lines" else b"[" + glue.join(records) + b"]"
    if in_tar:
        buffer = io.BytesIO()
        kind = rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
            for number, part in enumerate(parts_of(records, rng)):
                info = tarfile.TarInfo(f"{'a/' * rng.choice([0, 60])}posts{number}.json")
                content = glue.join(part) if shape == "lines" else b"[" + glue.join(part) + b"]"
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        content = buffer.getvalue()
    packed = PACKERS[packer](content)
    if damage == "bytes":
        begin, end, packed = spoil_bytes(rng, packed)
        is_cut = end == 2**60
        if not packer and in_tar and not is_cut:  # what was moved by up to 200 bytes leaves its member
            dump.touched |= {post.id for post in posts[-2:]}
        if not packer and not (in_tar and is_cut):  # without a sum or an end, the records that touch it are spoilt
            for post, record in zip(posts, records, strict=True):
                start = content.index(record)
                if start - len(glue) <= end and begin <= start + len(record) + len(glue):
                    dump.touched.add(post.id)
    suffix = ".json" + (".tar" if in_tar else "") + packer
    (folder / "metadata").mkdir()
    (folder / "metadata" / f"posts{suffix}").write_bytes(packed)
    return dump


def parts_of(records: list[bytes], rng: random.Random) -> list[list[bytes]]:
    """One to three parts, none of them empty."""
    cuts = sorted(rng.sample(range(1, len(records)), min(rng.randrange(3), len(records) - 1)))
    return [records[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]


def spoil_bytes(rng: random.Random, content: bytes) -> tuple[int, int, bytes]:
    """First and last byte that were touched, and the content."""
    place, length = rng.randrange(len(content)), rng.randrange(1, 200)
    if rng.random() < 0.4:  # where the blocks and headers of a tar begin
        place = place // 512 * 512
    way = rng.randrange(5)
    if way == 0:
        return place, 2**60, content[:place]
    if way == 1:
        return place, place, content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
    if way == 2:
        return (
            place,
            place + length,
            content[:place] + bytes(len(content[place : place + length])) + content[place + length :],
        )
    if way == 3:
        return place, place + length, content[:place] + content[place + length :]
    return place, place, content[:place] + rng.randbytes(length) + content[place:]


def write_table(rng: random.Random, folder: Path) -> Dump:
    """Parquet: some values of another kind, or bytes damaged."""
    posts, damage = make_posts(rng), rng.choice(["none", "records", "bytes"])
    dump = Dump(f"Parquet, damage of {damage}", posts, is_whole=damage == "none")
    as_lists = rng.random() < 0.5
    ids = [post.id for post in posts]
    tags = [[word.encode() for word in post.general] for post in posts]
    if damage == "records":
        for place in rng.sample(range(len(posts)), rng.randrange(1, len(posts))):
            dump.touched.add(posts[place].id)
            if rng.random() < 0.5:
                ids[place] = rng.choice([0.5, float("inf"), -1, 2.0**70, float("nan")])
            else:
                tags[place] = [b"\xff\xfe"]
        ids = [float(i) for i in ids]
    general = pa.array(tags, pa.list_(pa.binary())) if as_lists else pa.array([b" ".join(row) for row in tags])
    general = general.view(pa.list_(pa.string()) if as_lists else pa.string())
    names = ("general_tags", "character_tags") if as_lists else ("tag_string_general", "tag_string_character")
    characters = [post.characters if as_lists else post.characters[0] for post in posts]
    table = pa.table({"id": ids, names[0]: general, names[1]: characters})
    pq.write_table(
        table,
        folder / "posts.parquet",
        row_group_size=rng.randrange(1, 20),
        compression=rng.choice(["zstd", "snappy"]),
    )
    if damage == "bytes":
        dump.touched = {post.id for post in posts}  # its pages have no sums
        _, _, content = spoil_bytes(rng, (folder / "posts.parquet").read_bytes())
        (folder / "posts.parquet").write_bytes(content)
    return dump


def write_dafre(rng: random.Random, folder: Path) -> Dump:
    """The CSVs of DAF:re, some lines damaged."""
    posts = make_posts(rng)
    dump = Dump("CSVs of DAF:re", posts)
    labels = folder / "labels"
    labels.mkdir()
    names = sorted({post.characters[0] for post in posts})
    (labels / "classid_classname.csv").write_text(
        "".join(f"{i},{name}\n" for i, name in enumerate(names)), encoding="utf-8"
    )
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["id", "dir", "class_id", "tags_cat0"])
    writer.writerows([post.id, "", 0, repr(post.general)] for post in posts)
    (labels / "train_tags.csv").write_text(buffer.getvalue(), encoding="utf-8")
    lines = [f"{names.index(post.characters[0])},{post.id % 1000:04d}/{post.id}.jpg" for post in posts]
    for place in rng.sample(range(len(posts)), rng.randrange(len(posts))):
        dump.touched.add(posts[place].id)
        lines[place] = rng.choice(
            ['"' + lines[place], lines[place] + '"', lines[place][:3], "x,y,z", '"a""', ",,", "9" * 40]
        )
    (labels / "train.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    dump.is_whole = not dump.touched
    return dump


def write_beside(rng: random.Random, folder: Path) -> Dump:
    """A picture and its record each, in a folder or in a tar."""
    posts, in_tar = make_posts(rng), rng.random() < 0.5
    dump = Dump("records in a WebDataset" if in_tar else "records beside pictures", posts)
    spoilt = set(rng.sample(range(len(posts)), rng.randrange(len(posts))))
    files = {}
    for place, post in enumerate(posts):
        record = post.flat()
        if place in spoilt:
            dump.touched.add(post.id)
            record = spoil_text(rng, record)
        files[f"{post.id}.jpg"] = picture(post.id)
        files[f"{post.id}.json" if in_tar else f"{post.id}.jpg.json"] = (
            record if isinstance(record, bytes) else record.encode()
        )
    dump.is_whole = not spoilt
    if not in_tar:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return dump
    with tarfile.open(folder / "data-000.tar", "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    if rng.random() < 0.3:  # its ends and headers have sums; what is in it has none
        content = (folder / "data-000.tar").read_bytes()
        place = rng.randrange(len(content))
        (folder / "data-000.tar").write_bytes(content[:place])
        dump.name, dump.is_whole = "a WebDataset that was cut", False
    return dump


WRITERS = (write_json, write_json, write_json, write_table, write_dafre, write_beside)


class Hang(Exception):
    """An input took longer than SECONDS."""


@contextlib.contextmanager
def time_limit():
    def ring(*_):
        raise Hang

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def judge(dump: Dump, folder: Path) -> str:
    """ "read", "refused", or what is wrong: "traceback: …", "hang", "lost: …", "mixed: …"."""
    try:
        with time_limit():
            found = find_dump(UPath(folder), "auto")
            parsed = merge((task, parse(task)) for task in found.tasks)
    except Hang:
        return "hang"
    except (ValueError, OSError) as error:
        return f"refused though whole: {error}" if dump.is_whole else "refused"
    except Exception:
        return f"traceback: {traceback.format_exc(limit=-3)}"
    seen: dict[int, list] = {}
    for post_id, character, tags, *_ in rows(parsed.posts):
        seen.setdefault(post_id, []).append((character, tags))
    for post in dump.posts:
        if post.id in dump.touched or ("in a tar" in dump.name and parsed.ignored):
            continue  # or the name of its file was, which is counted as one that is not read
        expected = (post.characters[0], sorted(set(post.general)))
        if expected not in seen.get(post.id, []):
            return (
                f"{'mixed' if post.id in seen else 'lost'}: post {post.id} is {seen.get(post.id)}, expected {expected}"
            )
    if dump.is_whole and parsed.num_bad:
        return f"called bad though whole: {parsed.bad_lines[0]}"
    return "read"


def campaign(number: int, seed: int, seconds: float = float("inf"), say=print) -> Counter[str]:
    """Outcomes of so many inputs, each made from (seed, its number)."""
    outcomes, end = Counter(), time.monotonic() + seconds
    for place in range(number):
        if time.monotonic() > end:
            break
        folder = Path(tempfile.mkdtemp(prefix="hostile_"))
        try:
            rng = random.Random(f"{seed} {place}")
            dump = rng.choice(WRITERS)(rng, folder)
            outcome = judge(dump, folder)
        finally:
            shutil.rmtree(folder)
        kind = outcome.partition(":")[0]
        outcomes[kind] += 1
        if kind not in ("read", "refused"):
            say(f"{place}: {dump.name}: {outcome}")
    return outcomes


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    args = parser.parse_args(argv)
    campaign(20, args.seed)  # what every reading needs
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = campaign(args.number, args.seed, args.seconds)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) // 1024
    print(f"{outcomes.total():,} inputs, seed {args.seed}: {dict(outcomes)}; {peak} MB above idle")
    return int(bool(outcomes.keys() - {"read", "refused"}))


if __name__ == "__main__":
    raise SystemExit(main())
