"""The tag vocabulary as a plain tokenizer.json, one tag = one token (paper §IV-B.2).

No tokenizer class of our own: what is written here in `tokenizers` parts loads with `AutoTokenizer` and with
transformers.js, and runs no code from the repository.
"""

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ..configuration_mfdn import MFDNConfig
from ..image_processing_mfdn import MFDNImageProcessor
from ..processing_mfdn import MFDNProcessor

TAG_LIST = "selected_tags.csv"  # of taggers: a row for each output, with its category
GENERAL, CHARACTER, RATING = 0, 4, 9  # categories of Danbooru and of WD taggers
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4


def build_tag_tokenizer(tags: list[str], max_tag_tokens: int = 32) -> PreTrainedTokenizerFast:
    """Tokenizer of K tags: the tag at position k has the id 5 + k, whatever its punctuation.

    Text is read as tags separated by ", "; spaces within a tag become "_" and capitals small letters, so
    `Long hair, >_<` is two tokens. A text with more than T - 2 tags is not cut: MFDNProcessor draws from them.

    Args:
        tags: the vocabulary in underscore form, without special tokens, in the order of their labels.
        max_tag_tokens: T, with [CLS] and [SEP].

    Raises:
        ValueError: a tag twice, without a name, named like a special token, or spelt in a way that the tokenizer
            itself would change (capitals, white space) so that no text could ever reach it.
    """
    normalizer = normalizers.Sequence(
        [
            normalizers.Strip(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s*,\s+"), "\n"),
            normalizers.Replace(Regex(r"[ \t]+"), "_"),
        ]
    )
    check_tags(tags, normalizer)
    vocabulary = {token: token_id for token_id, token in enumerate([*SPECIAL_TOKENS, *tags])}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    # Regex, not the plain string: transformers.js turns that into an [UNK] between any two tags.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n"), behavior="removed")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(r"$"), ", "),
            decoders.Fuse(),
            decoders.Strip(" ", 0, 1),
            decoders.Strip(",", 0, 1),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_tag_tokens,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def check_tags(tags: list[str], normalizer: normalizers.Normalizer):
    """Raise a ValueError that names the tags which cannot be in a vocabulary."""
    empty = [position for position, tag in enumerate(tags) if not tag.strip()]
    if empty:
        raise ValueError(f"Tags need a name; those at positions {empty[:5]} have none.")
    seen, twice = set(), []
    for tag in tags:
        twice += [tag] if tag in seen else []
        seen.add(tag)
    if twice:
        raise ValueError(f"Each tag must be in the vocabulary once; these are there again: {twice[:5]}.")
    special = [tag for tag in tags if tag.upper() in SPECIAL_TOKENS]
    if special:
        raise ValueError(f"Tags cannot be named like the special tokens {', '.join(SPECIAL_TOKENS)}: {special[:5]}.")
    changed = {tag: normalizer.normalize_str(tag) for tag in tags}
    changed = {tag: normal for tag, normal in changed.items() if tag != normal or len(tag.split()) != 1}
    if changed:
        examples = ", ".join(f"{tag!r} → {normal!r}" for tag, normal in list(changed.items())[:5])
        raise ValueError(f"Tags must be in underscore form, small letters and no white space; found {examples}.")


def build_processor(
    config: MFDNConfig, tags: list[str], tag_order: str = "random", image_options: dict | None = None
) -> MFDNProcessor:
    """The processor of a new model: pictures of `config.image_size`, and one token for each tag.

    Args:
        config: sizes, token ids and names of characters.
        tags: the K tags in the order of their labels.
        tag_order: see [`MFDNProcessor`].
        image_options: of [`MFDNImageProcessor`]: what the weights that it starts from expect of their pixels.

    Raises:
        ValueError: the number of tags or the special tokens do not fit the config.
    """
    if config.num_tags != len(tags):
        raise ValueError(f"The config has num_tags = {config.num_tags} but {len(tags)} were given.")
    if not tags and (config.modality != "image" or config.predicts_tags):
        raise ValueError("The tag vocabulary is empty; only a model that takes and names no tags has none.")
    tokenizer = build_tag_tokenizer(tags, config.max_tag_tokens)
    token_ids = tuple(getattr(config, f"{name}_token_id") for name in ("pad", "unk", "cls", "sep", "mask"))
    if token_ids != tuple(range(len(SPECIAL_TOKENS))):
        raise ValueError(f"The tokenizer gives {', '.join(SPECIAL_TOKENS)} the ids 0 to 4, the config {token_ids}.")
    size = {"height": config.image_size, "width": config.image_size}
    image_processor = MFDNImageProcessor(size=size, **(image_options or {}))
    aggregation = "sigmoid" if config.predicts_tags and config.modality == "image" else "noisy_or"
    processor = MFDNProcessor(image_processor, tokenizer, tag_aggregation=aggregation, tag_order=tag_order)
    processor.characters = [config.id2label[label] for label in range(config.num_labels)]
    return processor


__all__ = ["SPECIAL_TOKENS", "build_processor", "build_tag_tokenizer"]
