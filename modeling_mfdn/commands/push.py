"""`mfdn push`: a model or a data set to the Hub."""

from enum import StrEnum
from typing import Annotated

from typer import Argument, Option

from ..training.terminal import command_line, exits

What = StrEnum("What", ["model", "dataset"])


@exits
@command_line
def push(
    what: Annotated[What, Argument(help="what the folder is")],
    folder: Annotated[str, Argument(help="written by train_mfdn.py, or by dataset_scripts.build_danmul")],
    repository: Annotated[str, Argument(help="NAME/REPOSITORY; without NAME, the one that you are logged in as")],
    dataset_id: Annotated[
        str | None, Option("--dataset_id", help="of a model: the data set on the Hub that it was measured on")
    ] = None,
    private: Annotated[bool, Option("--private", help="a new repository is private")] = False,
    revision: Annotated[str | None, Option("--revision", help="branch; default main")] = None,
    message: Annotated[str | None, Option("--message", help="of the commit")] = None,
    dry_run: Annotated[bool, Option("--dry_run", help="only say what would be uploaded")] = False,
) -> int:
    """Upload a folder to the Hub, with a fresh card. Broken off, the same command goes on.

    Example: mfdn push model mfdn NAME/mfdn --dry_run
    """
    from ..publishing.push import push_folder

    options = {"private": private or None, "revision": revision, "message": message, "dry_run": dry_run}
    push_folder(what.value, folder, repository, dataset_id, **options)
    return 0
