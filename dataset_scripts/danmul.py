"""Dan:mul as a `datasets` builder. Apart from the command line, whose processes need not load `datasets`."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

import datasets

from dataset_scripts.build_danmul import build
from dataset_scripts.folder.build_options import build_parser
from dataset_scripts.folder.card import fingerprint
from dataset_scripts.folder.executors import open_executor
from dataset_scripts.folder.lists import read_record, recorded_options
from dataset_scripts.rules.split_posts import SPLITS


@dataclass
class DanMulConfig(datasets.BuilderConfig):
    """What [`DanMul`] builds.

    Args:
        source: folder of the dump.
        output: folder to build, or that an earlier call has built; default: the name of the configuration.
        options: further flags of `build_danmul`, such as ["--min_posts", "20"].
        workers: processes.
    """

    source: str | None = None
    output: str | None = None
    options: tuple[str, ...] = ()
    workers: int = 2


# DAF:re's labels are what its authors had filtered: no rule of ours applies.
DAFRE_OPTIONS = (
    "--format",
    "dafre",
    "--split",
    "published",
    "--min_posts",
    "1",
    "--min_tag_posts",
    "1",
    "--tfidf_threshold",
    "0",
    "--emoticon_pattern",
    "(?!)",
)


class DanMul(datasets.ArrowBasedBuilder):
    """Builds the folder from a dump where it is not there yet, and gives it as a data set.

    >>> builder = DanMul(config_name="danmul", source="mini_booru", output="danmul")
    >>> builder.download_and_prepare()
    >>> builder.as_dataset(split="train")         # or builder.as_streaming_dataset(split="train"), without a copy
    >>> datasets.load_dataset("danmul")           # the folder alone does as well

    Configurations: "danmul" (the paper's rules), "dafre" (the published CSVs of DAF:re, with their split),
    "dafre_style" (any dump by DAF:re's rule, 20 images a character), "danshare" (the share of a built danmul folder,
    `output`; see `build_danshare`).
    """

    BUILDER_CONFIG_CLASS = DanMulConfig
    BUILDER_CONFIGS = [
        DanMulConfig(name="danmul", description="the paper's rules"),
        DanMulConfig(name="dafre", description="DAF:re's published CSVs", options=DAFRE_OPTIONS),
        DanMulConfig(name="dafre_style", description="DAF:re's rule on any dump", options=("--min_posts", "20")),
        DanMulConfig(name="danshare", description="posts in the test splits of danmul and dafre", output="danmul"),
    ]
    DEFAULT_CONFIG_NAME = "danmul"

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(description=self.config.description)  # the shards know their features

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.folder = Path(os.path.abspath(self.config.output or self.config.name))  # wherever the program goes next
        self.source = self.config.source and os.path.abspath(self.config.source)

    def build_folder(self) -> Path:
        """The folder, built now unless one with the same options is there.

        Raises:
            ValueError: no source; a folder that was built with other options.
            FileNotFoundError: "danshare" without its share.
        """
        config, folder = self.config, self.folder
        if config.name.startswith("danshare"):
            if not any(folder.glob("share/test-*.parquet")):
                raise FileNotFoundError(f"{folder} has no share/: run python -m dataset_scripts.build_danshare first.")
            return folder
        if self.source is None:
            raise ValueError("Expected the folder of a dump: DanMul(..., source=DUMP).")
        argv = ["--source", self.source, "--output", str(folder), "--workers", str(config.workers), *config.options]
        options = build_parser().parse_args(argv)
        if (folder / "build.json").is_file():
            found = read_record(folder)["options"]
            asked = recorded_options(vars(options))
            if found != asked:
                different = sorted(name for name, value in asked.items() if found.get(name) != value)
                raise ValueError(f"{folder} was built with other {', '.join(different)}: choose another output.")
            return folder
        with open_executor(options.executor, options.workers, options.executor_address) as executor:
            build(options, executor)
        return folder

    def loader(self) -> datasets.DatasetBuilder:
        """What reads the shards of the folder. Its cache goes by their paths, their times and their content: never by
        the names that a configuration was given, which mean other data in another project or after a rebuild."""
        folder = self.build_folder()
        part = "share" if self.config.name.startswith("danshare") else "data"
        files = {name: sorted((folder / part).glob(f"{name}-*.parquet")) for name in SPLITS}
        return datasets.load_dataset_builder(
            "parquet",
            name=f"{self.config.name}-{fingerprint(read_record(folder))}",
            # Escaped: `out[v1]` is the name of a folder here and no pattern.
            data_files={name: [glob.escape(str(path)) for path in paths] for name, paths in files.items() if paths},
            cache_dir=self._cache_dir_root,
        )

    def download_and_prepare(self, *args, **options) -> None:
        """Build the folder where it is not there yet, and make its shards ready for `as_dataset`."""
        loader = self.loader()
        loader.download_and_prepare(*args, **options)
        self.info = loader.info

    def as_dataset(self, *args, **options) -> datasets.Dataset | datasets.DatasetDict:
        """The data set, or a split of it, after [`DanMul.download_and_prepare`]."""
        return self.loader().as_dataset(*args, **options)

    def as_streaming_dataset(self, *args, **options) -> datasets.IterableDataset | datasets.IterableDatasetDict:
        """The same row by row from the folder itself, without a copy."""
        return self.loader().as_streaming_dataset(*args, **options)
