"""The project's own papers: what they promise is there, and they agree with each other."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from glob import glob
from pathlib import Path

import pytest

import workbench

ROOT = Path(workbench.__file__).parent.parent


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_conda_environment_asks_for_what_the_package_asks_for():
    lines = [line.strip().removeprefix("- ") for line in (ROOT / "environment.yml").read_text().splitlines()]
    asked = lines[lines.index("pip:") + 1 :]
    assert asked == [*project()["dependencies"], "-e ."]
    assert f"python{project()['requires-python']}" in lines


def top_level(root):
    """What git tracks there, and where there is no git, what lies there."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True).stdout
    except FileNotFoundError:
        listed = ""
    names = {Path(name).parts[0] for name in listed.split("\0") if name} or {path.name for path in root.iterdir()}
    names = {name for name in names if not name.startswith(".") and not name.endswith(".egg-info")}
    return names - {"build", "dist", "runs", "stores", "__pycache__"}


def test_the_top_level_holds_what_the_readme_says():
    named = {"pyproject.toml", "README.md", "LICENSE", "workbench", "notebooks", "tests", "environment.yml"}
    assert top_level(ROOT) == named


def test_a_folder_of_the_user_is_not_part_of_the_project(tmp_path):
    for name in ("README.md", "mydict"):
        (tmp_path / name).touch()
    assert top_level(tmp_path) == {"README.md", "mydict"}
    if shutil.which("git") is None:
        pytest.skip("needs git")
    for command in (["init", "-q"], ["add", "README.md"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert top_level(tmp_path) == {"README.md"}


def test_the_benchmark_of_gpus_says_where_there_is_none():
    script = ROOT / "tests" / "bench" / "cuda.py"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    told = "There is no CUDA device here, so nothing was compared; run this where nvidia-smi lists one.\n"
    assert (done.returncode, done.stdout) == (2, told), done.stderr


def test_the_copies_that_lab_works_on_are_not_part_of_the_project():
    assert "/.notebooks/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_readme_maps_every_room_that_is_there_and_no_other():
    readme = (ROOT / "README.md").read_text()
    rooms = {p.stem for p in (ROOT / "workbench").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    rooms = {room for room in rooms if not room.startswith("__")} - {"stopping", "train_command"} | {"pretrained"}
    table = set(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE))
    assert table == rooms
    assert rooms == set(re.findall(r"^``(\w+)``", workbench.__doc__ or "", re.MULTILINE))


def test_every_picture_and_file_the_readme_links_is_there():
    readme = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in link and not link.startswith("#")]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_readme_s_lines_run_and_print_what_it_says(capsys):
    readme = (ROOT / "README.md").read_text()
    code, shown = (re.search(rf"```{kind}\n(.+?)```", readme, re.DOTALL) for kind in ("python", "text"))
    assert code
    assert shown
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 10
    exec(code[1], {})
    printed = capsys.readouterr().out.splitlines()
    promised = shown[1].splitlines()
    assert len(printed) == len(promised)
    assert all(one.startswith(other.removesuffix("…").rstrip()) for one, other in zip(printed, promised, strict=True))


def test_a_wheel_brings_every_notebook_and_picture():
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    brought = {
        Path(place) / path.name: path for place, globs in files.items() for glob in globs for path in ROOT.glob(glob)
    }
    there = [path for path in (ROOT / "notebooks").rglob("*") if path.is_file() and "/." not in str(path)]
    assert brought == {Path("share/workbench") / path.relative_to(ROOT): path for path in there}


def test_a_wheel_brings_everything_pretrained():
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["workbench"]
    package = ROOT / "workbench"
    brought = {package / path for pattern in globs for path in glob(pattern, root_dir=package, recursive=True)}
    there = {path for path in (package / "pretrained").rglob("*") if path.is_file()}
    assert any(path.parent.parent.name == "dictionaries" for path in there)
    assert there <= brought


def test_no_file_is_a_pickle():
    kinds = {p.suffix for p in (ROOT / "workbench" / "pretrained").rglob("*") if p.is_file()}
    assert kinds <= {".json", ".safetensors", ".jinja"}
