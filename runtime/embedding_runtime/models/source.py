"""Where a model comes from: a directory, or a repository of the Hugging Face hub at a revision."""

from __future__ import annotations

import fnmatch
import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_runtime.models.files import DirectoryError

Progress = Callable[[str], None]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_WANTED = ("*.json", "*.txt", "*.model", "*.safetensors", "*.tiktoken", "*.jinja")
_WANTED_PICKLES = (*_WANTED, "pytorch_model*.bin", "*/pytorch_model.bin")
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

    for patterns in (_WANTED, _WANTED_PICKLES):
        try:
            found = snapshot_download(
                repository,
                revision=revision,
                cache_dir=cache / "hub",
                local_files_only=True,
                allow_patterns=list(patterns),
                ignore_patterns=list(_UNWANTED),
            )
        except Exception:  # noqa: S112 (whatever the reason, it is downloaded then)
            continue
        if any(Path(found).glob("*.safetensors")) or any(Path(found).glob("pytorch_model*.bin")):
            return Path(found)
    return None


def _choose_files(files: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Configuration, tokenizer and weights; `.bin` weights only where there are no safetensors."""
    has_safetensors = any(name.endswith(".safetensors") and "/" not in name for name, _ in files)
    patterns = _WANTED if has_safetensors else _WANTED_PICKLES
    return [
        (name, size)
        for name, size in files
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
        and not any(fnmatch.fnmatch(name, pattern) for pattern in _UNWANTED)
    ]


def _bar(progress: Progress, repository: str, total: int) -> Any:
    """A tqdm class that tells `progress` how many bytes of all files have arrived."""
    from huggingface_hub.utils.tqdm import tqdm

    lock = threading.Lock()
    state = {"bytes": 0}

    class Bar(tqdm):  # type: ignore[misc,type-arg,unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            kwargs["disable"] = True
            self._bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            if self._bytes:
                with lock:
                    state["bytes"] += int(n or 0)
                    done = min(state["bytes"], total)
                share = 100 * done // total if total else 100
                progress(f"downloading {repository}: {share} %, {done / 1e6:.1f} of {total / 1e6:.1f} MB")
            return None

    return Bar
