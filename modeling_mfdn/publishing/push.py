"""Upload a trained model or a built data set to the Hub.

    mfdn push model mfdn NAME/mfdn --dry_run
    mfdn push model mfdn NAME/mfdn --dataset_id NAME/danmul
    mfdn push dataset danmul NAME/danmul

Needs a token that may write (`hf auth login`, or HF_TOKEN). Interrupted, the same command goes on: what is already
there is not sent again. Checkpoints, logs and pickles stay home.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from huggingface_hub import HfApi, whoami
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import filter_repo_objects

from ..gallery_mfdn import GALLERY_FILE
from ..training.run_folder import UNFINISHED_MODEL
from .cards import hub_files, missing_facts, write_hub_files

MODEL_FILES = ("config.json", "processor_config.json", "tokenizer.json")
STAYS_HOME = ["checkpoint-*", "runs/*", ".cache/*", "*.bin", "*.pt", "*.pth", "*.pkl", "log.txt"]
STAYS_HOME += ["*.unfinished", "*.unfinished/*", "*.partial", "*.partial/*", "*.tmp", "*.lock", "*.log", ".git/*"]
TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{20,}\b|\bapi_org_[A-Za-z0-9]{20,}\b")


def publish_model(folder: str | Path, repository: str, dataset_id: str | None = None, **options) -> str | None:
    """Write the card with the repository's name into its snippets and upload the folder; see [`upload`].

    Raises:
        ValueError: the folder holds no complete model.
    """
    folder = Path(folder)
    missing = [name for name in MODEL_FILES if not (folder / name).exists()]
    if not any(folder.glob("model*.safetensors")):
        missing.append("model.safetensors")
    if missing or (folder / UNFINISHED_MODEL).exists():
        found = ", ".join(missing) or "the end of a save that was interrupted"
        raise ValueError(f"{folder} is not a complete model: {found} is missing. Train it, or save it again.")
    for fact in missing_facts(folder):
        print(f"warning: {fact}", file=sys.stderr)
    if options.get("dry_run"):
        files = hub_files(folder, repository, dataset_id)
        options["rewritten"] = {name: len(text.encode()) for name, text in files.items()}
    else:
        write_hub_files(folder, model_id=repository, dataset_id=dataset_id)
    # Weights in another number of shards would stay beside the new ones, and who was forgotten would be known there.
    outdated = ["model*.safetensors", "*.index.json", GALLERY_FILE]
    return upload(folder, repository, "model", delete_patterns=outdated, **options)


def publish_dataset(folder: str | Path, repository: str, **options) -> str | None:
    """Upload a built data set; see [`upload`].

    Raises:
        ValueError: a shard that build.json names is not there, or of another size.
    """
    folder = Path(folder)
    build = folder / "build.json"
    if not build.exists() or not (folder / "README.md").exists():
        raise ValueError(f"{folder} is no data set of build_danmul: it needs build.json and README.md.")
    try:
        record = json.loads(build.read_text(encoding="utf-8"))
        shards = [("data", shard["file"], shard["bytes"]) for shard in record["shards"]]
        shards += [("share", shard["file"], shard["bytes"]) for shard in record.get("share", {}).get("shards", [])]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{build} is cut or damaged ({error!r}): build the data set again.") from error
    for part, name, expected in shards:
        path = folder / part / name
        size = path.stat().st_size if path.exists() else None
        if size != expected:
            found = "is missing" if size is None else f"has {size:,} bytes"
            raise ValueError(f"{path} {found}, build.json says {expected:,}. Build the data set again.")
    # The card was written for the folder; on the Hub the data set has another name. The folder stays as it is.
    card = (folder / "README.md").read_text(encoding="utf-8").replace("in the folder that holds danmul/; ", "")
    card = card.replace('load_dataset("danmul"', f'load_dataset("{repository}"').encode()
    options["rewritten"] = {"README.md": len(card)}
    return upload(
        folder, repository, "dataset", delete_patterns=["data/*.parquet", "share/*.parquet"], card=card, **options
    )


def repository_id(name: str, token: str | None = None) -> str:
    """OWNER/NAME; the Hub is asked whose token it is where there is no owner. Before a training, not after it.

    Raises ValueError: nobody is logged in, or the Hub cannot be asked.
    """
    if "/" in name:
        return name
    try:
        return f"{whoami(token)['name']}/{name}"
    except OSError as error:
        raise ValueError(
            f"Whose repository is {name}? The Hub did not say ({' '.join(str(error).split())[:200]}). Pass "
            f"OWNER/{name} as the repository (--hub_model_id), or log in with `hf auth login`."
        ) from error


def upload(
    folder: Path,
    repository: str,
    repo_type: str,
    *,
    delete_patterns: list[str],
    private: bool | None = None,
    revision: str | None = None,
    dry_run: bool = False,
    rewritten: Mapping[str, int] = MappingProxyType({}),
    token: str | None = None,
    message: str | None = None,
    card: bytes | None = None,
) -> str | None:
    """One commit (several, for very large folders) with everything but [`STAYS_HOME`].

    Args:
        repository: NAME/REPOSITORY; it is created if it is not there.
        delete_patterns: files of an older upload that this one no longer has.
        private: None = as it is; a new repository is then public.
        dry_run: only say what would be uploaded; nothing is written.
        rewritten: of a dry run: files that would be written first, with their bytes.
        revision: branch; it is created if it is not there.
        card: README.md as it is on the Hub, in a commit of its own behind the others; None = that of the folder.

    Raises:
        ValueError: a file holds a token, or is a link to one elsewhere.

    Returns:
        The commit, which users should pin; None with `dry_run`.
    """
    there = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    there |= rewritten
    sizes = {name: there[name] for name in filter_repo_objects(sorted(there), ignore_patterns=STAYS_HOME)}
    refuse_links(folder, sizes)
    refuse_secrets(folder, sorted(sizes.keys() - rewritten.keys()))
    for name, size in sizes.items():
        print(f"{size:>15,}  {name}")
    print(f"{sum(sizes.values()):>15,}  bytes in {len(sizes)} files for the {repo_type} {repository}")
    if dry_run:
        return None
    api = HfApi(token=token)
    api.create_repo(repository, repo_type=repo_type, private=private, exist_ok=True)
    if revision:
        api.create_branch(repository, branch=revision, repo_type=repo_type, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repository,
        repo_type=repo_type,
        folder_path=folder,
        revision=revision,
        ignore_patterns=STAYS_HOME if card is None else [*STAYS_HOME, "README.md"],
        delete_patterns=delete_patterns,
        commit_message=message or f"Upload {folder.resolve().name}",
    )
    if card is not None:
        commit = api.upload_file(
            path_or_fileobj=card,
            path_in_repo="README.md",
            repo_id=repository,
            repo_type=repo_type,
            revision=revision,
            commit_message=message or f"Card of {folder.resolve().name}",
        )
    print(f'Published: {commit.commit_url}\nPin it: revision="{commit.oid}"')
    return commit.oid


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Raises ValueError for a link that leads out of the folder: what lies there would be published."""
    for name in names:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{folder / name} is a link to {(folder / name).resolve()}, outside of the folder. Put a copy in its "
                "place, or remove it; nothing was sent."
            )


def refuse_secrets(folder: Path, names: Iterable[str]) -> None:
    """Raises ValueError for a text file that holds a token of the Hub: models of earlier versions recorded all flags,
    and a note of your own may hold one too."""
    for name in names:
        path = folder / name
        if path.suffix in (".json", ".md", ".txt", ".yaml", ".yml", ".jsonl", ".csv", ".py") and path.exists():
            with path.open("rb") as file:
                if any(TOKEN.search(line) for line in file):
                    raise ValueError(
                        f"{path} holds what looks like a token of the Hub. Remove it there; nothing was sent."
                    )


def push_folder(what: str, folder: str, repository: str, dataset_id: str | None = None, **options) -> None:
    """Publish a folder that is a "model" or a "dataset"; `options` as of `upload`.

    Raises:
        ValueError, OSError: with a sentence for the user.
    """
    if not options.get("dry_run"):
        repository = repository_id(repository)
    try:
        if what == "model":
            publish_model(folder, repository, dataset_id, **options)
        elif dataset_id:
            raise ValueError("--dataset_id is of a model; a data set is its own.")
        else:
            publish_dataset(folder, repository, **options)
    except HTTPError as error:
        raise OSError(f"{error} Nothing is half-published: run the same command again.") from error
