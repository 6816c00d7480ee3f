"""Imports go one way, heavy libraries live behind one module each, and the command answers at once."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

SOURCE = Path(__file__).resolve().parent.parent / "src" / "jcs_ct"

# A module may import from layers before its own, and from its own part; parts of a layer do not know one another.
LAYERS = [
    {"core"},
    {"imaging", "models", "metrics", "anatomy"},
    {"io"},
    {"datasets", "weights"},
    {"phantom"},
    {"inference"},
    {"study"},
    {"outputs"},
    {"app"},
    {"evaluate", "training", "service", "archive", "hospital"},
    {"bench"},
    {"cli"},
]
ALLOWED_SIBLINGS: set[tuple[str, str]] = set()
LAYER_OF = {part: i for i, layer in enumerate(LAYERS) for part in layer}
TORCH_FREE = {"core", "imaging", "metrics", "anatomy", "io", "outputs", "datasets", "phantom", "cli", "service"}
HOMES = {  # library → where it may be imported
    "pydicom": {"io/dicom", "outputs/dicom"},
    "gdcm": {"io/dicom/read.py"},
    "highdicom": {"outputs/dicom"},
    "nibabel": {"io/nifti"},
    "nrrd": {"io/volumes/nrrd.py"},
    "skimage": {"anatomy/lungs", "outputs"},
    "jinja2": {"outputs/report"},
    "openvino": {"inference"},
    "onnx": {"inference"},
    "onnxruntime": {"inference"},
    "matplotlib": {"outputs"},
    "requests": {"weights/download.py", "service/watch/orthanc.py"},
    "safetensors": {"weights"},
    "scipy": {
        "io/features.py",
        "inference/apply.py",
        "inference/ensemble.py",
        "inference/parity.py",
        "phantom",
        "metrics",
        "study/rules.py",
        "study/whole_study.py",
        "imaging/lung_box.py",
        "imaging/slice_check.py",
        "io/dicom/padding.py",
        "anatomy/lungs",
        "anatomy/burden.py",
        "anatomy/flat_areas.py",
        "outputs/images.py",
        "training/lite",
    },
    "PIL": {
        "io/pictures.py",
        "imaging/recipes.py",
        "imaging/lung_box.py",
        "imaging/orientation.py",
        "imaging/slice_check.py",
        "training/lite",
        "outputs",
        "phantom",
        "evaluate/maps.py",
        "study/picture_series.py",
        "datasets",
    },
    "sklearn": {"datasets/split.py", "training/lite/sources.py"},
    "click": {"cli"},
    "fastapi": {
        "service/app.py",
        "service/context.py",
        "service/uploads.py",
        "service/monailabel.py",
        "service/viewing.py",
    },
    "uvicorn": {"service/run.py"},
    "sqlalchemy": {"service/database.py", "service/record.py", "service/tables.py", "service/watch/ledger.py"},
    "pynetdicom": {"service/node"},
    "prometheus_client": {"service/metrics.py"},
    "fsspec": {"archive/places.py"},
    "ray": {"archive/workers.py"},
    "python_multipart": {"service/receive.py"},
}


def modules() -> list[Path]:
    return [p for p in sorted(SOURCE.rglob("*.py")) if p.name != "__main__.py"]


def part_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path, *, late: bool) -> list[tuple[str, int]]:
    """Return (module, line) of every import; `late=False` leaves out those in functions and for type checking."""
    found: list[tuple[str, int]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((a.name, child.lineno) for a in child.names if top or late)
            elif isinstance(child, ast.ImportFrom) and (top or late):
                assert child.level == 0, f"{path}: relative import"
                found.extend((f"{child.module}.{a.name}", child.lineno) for a in child.names)
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            inner = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) or typing_only
            visit(child, top and not inner)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    for name, line in imports(path, late=True):
        words = name.split(".")
        if words[0] != "jcs_ct" or len(words) < 2 or words[1] == part:
            continue
        other = words[1]
        assert other in LAYER_OF, f"{path}:{line}: {other} is in no layer"
        before = LAYER_OF[other] < LAYER_OF[part] or (part, other) in ALLOWED_SIBLINGS
        assert before, f"{path}:{line}: {part} imports {other}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_heavy_libraries_stay_at_home(path: Path) -> None:
    relative = str(path.relative_to(SOURCE).as_posix())
    for name, line in imports(path, late=True):
        homes = HOMES.get(name.split(".")[0])
        if homes is not None:
            assert any(relative == home or relative.startswith(f"{home}/") for home in homes), (
                f"{relative}:{line}: {name}"
            )


def name_of(path: Path) -> str:
    return ".".join(("jcs_ct", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def test_no_module_imports_itself_through_others() -> None:
    """Late imports count, and those for types only: two modules that need each other are one module."""
    names = [name_of(path) for path in modules()]
    number = {name: i for i, name in enumerate(names)}
    links: set[tuple[int, int]] = set()
    for path in modules():
        for name, _ in imports(path, late=True):
            module = name if name in number else name.rpartition(".")[0]
            if module in number and module != name_of(path):
                links.add((number[name_of(path)], number[module]))
    assert len(links) > len(names), "the modules do import one another"
    importing, imported = zip(*links, strict=True)
    graph = coo_matrix((np.ones(len(links)), (importing, imported)), shape=(len(names),) * 2)
    groups = connected_components(graph, connection="strong")[1]
    circles = [[names[i] for i in np.flatnonzero(groups == group)] for group in np.unique(groups)]
    assert [circle for circle in circles if len(circle) > 1] == []


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("part", sorted(TORCH_FREE))
def test_no_torch_at_module_level(part: str) -> None:
    paths = [p for p in modules() if part_of(p) == part]
    assert "torch" not in loaded_by("; ".join(f"import {name_of(path)}" for path in paths))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["segment", "--help"], ["models", "--help"], ["data", "check", "--help"]]
)
def test_help_is_light(arguments: list[str]) -> None:
    code = (
        "import contextlib, io\nfrom jcs_ct.cli import main\n"
        f"with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n    main({arguments!r})"
    )
    assert not loaded_by(code) & {"torch", "numpy", "scipy", "PIL", "matplotlib", "pydicom", "requests"}


def test_the_package_loads_nothing_until_asked() -> None:
    assert not loaded_by("import jcs_ct; jcs_ct.JcsError; jcs_ct.__version__") & {"torch", "numpy"}
    import jcs_ct

    with pytest.raises(AttributeError, match="it has CaseResult, Diagnoser, JcsError"):
        _ = jcs_ct.nothing


def test_the_picture_of_the_imports_is_current() -> None:
    tool = SOURCE.parent.parent / "tools" / "imports.py"
    ran = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_page_names_what_is_there() -> None:
    """The path of a slice is ten files; every file that is named exists, and every package stands in the list."""
    root = SOURCE.parent.parent
    page = (root / "ARCHITECTURE.md").read_text(encoding="utf-8")
    steps = re.findall(r"^(\d+)\. `([\w/]+\.py)`", page, re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, 11))
    assert [name for _, name in steps if not (SOURCE / name).is_file()] == []
    named = set(re.findall(r"`([\w/]+\.py)`", page))
    assert [name for name in sorted(named) if not ((root / name).is_file() or list(SOURCE.rglob(name)))] == []
    tree = page.partition("src/jcs_ct/\n")[2].partition("\ntests/")[0]
    listed = re.findall(r"\b(\w+)/(?=[ \n])", "\n".join(line[:32] + " " for line in tree.splitlines()))
    folders = (path for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__")
    packages = {path.name for path in folders if any(p.suffix not in ("", ".pyc") for p in path.rglob("*"))}
    assert sorted(listed) == sorted(packages)


@pytest.mark.parametrize("path", sorted((SOURCE / "inference").rglob("*.py")), ids=lambda p: p.name)
def test_networks_describe_themselves(path: Path) -> None:
    """Inference asks the row of the table: it neither names a network or its task, nor asks for a class of one."""
    from jcs_ct.models import MODELS

    if path.name == "golden.py":  # the published numbers are of three networks
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = {name.rpartition(".")[2] for name, _ in imports(path, late=True) if name.startswith("jcs_ct.models.")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            assert node.value not in {*MODELS, "lite"}, f"{path}:{node.lineno}: {node.value}"
        if isinstance(node, ast.Compare):
            assert ".task" not in ast.unparse(node), f"{path}:{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            asked = {part.strip("(), ") for part in ast.unparse(node.args[1]).split(",")}
            assert not any(part in classes or part.startswith("nn.") for part in asked), (
                f"{path}:{node.lineno}: {asked}"
            )
