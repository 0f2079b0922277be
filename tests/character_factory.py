"""Pictures as vectors, drawn as the model of gallery_mfdn.py says, and a model's statistics of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from modeling_mfdn.gallery_mfdn import CharacterGallery
from modeling_mfdn.training.character_statistics import CharacterSums, calibrate

WIDTH = 8  # of a picture embedding


def draw(num_characters: int, num_pictures: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[num_characters * num_pictures, WIDTH] and their labels; characters stand 3 apart, pictures 1, in odd axes."""
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(99)))
    mixing = turn * torch.linspace(0.7, 1.5, WIDTH)
    characters = 3 * torch.randn(num_characters, 1, WIDTH, generator=generator)
    pictures = characters + torch.randn(num_characters, num_pictures, WIDTH, generator=generator)
    labels = torch.arange(num_characters).repeat_interleave(num_pictures)
    return pictures.flatten(0, 1) @ mixing + 5, labels


def head(num_characters: int):
    """Of a model with so many characters, for which statistics are."""
    return SimpleNamespace(
        character_head=torch.nn.Linear(WIDTH // 2, num_characters), config=SimpleNamespace(hidden_size=WIDTH // 2)
    )


def fitted_gallery(num_characters: int = 30, seed: int = 0) -> CharacterGallery:
    """Nobody taught; fitted on 20 pictures of each character and calibrated on 10 others."""
    x, labels = draw(num_characters, 30, seed)
    is_asked = torch.arange(len(x)) % 30 >= 20
    sums = CharacterSums(num_characters)
    sums.add(x[~is_asked], labels[~is_asked])
    statistics = sums.statistics(head(num_characters))
    z = statistics.axes(x[is_asked])
    logits = -torch.cdist(z, statistics.means)
    calibration = calibrate(statistics, *sums.lessons(statistics), z, labels[is_asked], logits)
    return CharacterGallery(replace(statistics, calibration=calibration))


def picture_of(character: int, number: int) -> Image.Image:
    """One of many pictures of a character: two colours of its own, and some noise."""
    own, noise = np.random.default_rng([1, character]), np.random.default_rng([2, character, number])
    colors = own.integers(0, 256, (2, 1, 3)).repeat(3, axis=1)
    pixels = np.clip(colors + noise.normal(0, 12, (2, 3, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((24, 16), Image.Resampling.NEAREST)


def give_statistics(model, processor) -> None:
    """Statistics of a tiny model, as if it had been trained on pictures of `picture_of` the characters 0 to C - 1."""
    num_characters = model.config.num_labels
    pairs = [(character, number) for number in range(12) for character in range(num_characters)]
    inputs = processor(images=[picture_of(*pair) for pair in pairs])
    with torch.no_grad():
        outputs = model(**inputs)
    labels = torch.tensor([character for character, _ in pairs])
    sums, is_asked = CharacterSums(num_characters), torch.tensor([number >= 8 for _, number in pairs])
    sums.add(outputs.picture_embedding[~is_asked], labels[~is_asked])
    statistics = sums.statistics(model)
    z = statistics.axes(outputs.picture_embedding[is_asked])
    calibration = calibrate(statistics, *sums.lessons(statistics), z, labels[is_asked], outputs.logits[is_asked])
    processor.gallery = CharacterGallery(replace(statistics, calibration=calibration))
