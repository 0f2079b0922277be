"""Dan:share: the posts in both test splits, by id, in each set's own version."""

import json

import pyarrow.parquet as pq
import pytest
from dump_factory import Post, write_dump
from test_build_danmul import build, load_in_fresh_process

from dataset_scripts.build_danshare import main


@pytest.fixture
def both(tmp_path):
    """danmul: 80 posts of two characters; dafre: those with even ids and others, under other names."""
    home = tmp_path / "home"
    ours = [Post(i, ["a_(kancolle)" if i % 4 < 2 else "b"], ["x", "y"]) for i in range(1, 81)]
    theirs = [Post(i, ["a_(kantai_collection)" if i % 4 < 2 else "b"], ["z", "y"]) for i in range(2, 121, 2)]
    for name, posts, seed in (("danmul", ours, "0"), ("dafre", theirs, "1")):
        dump = write_dump(tmp_path / f"{name}_dump", posts)
        assert build(dump, home / name, "--tfidf_threshold", "0", "--seed", seed, "--shard_size_mb", "0.004") == 0
    return home


def rows(folder, part, split="test"):
    found = {}
    for path in sorted((folder / part).glob(f"{split}-*.parquet")):
        table = pq.read_table(path)
        names = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["character"]["names"]
        found |= {row["post_id"]: (names[row["character"]], tuple(row["tags"])) for row in table.to_pylist()}
    return found


def share(both, *options):
    return main(["--danmul", str(both / "danmul"), "--dafre", str(both / "dafre"), *options])


def test_share_is_the_intersection_by_id_in_each_sets_own_version(both, capsys):
    assert share(both, "--also_dafre") == 0
    ours, theirs = rows(both / "danmul", "data"), rows(both / "dafre", "data")
    common = sorted(set(ours) & set(theirs))
    assert common
    assert rows(both / "danmul", "share") == {i: ours[i] for i in common}
    assert rows(both / "dafre", "share") == {i: theirs[i] for i in common}
    entry = json.loads((both / "danmul" / "build.json").read_text())["share"]
    assert entry["images"] == len(common) and entry["classes"] == len({ours[i][0] for i in common})
    seen = set(rows(both / "dafre", "data", "train")) | set(rows(both / "dafre", "data", "validation"))
    assert entry["of_these_in_train_or_validation_of_the_other"] == len(set(ours) & seen) > 0
    assert sum(shard["rows"] for shard in entry["shards"]) == len(common)
    assert f"| Dan:share | {len(common)} |" in capsys.readouterr().out


SHARE = """
import json
from datasets import get_dataset_config_names, load_dataset
share = load_dataset("danmul", "share", split="test")
stream = load_dataset("danmul", "share", split="test", streaming=True)
print(json.dumps([share["post_id"][:], [row["post_id"] for row in stream], get_dataset_config_names("danmul"),
                  len(load_dataset("danmul")["train"])]))
"""


def test_load_dataset_danmul_share(both, tmp_path):
    assert share(both) == 0
    ids, streamed, configs, num_train = load_in_fresh_process(both, tmp_path, SHARE)
    assert ids == streamed and sorted(ids) == sorted(rows(both / "danmul", "share"))
    assert configs == ["default", "share"] and num_train == 56


def test_share_is_replaced_only_on_request(both, capsys):
    assert share(both) == 0
    assert share(both) == 2
    assert "--overwrite" in capsys.readouterr().err
    before = (both / "danmul" / "README.md").read_bytes()
    assert share(both, "--overwrite") == 0
    assert (both / "danmul" / "README.md").read_bytes() == before


def test_sets_of_different_boards_and_strangers_are_refused(both, tmp_path, capsys):
    dump = write_dump(tmp_path / "far", [Post(i, ["a"], ["x", "y"]) for i in range(1001, 1021)])
    assert build(dump, both / "other") == 0
    assert main(["--danmul", str(both / "danmul"), "--dafre", str(both / "other")]) == 2
    assert "no id in common" in capsys.readouterr().err
    assert main(["--danmul", str(both / "danmul"), "--dafre", str(tmp_path)]) == 2
    assert "has no build.json" in capsys.readouterr().err
    assert not (both / "danmul" / "share").exists()
