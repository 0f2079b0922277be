"""Where public weights lie: a folder or a repository on the Hub, JSON and safetensors alone."""

import json
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open

from .tag_tokenizer import TAG_LIST

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".npz", ".msgpack", ".h5")
HUB_FILES = ["config.json", "model*.safetensors", "model.safetensors.index.json", "preprocessor_config.json"]
HUB_FILES += [TAG_LIST, "README.md"]  # of WD taggers: what the outputs mean, and the licence


def download(weights: str) -> Path:
    """The folder of a repository on the Hub: config and weights, nothing that could run."""
    repository = weights.removeprefix("hf-hub:")
    try:
        return Path(snapshot_download(repository, allow_patterns=HUB_FILES))
    except GatedRepoError as error:
        raise OSError(
            f"{repository} is gated: accept its terms on https://huggingface.co/{repository} and log in with "
            "`hf auth login`, or set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise OSError(
            f"There is no {repository} on the Hub that you may read, and no folder of that name here. If it is "
            "private, log in with `hf auth login`."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, ConnectionError) as error:
        raise OSError(
            f"{repository} could not be fetched ({type(error).__name__}) and is not in the cache. Is there "
            "a network? Else fetch it elsewhere and pass the folder."
        ) from error


def read_json(path: Path) -> dict:
    """A JSON object. Raises FileNotFoundError, or ValueError for what is none."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path.name} in {path.parent}: expected a folder with a saved model.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is cut or damaged ({error}): download it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object.")
    return content


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the shards that model.safetensors.index.json names."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not index.is_file():
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        raise FileNotFoundError(
            f"There is no model.safetensors in {folder}"
            + (f"; {pickled[0]} is pickled, which could run any code, and is not read." if pickled else ".")
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [folder / Path(name).name for name in names]  # shards lie beside their index and nowhere else
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} does not say which files hold the weights.") from error


def load_tensors(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, torch.Tensor]:
    """Of a .safetensors file, those whose names begin so; nothing else is read."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}
    except SafetensorError as error:
        raise ValueError(f"{path} is cut, or no .safetensors file ({error}): download it again.") from error


def load_folder(folder: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, torch.Tensor]:
    """The tensors of a saved model, of one file or of shards."""
    state: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        state |= load_tensors(path, prefixes)
    return state
