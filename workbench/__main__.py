"""``workbench lab | doctor | train``: thin commands over the package."""

import argparse
import hashlib
import importlib.metadata
import json
import os
import shlex
import shutil
import signal
import site
import subprocess
import sys
import time
from pathlib import Path

from workbench.stopping import one_sentence

TOUR = "00_tour.ipynb"
RECORD = ".shipped.json"  # in a folder of copies: what each was when it was made
PATIENCE = 600  # seconds for a cell


def notebooks(directory: Path | None, check: bool) -> Path:
    """Return the folder of notebooks: the given one, or copies of the shipped ones; a check only reads those."""
    checkout = Path(__file__).parent.parent
    shared = [Path(root) / "share" / "workbench" for root in (sys.prefix, site.getuserbase())]
    places = [place / "notebooks" for place in (checkout, *shared)]
    shipped = next((place for place in places if (place / TOUR).exists()), None)
    if check and shipped and directory is None:
        return shipped
    # Git and pip take care of what was shipped, so what is worked on is a copy.
    folder = directory or (checkout / ".notebooks" if shipped == places[0] else Path("notebooks"))
    empty = not any(folder.glob("*.ipynb"))
    if check and empty:
        raise ValueError(f"'{folder}' holds no notebooks to check; name a folder that does, or none for the shipped.")
    if empty and shipped is None:
        raise ValueError(f"'{folder}' holds no notebooks and none came with this installation; clone the repository.")
    if shipped and (empty or (directory is None and (folder / RECORD).exists())):
        bring(shipped, folder)
    if empty:
        print(f"The notebooks are now in {folder}")
    return folder


def put(content: bytes, path: Path) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def bring(shipped: Path, folder: Path) -> None:
    """Copy what was shipped into ``folder``, and renew the copies that nobody has changed."""
    record = folder / RECORD
    brought = json.loads(record.read_text()) if record.exists() else {}
    stay = []
    for path in sorted(shipped.rglob("*")):
        name = path.relative_to(shipped)
        if path.is_dir() or any(part.startswith((".", "__")) for part in name.parts):
            continue
        ours, copy = path.read_bytes(), folder / name
        theirs = copy.read_bytes() if copy.exists() else None
        before, now = brought.get(name.as_posix()), hashlib.sha256(ours).hexdigest()
        if theirs is None or hashlib.sha256(theirs).hexdigest() == before != now:
            put(ours, copy)
        elif theirs != ours:
            stay += [str(name)] if before != now else []
            continue
        brought[name.as_posix()] = now
    put(json.dumps(brought, indent=1).encode(), record)
    if stay:
        print(
            f"You have changed {', '.join(stay)} in {folder}, and so has a new version of workbench: yours stays; "
            "to get the new one too, rename yours and call workbench lab again."
        )


def lab(directory: Path | None, check: bool, options: list[str]) -> int:
    """Open JupyterLab, with ``options`` of its own, or run the tour without a browser and say what it found."""
    folder = notebooks(directory, check)
    if check:
        return run_tour(folder)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.resolve()}"]
    before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is JupyterLab's, which asks before it stops
    try:
        return subprocess.call([*command, f"--LabApp.default_url=/lab/tree/{TOUR}", *options])
    finally:
        signal.signal(signal.SIGINT, before)


def run_tour(folder: Path) -> int:
    """Run the tour in ``folder`` from top to bottom and print what it says; nothing is saved."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    started = time.monotonic()
    notebook = nbformat.read(folder / TOUR, as_version=4)
    # The kernel's warning about its transport would be the first thing a newcomer reads, and its traceback the last.
    quiet = ["--log-level=50"]
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=PATIENCE, kernel_name="python3", extra_arguments=quiet, resources=place)
    client.log.setLevel("CRITICAL")
    try:
        client.execute()
    except CellExecutionError as error:
        print(f"{TOUR} failed:\n{error}")
        return 1
    except (TimeoutError, RuntimeError) as error:  # the latter is all that nbclient says of a kernel's end
        late = isinstance(error, TimeoutError)
        what = f"took more than {PATIENCE} s" if late else "ended its kernel, most often for want of memory"
        cell = f"code cell {client.code_cells_executed}"
        print(f"{TOUR} failed: {cell} {what}; run it by hand in  workbench lab  to see where it stops.")
        return 1
    streams = [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "stream"]
    said = "".join(stream.text for stream in streams).strip()
    claims = "are asserted for the shipped model only" if "not asserted" in said else "hold"
    print(f"{said}\n\n{TOUR} ran from top to bottom in {time.monotonic() - started:.0f} s; its claims {claims}.")
    return 0


def unusable() -> list[str]:
    """Print what is installed of what workbench needs, and return a line for each package that it cannot use."""
    from packaging.requirements import Requirement

    wrong = []
    print(f"{'workbench':17} {importlib.metadata.version('workbench')}")
    for line in importlib.metadata.requires("workbench") or []:
        needed = Requirement(line)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            version = "missing"
        print(f"{needed.name:17} {version}")
        if version == "missing" or not needed.specifier.contains(version, prereleases=True):
            allowed = f"workbench needs {needed.specifier}" if needed.specifier else "workbench needs it"
            wrong.append(
                f'{needed.name} is {version}, {allowed}: run  python -m pip install "{line.split(";")[0].strip()}"'
            )
    return wrong


def shipped_parts() -> None:
    """Print what the shipped model and dictionaries are; raise if one of them is not as it was shipped."""
    from workbench.dictionaries import load_dictionary
    from workbench.dictionaries.storage import shipped
    from workbench.language import Language
    from workbench.models import load_model, tokenize

    started = time.monotonic()
    model, names = load_model("tiny", device="cpu"), list(shipped())
    words = model.tokenizer.get_vocab().items() ^ Language.vocabulary.items()
    if words:
        raise ValueError(
            f"the model's vocabulary is not the language's, they differ at {min(word for word, _ in words)!r} (they "
            "come from two versions of workbench)"
        )
    for name in names or ["tiny"]:  # where there is none, loading says so
        dictionary = load_dictionary(name)
        try:
            dictionary.check(model)
        except ValueError:
            raise ValueError(
                f"the model is not the one that the dictionary {name} was trained on (a file is damaged, or they come "
                "from two versions of workbench)"
            ) from None
    best = int(model(tokenize(model, "Today Mia is at the"))[0, -1].argmax())
    seconds = time.monotonic() - started
    print(f"shipped model     loads and answers ({model.tokenizer.decode([best])!r}) in {seconds:.1f} s")
    print(f"shipped features  in {len(names)} dictionaries of this model, {names[0]} to {names[-1]}")


def doctor() -> int:
    """Print what is installed, what it runs on, and what to do where something is wrong."""
    print(f"python            {sys.version.split()[0]}")
    try:
        wrong = unusable()
    except ImportError as error:  # workbench itself, run from a folder that was never installed, or packaging
        what = "-e .  in the repository" if error.name == "workbench" else error.name
        wrong = [f"{error.name} is missing: run  python -m pip install {what}"]
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
        shipped_parts()
    except Exception as error:
        wrong.append(
            f"what is shipped is broken: {error}\n"
            "reinstall with  python -m pip install --force-reinstall --no-deps -e .  in a fresh clone"
        )
    if shutil.which("jupyter") is None and not (Path(sys.executable).parent / "jupyter").exists():
        wrong.append("the jupyter command is not on the path: activate the environment that holds workbench")
    print("\n".join(["", *wrong]) if wrong else "\nAll is well. Open the tour with  workbench lab")
    return 1 if wrong else 0


def kept(unfinished: Path) -> str:
    """Say what a stopped training has on disk."""
    checkpoint, rows = unfinished / "checkpoint.json", unfinished / "rows" / "manifest.json"
    if checkpoint.exists():
        return f"step {json.loads(checkpoint.read_text())['step']} is kept in '{unfinished}'"
    done = sum(part["rows"] for part in json.loads(rows.read_text())["parts"]) if rows.exists() else 0
    return f"{done} rows are kept in '{unfinished}'" if done else "nothing is kept yet"


def layer(word: str) -> int | str:
    """Return the number of a layer, or "all"."""
    return word if word == "all" else int(word)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run one command."""
    parser = argparse.ArgumentParser(
        prog="workbench", description="Look inside transformer language models from Jupyter."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for_lab = commands.add_parser(
        "lab", help="open JupyterLab on the notebooks", epilog="Options other than these are handed on to JupyterLab."
    )
    for_lab.add_argument(
        "directory", nargs="?", type=Path, help="a folder of notebooks, before any option; filled with copies if empty"
    )
    for_lab.add_argument("--check", action="store_true", help="run the tour without a browser and say what it found")
    commands.add_parser("doctor", help="say what is installed and what to do where something is wrong")
    for_train = commands.add_parser("train", help="train dictionaries on a model's activations, one or many at once")
    for_train.add_argument("directory", type=Path, help="where to write it; a stopped training goes on from there")
    for_train.add_argument("--model", default="tiny", help="a shipped name, a Hugging Face directory or a hub id")
    for_train.add_argument("--layer", nargs="+", type=layer, help="one or more, or all (default: the middle one)")
    for_train.add_argument(
        "--stream",
        nargs="+",
        default=["resid_post"],
        help="one or more: what to read there, or transcoder, from mlp_in to mlp_out (default: resid_post)",
    )
    for_train.add_argument("--text", type=Path, help="a file, one text per line; default: the built-in language")
    numbers = {
        "documents": (40_000, "documents of the built-in language"),
        "features": (1024, "features of the dictionary"),
        "k": (16, "features on a token"),
        "steps": (4000, "optimiser steps"),
        "seed": (0, "of the text, the order and the first weights"),
        "seeds": (1, "trainings of each dictionary: the first is saved, all are measured"),
    }
    for name, (value, meaning) in numbers.items():
        for_train.add_argument(f"--{name}", type=int, default=value, help=f"{meaning} (default: %(default)s)")
    for_train.add_argument(
        "--batch", type=int, help="activations in a step (default: 2048, or all where they are fewer)"
    )
    for_train.add_argument("--lr", type=float, help="default: by the number of features, as Gao et al. (2024)")
    for_train.add_argument("--dead-tokens", type=int, help="silent for so long, a feature is revived; default: by size")
    for_train.add_argument("--half", action="store_true", help="matrices, and rows on the way, in half precision")
    for_train.add_argument("--replace", action="store_true", help="replace what is in DIRECTORY")
    words = sys.argv[1:] if arguments is None else arguments
    options = []
    if words[:1] == ["lab"] and not {"--check", "-h", "--help"} & set(words):
        # What follows DIRECTORY is never ours: the 8951 of "--port 8951" is no folder.
        begin = 2 if words[1:] and not words[1].startswith("-") else 1
        words, options = words[:begin], words[begin:]
    given = parser.parse_args(words, argparse.Namespace(words=words))

    def going_on() -> str:
        return f"{kept(given.directory / 'unfinished')}. Go on with:  {shlex.join(['workbench', *words])}"

    with one_sentence(f"workbench {given.command}", going_on if given.command == "train" else None):
        match given.command:
            case "lab":
                code = lab(given.directory, given.check, options)
            case "train":
                from workbench.train_command import train

                # A scheduler's way to stop it is Ctrl-C too.
                signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
                code = train(given)
            case _:
                code = doctor()
    raise SystemExit(code)


if __name__ == "__main__":
    main()
