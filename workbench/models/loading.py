"""Load any model that TransformerLens wraps, without noise, and say plainly why one cannot be loaded."""

import contextlib
import difflib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from workbench.models.sites import TransformerBridge

PRETRAINED = Path(__file__).parent.parent / "pretrained"

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def load_model(
    name_or_path_or_bridge: str | Path | TransformerBridge = "tiny",
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
) -> TransformerBridge:
    """Return a model in evaluation mode whose parameters take no gradient.

    Args:
        name_or_path_or_bridge: A shipped model (``"tiny"``), a Hugging Face directory, a hub id, or a bridge,
            which is used in place. A directory never touches the network, nor does a hub id once downloaded if
            the hub cannot be reached. ``"tiny@3200"`` is the model as it was after so many steps of training,
            where a folder ``checkpoints`` beside the weights keeps it; 0 is untrained.
        device: Where to put it; ``"auto"`` is CUDA where there is one, else the CPU, and leaves a bridge alone.
        dtype: The precision; None is float32 whatever the files are in, and leaves a bridge alone.
    """
    from transformer_lens.model_bridge import TransformerBridge as Bridge

    source = name_or_path_or_bridge
    if isinstance(source, str | Path):
        model = _from_name(str(source), device, dtype or torch.float32)
    elif isinstance(source, Bridge):
        model = source
        if device != "auto":
            model.to(device, print_details=False)
        if dtype is not None:
            model.to(dtype, print_details=False)
    else:
        raise TypeError(
            f"load_model takes a name, a directory or a TransformerBridge, got {type(source).__name__}; wrap a "
            "Hugging Face model with TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=tokenizer)."
        )
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def _from_name(name: str, device: str | torch.device, dtype: torch.dtype) -> TransformerBridge:
    if not name.strip():
        raise ValueError("The name of the model is empty; give a shipped one, such as 'tiny', a directory or a hub id.")
    path = Path(name).expanduser()
    whole, at, step = name.rpartition("@")
    if at and not path.exists():
        with _as_it_was(PRETRAINED / whole if whole in _shipped() else Path(whole).expanduser(), step) as path:
            return _from_name(str(path), device, dtype)
    if name in _shipped():
        path = PRETRAINED / name
    elif not path.is_dir():
        if path.is_absolute() or name.startswith((".", "~")) or path.exists():
            raise ValueError(f"{name!r} is not a directory; load_model reads Hugging Face model directories.")
        downloaded = _on_hub(name)
        if downloaded is None:
            return _boot(name, name, device, dtype)
        path = downloaded
    _check_directory(path)
    with _without_bars():
        return _boot(name, str(path), device, dtype)


@contextlib.contextmanager
def _as_it_was(path: Path, step: str) -> Iterator[Path]:
    """Hold a directory with the weights of one step in the place of the last ones."""
    kept = {str(int(file.stem)): file for file in sorted((path / "checkpoints").glob("*.safetensors"))}
    if step not in kept:
        has = f"it has {', '.join(kept)}" if kept else "it has none"
        raise ValueError(f"{str(path)!r} has no checkpoint of step {step!r}; {has}.")
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / f"{path.name}@{step}"
        shutil.copytree(path, held, ignore=shutil.ignore_patterns("checkpoints", "dictionaries", "*.safetensors*"))
        shutil.copy(kept[step], held / "model.safetensors")
        yield held


def _boot(name: str, source: str, device: str | torch.device, dtype: torch.dtype) -> TransformerBridge:
    from transformer_lens.model_bridge import TransformerBridge as Bridge

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with _load_report() as report:
        try:
            model = Bridge.boot_transformers(source, device=device, dtype=dtype)
        except Exception as error:  # the layers below raise a dozen types, bare Exception among them
            _refuse_tokenizer(Path(source) / "tokenizer.json")
            _refuse_sizes(name, report)
            said = re.sub(r":\s*\n\s*", ": ", str(error).strip()) or type(error).__name__
            reason = said.splitlines()[0][:200]
            raise ValueError(f"{name!r} could not be loaded as a language model: {reason}") from error
    _refuse_weights(name, model, report)
    return model


def _shipped() -> list[str]:
    # Dictionaries are shipped there too; a model has a tokenizer.
    return sorted(file.parent.name for file in PRETRAINED.glob("*/tokenizer.json"))


def _on_hub(name: str) -> Path | None:
    """Return where a hub model lies if the hub cannot be reached, None if it can; say so if neither helps."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        # One quick question first, since a download retries for half a minute before it gives up.
        huggingface_hub.model_info(name, timeout=10)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ValueError(
            f"{name!r} is neither a shipped model, nor a directory, nor a model on the Hugging Face hub. "
            f"{_alternatives(name)}"
        ) from error
    except Exception:  # every kind of network trouble, and offline mode
        try:
            return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
        except Exception as error:
            raise ValueError(
                f"{name!r} is neither a shipped model nor a directory, and the Hugging Face hub cannot be reached "
                f"to look for it there. {_alternatives(name)} To have a hub model offline, run "
                f"'hf download {name}' once where there is a network."
            ) from error
    return None


def _alternatives(name: str) -> str:
    import huggingface_hub

    local = _shipped()
    with contextlib.suppress(Exception):  # no cache yet
        cache = huggingface_hub.scan_cache_dir()
        local += sorted(repo.repo_id for repo in cache.repos if repo.repo_type == "model")
    if not local:
        return "No model is on this machine."
    near = difflib.get_close_matches(name, local, n=1, cutoff=0.0)[0]
    return f"The nearest on this machine is {near!r}, all are {', '.join(local)}."


def _check_directory(path: Path) -> None:
    """Say what a directory lacks, before the layers below guess."""
    from safetensors import SafetensorError, safe_open

    if not (path / "config.json").is_file():
        raise ValueError(
            f"{str(path)!r} has no config.json, so it is not a model directory; "
            "give the folder that holds config.json, the weights and the tokenizer."
        )
    if not any((path / file).is_file() for file in _TOKENIZER_FILES):
        raise ValueError(
            f"{str(path)!r} has no tokenizer; put its {_TOKENIZER_FILES[0]} beside config.json "
            "(tokenizer.save_pretrained writes it)."
        )
    files = set(path.glob("*.safetensors"))
    index = path / "model.safetensors.index.json"
    if index.is_file():
        files |= {path / file for file in json.loads(index.read_text())["weight_map"].values()}
    if not files and not any(path.glob("*.bin")):
        raise ValueError(f"{str(path)!r} has no weights; put its model.safetensors beside config.json.")
    for file in sorted(files):
        try:
            with safe_open(file, framework="pt"):  # reads the header and compares it with the file's length
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{str(file)!r} is missing, corrupt or truncated ({error}); copy or download it again."
            ) from error


def _refuse_tokenizer(file: Path) -> None:
    """Say so if the tokenizer is what cannot be read: the layers below name neither it nor its file."""
    from tokenizers import Tokenizer

    if not file.is_file():
        return
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust tokenizers raise a bare Exception
        raise ValueError(
            f"{str(file)!r} is not a tokenizer ({error}); copy or download it again, or write it with "
            "tokenizer.save_pretrained."
        ) from error


def _refuse_sizes(name: str, report: list[list[str]]) -> None:
    """Say so if config.json describes a model of another size than the weights are."""
    for key, status, sizes in report:
        if "MISMATCH" in status:
            held, expected = (" × ".join(re.findall(r"\d+", size)) for size in sizes.partition(" vs ")[::2])
            raise ValueError(
                f"The config.json of {name!r} does not fit its weights: {key} is {expected} by config.json and {held} "
                "in the file. Put the config.json of these weights beside them, or copy or download the model again."
            )


def _refuse_weights(name: str, model: TransformerBridge, report: list[list[str]]) -> None:
    """Say so if weights are left over, missing, or no numbers."""
    # A bridge puts its own modules between those of the files.
    weights = {key.replace("._original_component", ""): p for key, p in model.original_model.named_parameters()}
    kinds = {re.sub(r"\.\d+", "", key) for key in weights}
    # Heads of other tasks may be left over, but not one more of what the model has.
    if over := [key for key, status, _ in report if "UNEXPECTED" in status and re.sub(r"\.\d+", "", key) in kinds]:
        raise ValueError(
            f"The config.json of {name!r} does not fit its weights: by config.json there is no {over[0]}, which the "
            "file has. Put the config.json of these weights beside them, or copy or download the model again."
        )
    if missing := [key for key, status, _ in report if "MISSING" in status]:
        raise ValueError(
            f"The weights of {name!r} are incomplete: {missing[0]} is missing ({len(missing)} such in all), and "
            "random numbers would stand in for it. Copy or download the model again."
        )
    if wrong := [key for key, parameter in weights.items() if not parameter.isfinite().all()]:
        raise ValueError(
            f"The weights of {name!r} hold NaN or infinities: {wrong[0]} is the first of {len(wrong)} such parameters. "
            "Copy or download the model again, or load it in float32 if that was not the precision."
        )


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    from transformers.utils import logging as hf_logging

    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


@contextlib.contextmanager
def _load_report() -> Iterator[list[list[str]]]:
    """Collect what Hugging Face only logs of weights that do not fit: rows of parameter, status and sizes."""
    report: list[list[str]] = []

    class Report(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            rows = [[cell.strip() for cell in line.split("|")] for line in record.getMessage().splitlines()]
            # It writes "layers.{0, 1, 2}.weight" for three of a kind; the first stands for them.
            rows = [[re.sub(r"\{(\d+).*?\}", r"\1", row[0]), *row[1:], ""][:3] for row in rows if len(row) > 1]
            report.extend(sorted(rows))

    import transformers.modeling_utils as _  # noqa: F401  so that its own logger exists and is set up

    logger = logging.getLogger("transformers.modeling_utils")
    before = logger.level, logger.propagate
    handler = Report()
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield report
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
