"""From a data set folder (Parquet) to batches: columns, tag vocabulary, decoding, augmentation, tag slots.

Every random choice of a post comes from a generator seeded by (seed, epoch, post id), so a post looks the same
whatever its batch, its worker and the number of times a run was interrupted.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..configuration_mfdn import MFDNConfig
from ..image_processing_mfdn import MFDNImageProcessor
from ..pictures_mfdn import load_rgb, pad_to_square
from ..processing_mfdn import TAG_ORDERS
from .dataset import BROKEN, REBUILD, logger
from .images import LUMINANCE, apply_color, color_matrices, decode_image

EVALUATION_SEED = 0  # which 30 tags a post shows in evaluation must not depend on the seed of a training run
CROP_SHARE = (0.8, 0.8)  # Paper: not said. Here: a random 128 crop out of 160, as animesion.
COLOR_JITTER = (0.1, 0.1, 0.1, 0.1)  # brightness, contrast, saturation and hue (turns of the circle), as animesion
# Generators of a post: the crop does not depend on how tags are drawn, and neither on what colours are exchanged.
IMAGE_STREAM, TAG_STREAM, EXCHANGE_STREAM = 0, 1, 2
EXCHANGES = ((1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0))  # of red, green and blue


class MFDNCollator:
    """Turns rows of `load_split` into a batch. Picklable; runs in the workers of a DataLoader.

    Batch: `pixel_values` float32 [B, 3, S, S] normalised · `input_ids`, `attention_mask` int64 [B, T] as
    `[CLS] tag ... [SEP] [PAD] ...` · `labels` int64 [B] · `post_id` int64 [B] · in evaluation also `tag_targets`
    bool [B, K], all tags of the post, also those beyond T - 2.

    In evaluation the pixels are those of `image_processor`: what is measured is what ships.

    A picture that cannot be decoded is named in the log. In training its row is left out and counted in the first of
    `num_broken` int64 [B]; in evaluation, where each row has its place, it is white and False in `readable` bool [B].

    Args:
        config: sizes and token ids.
        tags: the K tags; the tag at position k has the id `config.num_special_tokens + k`. Other tags of a post are
            dropped, counted in `num_unknown_tags` (of this process) and warned of once.
        training: random crop, flip, colours and tags. Else the whole picture and draws fixed per post.
        image_processor: its pixels are those of evaluation, and its normalisation and filter those of training; None
            makes one for `config.image_size`.
        tag_order: how tags fill the T - 2 slots. The `tags` are expected most frequent first for "frequency".
        seed: of the draws in training; evaluation uses a seed of its own.
        flip: mirror half of the training pictures.
        color_jitter: how far brightness, contrast, saturation (shares) and hue (turns) may change in training.
        crop_share: smallest and largest side of a training crop, as shares of the picture's side; drawn evenly.
        label_map: the model's label for each character of the data set; None if they are the same.
        exchanged_share: of the training pictures, shown with red, green and blue exchanged and without their tags. Who
            has blue hair for red is somebody else: of the model's labels, the first sixth are the characters, and one
            further sixth is theirs in each of the `EXCHANGES`.

    Raises:
        ValueError: an option outside its range, or another number of tags than `config.num_tags`.
    """

    def __init__(
        self,
        config: MFDNConfig,
        tags: Sequence[str],
        training: bool,
        image_processor: MFDNImageProcessor | None = None,
        tag_order: str = "random",
        seed: int = 0,
        flip: bool = True,
        color_jitter: Sequence[float] = COLOR_JITTER,
        crop_share: Sequence[float] = CROP_SHARE,
        label_map: Sequence[int] | None = None,
        exchanged_share: float = 0.0,
    ):
        if tag_order not in TAG_ORDERS:
            raise ValueError(f"tag_order must be one of {TAG_ORDERS}, got {tag_order!r}.")
        if len(color_jitter) != 4 or not all(0 <= share < 1 for share in color_jitter) or color_jitter[3] > 0.5:
            raise ValueError(f"color_jitter must be four numbers in [0, 1), hue at most 0.5, got {color_jitter}.")
        if len(crop_share) != 2 or not 0 < crop_share[0] <= crop_share[1] <= 1:
            raise ValueError(f"crop_share must be two rising numbers in (0, 1], got {crop_share}.")
        if not 0 <= exchanged_share <= 1:
            raise ValueError(f"exchanged_share must lie in [0, 1], got {exchanged_share}.")
        if len(tags) != config.num_tags:
            raise ValueError(
                f"The model has config.num_tags = {config.num_tags} tags but the vocabulary has {len(tags)}. "
                "Use the vocabulary that the model was built with."
            )
        self.config, self.tags, self.training = config, list(tags), training
        self.tag_order, self.seed, self.flip, self.label_map = tag_order, seed, flip, label_map
        self.color_jitter, self.crop_share = tuple(color_jitter), tuple(crop_share)
        self.exchanged_share = exchanged_share
        self.num_characters = (config.num_labels or 0) // (1 + len(EXCHANGES))
        size = {"height": config.image_size, "width": config.image_size}
        self.image_processor = image_processor or MFDNImageProcessor(size=size)
        # id of each tag label; read once, because attributes of a config are properties, too slow for each tag
        self.first_tag_id = config.num_special_tokens
        self.tag_labels = {tag: label for label, tag in enumerate(self.tags)}
        self.num_unknown_tags = 0
        # Shared memory, because workers hold a copy of everything else.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int):
        """Set the epoch that crops and drawn tags depend on, also in running workers. Call before iterating."""
        self._epoch.fill_(epoch)

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Raises ValueError: none of the pictures of a batch for training can be decoded."""
        pictures = [self._picture(row) for row in rows]
        readable = torch.tensor([picture is not None for picture in pictures])
        if self.training:
            if not readable.any():
                raise ValueError(f"None of the {len(rows)} pictures of a batch can be decoded. {REBUILD}")
            rows = [row for row, picture in zip(rows, pictures, strict=True) if picture is not None]
            pictures = [picture for picture in pictures if picture is not None]
        batch = {"pixel_values": self._pixel_values(pictures)}
        tag_labels = [self._known_tags(row) for row in rows]
        exchanges = [self._exchange(row["post_id"]) for row in rows]
        for i, exchange in enumerate(exchanges):
            if exchange is not None:
                batch["pixel_values"][i] = batch["pixel_values"][i, list(EXCHANGES[exchange])]
                tag_labels[i] = []  # they name the colours that were
        batch["input_ids"] = torch.tensor(
            [self._token_ids(labels, row["post_id"]) for labels, row in zip(tag_labels, rows, strict=True)]
        )
        batch["attention_mask"] = (batch["input_ids"] != self.config.pad_token_id).long()
        characters = [row["character"] for row in rows]
        if self.label_map is not None:
            characters = [self.label_map[character] for character in characters]
        offsets = [0 if exchange is None else (1 + exchange) * self.num_characters for exchange in exchanges]
        batch["labels"] = torch.tensor(characters) + torch.tensor(offsets)
        batch["post_id"] = torch.tensor([row["post_id"] for row in rows])
        if self.training:
            batch["num_broken"] = torch.zeros(len(rows), dtype=torch.int64)
            batch["num_broken"][0] = len(readable) - len(rows)
        else:
            batch["readable"] = readable
            batch["tag_targets"] = torch.zeros(len(rows), self.config.num_tags, dtype=torch.bool)
            for targets, labels in zip(batch["tag_targets"], tag_labels, strict=True):
                targets[labels] = True
        return batch

    def _generator(self, post_id: int, stream: int) -> np.random.Generator:
        key = (self.seed, int(self._epoch), post_id, stream) if self.training else (EVALUATION_SEED, post_id, stream)
        return np.random.default_rng(key)

    def _exchange(self, post_id: int) -> int | None:
        """Which of the `EXCHANGES` a picture is shown in; None = as it is."""
        if not self.training or not self.exchanged_share:
            return None
        rng = self._generator(post_id, EXCHANGE_STREAM)
        return int(rng.integers(len(EXCHANGES))) if rng.random() < self.exchanged_share else None

    # Tags

    def _known_tags(self, row: dict) -> list[int]:
        """Labels of the post's tags in the vocabulary, ascending: the draw depends on the set, not on its order."""
        tags = row.get("tags") or ()
        if unknown := [tag for tag in tags if tag not in self.tag_labels]:
            if not self.num_unknown_tags:
                logger.warning("Post %d: tag %r is not in the vocabulary; dropped.", row["post_id"], unknown[0])
            self.num_unknown_tags += len(unknown)
        return sorted({self.tag_labels[tag] for tag in tags if tag in self.tag_labels})

    def _token_ids(self, labels: list[int], post_id: int) -> list[int]:
        config = self.config
        # Paper: "l_t = 32" tokens; which tags are cut is not said. Here: T - 2 drawn at random, not the rarest cut.
        drawn = [labels[i] for i in self._generator(post_id, TAG_STREAM).permutation(len(labels))[: config.max_tags]]
        if self.tag_order == "alphabetical":
            drawn.sort(key=self.tags.__getitem__)
        elif self.tag_order == "frequency":
            drawn.sort()
        ids = [config.cls_token_id, *(self.first_tag_id + label for label in drawn), config.sep_token_id]
        return ids + [config.pad_token_id] * (config.max_tag_tokens - len(ids))

    # Images

    def _picture(self, row: dict):
        """A row's pixels: in training uint8 [3, S, S] and [4] colour factors, in evaluation float32 [3, S, S]; None if
        the picture is broken."""
        try:
            encoded = row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()
            if not self.training:
                return self.image_processor(load_rgb(encoded), return_tensors="pt")["pixel_values"][0]
            return self._augmented(encoded, self._generator(row["post_id"], IMAGE_STREAM))
        except BROKEN as error:
            logger.warning("Post %d is left out: its image cannot be decoded (%s).", row["post_id"], error)
            return None

    def _augmented(self, encoded: bytes, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A random square of the picture, perhaps mirrored, and the factors of its colours."""
        size, share = self.config.image_size, rng.uniform(self.crop_share[0], self.crop_share[1])
        image = pad_to_square(decode_image(encoded, round(size / share)))
        side = share * image.width
        left, top = rng.uniform(0, image.width - side, 2)
        # Crop and resize at once: no pixel is computed that is not shown.
        image = image.resize((size, size), self.image_processor.resample, box=(left, top, left + side, top + side))
        pixels = np.asarray(image)
        pixels = pixels[:, ::-1] if rng.random() < 0.5 and self.flip else pixels
        factors = np.array([1.0, 1.0, 1.0, 0.0]) + rng.uniform(-1, 1, 4) * self.color_jitter
        return pixels.transpose(2, 0, 1), factors

    def _pixel_values(self, pictures: list) -> torch.Tensor:
        """[B, 3, S, S]; a broken picture is white."""
        if not self.training:
            white = torch.ones(3, self.config.image_size, self.config.image_size)
            return torch.stack([white if picture is None else picture for picture in pictures])
        pixels = np.stack([pixels for pixels, _ in pictures])
        factors = np.stack([factors for _, factors in pictures])
        mean_luminance = pixels.reshape(len(pixels), 3, -1).mean(axis=2) @ LUMINANCE
        normalization = (self.image_processor.image_mean, self.image_processor.image_std)
        matrices = torch.from_numpy(color_matrices(factors, mean_luminance, *normalization))
        return apply_color(torch.from_numpy(pixels), matrices, *normalization)
