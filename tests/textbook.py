"""The textbook recipe of augmentation, by torchvision on a full decode, which the collator is measured against."""

from pathlib import Path

import torch
from torchvision.transforms import v2

from modeling_mfdn.data.collator import IMAGE_STREAM, MFDNCollator
from modeling_mfdn.pictures_mfdn import load_rgb, pad_to_square


class TextbookCollator(MFDNCollator):
    """Draws from torchvision's generator where [`MFDNCollator`] crops and jitters by itself."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        size, (smallest, largest) = self.config.image_size, self.crop_share
        crop = v2.RandomResizedCrop(size, scale=(smallest**2, largest**2), ratio=(1.0, 1.0))
        flip = v2.RandomHorizontalFlip(0.5 if self.flip else 0.0)
        self.transform = v2.Compose(
            [
                *([crop, flip, v2.ColorJitter(*self.color_jitter)] if self.training else [v2.Resize((size, size))]),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def _picture(self, row: dict) -> torch.Tensor:
        rng = self._generator(row["post_id"], IMAGE_STREAM)
        image = pad_to_square(load_rgb(row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            return self.transform(image)

    def _pixel_values(self, pictures: list) -> torch.Tensor:
        return torch.stack(pictures)
