"""`pipeline("character-tagging")`: picture → characters and tags, with tags that are known already as hints; and
characters that it is taught."""

import io
import os
from types import GeneratorType
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import Pipeline

from .gallery_mfdn import THUMBNAIL_SIZE, check_name

POST_PROCESS_PARAMETERS = ("top_k", "tag_threshold", "max_tags")


class MFDNPipeline(Pipeline):
    """Names the character in a picture and its tags.

    Example:
        >>> tagger = pipeline("character-tagging", model=FOLDER_OR_REPOSITORY, trust_remote_code=True)
        >>> tagger("picture.png", tags=["long_hair"], top_k=1)
        {"characters": [{"label": "hatsune_miku", "score": 0.97}], "tags": [{"label": "twintails", "score": 0.91}],
         "unknown": 0.02}
        >>> tagger.teach("my_character", ["1.png", "2.png", "3.png", "4.png", "5.png"])
        >>> tagger.save_pretrained(FOLDER)  # a process that loads it knows my_character
    """

    processor: Any  # MFDNProcessor
    _load_processor: Any = True
    _load_tokenizer: Any = False  # the processor holds both
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        config = self.model.config
        self.processor.characters = [config.id2label[label] for label in range(config.num_labels)]
        self.processor.ratings = getattr(config, "rating_names", None)
        self.processor.check_gallery(self.model)
        # `pipeline()` puts classes in place of the names in this entry, which then could not be written as JSON.
        for entry in config.custom_pipelines.values():
            entry["pt"] = [getattr(auto_class, "__name__", auto_class) for auto_class in entry["pt"]]

    def __call__(self, inputs: Any, tags: Any = None, **kwargs) -> Any:
        """Characters and tags of one picture or of many.

        Args:
            inputs: a picture (path, address, PIL, array, tensor), or a list, generator or torch Dataset of them. In
                place of a picture also `{"image": picture, "tags": [...]}`.
            tags: known tags, `["long_hair", "smile"]`, or for several pictures one such list for each.
            top_k, tag_threshold, max_tags: see [`MFDNProcessor.post_process`].
            batch_size: pictures that go through the model at once, default 1.

        Returns:
            `{"characters": [{"label", "score"}], "tags": [{"label", "score"}], "unknown": probability}`, best first
            and without the tags that were given, and `"ratings"` of models that name them; a list of them for a list;
            an iterator of them for a generator or Dataset. See [`MFDNProcessor.post_process`].
        """
        if isinstance(inputs, list | tuple):
            if not inputs:
                return []
            inputs = list(inputs)
            if tags is not None:
                tags = self.processor.tags_per_image(tags, len(inputs))
                inputs = list(map(with_tags, inputs, tags))
        elif tags is not None and isinstance(inputs, Dataset | GeneratorType):
            pictures: Any = inputs  # a torch Dataset has no __iter__, and yet is one
            inputs = (with_tags(image, given) for image, given in zip(pictures, tags, strict=True))
        elif tags is not None:
            inputs = with_tags(inputs, tags)
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **parameters) -> tuple[dict, dict, dict]:
        unknown = sorted(parameters.keys() - set(POST_PROCESS_PARAMETERS))
        if unknown:
            raise TypeError(
                f"The character-tagging pipeline does not know {unknown}; known are tags (for one call), batch_size, "
                f"{', '.join(POST_PROCESS_PARAMETERS)}."
            )
        return {}, {}, parameters

    def preprocess(self, inputs: Any) -> dict[str, Any]:
        image, tags = (inputs["image"], inputs.get("tags")) if isinstance(inputs, dict) else (inputs, None)
        # Without tags [CLS] [SEP], which the model treats as no tags at all: pictures with and without share a batch.
        tags = self.processor.tags_per_image(tags or [], num_images=1)
        if self.model.config.modality == "image":
            if tags[0]:
                raise ValueError(f"Tags {tags[0]} were given, but this model takes pictures alone (modality 'image').")
            tags = None
        return self.processor(images=[image], tags=tags).to(self.dtype)

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = self.model(**inputs)
        found = {name: outputs.get(name) for name in ("logits", "tag_logits", "rating_logits", "picture_embedding")}
        return found | {"input_ids": inputs.get("input_ids")}

    def postprocess(self, outputs: dict[str, Any], **parameters) -> dict[str, Any]:
        input_ids, given_tags = outputs["input_ids"], None
        if input_ids is not None:
            tokens = self.processor.tokenizer.convert_ids_to_tokens(input_ids[0].tolist(), skip_special_tokens=True)
            given_tags = [tokens]
        return self.processor.post_process(outputs, given_tags=given_tags, **parameters)[0]

    @torch.inference_mode()
    def _embed(self, pictures: Any, batch_size: int) -> tuple[torch.Tensor, bytes]:
        """`picture_embedding` [n, E] of a picture or several, without any tag; and a thumbnail of the first.

        Raises ValueError: there is none, or one cannot be read.
        """
        pictures = list(pictures) if isinstance(pictures, list | tuple) else [pictures]
        if not pictures:
            raise ValueError("Expected at least one picture, got an empty list.")
        found, thumbnail = [], b""
        for start in range(0, len(pictures), batch_size):
            inputs = self.processor(images=pictures[start : start + batch_size])
            thumbnail = thumbnail or draw_thumbnail(inputs["pixel_values"][0], self.processor.image_processor)
            outputs = self.model(**inputs.to(self.model.device, self.dtype), return_tag_logits=False)
            found.append(outputs.picture_embedding.float().cpu())
        return torch.cat(found), thumbnail

    def teach(self, name: str, pictures: Any, batch_size: int = 32) -> list[str]:
        """Teach a character from a few pictures, five for example: seconds, and no training. From then on it stands in
        one ranking with those that were trained. Pictures of a character that was taught before are added to it.

        Args:
            name: as it is to be named, `hatsune_miku`.
            pictures: of this character alone: one (path, address, PIL, array, tensor), or a list of them.
            batch_size: pictures that go through the model at once.

        Returns:
            What a user should know, a sentence each: that the name was there already, that there is one picture alone,
            which picture is unlike the others. Often nothing.

        Raises:
            ValueError: no picture, one that cannot be read, no name, or a model without statistics.
        """
        self.processor.known_gallery()  # both before the pictures, which take time
        return self.processor.teach(check_name(name), *self._embed(pictures, batch_size))

    def forget(self, name: str) -> None:
        """Forget a character that was taught. Raises ValueError where there is none of that name."""
        self.processor.known_gallery().forget(name)

    def load_gallery(self, file: str | os.PathLike) -> list[str]:
        """Add the characters of a gallery that was saved alone. Returns their names.

        Raises ValueError: another model made it, or it is no gallery.
        """
        return self.processor.known_gallery().load(file)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Write model, processor, tokenizer and code; the folder answers to `pipeline(..., model=folder)`."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def with_tags(image: Any, tags: Any) -> dict[str, Any]:
    """One input of the pipeline."""
    if isinstance(image, dict):
        raise ValueError("Tags were given twice: as tags=... and beside the picture, as {'image', 'tags'}.")
    return {"image": image, "tags": tags}


def draw_thumbnail(pixel_values: torch.Tensor, image_processor: Any) -> bytes:
    """A small JPEG of what the model sees, [3, S, S]."""
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (image_processor.image_mean, image_processor.image_std)
    )
    pixels = ((pixel_values.float() * std + mean) * 255).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    picture, file = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


__all__ = ["MFDNPipeline"]
