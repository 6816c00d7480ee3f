"""What somebody meets first: help that is whole, versions, completion, the doctor, the way to an extra."""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from jcs_ct.cli import COMMANDS, jcs, main
from jcs_ct.cli.diagnose import Closing
from jcs_ct.cli.mistakes import EXAMPLES
from jcs_ct.core import installing
from jcs_ct.core.errors import InputError
from jcs_ct.core.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name)


def said(*arguments: str, **environment: str) -> str:
    result = CliRunner(env=environment).invoke(jcs, arguments, prog_name="jcs")
    assert result.exit_code == 0, result.output
    return result.output


def test_help_is_whole_in_a_terminal_of_80_columns() -> None:
    paths = list(commands(jcs))
    assert len(paths) > 30
    for words in paths:
        lines = said(*words, "--help", COLUMNS="80").splitlines()
        assert max(map(len, lines)) <= 80, words
        cut = [line for line in lines if line.endswith("...") and "Usage:" not in line and "INPUT..." not in line]
        assert not cut, words


def test_every_command_says_what_it_does() -> None:
    for words in commands(jcs):
        text = said(*words, "--help")
        assert re.search(r"\n\n  \S", text), words


def test_an_installation_without_pytorch_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith("jcs: error: the library torch is not installed (install jcs-ct again, and PyTorch before")
    assert told.count("\n") == 1


def test_the_version_names_weights_and_runtimes() -> None:
    lines = said("--version").splitlines()
    assert lines[0].startswith(f"jcs {__version__} (Python 3.")
    assert re.fullmatch(r"weights: jcs-lite [0-9a-f]{12}", lines[1])
    assert f"torch {metadata.version('torch')}" in lines[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_has_a_script_for(shell: str) -> None:
    assert f"_JCS_COMPLETE={shell}_complete" in said("completion", shell)


def test_completion_completes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from jcs_ct.cli import main

    monkeypatch.setenv("_JCS_COMPLETE", "bash_complete")
    for line, expected in (("jcs dia", ["diagnose"]), ("jcs models imp", ["import"]), ("jcs diagnose --allow", None)):
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        with pytest.raises(SystemExit):
            main([])
        found = [entry.partition(",")[2] for entry in capsys.readouterr().out.splitlines()]
        assert found == (expected or ["--allow-gaps"])


def test_the_doctor_finds_this_installation_sound() -> None:
    findings = {one["what"]: one for one in json.loads(said("doctor", "--json"))}
    assert findings["weights"]["state"] == findings["PyTorch"]["state"] == "ok"
    assert {f"extra {name}" for name in ("train", "lite", "service")} < set(findings)
    text = said("doctor")
    assert all(what in text for what in findings)
    assert text.endswith("\n\nEverything that `jcs diagnose` needs is installed.\n")
    assert {line[:5].strip() for line in text.splitlines()[:-2]} <= {"ok", "opt", ""}


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (["diagnos", "x"], "Did you mean: jcs diagnose?"),
        (["export", "x"], "Did you mean: jcs models export?"),
        (["check"], "Did you mean: jcs data check?"),
        (["diagnose", "x"], "For example: jcs diagnose study/ -o results"),
        (["inspect"], "For example: jcs inspect study/"),
        (["paint"], "Error: No such command 'paint'."),
    ],
)
def test_a_wrong_call_says_what_a_right_one_is(words: list[str], last: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == last


@pytest.mark.parametrize(("name", "call"), EXAMPLES.items())
def test_every_example_is_a_whole_call(name: str, call: str) -> None:
    """Each is parsed, up to the command's own work, and begins with the command that it is an example of."""
    assert f"{call} ".startswith(f"{name} ")
    command: click.Command = jcs
    _, *words = call.split()
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None
        command = found
    command.make_context(name, words)


def _ended(name: str, report: dict[str, Any] | None) -> Any:
    return SimpleNamespace(name=name, case=SimpleNamespace(label=f"in/{name}"), report=report)


def _report(call: str, *, reliable: bool, html: bool = True) -> dict[str, Any]:
    verdict = {
        "call": call,
        "score": 0.814,
        "limit": 0.5,
        "interval": [0.6, 0.925],
        "reliable": reliable,
        "positive": True,
    }
    files = {"html": "report.html"} if html else {}
    return {"verdict": verdict, "files": files, "burden": {"lesion_ml": 186.44, "severity": {"name": "CT-1"}}}


def test_one_study_ends_with_its_page(tmp_path: Path) -> None:
    closing = Closing(tmp_path)
    closing.study(_ended("a", _report("positive", reliable=True)))
    assert (closing.table(), closing.last()) == ("", f"Open {tmp_path / 'a' / 'report.html'}")
    without = Closing(tmp_path)
    without.study(_ended("a", _report("positive", reliable=True, html=False)))
    assert without.last() == f"Open {tmp_path / 'a' / 'report.json'}"


def test_several_studies_end_with_a_table_of_all_of_them(tmp_path: Path) -> None:
    closing = Closing(tmp_path, [InputError("is broken", path="in/x.zip")])
    closing.study(_ended("a", _report("positive", reliable=True)))
    closing.study(_ended("b", _report("indeterminate", reliable=False) | {"burden": None}))
    closing.study(_ended("c", None))
    lines = [re.split(r"  +", line) for line in closing.table().splitlines()[1:]]
    assert lines == [
        ["case", "verdict", "score (interval)", "reliable", "lesions", "grade", "report"],
        ["–", "failed", "in/x.zip"],
        ["a", "positive", "0.81 (0.60 to 0.93)", "yes", "186.4 ml", "CT-1", str(tmp_path / "a/report.html")],
        ["b", "indeterminate", "0.81 (0.60 to 0.93)", "NO", str(tmp_path / "b/report.html")],
        ["c", "failed", "in/c"],
    ]
    near = _report("negative", reliable=True)
    near["verdict"] |= {"score": 0.4956, "interval": None}
    closing.study(_ended("d", near))
    assert "  0.496  " in closing.table(), "never the limit's own digits beside a verdict that does not reach it"
    assert closing.last() == f"Open a report of the table above; all numbers are in {tmp_path / 'summary.csv'}"


def test_where_nothing_was_made_there_is_nothing_to_open(tmp_path: Path) -> None:
    closing = Closing(tmp_path, [InputError("is broken", path="in/x.zip")])
    assert closing.last() == ""


def test_the_doctor_names_damaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jcs_ct.app.doctor.sha256_of", lambda _: "0" * 64)
    result = CliRunner().invoke(jcs, ["doctor"])
    assert result.exit_code == 1
    assert "FAULT weights" in result.output
    assert "→ install jcs-ct again" in result.output


def test_the_doctor_says_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jcs_ct.app.doctor.missing_of", lambda extra: ["lightning"] if extra == "train" else [])
    text = said("doctor")
    assert re.search(r"opt +extra train .*not installed: lightning\n.*→ pip install .*\[train\]\"", text)


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ({}, 'pip install ".[train]" in a clone of jcs-ct'),
        (
            {"url": "https://host.example/jcs-ct.git", "vcs_info": {"vcs": "git"}},
            'pip install "jcs-ct[train] @ git+https://host.example/jcs-ct.git"',
        ),
        ({"url": "file:///no/such/folder", "dir_info": {}}, 'pip install ".[train]" in a clone of jcs-ct'),
    ],
)
def test_an_extra_comes_from_where_the_package_came(
    origin: dict[str, Any], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "_origin", lambda: origin)
    assert installing.install_command("train") == command


def test_an_extra_of_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "a clone"
    clone.mkdir()
    (clone / "pyproject.toml").touch()
    origin = {"url": clone.as_uri(), "dir_info": {"editable": True}}
    monkeypatch.setattr(installing, "_origin", lambda: origin)
    assert installing.install_command("train,lite") == f'pip install -e "{clone}[train,lite]"'


def test_what_is_missing_of_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["click>=8", "lightning>=2.4; extra == 'train'", 'no-such-thing[a]>=1; extra == "train"']
    monkeypatch.setattr(metadata, "requires", lambda _: needs)
    assert [name for name in installing.missing_of("train") if name != "lightning"] == ["no-such-thing"]
    assert installing.missing_of("service") == []


def test_the_list_of_commands_fits_a_narrow_terminal() -> None:
    lines = said("--help", COLUMNS="80").splitlines()
    assert all(any(line.strip().startswith(name) for line in lines) for name in COMMANDS)
