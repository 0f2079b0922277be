"""Characters that nobody trained: are they refused, and are they learnt from a few pictures?

Refusing is judged as open-set work does it (AUROC, FPR at 95 % TPR, OSCR), learning as few-shot work does: k pictures
teach each new character, all others of them are asked, many times over; among the new alone, and in one ranking with
the trained ones (*generalised*). And can they be told apart before anybody names them?
"""

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score, auc, roc_auc_score

from ..gallery_mfdn import CharacterGallery, CharacterStatistics
from ..processing_mfdn import MFDNProcessor

SHOTS = (1, 2, 5, 10)
HINTS = (1, 2, 4)  # true tags given with a picture that is asked
NUM_DRAWS = 20
CURVE_POINTS = 51
MEASURES = ("auroc", "fpr95", "oscr")
MAX_GROUPED = 10_000  # pictures: of each pair a number is kept


class CharacterQueries:
    """Of each picture what is needed to ask who is in it, and no more: a reducer of `predict_split`.

    Args:
        processor: with the statistics of the model; who it was taught does not count.
        hints: numbers of true tags that the pictures are asked with, too.
    """

    name = "queries"

    def __init__(self, processor: MFDNProcessor, hints: tuple[int, ...] = ()):
        self.processor, self.hints = processor, hints
        self.columns: dict[tuple[int, str], list[torch.Tensor]] = {}

    def add(self, found: dict) -> None:
        statistics = self.processor.known_gallery().statistics
        for number in (0, *self.hints):
            said = found["hints"][str(number)] if number else found["image"]
            z, logits = statistics.axes(said["picture_embedding"]), said["logits"]
            scores = self.processor.character_scores(logits)
            best, label = scores.max(dim=1)
            trained = statistics.trained_log_odds(z, scores)
            columns = {"labels": found["labels"], "z": z, "trained": trained, "best": best.log(), "label": label}
            for name, column in columns.items():
                self.columns.setdefault((number, name), []).append(column.cpu())

    def compute(self) -> dict[int, dict[str, torch.Tensor]]:
        """For each number of hints: `labels` [n] of the truth; `z` [n, Z]; `trained` [n], log-odds that some trained
        character is there; `label`, `best` [n], the likeliest of them and the log of its score among them."""
        found: dict[int, dict[str, torch.Tensor]] = {}
        for (number, name), parts in self.columns.items():
            found.setdefault(number, {})[name] = torch.cat(parts)
        return found


def judge_unseen(
    known: dict[int, dict[str, torch.Tensor]], unseen: dict[int, dict[str, torch.Tensor]], processor: MFDNProcessor
) -> dict:
    """What `evaluate_mfdn.py --unseen` adds to results.json.

    Args:
        known, unseen: what [`CharacterQueries`] keeps of pictures whose characters the model knows, and of pictures of
            others, whose labels tell them apart.
        processor: with the statistics of the model.

    Returns:
        `open_set`: see [`open_set`], from the image alone, and `adjusted_rand_index` of [`group_pictures`] over all
        unseen pictures (1 = the groups are the characters, 0 = chance); `few_shot`: for k of `SHOTS` see [`few_shot`];
        both with `hints`, the same with 1, 2 and 4 true tags of each picture that is asked.

    Raises:
        ValueError: no character has a picture left to be asked.
    """
    hints = [number for number in known if number and number in unseen]

    refused = {}
    for number in (0, *hints):
        mine, theirs = known[number], unseen[number]["trained"].numpy()
        refused[number] = open_set(mine["trained"].numpy(), (mine["label"] == mine["labels"]).numpy(), theirs)
    found = refused[0]
    found["hints"] = {str(number): {name: refused[number][name] for name in MEASURES} for number in hints}
    grouped = torch.randperm(len(unseen[0]["labels"]), generator=torch.Generator().manual_seed(0))[:MAX_GROUPED]
    groups = group_pictures(unseen[0]["z"][grouped], processor.known_gallery().statistics)
    found["adjusted_rand_index"] = float(adjusted_rand_score(unseen[0]["labels"][grouped].numpy(), groups.numpy()))
    lessons = {shots: few_shot(known, unseen, processor, shots) for shots in SHOTS}
    return {
        "open_set": found | {"num_unseen": len(unseen[0]["labels"])},
        "few_shot": {
            str(shots): by_hints[0] | {"hints": {str(number): by_hints[number] for number in hints}}
            for shots, by_hints in lessons.items()
        },
    }


def open_set(known: np.ndarray, hits: np.ndarray, unseen: np.ndarray) -> dict:
    """How well a score tells pictures of known characters from those of unseen ones.

    Args:
        known: [n] the score of pictures whose character the model knows, higher = surer that it is a known one.
        hits: [n] bool, whether its character was named rightly.
        unseen: [m] the score of pictures whose character it does not know.

    Returns:
        `auroc`, area under the ROC curve; `fpr95`, share of unseen pictures that are accepted where 95 % of the known
        ones are; `oscr`, area under the curve of known pictures accepted *and* named rightly over unseen ones
        accepted (Dhamija et al. 2018, Reducing Network Agnostophobia), which is at most the closed-set accuracy;
        `curve`: that curve at 51 shares of unseen pictures accepted, [accepted, right] each.
    """
    is_known = np.concatenate([np.ones(len(known), bool), np.zeros(len(unseen), bool)])
    scores = np.concatenate([known, unseen])
    thresholds = np.concatenate([[np.inf], np.unique(scores)[::-1]])
    accepted = 1 - np.searchsorted(np.sort(unseen), thresholds, "left") / len(unseen)
    right = (hits.sum() - np.searchsorted(np.sort(known[hits]), thresholds, "left")) / len(known)
    shares = np.linspace(0, 1, CURVE_POINTS)
    return {
        "auroc": float(roc_auc_score(is_known, scores)),
        "fpr95": float((unseen >= np.quantile(known, 0.05, method="lower")).mean()),
        "oscr": float(auc(accepted, right)),
        "curve": np.stack([shares, np.interp(shares, accepted, right)], axis=1).round(4).tolist(),
    }


def few_shot(
    known: dict[int, dict[str, torch.Tensor]],
    unseen: dict[int, dict[str, torch.Tensor]],
    processor: MFDNProcessor,
    shots: int,
) -> dict[int, dict]:
    """Accuracy where `shots` pictures teach each unseen character.

    Returns:
        for each number of hints `new`, among the new characters alone; `known_joint`, `new_joint`, of known and new
        pictures in one ranking; `harmonic`, the harmonic mean of these two, the draws' mean each; and `interval`, the
        95 % interval of each of these means.
    """
    statistics = processor.known_gallery().statistics
    draws: dict[int, list[dict[str, float]]] = {number: [] for number in known if number in unseen}
    for lesson, asked in draw_lessons(unseen[0]["labels"], shots):
        gallery = CharacterGallery(statistics)
        means = torch.stack([unseen[0]["z"][pictures].mean(dim=0) for pictures in lesson])
        truth = torch.stack([unseen[0]["labels"][pictures[0]] for pictures in lesson])
        counts = torch.full((len(lesson),), float(shots))
        gallery.append([str(label) for label in truth.tolist()], means, counts)
        for number, found in draws.items():
            mine, theirs = known[number], {name: column[asked] for name, column in unseen[number].items()}
            of_known, of_new = gallery.taught_log_odds(mine["z"]), gallery.taught_log_odds(theirs["z"])
            is_right = truth[of_new.argmax(dim=1)] == theirs["labels"]
            is_taken = of_new.amax(dim=1) > theirs["best"] + theirs["trained"]
            is_kept = mine["best"] + mine["trained"] >= of_known.amax(dim=1)
            kept = (is_kept & (mine["label"] == mine["labels"])).float().mean().item()
            taken = (is_taken & is_right).float().mean().item()
            harmonic = 2 * kept * taken / (kept + taken) if kept + taken else 0.0
            new = is_right.float().mean().item()
            found.append({"new": new, "known_joint": kept, "new_joint": taken, "harmonic": harmonic})
    return {number: with_intervals(found) for number, found in draws.items()}


def draw_lessons(labels: torch.Tensor, shots: int) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """Draws the pictures that teach each character.

    Args:
        labels: [m] of unseen pictures. A character with no more than `max(SHOTS)` pictures is left out, so that every
            number of pictures is asked of the same characters.
        shots: pictures that teach each.

    Yields:
        for each of `NUM_DRAWS`: the pictures [k] that teach, for each character; and all others of these characters.

    Raises:
        ValueError: no character has enough pictures.
    """
    generator = torch.Generator().manual_seed(0)
    of_character = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    of_character = [pictures for pictures in of_character if len(pictures) > max(SHOTS)]
    if not of_character:
        raise ValueError(
            f"Expected characters that the model does not know with more than {max(SHOTS)} pictures each, so that "
            f"some teach and the others are asked; found {len(labels)} pictures of {len(labels.unique())} characters."
        )
    for _ in range(NUM_DRAWS):
        shuffled = [pictures[torch.randperm(len(pictures), generator=generator)] for pictures in of_character]
        yield [row[:shots] for row in shuffled], torch.cat([row[shots:] for row in shuffled])


def with_intervals(draws: list[dict[str, float]]) -> dict:
    """The mean of the draws, and the 95 % interval of that mean."""
    values = {name: np.array([draw[name] for draw in draws]) for name in draws[0]}
    half = {name: 1.96 * column.std(ddof=1) / len(column) ** 0.5 for name, column in values.items()}
    means = {name: float(column.mean()) for name, column in values.items()}
    return means | {"interval": {name: [means[name] - half[name], means[name] + half[name]] for name in means}}


def group_pictures(z: torch.Tensor, statistics: CharacterStatistics) -> torch.Tensor:
    """Groups pictures that may show the same character: agglomerative clustering with average linkage (scikit-learn).

    Two groups are joined while a picture of one is likelier, on average, to show the character of a picture of the
    other than one that nobody knows, as the calibration of taught characters says.

    Args:
        z: [n, Z] of at most `MAX_GROUPED` pictures.
        statistics: of the model.

    Returns:
        [n] int64, the number of the group of each.
    """
    if len(z) < 2:
        return torch.zeros(len(z), dtype=torch.int64)
    log_odds = CharacterGallery.of_pictures(statistics, z).taught_log_odds(z)
    distances = (log_odds.max() - log_odds).fill_diagonal_(0)
    clustering = AgglomerativeClustering(
        None, metric="precomputed", linkage="average", distance_threshold=float(log_odds.max())
    )
    return torch.from_numpy(clustering.fit_predict(distances.numpy()))
