"""The long checks in a short form: generated faults, identity over killed runs, checks that are dropped, resuming."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import postgres_help

ROOT = Path(__file__).resolve().parent.parent
SHORT = {
    "faults": ("faults.md", "--every", "60"),
    "identity": ("--studies", "8", "--folder", "identity"),
    "mutations": ("--every", "12"),
    "scale": ("--studies", "3", "--slices", "24", "--size", "128", "--ways", "plain,parts"),
    "resume": ("--studies", "6", "--folder", "resume"),
}


@pytest.mark.parametrize("tool", SHORT)
def test_a_tool_finds_nothing_wrong(tool: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / f"{tool}.py"), *SHORT[tool]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "more",
    [
        ("--studies", "4", "--blows", "1"),
        pytest.param(
            ("--studies", "5", "--blows", "2", "--restarts", "1", "--postgres"), marks=postgres_help.installed
        ),
    ],
    ids=["sqlite", "postgres"],
)
def test_a_service_whose_workers_are_killed(more: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    command = [sys.executable, str(ROOT / "tools" / "service_soak.py"), *more]
    command += ["--workers", "2", "--lease", "8", "--compared", "2", "--folder", "soak"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
