"""The rooms of the package and who may know whom."""

import ast
from pathlib import Path

import pytest

import workbench

PACKAGE = Path(workbench.__file__).parent
# Room → the rooms it may import. The order is that of the chain: a room knows only rooms above it.
ALLOWED = {
    "stopping": set(),
    "language": {"stopping"},
    "models": set(),
    "activations": {"language", "models"},
    "dictionaries": {"models"},
    "training": {"dictionaries"},
    "features": {"models", "activations", "dictionaries"},
    "geometry": set(),
    "circuits": {"models", "dictionaries"},
    "evaluation": {"models", "activations", "dictionaries", "training", "features"},
    "steering": {"models"},
    "exercises": set(),
    "plots": set(),
    "views": {"language", "models", "training", "features", "evaluation", "steering", "exercises"},
    "train_command": {"language", "models", "activations", "dictionaries", "training"},
    "__main__": {"stopping", "language", "models", "dictionaries", "train_command"},
}
# Package → the only room that imports it.
GATES = {"transformer_lens": "models", "ipywidgets": "views", "anywidget": "views", "matplotlib": "plots"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "workbench"}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_room_may(path):
    own = room(path)
    if own == "__init__":
        assert imported(path) == set()
        return
    assert own in ALLOWED, f"the room {own} is not in the table; give it its place"
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("workbench.")}
    assert rooms <= ALLOWED[own] | {own}
    for package, gate in GATES.items():
        if own != gate:
            assert not any(name.split(".")[0] == package for name in imported(path)), f"only {gate} imports {package}"


def test_the_table_points_one_way():
    above: set[str] = set()
    for name, allowed in ALLOWED.items():
        assert allowed <= above
        above.add(name)
    assert not any({"views", "__main__"} & allowed for allowed in ALLOWED.values())


def lines_of_code(source: str) -> int:
    """Count the lines that hold more than a docstring, a comment or nothing."""
    prose = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    lines = enumerate(source.splitlines(), 1)
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") and n not in prose for n, line in lines)


def test_modules_stay_small_and_named():
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 400, path
        assert path.name != "utils.py"
    scripts = sum(len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.js"))
    assert scripts + sum(lines_of_code(path.read_text()) for path in MODULES) < 16_000


def test_lines_of_code_are_counted_without_prose():
    assert (
        lines_of_code(
            '"""One.\n\nTwo."""\n\n# three\nx = 1  # four\n\ndef f():\n    """Five."""\n    return """\na"""\n'
        )
        == 4
    )


def test_importing_the_package_loads_nothing_heavy():
    import subprocess
    import sys

    heavy = "('transformer_lens', 'transformers', 'matplotlib', 'ipywidgets')"
    code = f"import sys, workbench, workbench.models; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    code = "import sys, workbench; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
