"""Tables I, II, III and Fig. 2 of the paper, from arrays with an entry for each post, beside the paper's numbers."""

from __future__ import annotations

import numpy as np
from upath import UPath

from dataset_scripts.rules.split_posts import SPLITS

SPECIAL_TOKENS = 5  # [PAD] [UNK] [CLS] [SEP] [MASK]: the paper's 13,505 tags of DAF:re count them
COLUMN_NAMES = {"train": "Train", "test": "Test", "validation": "Val"}
# As printed in the paper, Tables I to III.
PAPER_TABLE_1 = {
    "train": (1_125_100, 7, 29_807, 78.06, 0, 327, 24.067),
    "test": (398_412, 2, 10_645, 27.64, 0, 265, 24.074),
    "validation": (92_726, 1, 2_130, 6.43, 0, 194, 23.904),
}
PAPER_TABLE_2 = {
    "DAF:re (paper)": (463_437, 322_947, 94_440, 46_050, 3_263, 13_505),
    "Dan:mul (paper)": (1_616_238, 1_125_100, 398_412, 92_726, 14_413, 25_404),
}
PAPER_TABLE_3 = ("Dan:share (paper)", 22_629, 2_623)
TABLE_2_COLUMNS = ("Total", "Train", "Test", "Val", "Size", "Class", "Tags")
COLORS = {"train": "#0072b2", "test": "#d55e00", "validation": "#009e73"}  # told apart by the colour-blind too


def table_1(splits: np.ndarray, characters: np.ndarray, tag_counts: np.ndarray, num_characters: int) -> dict:
    """Paper Table I: per split the images, images per class and tags per image (min, max, average).

    Args: [N] arrays, one entry per post: index into SPLITS, character code, number of tags.
    Classes without a post in a split count as 0 there. An empty split has None for min, max and average of its tags.
    """
    table = {}
    for split, name in enumerate(SPLITS):
        rows = splits == split
        per_class, tags = np.bincount(characters[rows], minlength=num_characters), tag_counts[rows]
        table[name] = {
            "num_images": int(rows.sum()),
            "num_classes": int(np.count_nonzero(per_class)),
            "images_per_class": min_max_mean(per_class),
            "tags_per_image": min_max_mean(tags),
        }
    return table


def min_max_mean(values: np.ndarray) -> dict:
    """{"min", "max", "mean"}, the mean to three places; None for all when there are no values."""
    if not len(values):
        return {"min": None, "max": None, "mean": None}
    return {"min": int(values.min()), "max": int(values.max()), "mean": round(float(values.mean()), 3)}


def table_1_markdown(table: dict) -> str:
    """Table I with the paper's rows, its own numbers in the last three columns."""
    columns = list(COLUMN_NAMES)
    titles = [*COLUMN_NAMES.values(), *(f"{name} (paper)" for name in COLUMN_NAMES.values())]
    rows = [("No.Image", [table[name]["num_images"] for name in columns])]
    for key, what in (("images_per_class", "No. Image / Class"), ("tags_per_image", "No. Tags / Image")):
        for statistic, title in (("min", "Min"), ("max", "Max"), ("mean", "Avg")):
            rows.append((f"{title} {what}", [table[name][key][statistic] for name in columns]))
    paper = [[PAPER_TABLE_1[name][row] for name in columns] for row in range(len(rows))]
    cells = [[title, *ours, *theirs] for (title, ours), theirs in zip(rows, paper, strict=True)]
    return markdown_table(["", *titles], cells)


def table_2_markdown(builds: list[tuple[str, dict]]) -> str:
    """Table II: sizes of built data sets (name, build.json) beside those of the paper. Tags count special tokens."""
    rows = [[name, *table_2_row(record)] for name, record in builds]
    rows += [
        [name, *numbers[:4], size, *numbers[4:]]
        for (name, numbers), size in zip(PAPER_TABLE_2.items(), ("128px", "512px"), strict=True)
    ]
    return markdown_table(["Dataset", *TABLE_2_COLUMNS], rows)


def all_statistics(table: dict, record: dict) -> dict:
    """statistics.json: Table I by split, Table II and, where there is a share, Table III of this data set."""
    table_2 = dict(zip(TABLE_2_COLUMNS, table_2_row(record), strict=True))
    table_3 = {name: record["share"][name] for name in ("images", "classes")} if "share" in record else None
    return table | {"table_2": table_2} | ({"table_3": table_3} if table_3 else {})


def table_2_row(record: dict) -> list:
    """Total, Train, Test, Val, Size, Class, Tags of a build.json."""
    counts, size = record["counts"], record["options"].get("image_size")
    splits = [counts["splits"][name] for name in COLUMN_NAMES]
    size = f"short side {size}px" if size else "original"
    return [counts["posts"], *splits, size, counts["characters"], counts["tags_and_special_tokens"]]


def table_3_markdown(record: dict) -> str:
    """Table III: Dan:share, by the entry "share" of build.json."""
    share = record["share"]
    rows = [["Dan:share", share["images"], share["classes"]], [*PAPER_TABLE_3]]
    return markdown_table(["Dataset", "Image", "Class"], rows)


def markdown_table(titles: list[str], rows: list[list]) -> str:
    """A table; numbers with thousands separators, – for None."""

    def cell(value: object) -> str:
        return "–" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)

    lines = [f"| {' | '.join(titles)} |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows])


def draw_figures(folder: UPath, splits: np.ndarray, characters: np.ndarray, tag_counts: np.ndarray) -> None:
    """Fig. 2 as `folder/images_per_character.png` and `folder/tags_per_image.png`. Arguments as of table_1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    sizes = np.sort(np.bincount(characters))[::-1]
    axes.plot(np.arange(1, len(sizes) + 1), sizes, color=COLORS["train"], marker=".", markersize=4, linewidth=1.2)
    axes.set(xscale="log", yscale="log", xlabel="rank of the character", ylabel="images")
    axes.set_title(f"{len(sizes):,} characters, {len(characters):,} images")
    axes.grid(True, which="major", color="0.9")
    for axis in (axes.xaxis, axes.yaxis):  # numbers and not powers, a few of them
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter(ticker.LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.4)))
    save(figure, folder / "images_per_character.png")

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    bins = np.arange(-0.5, np.percentile(tag_counts, 99.9) + 1.5)
    for split, name in enumerate(SPLITS):
        if (splits == split).any():
            axes.hist(
                tag_counts[splits == split],
                bins,
                density=True,
                histtype="step",
                linewidth=1.6,
                color=COLORS[name],
                label=f"{name} ({np.count_nonzero(splits == split):,})",
            )
    mean, deviation = tag_counts.mean(), tag_counts.std()
    if deviation:
        x = np.linspace(bins[0], bins[-1], 300)
        y = np.exp(-(((x - mean) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
        axes.plot(x, y, "--", color="0.35", label=f"normal, μ = {mean:.1f}, σ = {deviation:.1f}")
    axes.set(xlabel="tags of an image", ylabel="share of images", title="Tags per image (paper: about normal, μ = 20)")
    axes.legend(frameon=False)
    save(figure, folder / "tags_per_image.png")


def save(figure, path: UPath) -> None:
    """Write a figure; without dates, so that the same data give the same bytes."""
    from matplotlib import pyplot

    with path.open("wb") as file:
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    pyplot.close(figure)
