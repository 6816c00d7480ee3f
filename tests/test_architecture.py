"""Imports go one way, heavy libraries live behind one module each, and the command answers at once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "jcs_ct"

# A module may import from layers before its own, and from its own part; parts of a layer do not know one another.
LAYERS = [
    {"core"},
    {"imaging", "models", "metrics", "anatomy"},
    {"io"},
    {"outputs", "datasets", "weights"},
    {"phantom"},
    {"inference"},
    {"study"},
    {"app"},
    {"evaluate", "training", "service"},
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
    "requests": {"weights/download.py"},
    "safetensors": {"weights"},
    "scipy": {
        "io/features.py",
        "inference/pipeline.py",
        "phantom",
        "metrics",
        "study/rules.py",
        "imaging/lung_box.py",
        "imaging/slice_check.py",
        "io/dicom/read.py",
        "anatomy/lungs",
        "anatomy/burden.py",
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
        "datasets",
    },
    "sklearn": {"datasets/split.py", "training/lite/sources.py"},
    "click": {"cli"},
    "fastapi": {"service/app.py", "service/uploads.py"},
    "uvicorn": {"service/run.py"},
    "sqlalchemy": {"service/record.py", "service/tables.py"},
    "prometheus_client": {"service/metrics.py"},
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
        if words[0] != "jcs_ct" or len(words) < 2 or words[1] == "__version__" or words[1] == part:
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


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("part", sorted(TORCH_FREE))
def test_no_torch_at_module_level(part: str) -> None:
    paths = [p for p in modules() if part_of(p) == part]
    names = [
        ".".join(("jcs_ct", *p.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__") for p in paths
    ]
    assert "torch" not in loaded_by("; ".join(f"import {name}" for name in names))


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
