"""Characters that were taught from a few pictures, and "unknown" as an answer.

Every picture is a vector x, `picture_embedding`, in which a character is a Gaussian: x = mean + y + e, where y ~ N(0,
B) is the character's own and e ~ N(0, W) what differs from picture to picture (probabilistic linear discriminant
analysis, Ioffe 2006; Prince & Elder 2007). In the axes z where W is 1 and B is diagonal, ψ, everything is a formula: a
character of whom n pictures with the mean z̄ are known shows itself next as N(nψ / (nψ + 1) z̄, 1 + ψ / (nψ + 1)), and
one that nobody knows as N(0, 1 + ψ). So one picture counts for less than ten, and no training is needed.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

STATISTICS_FILE = "character_statistics.safetensors"  # of a model: how characters and pictures differ
GALLERY_FILE = "gallery.safetensors"  # what it was taught; can be shared alone
STATISTICS_FORMAT = "mfdn-character-statistics-1"
GALLERY_FORMAT = "mfdn-gallery-1"
NUM_CANDIDATES = 32  # trained characters, the head's best, of which the likeness is asked
HEAD_TOLERANCE = 1e-3  # of its mean size: half precision changes it by less, training by more
UNLIKE = -1e4  # the likeness of whom there is no picture
MAX_NAME = 200
THUMBNAIL_SIZE = 64  # pixels of the longer side
WITHOUT_STATISTICS = (
    "This model has no character statistics, which teaching needs: it was trained before they existed, or imported. "
    "Fit them on a data set with characters that it knows: mfdn teach --statistics DATASET --model MODEL --output "
    "FOLDER, and use that folder."
)


@dataclass(frozen=True)
class Calibration:
    """Log-odds against 'nobody that I know', fitted on the validation split by taking characters away.

    That some trained character is there: `trained_bias + trained_likeness * likeness`, of the likeliest; that a taught
    one is: `taught_bias + taught_likeness * likeness`. Fewer than 2 of 100 pictures are less like their own character
    than `odd_likeness`.
    """

    trained_bias: float = 0.0
    trained_likeness: float = 1.0
    taught_bias: float = 0.0
    taught_likeness: float = 1.0
    odd_likeness: float = 0.0


@dataclass(frozen=True)
class CharacterStatistics:
    """How pictures of a model's characters are spread: fitted at the end of training, stored beside its weights.

    Args:
        mean: [E] of the characters.
        projection: [E, Z] `picture_embedding` → axes z in which the pictures of one character have the covariance 1.
        spread: [Z] ψ, the variance of characters along these axes, falling.
        means: [C, Z] of the trained characters, in the order of their labels.
        counts: [C] pictures that they are the means of; 0 = none was there.
        calibration: likeness → probability.
        head_size: mean absolute weight of the character head they were fitted with, which tells other weights.
    """

    mean: torch.Tensor
    projection: torch.Tensor
    spread: torch.Tensor
    means: torch.Tensor
    counts: torch.Tensor
    calibration: Calibration
    head_size: float

    @property
    def fingerprint(self) -> str:
        """Of the axes: what a mean says is true in these alone."""
        digest = hashlib.sha256()
        for tensor in (self.mean, self.projection, self.spread):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def axes(self, picture_embedding: torch.Tensor) -> torch.Tensor:
        """[B, E] → z [B, Z]."""
        device = picture_embedding.device
        return (picture_embedding.float() - self.mean.to(device)) @ self.projection.to(device)

    def likeness(self, z: torch.Tensor, means: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Log of how much likelier a picture is if it shows the character than if it shows one that nobody knows.

        Args:
            z: [..., Z] of the pictures.
            means: [..., Z] of the characters, in the same axes; broadcast against `z`.
            counts: [...] pictures that each is the mean of.

        Returns:
            [...]; without pictures, count 0, it is 0.
        """
        spread, counts = self.spread.to(z.device), counts[..., None]
        shrunk = counts * spread / (counts * spread + 1)
        variance = 1 + spread / (counts * spread + 1)
        known = (z - shrunk * means) ** 2 / variance + variance.log()
        unknown = z**2 / (1 + spread) + (1 + spread).log()
        return 0.5 * (unknown - known).sum(dim=-1)

    def trained_log_odds(self, z: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Log-odds [B] that some trained character is in the picture, against one that nobody knows.

        Args:
            z: [B, Z].
            scores: [B, C] of the trained characters, in [0, 1]; the likeness is asked of the best few alone. Of a
                character without pictures in the statistics the score is all that is known.
        """
        best, labels = scores.topk(min(NUM_CANDIDATES, scores.shape[1]))
        has_pictures = (self.counts[labels.to(self.counts.device)] > 0).to(z.device)
        likeness = self.likeness_of(z, labels).masked_fill(~has_pictures, UNLIKE).amax(dim=1)
        log_odds = self.calibration.trained_bias + self.calibration.trained_likeness * likeness
        return torch.maximum(log_odds, best.masked_fill(has_pictures, 0).amax(dim=1).logit(eps=1e-6))

    def likeness_of(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Likeness [B, M] of pictures z [B, Z] to the trained characters `labels` [B, M]."""
        places = labels.to(self.means.device)  # of thousands, a few go to a GPU
        means, counts = self.means[places].to(z.device), self.counts[places].to(z.device)
        return self.likeness(z[:, None], means.float(), counts.float())

    def save(self, file: str | os.PathLike) -> None:
        """Write one safetensors file, whole or not at all."""
        tensors = {name: getattr(self, name) for name in ("mean", "projection", "spread", "means", "counts")}
        tensors |= {"means": self.means.half()}
        metadata = {
            "format": STATISTICS_FORMAT,
            "calibration": json.dumps(vars(self.calibration)),
            "head_size": repr(self.head_size),
        }
        save_whole(tensors, file, metadata)

    @classmethod
    def load(cls, file: str | os.PathLike) -> "CharacterStatistics":
        """Raises ValueError where it is not such a file, or damaged."""
        tensors, metadata = read_file(file, STATISTICS_FORMAT, "character statistics")
        try:
            known = json.loads(metadata["calibration"])
            calibration = Calibration(**{field.name: float(known[field.name]) for field in fields(Calibration)})
            loaded = cls(**tensors, calibration=calibration, head_size=float(metadata["head_size"]))
            width, num_axes = loaded.projection.shape
            shapes = {"mean": (width,), "spread": (num_axes,), "means": (len(loaded.counts), num_axes)}
            is_right = all(tuple(getattr(loaded, name).shape) == shape for name, shape in shapes.items())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{file}: these character statistics are damaged ({error}).") from error
        if not is_right or not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ValueError(f"{file}: these character statistics are damaged: sizes differ, or numbers are missing.")
        return loaded


class CharacterGallery:
    """Characters that a model was taught: their means in the axes of its [`CharacterStatistics`].

    Args:
        statistics: of the model.
    """

    def __init__(self, statistics: CharacterStatistics):
        self.statistics = statistics
        self.rows: dict[str, int] = {}  # name → row of the tensors, rising
        self.means = torch.zeros(0, len(statistics.spread))  # [G, Z]
        self.counts = torch.zeros(0)  # [G]
        self.thumbnails: list[bytes] = []  # a small JPEG each, or b""
        self._room = self.means  # of which `means` are the first rows: it doubles, so that each costs the same
        self._weights: tuple[torch.Tensor, ...] | None = None  # see `taught_log_odds`

    @property
    def names(self) -> list[str]:
        """Of the G characters."""
        return list(self.rows)

    @classmethod
    def of_pictures(cls, statistics: CharacterStatistics, z: torch.Tensor) -> "CharacterGallery":
        """Each picture z [n, Z] as a character of its own."""
        gallery = cls(statistics)
        gallery.append([str(row) for row in range(len(z))], z, torch.ones(len(z)))
        return gallery

    def fits(self, model: Any) -> bool:
        """Whether the statistics are those of this model's weights, as far as its character head tells."""
        weight = model.character_head.weight
        statistics = self.statistics
        if len(statistics.counts) != len(weight) or len(statistics.mean) != 2 * model.config.hidden_size:
            return False
        if weight.device.type == "meta" or not weight.is_floating_point():  # offloaded or quantized: nobody can tell
            return True
        size = weight.detach().float().abs().mean().item()
        return abs(size - statistics.head_size) <= HEAD_TOLERANCE * statistics.head_size

    def teach(
        self, name: str, picture_embeddings: torch.Tensor, thumbnail: bytes = b"", pictures: Sequence[str] = ()
    ) -> list[str]:
        """Teach a character, or add pictures to one that was taught.

        Args:
            name: as it is to be named.
            picture_embeddings: [n, E] of its pictures.
            thumbnail: a small JPEG to recognise it by.
            pictures: what they are called; default "picture 1 of 5".

        Returns:
            What the user should know, a sentence each; often nothing.

        Raises:
            ValueError: no picture, or a name that cannot be one.
        """
        name = check_name(name)
        if not len(picture_embeddings):
            raise ValueError(f"{name!r}: expected at least one picture to teach it from, got none.")
        z = self.statistics.axes(picture_embeddings.detach().cpu())
        known = [self.rows[name]] if name in self.rows else []
        said = []
        if known:
            total = int(self.counts[known[0]]) + len(z)
            said.append(f"{name!r} was taught before: to its pictures {len(z)} are added, which makes {total}.")
        elif len(z) == 1:
            said.append(f"{name!r} is taught from one picture: expect it to be missed often; five do far better.")
        odd = self.odd_pictures(z, known)
        if odd:
            which = ", ".join(pictures[row] if pictures else f"picture {row + 1} of {len(z)}" for row in odd)
            said.append(
                f"{name!r}: unlike the others is {which}. Another character, perhaps: it was taught all the same; "
                "forget the name and teach it again without, if so."
            )
        if known:
            (row,) = known
            count = self.counts[row]
            self.means[row] = (self.means[row] * count + z.sum(dim=0)) / (count + len(z))
            self.counts[row] += len(z)
            self.thumbnails[row] = self.thumbnails[row] or thumbnail
        else:
            self.append([name], z.mean(dim=0, keepdim=True), torch.tensor([float(len(z))]), [thumbnail])
        self._weights = None
        return said

    def odd_pictures(self, z: torch.Tensor, known: Sequence[int] = ()) -> list[int]:
        """Which of the pictures z [n, Z], up to half of them, are less like all others, and the taught `known`, than
        the pictures of one character are. Of fewer than three nobody can say which is the odd one."""
        kept = list(range(len(z)))
        while len(kept) > max(len(z) / 2, 0 if known else 2):
            total, count = z[kept].sum(dim=0), torch.tensor(float(len(kept)))
            for row in known:
                total, count = total + self.means[row] * self.counts[row], count + self.counts[row]
            others = (total - z[kept]) / (count - 1)
            likeness = self.statistics.likeness(z[kept], others, (count - 1).expand(len(kept)))
            if likeness.min() >= self.statistics.calibration.odd_likeness:
                break
            kept.pop(int(likeness.argmin()))  # the mean of the others is truer without it
        return [row for row in range(len(z)) if row not in kept]

    def forget(self, name: str) -> None:
        """Raises ValueError where no character of that name was taught."""
        if name not in self.rows:
            close = difflib.get_close_matches(name, self.names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"{len(self.rows)} others were."
            raise ValueError(f"{name!r} was not taught, so it cannot be forgotten; {hint}")
        gone = self.rows[name]
        kept = [row for row in range(len(self.rows)) if row != gone]
        names = [other for other in self.rows if other != name]
        self.rows = {other: row for row, other in enumerate(names)}
        self.thumbnails.pop(gone)
        self.means, self.counts, self._weights = self.means[kept], self.counts[kept], None
        self._room = self.means

    def append(
        self, names: Sequence[str], means: torch.Tensor, counts: torch.Tensor, thumbnails: Sequence[bytes] = ()
    ):
        """Add characters that are not there: means [n, Z], counts [n] and, of all or none, thumbnails."""
        before, after = len(self.rows), len(self.rows) + len(names)
        if len(self._room) < after:
            room = self._room.new_zeros(max(after, 2 * before), self._room.shape[1])
            room[:before] = self.means
            self._room = room
        self._room[before:after] = means
        self.means, self.counts = self._room[:after], torch.cat([self.counts, counts.float()])
        self.rows |= {name: before + row for row, name in enumerate(names)}
        self.thumbnails += thumbnails or [b""] * len(names)
        self._weights = None

    def taught_log_odds(self, z: torch.Tensor) -> torch.Tensor:
        """Log-odds [B, G] of each taught character against one that nobody knows, of pictures z [B, Z].

        As `CharacterStatistics.likeness` says, for thousands: one matrix product.
        """
        if self._weights is None:
            spread = self.statistics.spread
            numbers, which = self.counts.unique(return_inverse=True)
            n = numbers[:, None]
            shrunk, variance = n * spread / (n * spread + 1), 1 + spread / (n * spread + 1)  # [numbers, Z]
            narrower = 0.5 * (1 / (1 + spread) - 1 / variance)
            rows = self.means * (shrunk / variance)[which]
            offset = 0.5 * ((1 + spread).log() - variance.log()).sum(dim=1)[which]
            offset = offset - 0.5 * (rows * self.means * shrunk[which]).sum(dim=1)
            self._weights = rows, offset, narrower, which
        self._weights = tuple(tensor.to(z.device) for tensor in self._weights)
        rows, offset, narrower, which = self._weights
        likeness = z @ rows.T + (z**2 @ narrower.T)[:, which] + offset
        return self.statistics.calibration.taught_bias + self.statistics.calibration.taught_likeness * likeness

    def save(self, file: str | os.PathLike) -> None:
        """Write one safetensors file that can be shared alone, whole or not at all."""
        ends = torch.tensor([len(thumbnail) for thumbnail in self.thumbnails], dtype=torch.int64).cumsum(dim=0)
        tensors = {
            "means": self.means.half(),
            "counts": self.counts.int(),
            "thumbnails": torch.frombuffer(bytearray(b"".join(self.thumbnails) + b"\0"), dtype=torch.uint8)[:-1],
            "thumbnail_ends": ends,
        }
        metadata = {
            "format": GALLERY_FORMAT,
            "model": self.statistics.fingerprint,
            "names": json.dumps(self.names, ensure_ascii=False),
        }
        save_whole({name: tensor.clone() for name, tensor in tensors.items()}, file, metadata)

    def save_in(self, folder: str | os.PathLike) -> None:
        """[`save`] beside a model; without characters the file that was there goes, for they were forgotten."""
        if self.rows:
            self.save(Path(folder, GALLERY_FILE))
        else:
            Path(folder, GALLERY_FILE).unlink(missing_ok=True)

    def load(self, file: str | os.PathLike) -> list[str]:
        """Add the characters of a gallery file; one whose name is there takes the pictures of both. Returns the names.

        Raises:
            ValueError: another model made it, it is no gallery, or damaged. Nothing is added then.
        """
        tensors, metadata = read_file(file, GALLERY_FORMAT, "gallery")
        if metadata.get("model") != self.statistics.fingerprint:
            raise ValueError(
                f"{file}: another model made this gallery, or this one before its statistics were fitted anew; what "
                "it says of pictures means nothing here. Teach the characters again, from their pictures."
            )
        try:
            names = [check_name(name) for name in json.loads(metadata["names"])]
            means, counts = tensors["means"].float(), tensors["counts"].float()
            data, ends = tensors["thumbnails"].numpy().tobytes(), [0, *tensors["thumbnail_ends"].tolist()]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: this gallery is damaged ({error}).") from error
        is_whole = (
            len(set(names)) == len(names) == len(counts) == len(ends) - 1
            and tuple(means.shape) == (len(names), len(self.statistics.spread))
            and bool(means.isfinite().all() and (counts >= 1).all())
            and ends == sorted(ends)
            and ends[-1] == len(data)
        )
        if not is_whole:
            raise ValueError(f"{file}: this gallery is damaged: names, means and counts do not fit each other.")
        thumbnails = [data[start:end] for start, end in zip(ends, ends[1:], strict=False)]
        fresh = [row for row, name in enumerate(names) if name not in self.rows]
        for row, name in enumerate(names):
            if (mine := self.rows.get(name)) is not None:
                total = self.counts[mine] + counts[row]
                self.means[mine] = (self.means[mine] * self.counts[mine] + means[row] * counts[row]) / total
                self.counts[mine] = total
        self.append([names[row] for row in fresh], means[fresh], counts[fresh], [thumbnails[row] for row in fresh])
        return names


def check_name(name: Any) -> str:
    """The name of a character, without space around it. Raises ValueError where it cannot be one."""
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME or not name.strip().isprintable():
        raise ValueError(
            f"Expected the name of a character, up to {MAX_NAME} characters in one line, got {name!r:.80}."
        )
    return name.strip()


def read_file(
    file: str | os.PathLike, expected_format: str, kind: str
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata. Raises ValueError where it is not the file of that kind."""
    if not Path(file).is_file():
        raise ValueError(f"{file}: expected a file with {kind}, found none.")
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != expected_format:
                raise ValueError(f"{file}: expected {kind} ({expected_format}), found {metadata.get('format')!r}.")
            return {name: opened.get_tensor(name) for name in opened.keys()}, metadata  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file}: these are no {kind}, or damaged ({error}).") from error


def save_whole(tensors: dict[str, torch.Tensor], file: str | os.PathLike, metadata: dict[str, str]) -> None:
    """A safetensors file under a temporary name, moved into place when it is whole."""
    path = Path(file)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


__all__ = ["CharacterGallery", "CharacterStatistics"]
