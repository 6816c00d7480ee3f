"""Everything that must pass: format, lint, types, tests with branch coverage. What `make test` and CI run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = (
    ("ruff", "format", "--check", "src", "tests", "tools"),
    ("ruff", "check", "src", "tests", "tools"),
    ("mypy",),
    (
        "pytest",
        "--cov",
        "--cov-report=term",
        "--cov-fail-under=90",
        "-n",
        "3",
        "--dist",
        "loadfile",
        "--durations",
        "40",
        "--durations-min",
        "3",
        *sys.argv[1:],
    ),
)

# Runs beside each other share the processors: idle threads that spin for their turn would take them from the other one.
ENVIRONMENT = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}

for check in CHECKS:
    print(f"== {' '.join(check)}", flush=True)
    status = subprocess.run([sys.executable, "-m", *check], cwd=ROOT, env=ENVIRONMENT, check=False).returncode
    if status:
        sys.exit(status)
