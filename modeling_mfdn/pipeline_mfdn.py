"""`pipeline("character-tagging")`: picture → characters and tags, with tags that are known already as hints."""

import os
from types import GeneratorType
from typing import Any

from torch.utils.data import Dataset
from transformers import Pipeline

POST_PROCESS_PARAMETERS = ("top_k", "tag_threshold", "max_tags")


class MFDNPipeline(Pipeline):
    """Names the character in a picture and its tags.

    Example:
        >>> tagger = pipeline("character-tagging", model=FOLDER_OR_REPOSITORY, trust_remote_code=True)
        >>> tagger("picture.png", tags=["long_hair"], top_k=1)
        {"characters": [{"label": "hatsune_miku", "score": 0.97}], "tags": [{"label": "twintails", "score": 0.91}]}
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
            `{"characters": [{"label", "score"}], "tags": [{"label", "score"}]}`, best first and without the tags that
            were given, and `"ratings"` of models that name them; a list of them for a list; an iterator of them for a
            generator or Dataset.
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
        found = {name: outputs.get(name) for name in ("logits", "tag_logits", "rating_logits")}
        return found | {"input_ids": inputs.get("input_ids")}

    def postprocess(self, outputs: dict[str, Any], **parameters) -> dict[str, Any]:
        input_ids, given_tags = outputs["input_ids"], None
        if input_ids is not None:
            tokens = self.processor.tokenizer.convert_ids_to_tokens(input_ids[0].tolist(), skip_special_tokens=True)
            given_tags = [tokens]
        return self.processor.post_process(outputs, given_tags=given_tags, **parameters)[0]

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Write model, processor, tokenizer and code; the folder answers to `pipeline(..., model=folder)`."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def with_tags(image: Any, tags: Any) -> dict[str, Any]:
    """One input of the pipeline."""
    if isinstance(image, dict):
        raise ValueError("Tags were given twice: as tags=... and beside the picture, as {'image', 'tags'}.")
    return {"image": image, "tags": tags}


__all__ = ["MFDNPipeline"]
