"""Build Dan:mul (paper §III.A): the dump of a tagged image board in, a folder for `load_dataset("danmul")` out."""

from __future__ import annotations

from dataset_scripts.build import build
from dataset_scripts.build_options import build_parser
from dataset_scripts.folder.executors import open_executor
from dataset_scripts.folder.terminal import command_line


@command_line
def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after an error of the user's input in one sentence."""
    options = build_parser().parse_args(argv)
    with open_executor(options.executor, options.workers, options.executor_address) as executor:
        build(options, executor)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
