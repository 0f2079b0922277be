"""Inference Endpoints: the platform makes an `EndpointHandler` of the repository's folder and calls it.

It is copied beside the weights and imports nothing of this package but what lies there.
"""

import base64
import binascii
from typing import Any

from PIL import Image
from transformers import pipeline

MAX_TEXT = 2**27
PARAMETERS = ("top_k", "tag_threshold", "max_tags", "tags")


class EndpointHandler:
    """`{"inputs": picture, "parameters": {…}}` → `{"characters": [{"label", "score"}], "tags": […], "unknown": p}`.

    Args:
        path: folder with model, processor and code.
    """

    def __init__(self, path: str = ""):
        # The platform runs this repository's code anyway: this file is part of it.
        self.tagger = pipeline("character-tagging", model=path or ".", trust_remote_code=True)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Name what is in a picture.

        Args:
            data: "inputs" is a PIL picture, bytes, a base64 string (also as data:…;base64,…), or `{"image": one of
                these, "tags": [...]}`; "parameters" may hold top_k, tag_threshold, max_tags, and tags as hints.

        Returns:
            Characters and tags, best first; `{"error": sentence}` for input that cannot be used.
        """
        try:
            if not isinstance(data, dict) or "inputs" not in data:
                raise ValueError('Expected {"inputs": picture}.')
            inputs, parameters = data["inputs"], dict(data.get("parameters") or {})
            if unknown := sorted(parameters.keys() - set(PARAMETERS)):
                raise ValueError(f"Unknown parameters {unknown}; known are {', '.join(PARAMETERS)}.")
            tags = parameters.pop("tags", None)
            if isinstance(inputs, dict):
                inputs, tags = inputs.get("image"), inputs.get("tags", tags)
            return self.tagger(to_picture(inputs), tags=tags, **parameters)
        except (ValueError, TypeError, OSError) as error:
            return {"error": str(error)}


def to_picture(inputs: Any) -> Any:
    """The picture that was sent, as bytes or a PIL picture. Never a path or an address: the endpoint's disk and
    network are not the caller's.

    Raises:
        ValueError: neither bytes, base64 nor a picture.
    """
    if isinstance(inputs, Image.Image):
        return inputs
    if isinstance(inputs, str):
        if len(inputs) > MAX_TEXT:
            raise ValueError(f"Expected at most {MAX_TEXT:,} characters of base64, found {len(inputs):,}.")
        # MIME and command line tools wrap lines, and some write the alphabet for addresses, without the = at the end.
        text = "".join(inputs.rpartition("base64,")[2].split()).replace("-", "+").replace("_", "/").rstrip("=")
        try:
            inputs = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except binascii.Error as error:
            raise ValueError("Expected a picture as base64 text, found text that is none.") from error
    if not isinstance(inputs, bytes | bytearray):
        raise ValueError(f"Expected a picture, bytes or base64 text, found {type(inputs).__name__}.")
    return bytes(inputs)
