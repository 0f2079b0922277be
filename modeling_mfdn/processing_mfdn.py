"""Images and tags → tensors, outputs → named characters and tags (paper §IV-A and §V-A)."""

import contextlib
import difflib
import numbers
import os
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import BatchFeature, PreTrainedConfig, ProcessorMixin, ViTImageProcessor
from transformers.processing_utils import ProcessingKwargs, Unpack
from transformers.utils.hub import cached_file

from .gallery_mfdn import (
    GALLERY_FILE,
    STATISTICS_FILE,
    WITHOUT_STATISTICS,
    CharacterGallery,
    CharacterStatistics,
)
from .image_processing_mfdn import MFDNImageProcessor

if TYPE_CHECKING:  # `save_pretrained` copies every file named in such a line, and the pipeline has to travel along.
    from .pipeline_mfdn import MFDNPipeline  # noqa: F401

TEXT_OPTIONS = ("padding", "padding_side", "max_length", "truncation", "return_tensors")
BY_MODALITY = ("images_kwargs", "text_kwargs", "common_kwargs")
HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
NOT_OF_THIS_MODEL = "The character statistics beside this model, and what it was taught, are those of other weights."
TAG_AGGREGATIONS = ("noisy_or", "max", "mean", "sigmoid")
TAG_ORDERS = ("random", "alphabetical", "frequency")
CHARACTER_ACTIVATIONS = ("softmax", "sigmoid")
CHUNK_ELEMENTS = 2**22  # logits turned into probabilities at a time: 16 MB, not 200 MB per copy of [64, 30, 25404]


@torch.no_grad()
def aggregate_tag_scores(
    tag_logits: torch.Tensor,
    method: str = "noisy_or",
    num_slots: int = 30,
    hidden_slots: torch.Tensor | None = None,
) -> torch.Tensor:
    """One score per tag from the distributions of the hidden slots (paper §IV-B.5 leaves this open).

    Args:
        tag_logits: [B, Q, K], one row per slot. Q = 1 stands for `num_slots` slots that all say the same.
        method: "noisy_or", 1 - Π(1 - p): the probability that some slot draws the tag; "max" or "mean" over slots.
            "sigmoid" for a model that answers each tag with yes or no (Q = 1), where there is nothing to aggregate.
        num_slots: slots that a single one stands for; read only by "noisy_or" with Q = 1.
        hidden_slots: [B, Q] bool, the slots that count; None = all. A slot whose tag was given is no prediction: its
            query holds that tag, and no loss ever taught it to say something. Not read with Q = 1, which is always a
            hidden slot.

    Returns:
        [B, K] float32 in [0, 1]; 0 where no slot counts.
    """
    if method not in TAG_AGGREGATIONS:
        raise ValueError(f"method must be one of {TAG_AGGREGATIONS}, got {method!r}.")
    if tag_logits.dim() != 3:
        raise ValueError(f"tag_logits must have the shape [B, Q, K], got {list(tag_logits.shape)}.")
    batch_size, num_queries, num_tags = tag_logits.shape
    if method == "sigmoid":
        if num_queries != 1:
            raise ValueError(f"sigmoid expects one answer for each tag, [B, 1, K], got {list(tag_logits.shape)}.")
        return tag_logits[:, 0].float().sigmoid()
    hidden_slots = None if num_queries == 1 else hidden_slots
    if torch.compiler.is_compiling():  # a graph holds no loop over a batch whose size it does not know
        return scores_of_slots(tag_logits, method, num_slots, hidden_slots)
    scores = tag_logits.new_empty((batch_size, num_tags), dtype=torch.float32)
    images_at_once = max(1, CHUNK_ELEMENTS // max(1, num_queries * num_tags))
    for start in range(0, batch_size, images_at_once):
        chunk = slice(start, start + images_at_once)
        counted = None if hidden_slots is None else hidden_slots[chunk]
        scores[chunk] = scores_of_slots(tag_logits[chunk], method, num_slots, counted)
    return scores


def scores_of_slots(
    tag_logits: torch.Tensor, method: str, num_slots: int, hidden_slots: torch.Tensor | None
) -> torch.Tensor:
    """[b, K]: `aggregate_tag_scores` of so few pictures that their probabilities fit into memory."""
    probabilities = tag_logits.float().softmax(dim=-1)  # [b, Q, K]
    if hidden_slots is not None:
        probabilities = probabilities * hidden_slots[:, :, None]
    if method == "max":
        return probabilities.amax(dim=1)
    if method == "mean":
        if hidden_slots is None:
            return probabilities.mean(dim=1)
        return probabilities.sum(dim=1) / hidden_slots.sum(dim=1, keepdim=True).clamp(min=1)
    # In logarithms: 1 - p rounds to 1 for the thousands of rare tags, and their scores would all be 0.
    log_absent = torch.log1p(-probabilities).sum(dim=1)
    return -torch.expm1(log_absent * (num_slots if tag_logits.shape[1] == 1 else 1))


class MFDNProcessorKwargs(ProcessingKwargs, total=False):
    _defaults = {  # type: ignore[misc]  # as transformers spells it
        "text_kwargs": {"padding": "max_length"},
        "common_kwargs": {"return_tensors": "pt"},
    }


class MFDNProcessor(ProcessorMixin):
    """Pictures and tags → what [`MFDNModel`] takes; what it returns → named characters and tags.

    The names of the characters are those of the model's config: `from_pretrained` reads them there.

    Args:
        image_processor: [`MFDNImageProcessor`]. A stock ViTImageProcessor, which folders of before have, becomes one.
        tokenizer: one tag = one token, made by `build_tag_tokenizer`.
        tag_aggregation: how slots become one score per tag, see `aggregate_tag_scores`.
        tag_order: how the model was trained to find tags in its slots: "random", "alphabetical", or "frequency", which
            is the order of the vocabulary.
        character_activation: "softmax": one character is in the picture; "sigmoid": each may be.
        character_threshold: score in [0, 1] from which on tools say that a character is there.
        tag_threshold: score in [0, 1] from which on `post_process` names a tag.
        tag_thresholds: the same for each tag [K], in the order of their labels; None = `tag_threshold` for all.
        temperature: > 0, divides the logits of characters, so that a score of 0.7 is right in 7 of 10 cases.
        characters, pad_square: of folders of before; now in the config and in the image processor.
    """

    valid_processor_kwargs = MFDNProcessorKwargs

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        tag_aggregation: str = "noisy_or",
        tag_order: str = "random",
        character_activation: str = "softmax",
        character_threshold: float = 0.5,
        tag_threshold: float = 0.35,
        tag_thresholds: list[float] | None = None,
        temperature: float = 1.0,
        characters: list[str] | None = None,
        pad_square: bool | None = None,
    ):
        if tag_aggregation not in TAG_AGGREGATIONS:
            raise ValueError(f"tag_aggregation must be one of {TAG_AGGREGATIONS}, got {tag_aggregation!r}.")
        if tag_order not in TAG_ORDERS:
            raise ValueError(f"tag_order must be one of {TAG_ORDERS}, got {tag_order!r}.")
        if character_activation not in CHARACTER_ACTIVATIONS:
            raise ValueError(
                f"character_activation must be one of {CHARACTER_ACTIVATIONS}, got {character_activation!r}."
            )
        for threshold in (character_threshold, tag_threshold, *(tag_thresholds or ())):
            check_threshold(threshold)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        if isinstance(image_processor, ViTImageProcessor):
            options = image_processor.to_dict() | {"do_pad": pad_square is not False}
            del options["image_processor_type"]
            options.pop("auto_map", None)
            image_processor = MFDNImageProcessor(**options)
        super().__init__(image_processor, tokenizer)
        self.tag_aggregation = tag_aggregation
        self.tag_order = tag_order
        self.character_activation = character_activation
        self.character_threshold = character_threshold
        self.tag_threshold = tag_threshold
        self.tag_thresholds = None if tag_thresholds is None else list(tag_thresholds)
        self.temperature = temperature
        # Names of the C characters in the order of their labels; None where no config was beside the processor.
        self.characters = None if characters is None else list(characters)
        self.ratings: list[str] | None = None  # likewise, of models that name ratings
        # What the model was taught, and how it says "unknown"; None = no statistics were beside the processor.
        self.gallery: CharacterGallery | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs):
        """The processor of a folder or repository, with the characters that the config beside it names, and those that
        the model was taught.

        Raises ValueError: the files of what it was taught are damaged, or those of another model.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        processor = loaded[0] if isinstance(loaded, tuple) else loaded
        hub = {name: kwargs[name] for name in HUB_KWARGS if name in kwargs}
        with contextlib.suppress(OSError):  # a processor without a model has no config
            config, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub)
            processor.ratings = config.get("rating_names")
            if names := config.get("id2label"):
                processor.characters = [name for _, name in sorted((int(k), name) for k, name in names.items())]
        hub["_raise_exceptions_for_missing_entries"] = hub["_raise_exceptions_for_connection_errors"] = False
        if statistics := cached_file(pretrained_model_name_or_path, STATISTICS_FILE, **hub):
            processor.gallery = CharacterGallery(CharacterStatistics.load(statistics))
            if gallery := cached_file(pretrained_model_name_or_path, GALLERY_FILE, **hub):
                processor.gallery.load(gallery)
        return loaded

    def check_gallery(self, model: Any) -> None:
        """Drop, with a warning, statistics and taught characters that are those of other weights."""
        if self.gallery is not None and not self.gallery.fits(model):
            warnings.warn(f"{NOT_OF_THIS_MODEL} They are not used.", stacklevel=2)
            self.gallery = None

    @property
    def character_names(self) -> list[str]:
        """Of the characters that are known, trained and then taught."""
        return list(dict.fromkeys([*(self.characters or ()), *(self.gallery.names if self.gallery else ())]))

    def known_gallery(self) -> CharacterGallery:
        """The gallery. Raises ValueError where the model has no statistics, and so cannot be taught."""
        if self.gallery is None:
            raise ValueError(WITHOUT_STATISTICS)
        return self.gallery

    def teach(
        self, name: str, picture_embeddings: torch.Tensor, thumbnail: bytes = b"", pictures: Sequence[str] = ()
    ) -> list[str]:
        """Teach a character, see [`CharacterGallery.teach`]. Raises ValueError where the model has no statistics."""
        said = self.known_gallery().teach(name, picture_embeddings, thumbnail, pictures)
        if name in (self.characters or ()):
            said.append(f"{name!r} was trained, too: it has one score, of what was trained and what was taught.")
        return said

    @property
    def tag_names(self) -> list[str]:
        """Names of the K tags in the order of their labels."""
        first = len(self.tokenizer.all_special_tokens)
        return self.tokenizer.convert_ids_to_tokens(list(range(first, len(self.tokenizer))))

    @property
    def max_tags(self) -> int:
        """T - 2, what fits between [CLS] and [SEP]."""
        return self.tokenizer.model_max_length - 2

    @property
    def model_input_names(self) -> list[str]:
        return ["pixel_values", "input_ids", "attention_mask"]

    def to_dict(self) -> dict[str, Any]:
        """As it is written; the names of characters and ratings stand in the config, the gallery in its own files."""
        elsewhere = ("characters", "ratings", "gallery")
        return {name: value for name, value in super().to_dict().items() if name not in elsewhere}

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        tags: Any = None,
        **kwargs: Unpack[MFDNProcessorKwargs],
    ) -> BatchFeature:
        """Model inputs for one picture or several.

        Args:
            images: a picture, or a list of them: PIL pictures, arrays, tensors, paths, http(s) addresses; any mode.
            text: the same as `tags`, under the name that generic code knows.
            tags: the tags of each picture, `[["long_hair", "smile"], []]`, or one comma-separated string for each; for
                a single picture also a flat list. `Long hair` is `long_hair`. Doubles are dropped; unknown tags are
                dropped with a warning; of more than fit, as many are drawn, always the same, with a warning.
            return_tensors: "pt" (default), "np" or None (lists).
            padding: "max_length" (default; the model's T), True or "longest", or False.
            max_length: fewer tokens than T.
            size, do_pad, ...: of the image processor, for this call.

        Returns:
            `pixel_values` [B, 3, S, S] if images were given, `input_ids` and `attention_mask` [B, T] if tags were.

        Raises:
            ValueError: neither images nor tags, another number of tag lists than of images, a picture that cannot be
                read, a special token among the tags.
            TypeError: images or tags of another type.
        """
        if text is not None and tags is not None:
            raise ValueError("text and tags are two names for the same: give one of them.")
        tags = text if tags is None else tags
        if images is None and tags is None:
            raise ValueError("MFDNProcessor needs images, tags or both, got neither.")
        known = {*TEXT_OPTIONS, *BY_MODALITY, *self.image_processor.valid_kwargs.__annotations__}
        if unknown := sorted(kwargs.keys() - known):
            raise TypeError(f"MFDNProcessor does not know {unknown}; its options are those of the docstring.")
        init_kwargs = self.tokenizer.init_kwargs if self.tokenizer else {}
        options = self._merge_kwargs(MFDNProcessorKwargs, init_kwargs, **kwargs)  # type: ignore[arg-type]
        return_tensors = options["text_kwargs"].pop("return_tensors", None)
        features, num_images = {}, None
        if images is not None:
            features.update(self.image_processor(images, **options["images_kwargs"]))
            num_images = len(features["pixel_values"])
        if tags is not None:
            rows = self.tags_per_image(tags, num_images)
            features.update(self._token_rows(rows, **options["text_kwargs"]))
        return BatchFeature(features, tensor_type=return_tensors)

    def _token_rows(
        self, rows: list[list[str]], padding="max_length", max_length=None, truncation=True, padding_side=None
    ) -> dict[str, list[list[int]]]:
        """`input_ids` and `attention_mask`; T is the most that the model takes."""
        longest = self.tokenizer.model_max_length if max_length is None else max_length
        if not 2 <= longest:
            raise ValueError(f"max_length must leave room for [CLS] and [SEP], got {longest}.")
        if truncation is False:
            raise ValueError("truncation=False: of more tags than the model sees, as many are always drawn.")
        num_tags = min(self.max_tags, longest - 2)
        ids = [
            [self.tokenizer.cls_token_id, *self.tag_ids(row, num_tags=num_tags), self.tokenizer.sep_token_id]
            for row in rows
        ]
        encoded = self.tokenizer.pad(
            {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]},
            padding=padding,
            max_length=longest if padding == "max_length" else None,
            padding_side=padding_side,
        )
        return dict(encoded)

    def tags_per_image(self, tags: Any, num_images: int | None) -> list[list[str]]:
        """`tags` as `__call__` takes them → one list per picture; checks that there are `num_images` of them."""
        if isinstance(tags, str):
            tags = [[tags]]
        elif not isinstance(tags, list | tuple):
            raise TypeError(f"tags must be a list or a comma-separated string, got {type(tags).__name__}.")
        elif num_images in (None, 1) and all(isinstance(entry, str) for entry in tags):
            tags = [tags]
        rows = []
        for entry in tags:
            entry = [entry] if isinstance(entry, str) else [] if entry is None else entry
            if not isinstance(entry, list | tuple) or not all(isinstance(tag, str) for tag in entry):
                raise TypeError(f"The tags of one picture must be strings in a list, got {entry!r}.")
            rows.append(list(entry))
        if num_images is not None and len(rows) != num_images:
            raise ValueError(
                f"There must be as many lists of tags as images, got {len(rows)} for {num_images} images. A picture "
                "without tags has an empty list."
            )
        return rows

    def tag_ids(self, tags: list[str], warn: bool = True, num_tags: int | None = None) -> list[int]:
        """Token ids of one picture's tags without special tokens, at most `num_tags` (T - 2); see `__call__`."""
        num_tags = self.max_tags if num_tags is None else num_tags
        special_tokens = {token.lower() for token in self.tokenizer.all_special_tokens}
        unknown_id = self.tokenizer.unk_token_id
        known: dict[int, str] = {}  # dictionaries keep the order and drop doubles
        unknown: dict[str, None] = {}
        for text in tags:
            # The tokenizer's own spelling rules: lower case, "_" for spaces, ", " between tags, which become lines.
            for tag in self.tokenizer.backend_tokenizer.normalizer.normalize_str(text).split("\n"):
                # A tag may hold a comma (hello,_good-bye); else a comma separates, also without a space behind it.
                is_list = "," in tag and self.tokenizer.convert_tokens_to_ids(tag) == unknown_id
                for part in [part.strip("_") for part in tag.split(",")] if is_list else [tag]:
                    if part in special_tokens:
                        raise ValueError(f"{text!r} holds the special token {part.upper()}; tags cannot name one.")
                    token_id = self.tokenizer.convert_tokens_to_ids(part)
                    if token_id != unknown_id:
                        known[token_id] = part
                    elif part:
                        unknown[part] = None
        if unknown and warn:
            warnings.warn(self._unknown_tags_message(list(unknown)), stacklevel=4)
        if len(known) <= num_tags:
            return list(known)
        if warn:
            message = f"{len(known)} tags were given, the model sees {num_tags} at most: as many are drawn."
            warnings.warn(message, stacklevel=4)
        # By the tags themselves: the same tags, in whatever order, always leave the same ones.
        drawn = random.Random(" ".join(sorted(known.values()))).sample(sorted(known), num_tags)
        return [token_id for token_id in known if token_id in set(drawn)]

    def _unknown_tags_message(self, unknown: list[str]) -> str:
        vocabulary = self.tokenizer.get_vocab()
        named = []
        for tag in unknown[:5]:  # each costs a comparison with the whole vocabulary
            close = difflib.get_close_matches(tag, vocabulary, n=1)
            named.append(f"{tag!r} (closest known: {close[0]!r})" if close else f"{tag!r} (nothing close is known)")
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        return f"Tags that the model does not know are dropped: {', '.join(named)}{more}."

    @torch.no_grad()
    def post_process(
        self,
        outputs: Any,
        top_k: int | None = None,
        tag_threshold: float | None = None,
        max_tags: int | None = None,
        given_tags: Any = None,
    ) -> list[dict[str, list[dict[str, Any]]]]:
        """Names and scores, best first: for each picture `{"characters": [{"label", "score"}], "tags": [...],
        "unknown": probability}`, and `"ratings"` where the model names them.

        Args:
            outputs: of the model; `logits` [B, C]; `picture_embedding` [B, 2D], which taught characters are told by;
                `tag_logits` [B, Q, K] or None, which names no tags; and `rating_logits` [B, ratings] or None.
            top_k: characters per picture, at most all, trained and taught; None = 5, or all if there are fewer.
            tag_threshold: score in [0, 1] from which on a tag is named; None = the processor's, for each tag its own
                if there are such.
            max_tags: tags per picture at most; None = all above the threshold.
            given_tags: the `tags` that the outputs were computed with. They are left out, and so are their slots.

        "unknown" is the probability that none of the characters, trained or taught, is in the picture. The scores of
        the characters are those among the known ones: how likely each is if one of them is.

        Raises:
            ValueError: top_k outside 1 to the number of characters, a threshold outside [0, 1], sizes that do not fit
                this processor.
        """
        tag_logits = outputs.get("tag_logits")
        names, all_scores, unknown = self.rank_characters(outputs["logits"], outputs.get("picture_embedding"))
        num_characters = len(names)
        top_k = min(5, num_characters) if top_k is None else top_k
        if not is_whole(top_k) or not 1 <= top_k <= num_characters:
            raise ValueError(f"top_k must be 1 to the number of characters, {num_characters}, got {top_k!r}.")
        if max_tags is not None and not (is_whole(max_tags) and max_tags >= 0):
            raise ValueError(f"max_tags must be a whole number of 0 or more, got {max_tags!r}.")
        scores, labels = all_scores.topk(top_k)
        results = [
            {
                "characters": [{"label": names[k], "score": p} for k, p in zip(*row, strict=True)],
                "tags": [],
                "unknown": nobody,
            }
            for *row, nobody in zip(labels.tolist(), scores.tolist(), unknown.tolist(), strict=True)
        ]
        if (rating_logits := outputs.get("rating_logits")) is not None:
            ratings = self.ratings or [f"RATING_{label}" for label in range(rating_logits.shape[1])]
            for result, row in zip(results, rating_logits.float().sigmoid().tolist(), strict=True):
                named = sorted(zip(ratings, row, strict=True), key=lambda entry: -entry[1])
                result["ratings"] = [{"label": name, "score": score} for name, score in named]
        if tag_logits is not None:
            tag_scores, is_given = self.tag_scores(tag_logits, given_tags)
            is_named = (tag_scores >= self._thresholds(tag_threshold, tag_scores)) & ~is_given
            first_tag_id = len(self.tokenizer) - tag_scores.shape[1]
            for result, row, named in zip(results, tag_scores, is_named, strict=True):
                found = named.nonzero()[:, 0]
                found = found[row[found].argsort(descending=True, stable=True)][:max_tags]
                tags = self.tokenizer.convert_ids_to_tokens((found + first_tag_id).tolist())
                result["tags"] = [{"label": tag, "score": p} for tag, p in zip(tags, row[found].tolist(), strict=True)]
        return results

    def rank_characters(
        self, logits: torch.Tensor, picture_embedding: torch.Tensor | None
    ) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """Names of all characters [N], trained and then taught; their scores [B, N]; and how likely it is none [B].

        Without statistics of the model "unknown" is what the largest score leaves: an old and rough rule (Hendrycks &
        Gimpel 2017, A Baseline for Detecting Misclassified and Out-of-Distribution Examples).
        """
        names = self.characters or [f"LABEL_{label}" for label in range(logits.shape[1])]
        if len(names) != logits.shape[1]:
            raise ValueError(f"The model knows {logits.shape[1]} characters but this processor names {len(names)}.")
        scores = self.character_scores(logits)
        if self.gallery is None:
            return names, scores, 1 - scores.amax(dim=1)
        if picture_embedding is None:
            raise ValueError("Expected outputs with picture_embedding, which taught characters are told by, got none.")
        z = self.gallery.statistics.axes(picture_embedding)
        trained = self.gallery.statistics.trained_log_odds(z, scores)
        taught = self.gallery.taught_log_odds(z)  # [B, G]
        unknown = (-torch.cat([trained[:, None], taught], dim=1).logsumexp(dim=1)).sigmoid()
        if not self.gallery.names:
            return names, scores, unknown
        if shares_one_whole := self.character_activation == "softmax":
            scores = torch.cat([scores.log() + trained[:, None], taught], dim=1).softmax(dim=1)
        else:
            scores = torch.cat([scores, taught.sigmoid()], dim=1)
        labels: dict[str, int] = {}  # a character that was trained and taught has one score
        columns = torch.tensor([labels.setdefault(name, len(labels)) for name in [*names, *self.gallery.names]])
        if len(labels) < len(columns):
            columns = columns.to(scores.device).expand_as(scores)
            joined = scores.new_zeros(len(scores), len(labels))
            scores = joined.scatter_reduce(1, columns, scores, "sum" if shares_one_whole else "amax")
        return list(labels), scores, unknown

    def character_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Scores [B, C] in [0, 1] of `logits` [B, C]."""
        calibrated = logits.float() / self.temperature
        return calibrated.sigmoid() if self.character_activation == "sigmoid" else calibrated.softmax(dim=-1)

    def _thresholds(self, tag_threshold: float | None, tag_scores: torch.Tensor) -> float | torch.Tensor:
        """What scores [B, K] are compared with: a number, or one for each tag [K]."""
        if tag_threshold is not None:
            return check_threshold(tag_threshold)
        if self.tag_thresholds is None:
            return self.tag_threshold
        if len(self.tag_thresholds) != tag_scores.shape[1]:
            raise ValueError(
                f"The model scores {tag_scores.shape[1]} tags but there are {len(self.tag_thresholds)} tag_thresholds."
            )
        return torch.tensor(self.tag_thresholds, device=tag_scores.device)

    def tag_scores(self, tag_logits: torch.Tensor, given_tags: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of all tags, and which of them were given.

        Args:
            tag_logits: [B, Q, K] of the model.
            given_tags: the `tags` that they were computed with; their slots count for nothing.

        Returns:
            [B, K] float32 in [0, 1], and [B, K] bool.
        """
        num_images, num_queries, num_tags = tag_logits.shape
        first_tag_id = len(self.tokenizer.all_special_tokens)
        if first_tag_id + num_tags != len(self.tokenizer):
            raise ValueError(
                f"The model scores {num_tags} tags but the tokenizer knows {len(self.tokenizer) - first_tag_id}."
            )
        is_given = torch.zeros(num_images, num_tags, dtype=torch.bool, device=tag_logits.device)
        hidden_slots = torch.ones(num_images, num_queries, dtype=torch.bool, device=tag_logits.device)
        if given_tags is not None:
            for image, tags in enumerate(self.tags_per_image(given_tags, num_images)):
                ids = self.tag_ids(tags, warn=False)
                hidden_slots[image, : len(ids)] = False  # given tags fill the slots from the first on
                is_given[image, [token_id - first_tag_id for token_id in ids]] = True
        return aggregate_tag_scores(tag_logits, self.tag_aggregation, self.max_tags, hidden_slots), is_given

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs):
        """Write processor, tokenizer and code; preprocessor_config.json, which AutoImageProcessor and transformers.js
        look for; and what the model was taught."""
        written = super().save_pretrained(save_directory)
        self.image_processor.save_pretrained(save_directory)
        if self.gallery is not None:
            self.gallery.statistics.save(Path(save_directory, STATISTICS_FILE))
            self.gallery.save_in(save_directory)
        if push_to_hub:  # here, because `super` would upload only what it wrote itself
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return written


def check_threshold(threshold: float) -> float:
    """The threshold, if it lies in [0, 1]."""
    if isinstance(threshold, bool | str) or not 0 <= threshold <= 1:
        raise ValueError(f"A tag threshold must lie in [0, 1], got {threshold!r}.")
    return threshold


def is_whole(number: Any) -> bool:
    return isinstance(number, numbers.Integral) and not isinstance(number, bool)


__all__ = ["MFDNProcessor", "aggregate_tag_scores"]
