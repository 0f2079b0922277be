"""What the Hub is sent again when a month of posts is appended to a data set, with its own client and its storage by
chunks (Xet), on a server of this machine.

    python tests/benchmarks/bench_append.py --source mini_booru --output bench_append.json

Builds the dump without the newest posts, pushes it, builds the whole dump, pushes that; as it is, and with Parquet's
content-defined chunking.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hub_server import running_hub  # noqa: E402
from rounds import written  # noqa: E402

from dataset_scripts.build_danmul import main as build  # noqa: E402

PUSH = "from modeling_mfdn.publishing.push import publish_dataset; publish_dataset({folder!r}, 'tester/danmul')"
KINDS = {"as it is": {}, "with content-defined chunks": {"use_content_defined_chunking": True}}


def posts_of(metadata: Path) -> list[bytes]:
    """The lines of a dump that are posts with an id, by rising id."""
    posts = []
    for line in metadata.read_bytes().splitlines(keepends=True):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            posts.append((int(json.loads(line)["id"]), line))
    return [line for _, line in sorted(posts)]


def build_both(source: Path, work: Path, share: float, options: dict) -> list[Path]:
    """The data set without the newest posts, and with them; `options`: further ones of the Parquet writer."""
    folders, writer = [], pq.ParquetWriter
    for name, number in (("before", 1 - share), ("after", 1.0)):
        dump = work / f"dump_{name}"
        if not dump.exists():
            (dump / "metadata_2021").mkdir(parents=True)
            (dump / "512px").symlink_to((source / "512px").resolve())
            posts = posts_of(next((source / "metadata_2021").glob("posts*.json")))
            (dump / "metadata_2021" / "posts.json").write_bytes(b"".join(posts[: round(len(posts) * number)]))
        folders.append(work / f"{'_'.join(['danmul', *options])}_{name}")
        with (
            patch.object(pq, "ParquetWriter", partial(writer, **options)),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            build(["--source", str(dump), "--output", str(folders[-1]), "--workers", "1"])
    return folders


def push(folder: Path, url: str, home: Path) -> None:
    environment = os.environ | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_local",
        "HF_HUB_OFFLINE": "0",
    }
    environment |= {"PYTHONPATH": str(ROOT), "HF_XET_CACHE": str(home / "xet")}
    environment.pop("HF_HUB_DISABLE_XET", None)
    subprocess.run(
        [sys.executable, "-c", PUSH.format(folder=str(folder))], check=True, env=environment, stdout=subprocess.DEVNULL
    )


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, type=Path, help="dump of the layout of mini_booru")
    parser.add_argument("--share", type=float, default=0.01, help="of the posts that are new (default: %(default)s)")
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    work, results = Path(tempfile.mkdtemp(prefix="bench_append_")), {"share_of_new_posts": args.share}
    try:
        for kind, options in KINDS.items():
            sent = []
            folders = build_both(args.source, work, args.share, options)
            with running_hub() as hub:
                for folder in folders:
                    before = hub.chunk_bytes
                    push(folder, hub.url, work / f"home_{len(results)}")
                    sent.append(hub.chunk_bytes - before)
            size = sum(path.stat().st_size for path in folders[1].rglob("*.parquet"))
            results[kind] = {"bytes": size, "sent_first": sent[0], "sent_again": sent[1]}
            results[kind]["share_sent_again"] = round(sent[1] / size, 4)
    finally:
        shutil.rmtree(work)
    print(json.dumps(results, indent=2))
    return written(results, args.output)


if __name__ == "__main__":
    main()
