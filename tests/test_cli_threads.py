"""`--threads`: every command that computes has it, keeps to it, and leaves the process as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
import torch

from jcs_ct.cli import jcs, main
from jcs_ct.cli.common import Run
from jcs_ct.core import processors
from jcs_ct.core.errors import UsageError
from jcs_ct.core.processors import limited_threads, usable_threads
from jcs_ct.phantom import make_phantom, write_pngs

if TYPE_CHECKING:
    from collections.abc import Iterator

NONE = {  # that compute with no network, only read and write tables, or divide the processors themselves
    "inspect", "data check", "data split", "models list", "models show", "models import", "models download",
    "models remove", "evaluate compare", "serve", "work", "token", "watch orthanc", "node",
    "collect", "doctor", "completion",
}  # fmt: skip


def leaves(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, f"{before}{name} ")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{before}{name}", command


def test_every_command_that_computes_has_the_option() -> None:
    found = {name: any(p.name == "threads" for p in command.params) for name, command in leaves(jcs)}
    assert {name for name, has in found.items() if not has} == NONE
    assert {"diagnose", "bench", "bench study", "train lite", "evaluate explain"} <= found.keys()


@pytest.mark.parametrize(
    ("words", "stated", "quota", "count"),
    [
        (["--threads", "3"], "2", 1.0, 3),  # what is asked for goes before the environment
        ([], "2", 1.0, 2),  # and that before the quota
        ([], None, 1.0, 1),
        ([], None, None, None),  # nothing said: what the libraries take
    ],
)
def test_a_command_keeps_to_its_threads(
    words: list[str], stated: str | None, quota: float | None, count: int | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    seen: list[tuple[int, str | None]] = []

    def network(_run: Run, *_arguments: Any, **_options: Any) -> Any:
        seen.append((torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")))
        raise UsageError("seen enough")

    monkeypatch.setattr(Run, "network", network)
    monkeypatch.setattr(processors, "quota", lambda: quota)
    monkeypatch.setattr(processors, "available", lambda: 1)
    if stated is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
    before = torch.get_num_threads()
    slices = write_pngs(make_phantom(slices=1, size=64), tmp_path / "in")
    with pytest.raises(SystemExit):
        main(["classify", str(slices[0]), "-o", str(tmp_path / "out.csv"), *words])
    assert "seen enough" in capsys.readouterr().err
    assert seen == [(before if count is None else count, stated if count is None else str(count))]
    assert (torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")) == (before, stated)


def test_a_group_hands_its_threads_to_its_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen: list[str | None] = []

    def check(*_arguments: Any) -> None:
        seen.append(os.environ.get("OMP_NUM_THREADS"))
        raise UsageError("seen enough")

    monkeypatch.setattr("jcs_ct.cli.bench.check_runtimes", check)
    for words in (
        ["--threads", "3", "study"],
        ["study", "--threads", "3"],
        ["--threads", "2", "study", "--threads", "3"],
    ):
        with pytest.raises(SystemExit):
            main(["bench", *words, "somewhere"])
    assert seen == ["3", "3", "3"]


def test_what_a_process_starts_inherits_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    program = "import torch; print(torch.get_num_threads())"
    with limited_threads(1):
        said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "1\n"
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("4", True),
        ("4,2", True),
        (" 3 ", True),
        ("0", False),
        ("all", False),
        ("4,", False),
        ("", False),
        ("9" * 30, False),
    ],
)
def test_a_number_of_threads_that_is_none_is_taken_away(text: str, kept: bool) -> None:
    environ = {"OMP_NUM_THREADS": text}
    assert usable_threads(environ) == ("" if kept else repr(text))
    assert environ == ({"OMP_NUM_THREADS": text} if kept else {})
    assert usable_threads({}) == ""


def test_it_is_said_and_the_folder_that_is_gone_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "all")
    with pytest.raises(SystemExit):
        main(["models", "list"])
    assert capsys.readouterr().err.startswith(
        "jcs: note: OMP_NUM_THREADS is 'all', no number of threads; it is not used\n"
    )
    if sys.platform == "win32":
        return
    before = Path.cwd()
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path / "d")
    (tmp_path / "d").rmdir()
    try:
        with pytest.raises(SystemExit) as end:
            main(["models", "list"])
    finally:
        os.chdir(before)
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "jcs: error: the folder that the command was started in is gone (change into one that is there)\n"
    )


def test_processors_that_nobody_describes_are_named(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("/proc is Linux's")
    processors.need_processors_described(tmp_path)
    with pytest.raises(UsageError, match="cpuinfo is not there, and PyTorch cannot compute without it"):
        processors.need_processors_described(tmp_path / "cpuinfo")
