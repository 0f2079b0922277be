"""Images and tags → tensors, outputs → named characters and tags (paper §IV-A and §V-A)."""

import difflib
import numbers
import os
import random
import warnings
from typing import TYPE_CHECKING, Any

import torch
from transformers import BatchFeature, ProcessorMixin

from .image_processing_mfdn import pad_to_square, read_image, to_rgb

if TYPE_CHECKING:  # `save_pretrained` copies every file named in such a line, and the pipeline has to travel along.
    from .pipeline_mfdn import MFDNPipeline  # noqa: F401

TAG_AGGREGATIONS = ("noisy_or", "max", "mean", "sigmoid")
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
            query holds that tag, and no loss ever taught it to say something.

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
    scores = tag_logits.new_empty((batch_size, num_tags), dtype=torch.float32)
    if hidden_slots is None:
        hidden_slots = torch.ones(batch_size, num_queries, dtype=torch.bool, device=tag_logits.device)
    num_counted = hidden_slots.sum(dim=1, keepdim=True).clamp(min=1)  # [B, 1]
    images_at_once = max(1, CHUNK_ELEMENTS // max(1, num_queries * num_tags))
    for start in range(0, batch_size, images_at_once):
        chunk = slice(start, start + images_at_once)
        probabilities = tag_logits[chunk].float().softmax(dim=-1)  # [b, Q, K]
        probabilities.mul_(hidden_slots[chunk, :, None])
        if method == "max":
            scores[chunk] = probabilities.amax(dim=1)
        elif method == "mean":
            scores[chunk] = probabilities.sum(dim=1) / num_counted[chunk]
        else:
            # In logarithms: 1 - p rounds to 1 for the thousands of rare tags, and their scores would all be 0.
            log_absent = probabilities.neg_().log1p_().sum(dim=1)
            scores[chunk] = -torch.expm1(log_absent * (num_slots if num_queries == 1 else 1))
    return scores


class MFDNProcessor(ProcessorMixin):
    """Pictures and tags → what [`MFDNModel`] takes; what it returns → named characters and tags.

    Args:
        image_processor: resizes to `config.image_size` and normalises; the stock ViTImageProcessor.
        tokenizer: one tag = one token, made by `build_tag_tokenizer`.
        characters: names of the C characters in the order of their labels; None names them LABEL_0, LABEL_1, ...
        tag_aggregation: how slots become one score per tag, see `aggregate_tag_scores`.
        tag_threshold: score in [0, 1] from which on `post_process` names a tag.
        tag_thresholds: the same for each tag [K], in the order of their labels; None = `tag_threshold` for all.
        temperature: > 0, divides the logits of characters, so that a score of 0.7 is right in 7 of 10 cases.
        pad_square: pad pictures to a white square first, as in training; False stretches them.
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        characters: list[str] | None = None,
        tag_aggregation: str = "noisy_or",
        tag_threshold: float = 0.35,
        pad_square: bool = True,
        tag_thresholds: list[float] | None = None,
        temperature: float = 1.0,
    ):
        if tag_aggregation not in TAG_AGGREGATIONS:
            raise ValueError(f"tag_aggregation must be one of {TAG_AGGREGATIONS}, got {tag_aggregation!r}.")
        check_threshold(tag_threshold)
        for threshold in tag_thresholds or ():
            check_threshold(threshold)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        super().__init__(image_processor, tokenizer)
        self.characters = None if characters is None else list(characters)
        self.tag_aggregation = tag_aggregation
        self.tag_threshold = tag_threshold
        self.tag_thresholds = None if tag_thresholds is None else list(tag_thresholds)
        self.temperature = temperature
        self.pad_square = pad_square

    @property
    def max_tags(self) -> int:
        """T - 2, what fits between [CLS] and [SEP]."""
        return self.tokenizer.model_max_length - 2

    @property
    def model_input_names(self) -> list[str]:
        return ["pixel_values", "input_ids", "attention_mask"]

    def __call__(self, images: Any = None, tags: Any = None, return_tensors: str | None = "pt") -> BatchFeature:
        """Model inputs for one picture or several.

        Args:
            images: a picture, or a list of them: PIL pictures, arrays, tensors, paths, http(s) addresses; any mode.
            tags: the tags of each picture, `[["long_hair", "smile"], []]`, or one comma-separated string for each; for
                a single picture also a flat list. `Long hair` is `long_hair`. Doubles are dropped; unknown tags are
                dropped with a warning; of more than T - 2, T - 2 are drawn, always the same, with a warning.
            return_tensors: "pt", "np" or None (lists).

        Returns:
            `pixel_values` [B, 3, S, S] if images were given, `input_ids` and `attention_mask` [B, T] if tags were.

        Raises:
            ValueError: neither images nor tags, another number of tag lists than of images, a picture that cannot be
                read, a special token among the tags.
            TypeError: images or tags of another type.
        """
        if images is None and tags is None:
            raise ValueError("MFDNProcessor needs images, tags or both, got neither.")
        features, num_images = {}, None
        if images is not None:
            images = list(images) if isinstance(images, list | tuple) else [images]
            if not images:
                raise ValueError("images is an empty list; MFDNProcessor needs at least one picture.")
            num_images = len(images)
            images = [read_image(image) for image in images]
            if self.pad_square:
                images = [pad_to_square(image) for image in images]
            features.update(self.image_processor(images=images, return_tensors=return_tensors))
        if tags is not None:
            rows = [self.tag_ids(given) for given in self.tags_per_image(tags, num_images)]
            length, pad_id = self.tokenizer.model_max_length, self.tokenizer.pad_token_id
            rows = [[self.tokenizer.cls_token_id, *ids, self.tokenizer.sep_token_id] for ids in rows]
            features["input_ids"] = [ids + [pad_id] * (length - len(ids)) for ids in rows]
            features["attention_mask"] = [[1] * len(ids) + [0] * (length - len(ids)) for ids in rows]
        return BatchFeature(features, tensor_type=return_tensors)

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

    def tag_ids(self, tags: list[str], warn: bool = True) -> list[int]:
        """Token ids of one picture's tags without special tokens, at most T - 2; see `__call__`."""
        special_tokens = {token.lower() for token in self.tokenizer.all_special_tokens}
        unknown_id = self.tokenizer.unk_token_id
        known, unknown = {}, {}  # dictionaries keep the order and drop doubles
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
        if len(known) <= self.max_tags:
            return list(known)
        if warn:
            message = f"{len(known)} tags were given, the model sees {self.max_tags} at most: as many are drawn."
            warnings.warn(message, stacklevel=4)
        # By the tags themselves: the same tags, in whatever order, always leave the same ones.
        drawn = random.Random(" ".join(sorted(known.values()))).sample(sorted(known), self.max_tags)
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
        """Names and scores, best first: for each picture `{"characters": [{"label", "score"}], "tags": [...]}`.

        Args:
            outputs: of the model; `logits` [B, C] and `tag_logits` [B, Q, K] or None, which names no tags.
            top_k: characters per picture, at most C; None = 5, or all if the model knows fewer.
            tag_threshold: score in [0, 1] from which on a tag is named; None = the processor's, for each tag its own
                if there are such.
            max_tags: tags per picture at most; None = all above the threshold.
            given_tags: the `tags` that the outputs were computed with. They are left out, and so are their slots.

        Raises:
            ValueError: top_k outside 1 to C, a threshold outside [0, 1], sizes that do not fit this processor.
        """
        logits, tag_logits = outputs["logits"], outputs.get("tag_logits")
        num_characters = logits.shape[1]
        names = self.characters or [f"LABEL_{label}" for label in range(num_characters)]
        if len(names) != num_characters:
            raise ValueError(f"The model knows {num_characters} characters but this processor names {len(names)}.")
        top_k = min(5, num_characters) if top_k is None else top_k
        if not is_whole(top_k) or not 1 <= top_k <= num_characters:
            raise ValueError(f"top_k must be 1 to the number of characters, {num_characters}, got {top_k!r}.")
        if max_tags is not None and not (is_whole(max_tags) and max_tags >= 0):
            raise ValueError(f"max_tags must be a whole number of 0 or more, got {max_tags!r}.")
        scores, labels = (logits.float() / self.temperature).softmax(dim=-1).topk(top_k)
        results = [
            {"characters": [{"label": names[k], "score": p} for k, p in zip(*row, strict=True)], "tags": []}
            for row in zip(labels.tolist(), scores.tolist(), strict=True)
        ]
        if tag_logits is not None:
            tag_scores = self._tag_scores(tag_logits, given_tags)
            threshold = self._thresholds(tag_threshold, tag_scores)
            first_tag_id = len(self.tokenizer) - tag_scores.shape[1]
            for result, row in zip(results, tag_scores, strict=True):
                found = (row >= threshold).nonzero()[:, 0]
                found = found[row[found].argsort(descending=True, stable=True)][:max_tags]
                tags = self.tokenizer.convert_ids_to_tokens((found + first_tag_id).tolist())
                result["tags"] = [{"label": tag, "score": p} for tag, p in zip(tags, row[found].tolist(), strict=True)]
        return results

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
        # A tag that was given has the score -1: never named.
        return torch.tensor(self.tag_thresholds, device=tag_scores.device).clamp(min=1e-9)

    def _tag_scores(self, tag_logits: torch.Tensor, given_tags: Any) -> torch.Tensor:
        """[B, K] scores in [0, 1]; -1 for tags that were given."""
        num_images, num_queries, num_tags = tag_logits.shape
        first_tag_id = len(self.tokenizer.all_special_tokens)
        if first_tag_id + num_tags != len(self.tokenizer):
            raise ValueError(
                f"The model scores {num_tags} tags but the tokenizer knows {len(self.tokenizer) - first_tag_id}."
            )
        if given_tags is None:
            return aggregate_tag_scores(tag_logits, self.tag_aggregation, self.max_tags)
        given = [self.tag_ids(tags, warn=False) for tags in self.tags_per_image(given_tags, num_images)]
        hidden_slots = torch.ones(num_images, num_queries, dtype=torch.bool, device=tag_logits.device)
        if num_queries > 1:  # a single query is always a hidden slot
            for slots, ids in zip(hidden_slots, given, strict=True):
                slots[: len(ids)] = False  # given tags fill the slots from the first on
        scores = aggregate_tag_scores(tag_logits, self.tag_aggregation, self.max_tags, hidden_slots)
        for image, ids in enumerate(given):
            scores[image, [token_id - first_tag_id for token_id in ids]] = -1
        return scores

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs):
        """Write processor, tokenizer and code; also preprocessor_config.json, which AutoImageProcessor and
        transformers.js look for."""
        self.image_processor.save_pretrained(save_directory)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)


def check_threshold(threshold: float) -> float:
    """The threshold, if it lies in [0, 1]."""
    if isinstance(threshold, bool | str) or not 0 <= threshold <= 1:
        raise ValueError(f"A tag threshold must lie in [0, 1], got {threshold!r}.")
    return threshold


def is_whole(number: Any) -> bool:
    return isinstance(number, numbers.Integral) and not isinstance(number, bool)


__all__ = ["MFDNProcessor", "aggregate_tag_scores", "pad_to_square", "to_rgb"]
