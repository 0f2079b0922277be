"""Figures of a training run and of predictions (paper Fig. 4)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..pictures_mfdn import load_rgb, pad_to_square

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..data.parquet_rows import ParquetRows

INK, MUTED, GRID = "#222222", "#6b6b6b", "#e6e6e6"
BLUE, RED, ORANGE, TEAL = "#2f6fb5", "#c8402f", "#d98a1f", "#2a8c82"
MAX_PICTURES = 4
MAX_PAIRS = 6


def training_curves(log_history: Sequence[dict[str, float]], path: str | Path) -> None:
    """Validation accuracy, losses and schedules over optimizer steps, from `trainer.state.log_history`.

    Shaded: the steps in which every tag is hidden. There the accuracy from the image alone should catch up, which is
    the point of the curriculum. A panel or line whose numbers were never logged is left out.
    """
    panels = [
        panel
        for panel in (
            (
                "validation top-1 accuracy",
                [
                    ("eval_image_top1_accuracy", "image", BLUE, "-"),
                    ("eval_image+tags_top1_accuracy", "image + tags", ORANGE, "-"),
                ],
            ),
            (
                "training loss",
                [("character_loss", "characters", BLUE, "-"), ("tag_loss", "hidden tags", TEAL, "-")],
            ),
            (
                "schedules",
                [("mask_ratio", "mask ratio", INK, "-"), ("learning_rate", "learning rate", MUTED, "--")],
            ),
        )
        if any(name in entry for entry in log_history for name, *_ in panel[1])
    ]
    if not panels:
        raise ValueError("log_history holds no loss, schedule or validation. Train for a logging interval first.")
    figure = new_figure(8, 2.3 * len(panels) + 0.4)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (title, lines) in zip(axes, panels, strict=True):
        for name, label, color, style in lines:
            steps, values = _series(log_history, name)
            if len(steps) == 0:
                continue
            if name == "learning_rate":  # on the same axis as the mask ratio: as a share of its largest value
                label, values = f"learning rate / {values.max():.2g}", values / max(values.max(), 1e-30)
            marker = {"marker": "o", "markersize": 3.5} if len(steps) <= 30 else {}
            ax.plot(steps, values, style, color=color, label=label, linewidth=1.8, **marker)
        ax.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
        ax.legend(frameon=False, fontsize=9, loc="best")
        tidy(ax)
        ax.margins(x=0.01)
        if "loss" not in title:
            ax.set_ylim(-0.03, 1.03)
        else:
            ax.set_ylim(bottom=0)
    _shade_hidden(axes, log_history)
    axes[-1].set_xlabel("optimizer step", color=MUTED)
    figure.savefig(path)


def reliability_plot(calibration: dict, path: str | Path) -> None:
    """How often the model is right at each confidence, after calibration; on the dashed line it means what it says."""
    figure = new_figure(5, 4.6)
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    share, confidence = np.array(calibration["share"]), np.array(calibration["confidence"])
    accuracy = np.array(calibration["accuracy"])
    filled, edges = share > 0, np.linspace(0, 1, len(share) + 1)
    ax.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1)
    ax.plot(confidence[filled], accuracy[filled], "o-", color=BLUE, markersize=5, linewidth=1.8)
    before, after = (f"{error:.3f}" for error in (calibration["error_before"], calibration["error_after"]))
    title = f"calibration error {before} at temperature 1, {after} at {calibration['temperature']:g}"
    ax.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    ax.set_ylabel("accuracy", color=MUTED)
    ax.set_ylim(-0.03, 1.03)
    below.bar(edges[:-1], share, width=1 / len(share), align="edge", color=TEAL)
    below.set_xlabel("confidence", color=MUTED)
    below.set_ylabel("share of pictures", color=MUTED)
    for part in (ax, below):
        tidy(part)
    figure.savefig(path)


def draw_unseen(results: dict, path: str | Path) -> None:
    """Characters that nobody trained: accuracy by the number of pictures that teach each, and the OSCR curve.

    Args:
        results: with `open_set` and `few_shot`, as evaluate_mfdn.py --unseen writes them.
    """
    figure = new_figure(10, 3.8)
    left, right = figure.subplots(1, 2)
    lessons, places = results["few_shot"], range(len(results["few_shot"]))
    for name, label, color in (
        ("new", "new, among the new alone", TEAL),
        ("known_joint", "trained, in one ranking", BLUE),
        ("new_joint", "new, in one ranking", ORANGE),
        ("harmonic", "harmonic mean of these two", INK),
    ):
        style = {"color": color, "label": label, "linewidth": 1.8}
        left.plot(places, [lesson[name] for lesson in lessons.values()], "o-", markersize=5, **style)
        bounds = np.array([lesson["interval"][name] for lesson in lessons.values()]).T
        left.fill_between(places, *bounds, color=color, alpha=0.15, linewidth=0)
    left.set_xticks(places, list(lessons))
    left.set_xlabel("pictures that teach each character", color=MUTED)
    left.set_title("top-1 accuracy", loc="left", fontsize=10, fontweight="bold", color=INK)
    left.legend(frameon=False, fontsize=9, loc="lower right")
    found = results["open_set"]
    right.plot(*np.array(found["curve"]).T, color=BLUE, linewidth=1.8)
    right.axhline(results["image"]["top1_accuracy"], color=MUTED, linestyle="--", linewidth=1)
    right.set_xlabel("unseen pictures that are taken for a trained character", color=MUTED)
    title = f"trained ones accepted and right; OSCR {found['oscr']:.3f}, AUROC {found['auroc']:.3f}"
    right.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    for ax in (left, right):
        ax.set_ylim(-0.03, 1.03)
        tidy(ax)
    figure.savefig(path)


def hints_curves(curves: dict[str, dict[str, dict[str, float]]], path: str | Path) -> None:
    """Accuracy by the number of true tags given, a panel for each data set: what lies between Table V's columns.

    Args:
        curves: {data set: {system: {"0": accuracy, "1": …, "all": accuracy}}} from `accuracy_by_hints`.
    """
    figure = new_figure(5 * len(curves), 3.6)
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(name for systems in curves.values() for name in systems))
    colors = dict(zip(names, (TEAL, BLUE, ORANGE, RED), strict=False))
    for ax, (dataset, systems) in zip(panels, curves.items(), strict=True):
        for name, values in systems.items():
            style = {"color": colors[name], "label": name, "markersize": 5, "linewidth": 1.8}
            ax.plot(list(values), list(values.values()), "o-", **style)
        ax.set_xlabel("true tags given", color=MUTED)
        ax.set_title(f"top-1 accuracy, {dataset}", loc="left", fontsize=10, fontweight="bold", color=INK)
        ax.set_ylim(-0.03, 1.03)
        ax.legend(frameon=False, fontsize=9, loc="lower right")
        tidy(ax)
    figure.savefig(path)


def example_picture(
    images: Sequence[Image.Image],
    results: Sequence[dict[str, list[dict[str, Any]]]],
    path: str | Path,
    truths: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Pictures beside the characters and tags that the model names, one row each, at most four (Fig. 4).

    Args:
        images: PIL pictures.
        results: as `processor.post_process` gives them: `{"characters": [{"label", "score"}], "tags": [...]}`.
        path: of the PNG.
        truths: `{"character": name, "tags": [...]}` for each picture. With it a tag is bold when it is named rightly,
            blue when it is missed, red when it is not among the tags of the post (which may forget it).

    Raises:
        ValueError: no picture, or different numbers of pictures, results and truths.
    """
    counts = [len(images), len(results), len(images if truths is None else truths)]
    if not images or len(set(counts)) > 1:
        raise ValueError(f"There must be as many results and truths as pictures, at least one, got {counts}.")
    count = min(len(images), MAX_PICTURES)
    figure = new_figure(11, 2.5 * count + (0.35 if truths is not None else 0), layout=None)
    bottom = 0.35 / figure.get_figheight() if truths is not None else 0.0
    grid = figure.add_gridspec(
        count, 3, width_ratios=[2.3, 3.6, 5.1], left=0.015, right=0.99, top=0.985, bottom=bottom + 0.015, wspace=0.05
    )
    for i in range(count):
        truth = None if truths is None else truths[i]
        picture = figure.add_subplot(grid[i, 0])
        picture.imshow(np.asarray(pad_to_square(images[i])))
        picture.set(xticks=[], yticks=[])
        picture.spines[:].set_color(GRID)
        _character_bars(figure.add_subplot(grid[i, 1]), results[i]["characters"], truth)
        _tag_words(figure.add_subplot(grid[i, 2]), results[i]["tags"], truth)
    if truths is not None:
        legend = [("named rightly", INK, "bold"), ("missed", BLUE, "normal"), ("not in the post", RED, "normal")]
        ax = figure.add_axes((0.552, 0, 0.438, bottom))
        _words(ax, legend, font_size=9, separator="   ")
    figure.savefig(path)


def new_figure(width: float, height: float, layout: str | None = "constrained") -> "Figure":
    # Not pyplot: it would open windows and keep every figure. Imported here: only who draws waits for it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def tidy(ax: "Axes"):
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRID)
    ax.tick_params(colors=MUTED, labelsize=8.5, length=0)
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)


def _series(log_history: Sequence[dict[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    points = {entry["step"]: entry[name] for entry in log_history if name in entry}  # a resumed step counts once
    return np.array(sorted(points), dtype=float), np.array([points[step] for step in sorted(points)], dtype=float)


def _shade_hidden(axes: Sequence["Axes"], log_history: Sequence[dict[str, float]]):
    """Where the mask ratio is held at 1."""
    steps, ratios = _series(log_history, "mask_ratio")
    if len(steps) == 0 or not (ratios >= 1).any() or ratios.min() >= 1:
        return
    first = steps[np.argmax(ratios >= 1)]
    for ax in axes:
        ax.axvspan(first, max(entry["step"] for entry in log_history), color="#f4f1ea", zorder=0, linewidth=0)
    place = {"xy": (first, 0), "xycoords": axes[0].get_xaxis_transform(), "xytext": (5, 5)}
    axes[0].annotate("every tag hidden", textcoords="offset points", fontsize=8.5, color=MUTED, **place)


def _character_bars(ax: "Axes", characters: list[dict], truth: dict | None):
    right = None if truth is None else truth.get("character")
    shown = characters[:5]
    for i, character in enumerate(shown):
        is_right = character["label"] == right
        color = TEAL if is_right else "#8fabc8" if truth is None else "#c9cdd2"
        ax.barh(i, character["score"], color=color, height=0.34)
        # Names may hold "$", which is mathematics for matplotlib.
        ax.text(
            0,
            i - 0.24,
            shortened(character["label"], 38),
            fontsize=9,
            color=INK,
            va="bottom",
            fontweight="bold" if is_right else "normal",
            parse_math=False,
        )
        ax.text(1.0, i - 0.24, f"{character['score']:.0%}", fontsize=9, color=MUTED, va="bottom", ha="right")
    ax.barh(range(len(shown)), 1, color="#f2f3f4", height=0.34, zorder=0)
    ax.set_xlim(-0.02, 1.06)
    ax.set_ylim(5.0, -0.75)
    ax.axis("off")
    if right is not None and all(character["label"] != right for character in shown):
        ax.text(0, 4.95, f"is: {shortened(right, 34)}", fontsize=9, color=BLUE, va="bottom", parse_math=False)


def _tag_words(ax: "Axes", tags: list[dict], truth: dict | None):
    named = [tag["label"] for tag in tags]
    if truth is None:
        return _words(ax, [(f"{tag['label']} {tag['score']:.0%}", INK, "normal") for tag in tags])
    true = set(truth["tags"])
    words = [(name, INK, "bold") if name in true else (name, RED, "normal") for name in named]
    words.sort(key=lambda word: word[1] != INK)  # hits first, each kind in the order of its scores
    return _words(ax, words + [(name, BLUE, "normal") for name in truth["tags"] if name not in set(named)])


def _words(ax: "Axes", words: list[tuple[str, str, str]], font_size: float = 9.5, separator: str = "  "):
    """Draw coloured words in lines of text; what does not fit ends in an ellipsis."""
    ax.axis("off")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    renderer = ax.figure.canvas.get_renderer()
    box = ax.get_window_extent(renderer)
    line_height = font_size * 1.75 / 72 * ax.figure.dpi / box.height
    left, top = 0.02, min(0.93, 1 - 0.1 * line_height)
    for text, color, weight in words:
        style = {"fontsize": font_size, "va": "top", "parse_math": False}
        word = ax.text(left, top, shortened(text, 40) + separator, color=color, fontweight=weight, **style)
        width = word.get_window_extent(renderer).width / box.width
        if left + width > 1.02 and left > 0.02:
            left, top = 0.02, top - line_height
            if top < line_height * 0.6:
                word.remove()
                ax.text(left, max(top, 0) + 0.35 * line_height, "…", color=MUTED, **style)
                return
            word.set_position((left, top))
        left += width


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def draw_errors(errors: dict, rows: "ParquetRows", names: Sequence[str], folder: Path) -> None:
    """Write long_tail.png and confused.png, and say so.

    Args:
        errors: `{"by_training_images", "most_confused"}` of `evaluate_mfdn.py --errors`.
        rows: of the split, with `names` of their labels; the first picture of each character is shown.
    """
    long_tail_plot(errors["by_training_images"], folder / "long_tail.png")
    print(f"Accuracy by the number of training images: {folder / 'long_tail.png'}")
    labels = rows.column("character").to_pylist()
    shown = {names[label] for label in labels}  # a model may name characters of which the split has no picture
    pairs = [pair for pair in errors["most_confused"] if set(pair["characters"]) <= shown][:MAX_PAIRS]
    if pairs:
        places = [[labels.index(names.index(name)) for name in pair["characters"]] for pair in pairs]
        examples = [tuple(load_rgb(rows[place]["image"]["bytes"]) for place in pair) for pair in places]
        confused_picture(pairs, examples, folder / "confused.png")
        print(f"Characters taken for one another: {folder / 'confused.png'}")


def long_tail_plot(bins: Sequence[dict], path: str | Path) -> None:
    """Top-1 accuracy by the number of training images; the bars below say how many test images each bin has."""
    figure = new_figure(6.4, 4.2)
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    places = range(len(bins))
    accuracy = [entry["top1_accuracy"] for entry in bins]
    # Two standard errors of a share: a bin of twenty pictures cannot tell ten points.
    errors = [2 * (a * (1 - a) / entry["images"]) ** 0.5 for a, entry in zip(accuracy, bins, strict=True)]
    ax.errorbar(places, accuracy, yerr=errors, fmt="o-", color=BLUE, markersize=5, linewidth=1.8, capsize=3)
    ax.set_ylim(-0.03, 1.05)
    ax.set_title("top-1 accuracy, with two standard errors", loc="left", fontsize=10, fontweight="bold", color=INK)
    below.bar(places, [entry["images"] for entry in bins], color=TEAL, width=0.7)
    below.set_ylabel("test images", color=MUTED)
    spans = [f"{e['from']}" if e["from"] == e["to"] else f"{e['from']}–{e['to']}" for e in bins]
    below.set_xticks(list(places), spans)
    below.set_xlabel("training images of a character", color=MUTED)
    for part in (ax, below):
        tidy(part)
    figure.savefig(path)


def confused_picture(
    pairs: Sequence[dict], examples: Sequence[tuple[Image.Image, Image.Image]], path: str | Path
) -> None:
    """The most confused characters side by side, at most six pairs.

    Args:
        pairs: as of [`most_confused`].
        examples: for each pair a picture of the one and of the other.

    Raises:
        ValueError: there is no pair, or not as many examples.
    """
    if not pairs or len(pairs) != len(examples):
        raise ValueError(f"There must be as many examples as pairs, at least one; got {len(examples)}, {len(pairs)}.")
    pairs, examples = pairs[:MAX_PAIRS], examples[:MAX_PAIRS]
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = new_figure(3.7 * columns, 2.35 * rows)
    parts = figure.subfigures(rows, columns, wspace=0.05, squeeze=False).flat
    for part, pair, images in zip(parts, pairs, examples, strict=False):
        axes = part.subplots(1, 2)
        for ax, name, image in zip(axes, pair["characters"], images, strict=True):
            ax.imshow(np.asarray(pad_to_square(image)))
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color(GRID)
            ax.set_title(shortened(name, 22), fontsize=8, color=INK, parse_math=False)
        mistaken = f"{pair['errors']} of {pair['images']} pictures mistaken"
        axes[0].set_xlabel(mistaken, fontsize=8, color=MUTED, loc="left")
    figure.savefig(path)
