"""``workbench lab | doctor | train``: thin commands over the package."""

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TOUR = "00_tour.ipynb"
PACKAGES = ("workbench", "torch", "transformer-lens", "transformers", "jupyterlab", "ipywidgets", "anywidget")


def notebooks(directory: Path | None) -> Path:
    """Return the folder of notebooks: the given one, filled with copies where it holds none, or the checkout's."""
    shipped = Path(__file__).parent.parent / "notebooks"
    if not (shipped / TOUR).exists():
        shipped = Path(sys.prefix) / "share" / "workbench" / "notebooks"
    folder = directory or (shipped if (shipped / TOUR).exists() else Path("notebooks"))
    if not any(folder.glob("*.ipynb")):
        if not (shipped / TOUR).exists():
            raise SystemExit(f"{folder} holds no notebooks and none came with this installation; clone the repository.")
        shutil.copytree(shipped, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    return folder


def lab(directory: Path | None, check: bool, options: list[str]) -> int:
    """Open JupyterLab, with ``options`` of its own, or run the tour without a browser and say what it found."""
    folder = notebooks(directory)
    if not check:
        command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.resolve()}"]
        return subprocess.call([*command, f"--LabApp.default_url=/lab/tree/{TOUR}", *options])
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    started = time.monotonic()
    notebook = nbformat.read(folder / TOUR, as_version=4)
    # The kernel's warning about its transport would be the first thing a newcomer reads.
    quiet = ["--log-level=40"]
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", extra_arguments=quiet, resources=place)
    try:
        client.execute()
    except CellExecutionError as error:
        print(f"{TOUR} failed:\n{error}")
        return 1
    said = [o.get("text", "") for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream"]
    print("".join(said).strip())
    print(f"\n{TOUR} ran from top to bottom in {time.monotonic() - started:.0f} s and its claims hold.")
    return 0


def doctor() -> int:
    """Print what is installed, what it runs on, and what to do where something is wrong."""
    wrong = []
    print(f"python            {sys.version.split()[0]}")
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "missing"
            wrong.append(
                f'{name} is missing: run  python -m pip install -e .  in the repository (or pip install "{name}")'
            )
        print(f"{name:17} {version}")
    if wrong:
        print("\n".join(["", *wrong]))
        return 1
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        sizes = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        print(f"device            cuda: {torch.cuda.get_device_name()}, {sizes}")
    else:
        print(f"device            cpu, {os.cpu_count()} cores, torch on {torch.get_num_threads()}")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    print(f"memory            {pages / 2**30:.1f} GiB")
    try:
        from workbench.models import load_model, tokenize

        started = time.monotonic()
        model = load_model("tiny", device="cpu")
        tokens = tokenize(model, "Today Mia is at the")
        best = int(model(tokens)[0, -1].argmax())
        word = model.tokenizer.decode([best])
        print(f"shipped model     loads and answers ({word!r}) in {time.monotonic() - started:.1f} s")
    except Exception as error:
        wrong.append(
            f"the shipped model does not load: {error}\n"
            "reinstall with  python -m pip install --force-reinstall --no-deps -e .  in a fresh clone"
        )
    try:
        from workbench.dictionaries import load_dictionary

        dictionary = load_dictionary("tiny")
        print(f"shipped features  {dictionary.n_features} at {', '.join(map(str, dictionary.sites_in))}")
    except Exception as error:
        wrong.append(f"the shipped dictionary does not load: {error}")
    if shutil.which("jupyter") is None and not (Path(sys.executable).parent / "jupyter").exists():
        wrong.append("the jupyter command is not on the path: activate the environment that holds workbench")
    print("\n".join(["", *wrong]) if wrong else "\nAll is well. Open the tour with  workbench lab")
    return 1 if wrong else 0


def train(given: argparse.Namespace) -> int:
    """Train a dictionary on the activations of a model, measure it on held-out text, and save it."""
    from dataclasses import asdict

    import torch
    from tqdm import tqdm

    from workbench.activations import ActivationStore
    from workbench.dictionaries import TopK, fidelity, save
    from workbench.language import Language
    from workbench.models import Site, fingerprint, load_model
    from workbench.training import TrainConfig
    from workbench.training import train as start

    model = load_model(given.model)
    site = Site(model.cfg.n_layers // 2 if given.layer is None else given.layer, given.stream)
    if given.text is None:
        language = Language(0)
        source = language.documents(given.documents, split="train", seed=given.seed)
        held_out = language.documents(max(100, given.documents // 10), split="test", seed=given.seed)
    else:
        lines = [line for line in given.text.read_text().splitlines() if line.strip()]
        cut = max(1, len(lines) // 10)
        source, held_out = lines[cut:], lines[:cut]
    store = ActivationStore.collect(model, source, [site])
    batches = store.batches([site], given.batch, given.seed)
    dictionary = TopK(model.cfg.d_model, given.features, k=given.k, sites_in=site, seed=given.seed)
    config = TrainConfig(steps=given.steps, lr=given.lr, dead_tokens=given.dead_tokens)
    with tqdm(total=given.steps, unit="step") as bar:
        for step in start(dictionary, batches, config, checkpoint=given.directory / "unfinished"):
            bar.update(step.step - bar.n)
            if step.step % 100 == 0:
                bar.set_postfix_str(str(step))
    unseen = ActivationStore.collect(model, held_out, [site])
    found = fidelity(dictionary, unseen.rows(slice(None)).acts)
    dictionary.provenance = {
        "command": "workbench train DIRECTORY " + " ".join(arg for arg in sys.argv[2:] if Path(arg) != given.directory),
        "model": fingerprint(model),
        "rows": {"train": len(store), "held_out": len(unseen)},
        "training": asdict(config),
        "held_out": {key: round(value, 4) for key, value in asdict(found).items()},
    }
    save(dictionary, given.directory, dtype=torch.float16 if given.half else torch.float32)
    shutil.rmtree(given.directory / "unfinished")
    print(
        f"{given.directory} holds {given.features} features at {site}. On text held out, {found.l0:.0f} features "
        f"a token leave {found.fvu:.1%} of the variance unexplained, and {found.dead:.1%} of the features never fire.\n"
        f'Load it with load_dictionary("{given.directory}"), or name it DICTIONARY in the tour\'s parameters.'
    )
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run one command."""
    parser = argparse.ArgumentParser(
        prog="workbench", description="Look inside transformer language models from Jupyter."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for_lab = commands.add_parser("lab", help="open JupyterLab on the notebooks; its own options may follow")
    for_lab.add_argument("directory", nargs="?", type=Path, help="a folder of notebooks; filled with copies if empty")
    for_lab.add_argument("--check", action="store_true", help="run the tour without a browser and say what it found")
    commands.add_parser("doctor", help="say what is installed and what to do where something is wrong")
    for_train = commands.add_parser("train", help="train a dictionary on a model's activations")
    for_train.add_argument("directory", type=Path, help="where to write it; a stopped training goes on from there")
    for_train.add_argument("--model", default="tiny", help="a shipped name, a Hugging Face directory or a hub id")
    for_train.add_argument("--layer", type=int, help="default: the middle one")
    for_train.add_argument("--stream", default="resid_post", help="what to read there (default: %(default)s)")
    for_train.add_argument("--text", type=Path, help="a file, one text per line; default: the built-in language")
    numbers = {
        "documents": (40_000, "documents of the built-in language"),
        "features": (1024, "features of the dictionary"),
        "k": (16, "features on a token"),
        "steps": (4000, "optimiser steps"),
        "batch": (2048, "activations in a step"),
        "seed": (0, "of the text, the order and the first weights"),
    }
    for name, (value, meaning) in numbers.items():
        for_train.add_argument(f"--{name}", type=int, default=value, help=f"{meaning} (default: %(default)s)")
    for_train.add_argument("--lr", type=float, help="default: by the number of features, as Gao et al. (2024)")
    for_train.add_argument("--dead-tokens", type=int, help="silent for so long, a feature is revived; default: by size")
    for_train.add_argument("--half", action="store_true", help="store the matrices in half precision")
    given, options = parser.parse_known_args(arguments)
    if options and (given.command != "lab" or given.check):
        parser.error(f"unknown options {' '.join(options)}; only `workbench lab` hands options on, to JupyterLab")
    try:
        match given.command:
            case "lab":
                code = lab(given.directory, given.check, options)
            case "train":
                code = train(given)
            case _:
                code = doctor()
    except ValueError as error:
        raise SystemExit(f"workbench {given.command}: {error}") from None
    raise SystemExit(code)


if __name__ == "__main__":
    main()
