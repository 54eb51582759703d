"""Where a model comes from: a directory, or a repository of the Hugging Face hub at a revision."""

from __future__ import annotations

import fnmatch
import logging
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_runtime.models.advance import Advance, Progress
from embedding_runtime.models.files import DirectoryError
from embedding_runtime.models.layout import weight_folders
from embedding_runtime.models.weights import find_weights

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_WANTED = ("*.json", "*.txt", "*.model", "*.safetensors", "*.tiktoken", "*.jinja")
_SAFE_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLED_WEIGHTS = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
_UNWANTED = ("onnx/*", "openvino/*", "*.onnx*", "coreml/*")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """A model's files on this machine. `revision` is the commit for a repository, otherwise what the user said."""

    directory: Path
    name: str
    revision: str


def resolve(model: str, revision: str | None, cache: Path, progress: Progress) -> Source:
    """The directory itself, or a download of the repository into `cache`.

    Raises DirectoryError with what to do: no such directory, unknown repository or revision, no access, no network.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return Source(path.resolve(), model, revision or "")
    if path.exists():
        raise DirectoryError("is a file, not a model directory")
    if model.startswith(("/", ".", "~")) or not _REPOSITORY.fullmatch(model):
        raise DirectoryError("no such directory (a hub repository is written owner/name)")
    return _download(model, revision, cache, progress)


def _download(repository: str, revision: str | None, cache: Path, progress: Progress) -> Source:
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    wanted = revision or "main"
    # A commit never changes: what is here whole needs no hub.
    complete = _already_downloaded(repository, wanted, cache) if _COMMIT.fullmatch(wanted) else None
    if complete is not None:
        constants.HF_HUB_OFFLINE = True
        return Source(complete, repository, wanted)
    progress(f"looking up {repository} at {wanted}")
    try:
        info = HfApi(library_name="embedding-runtime").model_info(
            repository, revision=wanted, files_metadata=True, timeout=30
        )
        files = _choose_files([(sibling.rfilename, sibling.size or 0) for sibling in info.siblings or []])
        directory = snapshot_download(
            repository,
            revision=info.sha,
            cache_dir=cache / "hub",
            allow_patterns=[name for name, _ in files],
            tqdm_class=_bar(progress, repository, sum(size for _, size in files)),
        )
    except errors.RevisionNotFoundError as error:
        raise DirectoryError(f"the hub has no revision {wanted!r} of it") from error
    except errors.GatedRepoError as error:
        raise DirectoryError("the repository is gated: accept its terms on the hub and give HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise DirectoryError("the hub has no such repository, or it is private and HF_TOKEN is missing") from error
    except Exception as error:  # the hub's client raises errors of whichever HTTP library it is built on
        offline = _already_downloaded(repository, wanted, cache)
        if offline is None:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DirectoryError(f"the hub cannot be reached or the download failed: {reason}") from error
        _log.warning("the hub cannot be reached; using the files downloaded earlier")
        directory = str(offline)
    # From here on nothing is fetched, whatever a library would like.
    constants.HF_HUB_OFFLINE = True
    return Source(Path(directory), repository, Path(directory).name)


def _already_downloaded(repository: str, revision: str, cache: Path) -> Path | None:
    """The files of an earlier download, when nothing that is needed is missing."""
    from huggingface_hub import snapshot_download

    try:
        found = Path(
            snapshot_download(
                repository,
                revision=revision,
                cache_dir=cache / "hub",
                local_files_only=True,
                allow_patterns=list(_WANTED),
                ignore_patterns=list(_UNWANTED),
            )
        )
        # The client knows of the files above; which pickles are needed is known by the folders without safetensors.
        for folder in weight_folders(found):
            find_weights(folder)
    except Exception:  # whatever the reason, it is downloaded then
        return None
    return found


def _choose_files(files: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Configuration, tokenizer and weights; `.bin` weights only in folders that have no safetensors."""
    kept = [pair for pair in files if not any(fnmatch.fnmatch(pair[0], pattern) for pattern in _UNWANTED)]
    safe = {folder for folder, file in (_split(name) for name, _ in kept) if _SAFE_WEIGHTS.fullmatch(file)}

    def is_wanted(name: str) -> bool:
        folder, file = _split(name)
        pickled = folder not in safe and _PICKLED_WEIGHTS.fullmatch(file) is not None
        return pickled or any(fnmatch.fnmatch(name, pattern) for pattern in _WANTED)

    return [(name, size) for name, size in kept if is_wanted(name)]


def _split(name: str) -> tuple[str, str]:
    folder, _, file = name.rpartition("/")
    return folder, file


def _bar(progress: Progress, repository: str, total: int) -> Any:
    """A tqdm class that tells `progress` how many bytes of all files have arrived."""
    from huggingface_hub.utils.tqdm import tqdm

    lock = threading.Lock()
    state = {"bytes": 0}

    class Bar(tqdm):  # type: ignore[misc,type-arg,unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # What comes over the network is counted apart from what is written: once is enough.
            name = kwargs.pop("name", None) or ""
            kwargs["disable"] = True
            self._bytes = kwargs.get("unit") == "B" and not name.endswith(".transfer")
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            if self._bytes:
                with lock:
                    state["bytes"] += int(n or 0)
                    done = min(state["bytes"], total)
                progress(Advance(f"downloading {repository}", done, total))
            return None

    return Bar
