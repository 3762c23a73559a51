"""One folder of a repository on the Hugging Face hub."""

import contextlib
import difflib
from collections.abc import Collection
from pathlib import Path, PurePosixPath


def downloaded(name: str, marks: Collection[str], others: Collection[str]) -> Path:
    """Return where the folder ``owner/repository/folder`` of the hub lies on this machine.

    It is downloaded if it is not here; once it is, no network is needed.

    Args:
        name: The folder, or ``owner/repository`` if its files lie at the top.
        marks: Names of files by which a dictionary is known.
        others: Names or patterns of files that are wanted beside them; nothing else is downloaded.
    """
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    owner, repository, *inside = PurePosixPath(name).parts
    repo, folder = f"{owner}/{repository}", PurePosixPath(*inside)
    try:
        # A quick question first, since a download retries for half a minute before it gives up.
        files = [PurePosixPath(file.rfilename) for file in huggingface_hub.model_info(repo, timeout=10).siblings or ()]
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ValueError(
            f"{name!r} is neither a directory nor in a repository of the Hugging Face hub. {_nearest(name, marks)}"
        ) from error
    except Exception as error:  # every kind of network trouble, and offline mode
        with contextlib.suppress(Exception):
            here = Path(huggingface_hub.snapshot_download(repo, local_files_only=True)) / folder
            if any((here / mark).is_file() for mark in marks):
                return here
        raise ValueError(
            f"{name!r} is not a directory, and the Hugging Face hub cannot be reached to look for it there. "
            f"{_nearest(name, marks)} To have it offline, load it once where there is a network."
        ) from error
    folders = {str(file.parent) for file in files if file.name in marks}
    if str(folder) not in folders:
        near = ", ".join(difflib.get_close_matches(str(folder), folders, n=3, cutoff=0.0))
        raise ValueError(
            f"{repo!r} on the Hugging Face hub holds no dictionary in {str(folder) if inside else 'its top folder'!r}; "
            f"the nearest folders that do: {near or 'none'}."
        )
    wanted = [str(folder / file) for file in (*marks, *others)]
    return Path(huggingface_hub.snapshot_download(repo, allow_patterns=wanted)) / folder


def _nearest(name: str, marks: Collection[str]) -> str:
    import huggingface_hub.constants

    names = ["tiny"]
    with contextlib.suppress(Exception):  # no cache yet
        for repo in huggingface_hub.scan_cache_dir(huggingface_hub.constants.HF_HUB_CACHE).repos:
            for revision in repo.revisions:
                found = (file.file_path.parent for file in revision.files if file.file_name in marks)
                names += [str(PurePosixPath(repo.repo_id, path.relative_to(revision.snapshot_path))) for path in found]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
    return f"The nearest on this machine: {', '.join(map(repr, near))}."
