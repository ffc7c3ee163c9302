"""The house: its rooms and floors, and the length of lines, functions and files."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lensdiff"
FLOORS = (
    {"errors", "runtime"},
    {"storage", "lensing", "diffusion"},
    {"data", "networks", "notebook"},
    {"model"},
    {"training", "scores"},
    {"studies", "__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))
WRITTEN = [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]
named = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
written = pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))


def module_of(path: Path) -> str:
    """`lensdiff.lensing.fit` of its file; a room's own name of its __init__."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    package = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        if not isinstance(node, ast.ImportFrom) or (
            node.level == 0 and not str(node.module).startswith("lensdiff")
        ):
            continue
        base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
        module = ".".join(part for part in (base, node.module) if part)
        for name in node.names:
            whole = f"{module}.{name.name}"
            found.add(whole if whole in MODULES else module)
    return {name for name in found if name in MODULES}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_there_are_fourteen_rooms_on_six_floors() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms -= {"__pycache__"}
    assert rooms == {*FLOOR, "__init__"}
    assert len(rooms) <= 14 and len(FLOORS) <= 6


@named
def test_imports_go_downwards(path: Path) -> None:
    room = room_of(module_of(path))
    if not room:
        return
    # every room may raise an error
    others = {room_of(module) for module in imports_of(path)} - {room, "", "errors"}
    # the command line opens the studies, beside which it stands
    wrong = {one for one in others if FLOOR[one] >= FLOOR[room] and room != "__main__"}
    assert not wrong, f"{module_of(path)} imports from {sorted(wrong)}, which is not below it"


def test_no_import_goes_in_a_circle() -> None:
    graph = {module: imports_of(path) - {module} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_check_of_imports_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "lensdiff.lensing.simulate" in imports_of(PACKAGE / "lensing" / "fit.py")
    assert "lensdiff.model" in imports_of(PACKAGE / "training" / "fit.py")
    assert "lensdiff.errors" in imports_of(PACKAGE / "__main__.py")
    whole = "import torch, lensdiff.studies.recipes as recipes"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: whole)
    assert imports_of(PACKAGE / "model.py") == {"lensdiff.studies.recipes"}


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_a_room_says_in_one_sentence_what_belongs_in_it(room: str) -> None:
    path = PACKAGE / f"{room}.py"
    path = path if path.exists() else PACKAGE / room / "__init__.py"
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    assert first.endswith(".") and "\n" not in first and 20 < len(first) < 100


@named
def test_functions_and_files_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    long = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            if length > 40:
                long.append(f"{node.name}: {length} lines")
    assert not long


@written
def test_lines_are_short_and_assign_one_thing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [line for line in text.splitlines() if len(line) > 100]
    several = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            if isinstance(node.targets[0], ast.Tuple) or len(node.targets) > 1:
                several.append(node.lineno)
    assert not several, f"lines {several} assign several things"


@named
def test_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert not [node.name for node in public if not ast.get_docstring(node)]


def test_storage_alone_knows_the_root() -> None:
    assert [path.name for path in FILES if "__file__" in path.read_text()] == ["__init__.py"]
    assert "__file__" in (PACKAGE / "storage" / "__init__.py").read_text()


def test_the_core_is_read_whole() -> None:
    core = [*(PACKAGE / "diffusion").glob("*.py"), PACKAGE / "networks" / "unet.py"]
    assert sum(len(path.read_text().splitlines()) for path in core) < 700


@pytest.mark.parametrize(
    ("module", "also"),
    [
        ("", ("torch", "matplotlib")),
        (".model", ("matplotlib",)),
        (".training.fit", ("matplotlib",)),
        (".data.colour", ("matplotlib",)),
        (".studies.pages", ()),
    ],
)
def test_importing_loads_nothing_heavy(module: str, also: tuple[str, ...]) -> None:
    heavy = ("caustics", "timm", "sklearn", "torchvision", "astropy", *also)
    program = f"import sys, lensdiff{module}; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_every_public_name_is_there() -> None:
    import lensdiff

    for name in lensdiff.__all__:
        assert getattr(lensdiff, name) is not None
    for room in (name for name in FLOOR if (PACKAGE / name).is_dir()):
        module = getattr(lensdiff, room)
        for name in getattr(module, "__all__", ()):
            assert getattr(module, name) is not None
