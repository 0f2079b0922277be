"""How pictures of characters are spread, fitted once a model is trained: what teaching and "unknown" stand on."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from scipy.optimize import minimize
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..configuration_mfdn import IGNORE_INDEX
from ..data.collator import MFDNCollator
from ..data.parquet_rows import ParquetRows
from ..gallery_mfdn import NUM_CANDIDATES, Calibration, CharacterGallery, CharacterStatistics
from ..processing_mfdn import MFDNProcessor

MAX_PICTURES = 50  # of a character that its mean is taken of: of 30 and more it hardly moves
MAX_ASKED = 5_000  # pictures of the validation split
LESSON = 5  # pictures of a character that is taught, in what is fitted
ODD_SHARE = 0.02  # of the pictures of one character that are taken for another's
NUM_FOLDS = 4  # a quarter of the characters is taken away at a time
WITHIN_SHRINKAGE = 0.1  # of the covariance within characters to its mean eigenvalue
BETWEEN_SHRINKAGE = 0.3  # of that of the characters themselves, who are few beside the axes
WEIGHT_DECAY = 1e-3  # of the calibration: a few dozen pictures do not fit four numbers without


def fit_character_statistics(
    model: nn.Module,
    processor: MFDNProcessor,
    train: ParquetRows,
    validation: ParquetRows,
    accelerator: Accelerator,
    *,
    label_maps: Sequence[Sequence[int] | None] = (None, None),
    batch_size: int = 64,
    num_workers: int = 0,
) -> CharacterStatistics:
    """One pass over both splits, without augmentation and without tags.

    Args:
        model: prepared by `accelerator`, or as it is.
        processor: of the model.
        train: says how characters differ, and how the pictures of one do; up to `MAX_PICTURES` of each.
        validation: says what likeness is worth: each picture is asked with its own character known, taken away, and
            taught anew from `LESSON` training pictures.
        label_maps: the model's label for each character of the two splits; None if they are the same.

    Raises:
        ValueError: fewer than two characters have two pictures, or the model makes no numbers of them.
    """
    config = accelerator.unwrap_model(model).config
    options = {"config": config, "tags": processor.tag_names, "training": False}
    options["image_processor"] = processor.image_processor

    def passes(rows: ParquetRows, label_map, title: str) -> Iterator[dict[str, torch.Tensor]]:
        rows = rows.with_columns([name for name in rows.column_names if name != "tags"])
        collator = MFDNCollator(label_map=label_map, **options)
        loader = DataLoader(rows, batch_size=batch_size, collate_fn=collator, num_workers=num_workers)
        yield from embeddings(model, accelerator.prepare_data_loader(loader), accelerator, title)

    first = first_of_each(train.column("character").to_pylist(), MAX_PICTURES)
    sums = CharacterSums(config.num_labels)
    for found in passes(train.select(first), label_maps[0], "character statistics"):
        sums.add(found["picture_embedding"], found["labels"])
    statistics = sums.statistics(accelerator.unwrap_model(model))
    if not len(validation):
        return statistics
    asked = np.random.default_rng(0).permutation(len(validation))[:MAX_ASKED]
    found = list(passes(validation.select(np.sort(asked)), label_maps[1], "calibration"))
    if not any(len(batch["labels"]) for batch in found):
        return statistics
    columns = {name: torch.cat([batch[name] for batch in found]) for name in ("labels", "logits")}
    columns["z"] = statistics.axes(torch.cat([batch["picture_embedding"] for batch in found]))
    return replace(statistics, calibration=calibrate(statistics, *sums.lessons(statistics), **columns))


def first_of_each(labels: Sequence[int], most: int) -> list[int]:
    """The rows of up to `most` pictures of each character, rising."""
    seen: Counter[int] = Counter()
    rows = []
    for row, label in enumerate(labels):
        seen[label] += 1
        if seen[label] <= most:
            rows.append(row)
    return rows


@torch.inference_mode()
def embeddings(
    model: nn.Module, loader: Iterable[dict], accelerator: Accelerator, title: str
) -> Iterator[dict[str, torch.Tensor]]:
    """`picture_embedding`, `logits` and `labels` of the pictures that can be read and whose character has a label,
    batch by batch, gathered over all processes."""
    was_training = model.training
    model.eval()
    try:
        for batch in tqdm(loader, desc=title, disable=not accelerator.is_main_process, leave=False):
            with accelerator.autocast():
                outputs = model(pixel_values=batch["pixel_values"], return_tag_logits=False)
            found = {"labels": batch["labels"], "readable": batch["readable"]}
            found |= {name: outputs[name].float() for name in ("picture_embedding", "logits")}
            found = accelerator.gather_for_metrics(found)
            counts = (found.pop("readable") & (found["labels"] != IGNORE_INDEX)).cpu()
            yield {name: values.cpu()[counts] for name, values in found.items()}
    finally:
        model.train(was_training)


class CharacterSums:
    """Of the pictures of each character so far: sums alone, whatever their number."""

    def __init__(self, num_characters: int):
        self.num_characters = num_characters
        self.sums: torch.Tensor | None = None  # [C, E]
        self.squares: torch.Tensor | None = None  # [E, E]
        self.counts = torch.zeros(num_characters)
        self.lesson_sums: torch.Tensor | None = None  # of the first `LESSON` pictures of each
        self.lesson_counts = torch.zeros(num_characters)

    def add(self, x: torch.Tensor, labels: torch.Tensor) -> None:
        """`x` [b, E], `labels` [b]."""
        if self.sums is None:
            self.sums = torch.zeros(self.num_characters, x.shape[1], dtype=torch.float64)
            self.lesson_sums = torch.zeros_like(self.sums)
            self.squares = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
        x = x.double()  # what differs may be small beside what is common
        self.sums.index_add_(0, labels, x)
        self.counts += labels.bincount(minlength=self.num_characters)
        self.squares += x.T @ x
        for row, label in enumerate(labels.tolist()):
            if self.lesson_counts[label] < LESSON:
                self.lesson_sums[label] += x[row]
                self.lesson_counts[label] += 1

    def statistics(self, model: nn.Module) -> CharacterStatistics:
        """Both covariances, and the axes in which they are 1 and diagonal.

        Raises ValueError: there are too few pictures to say how those of one character differ.
        """
        counts = self.counts.double()
        if self.sums is None or (counts > 1).sum() < 2:
            raise ValueError(
                "Character statistics need pictures of two characters, two of each at least; found "
                f"{int(counts.sum())} pictures of {int((counts > 0).sum())} characters that the model knows."
            )
        if not self.squares.isfinite().all():
            raise ValueError(
                "Character statistics need pictures as numbers; this model makes NaN or infinity of some."
            )
        is_there = counts > 0
        means = self.sums / counts.clamp(min=1)[:, None]  # [C, E]
        within = self.squares - (means * counts[:, None]).T @ means
        # Of a vector that is two: without it the covariance's mean eigenvalue would be that of the larger one.
        sizes = within.diagonal().reshape(2, -1).mean(dim=1).clamp(min=1e-12).sqrt()
        scales = sizes.repeat_interleave(len(within) // 2)
        within = shrunk(within / scales / scales[:, None] / (counts.sum() - is_there.sum()), WITHIN_SHRINKAGE)
        mean = means[is_there].mean(dim=0)
        values, vectors = torch.linalg.eigh(within)
        # x @ whitening has the covariance 1 within a character.
        whitening = vectors / values.clamp(min=1e-6).sqrt() / scales[:, None]
        between = shrunk(((means - mean) @ whitening)[is_there].T.cov(correction=0), BETWEEN_SHRINKAGE)
        spread, rotation = torch.linalg.eigh(between)
        projection = (whitening @ rotation.flip(1)).float()
        mean = mean.float()
        return CharacterStatistics(
            mean=mean,
            projection=projection,
            spread=spread.flip(0).clamp(min=1e-6).float(),
            means=((means.float() - mean) @ projection) * is_there[:, None],
            counts=self.counts.int(),
            calibration=Calibration(),
            head_size=model.character_head.weight.detach().float().abs().mean().item(),
        )

    def lessons(self, statistics: CharacterStatistics) -> tuple[torch.Tensor, torch.Tensor]:
        """What each character would be if it were taught: means [C, Z] and counts [C] of its first pictures."""
        means = self.lesson_sums / self.lesson_counts.clamp(min=1)[:, None]
        return statistics.axes(means.float()), self.lesson_counts


def shrunk(covariance: torch.Tensor, share: float) -> torch.Tensor:
    """Towards the mean of its eigenvalues, so that few pictures do not make an axis look certain."""
    return (1 - share) * covariance + share * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)


def calibrate(
    statistics: CharacterStatistics,
    lesson_means: torch.Tensor,
    lesson_counts: torch.Tensor,
    z: torch.Tensor,
    labels: torch.Tensor,
    logits: torch.Tensor,
) -> Calibration:
    """What likeness is worth, from pictures whose character is known, taken away, or taught in place of trained.

    Args:
        statistics: whose calibration is not read.
        lesson_means, lesson_counts: [C, Z] and [C], of each character if it were taught.
        z, labels, logits: [n, Z], [n] and [n, C] of the pictures that are asked.
    """
    num_characters, own = logits.shape[1], labels[:, None]
    candidates = logits.topk(min(NUM_CANDIDATES, num_characters)).indices
    parts = zip(z.split(64), candidates.split(64), strict=True)
    likeness = torch.cat([statistics.likeness_of(*part) for part in parts])  # [n, M]
    has_no_pictures = statistics.counts[candidates] == 0
    likeness = likeness.masked_fill(has_no_pictures, likeness.min())

    def without(taken_away: torch.Tensor) -> torch.Tensor:
        """[n] of the likeliest trained character that is left, `taken_away` [n, M]."""
        return torch.where(taken_away, likeness.min(), likeness).amax(dim=1)

    # Each question: likeness of the trained [m] and of the taught [m, G], and the right answer [m]: 0 nobody, 1 a
    # trained character, 2 and on a taught one.
    nobody = torch.zeros(len(labels), dtype=torch.long)
    is_own, nothing = candidates == own, torch.zeros_like(candidates, dtype=torch.bool)
    empty = z.new_zeros(len(z), 0)
    questions = [(without(nothing), empty, nobody + 1), (without(is_own), empty, nobody)]
    own_likeness = statistics.likeness(z, lesson_means[labels], lesson_counts[labels])
    odd_likeness = own_likeness.quantile(ODD_SHARE).item()
    folds = torch.randperm(num_characters, generator=torch.Generator().manual_seed(0)) % NUM_FOLDS
    for fold in range(NUM_FOLDS):
        rows = ((folds == fold) & (lesson_counts > 0)).nonzero()[:, 0]
        if not len(rows):
            continue
        gallery = CharacterGallery(replace(statistics, calibration=Calibration()))
        gallery.append([str(row) for row in rows.tolist()], lesson_means[rows], lesson_counts[rows])
        is_away = folds[candidates] == fold
        column = torch.full((num_characters,), -1).scatter(0, rows, torch.arange(len(rows)))[labels]
        taught = column >= 0
        questions.append((without(is_away)[taught], gallery.taught_log_odds(z[taught]), column[taught] + 2))
        other = folds[labels] == (fold + 1) % NUM_FOLDS
        others = gallery.taught_log_odds(z[other])
        questions.append((without(is_away)[other], others, nobody[other] + 1))
        questions.append((without(is_away | is_own)[other], others, nobody[other]))
    return replace(fit_calibration(questions), odd_likeness=odd_likeness)


def fit_calibration(questions: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> Calibration:
    """The four numbers that make the right answers likeliest: a convex problem, in units of the likeness' spread."""
    unit = torch.cat([trained for trained, _, _ in questions]).std().clamp(min=1e-6).item()
    start = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)

    def loss(guess: np.ndarray) -> tuple[float, np.ndarray]:
        numbers = torch.tensor(guess, requires_grad=True)
        total = WEIGHT_DECAY * ((numbers - start) ** 2).sum()
        for trained, taught, answers in questions:
            trained = numbers[0] + numbers[1] * trained[:, None].double() / unit
            taught = numbers[2] + numbers[3] * taught.double() / unit
            log_odds = torch.cat([torch.zeros_like(trained), trained, taught], dim=1)
            if len(answers):
                total = total + nn.functional.cross_entropy(log_odds, answers)
        total.backward()
        return total.item(), numbers.grad.numpy()

    numbers = minimize(loss, start.numpy(), jac=True, method="L-BFGS-B").x.tolist()
    return Calibration(numbers[0], numbers[1] / unit, numbers[2], numbers[3] / unit)
