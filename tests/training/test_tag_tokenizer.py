import subprocess
import sys

import pytest

from modeling_mfdn.training.tag_tokenizer import build_processor, build_tag_tokenizer


def test_every_tag_is_one_token_whatever_its_punctuation(tags):
    tokenizer = build_tag_tokenizer(tags, max_tag_tokens=20)
    for position, tag in enumerate(tags):
        assert tokenizer(tag).input_ids == [2, 5 + position, 3], tag
    assert tokenizer(", ".join(tags)).input_ids == [2, *range(5, 5 + len(tags)), 3]
    assert tokenizer(tags, is_split_into_words=True).input_ids == [2, *range(5, 5 + len(tags)), 3]


def test_special_tokens_have_the_ids_0_to_4(tags):
    tokenizer = build_tag_tokenizer(tags)
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) == [0, 1, 2, 3, 4]
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.model_max_length) == (0, 4, 32)


def test_spaces_capitals_and_loose_commas_are_read(tags):
    tokenizer = build_tag_tokenizer(tags)
    ids = tokenizer("Hatsune Miku (append) , Long  hair,  >_<,\nÉCOLE").input_ids
    assert tokenizer.convert_ids_to_tokens(ids[1:-1]) == ["hatsune_miku_(append)", "long_hair", ">_<", "école"]
    assert tokenizer("nobody_knows").input_ids == [2, 1, 3]
    assert tokenizer("").input_ids == [2, 3]


def test_decoding_gives_the_tags_back(tags):
    tokenizer = build_tag_tokenizer(tags)
    assert tokenizer.decode(tokenizer(", ".join(tags)).input_ids, skip_special_tokens=True) == ", ".join(tags)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["hat", "smile", "hat"], r"once.*\['hat'\]"),
        (["hat", ""], r"positions \[1\]"),
        (["hat", "[MASK]"], r"special tokens.*\['\[MASK\]'\]"),
        (["hat", "[sep]"], "special tokens"),
        (["Hat"], "'Hat' → 'hat'"),
        (["long hair"], "'long hair' → 'long_hair'"),
        (["long\u3000hair"], "white space"),
        (["a, b"], "underscore form"),
    ],
)
def test_impossible_vocabularies_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        build_tag_tokenizer(wrong)


def test_a_fresh_process_loads_it_without_any_of_our_code(tags, tmp_path):
    build_tag_tokenizer(tags).save_pretrained(tmp_path)
    code = (
        "import sys; sys.modules['modeling_mfdn'] = None\n"
        "from transformers import AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(tmp_path)!r})\n"
        "print(tokenizer('Long hair, >_<').input_ids, tokenizer.model_max_length, len(tokenizer))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[2, 6, 8, 3] 32 16", done.stderr


def test_the_full_vocabulary_is_one_token_each():
    many = [f"tag_{k}" for k in range(25_404)]
    tokenizer = build_tag_tokenizer(many)
    assert len(tokenizer) == 25_409
    assert tokenizer("tag_25403, tag_0").input_ids == [2, 25_408, 5, 3]


def test_a_processor_fits_its_config(tiny_config, tags, characters):
    processor = build_processor(tiny_config, tags)
    assert processor.characters == characters
    assert processor.tokenizer.model_max_length == 7
    assert len(processor.tokenizer) == tiny_config.vocab_size
    with pytest.raises(ValueError, match="num_tags = 11 but 10"):
        build_processor(tiny_config, tags[1:])
    tiny_config.mask_token_id = 7
    with pytest.raises(ValueError, match="ids 0 to 4"):
        build_processor(tiny_config, tags)
