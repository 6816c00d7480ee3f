"""`jcs models`: what it prints, and what it writes. What it does is tested with the modules that do it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest
import torch
from click.testing import CliRunner

from jcs_ct.cli.models import models
from jcs_ct.core.errors import JcsError, OutputError, UsageError, WeightsError
from jcs_ct.weights import import_file, store
from jcs_ct.weights.catalogue import CATALOGUE
from weights_help import add_tiny, tiny_state

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture(autouse=True)
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    add_tiny(monkeypatch)
    monkeypatch.setenv("JCS_HOME", str(tmp_path / "home"))
    torch.save({"state_dict": tiny_state(), "epoch": 3}, tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth"


def run(*words: object) -> Result:
    result = CliRunner().invoke(models, [str(word) for word in words], catch_exceptions=True)
    assert result.exception is None, result.exception
    return result


def refusal(error: type[JcsError], *words: object) -> str:
    result = CliRunner().invoke(models, [str(word) for word in words])
    assert isinstance(result.exception, error)
    assert result.stdout == ""
    return result.exception.line()


def test_the_list_is_an_aligned_table(checkpoint: Path) -> None:
    run("import", checkpoint, "--name", "a-rather-long-name-for-weights")
    lines = run("list").stdout.splitlines()
    header, ships, first = lines[:3]
    assert ships.split()[:3] == ["jcs-lite", "jcs-lite", "ready"]
    assert header.split() == ["NAME", "ARCHITECTURE", "STATE", "SIZE", "WHAT"]
    assert first.split()[:3] == ["a-rather-long-name-for-weights", "tiny", "ready"]
    for column in ("ARCHITECTURE", "STATE", "SIZE", "WHAT"):
        start = header.index(column)
        assert all(line[start - 1] == " " and line[start] != " " for line in lines[1 : 3 + len(CATALOGUE)])
    states = {line.split()[0]: line for line in lines[3 : 3 + len(CATALOGUE)]}
    assert states.keys() == CATALOGUE.keys()
    assert "by hand" in states["jcs-joint"]
    assert "to download  554 MB" in states["vgg16-bn-imagenet"]
    assert str(store.weights_folder()) in lines[-2]


def test_the_list_as_json_and_with_damage(checkpoint: Path) -> None:
    import_file(checkpoint, name="jcs-joint")
    import_file(checkpoint, name="mine")
    (store.weights_folder() / "mine.json").unlink()
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert rows["jcs-joint"]["state"] == "ready"
    assert rows["jcs-joint"]["what"] == CATALOGUE["jcs-joint"].title
    assert (rows["mine"]["state"], rows["mine"]["architecture"]) == ("damaged", None)
    assert "No such file" in rows["mine"]["what"]
    assert rows["res2net101-v1b-imagenet"]["size"] == 181_000_000
    assert " ? " in run("list").stdout


def test_show_tells_everything_about_stored_weights(checkpoint: Path) -> None:
    card = import_file(checkpoint, name="mine", licence="CC0")
    facts = json.loads(run("show", "mine", "--json").stdout)
    assert facts["state"] == "ready"
    assert facts.items() >= card.to_dict().items()
    text = run("show", "mine").stdout
    for words in (card.weights_sha256, "CC0", "release-segmentation", "epoch", "not tuned"):
        assert words in text
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines() if line[0] != " ")
    assert lines["what"] == f"{card.source_kind}: {card.source_file}"
    assert not {"source url", "source sha256", "bn eps folded", "schema version"} & lines.keys()
    (store.weights_folder() / "mine.json").write_text("{")
    assert "not valid JSON" in run("show", "mine").stdout


def test_the_shipped_weights_say_what_they_are_and_learned_from() -> None:
    (row,) = [line for line in run("list").stdout.splitlines() if line.startswith("jcs-lite ")]
    assert row.endswith("COVID-19 probability, attention and lesions in one pass; comes with jcs-ct")
    text = run("show", "jcs-lite").stdout
    assert "\ntrained on       3,732 slices labelled COVID-19 or not (public sets ucsd 552" in text
    assert "held out, AUC of slices, mosmed: 0.840" in text
    assert "{" not in text
    values = [line[17:].strip() for line in text.splitlines()]
    assert all(values), "a line without a value"


def test_show_tells_how_to_get_the_others() -> None:
    facts = json.loads(run("show", "vgg16-bn-imagenet", "--json").stdout)
    assert facts["how"] == "jcs models download vgg16-bn-imagenet"
    assert facts["licence"] == "BSD-3-Clause"
    text = run("show", "res2net101-v1b-imagenet").stdout
    assert "SHA-256 0812c246" in text
    assert "https://huggingface.co/timm/res2net101d.in1k" in text
    assert "Google Drive" in run("show", "jcs-joint").stdout
    assert "known: jcs-single" in refusal(WeightsError, "show", "nothing")
    assert "cannot be called" in refusal(UsageError, "show", "../x")


def test_import_reports_what_it_found(checkpoint: Path) -> None:
    result = run("import", checkpoint)
    assert result.stdout == ""
    assert "note: ignored beside 'state_dict': epoch" in result.stderr
    assert "jcs: tiny is ready (tiny, licence: unknown)" in result.stderr
    assert "--overwrite" in refusal(OutputError, "import", checkpoint)
    result = run(
        "import",
        checkpoint,
        "--overwrite",
        "--json",
        "--quiet",
        "--licence",
        "mine",
        "--bn-eps",
        "0.001",
        "--as",
        "tiny",
    )
    card = json.loads(result.stdout)
    assert (card["licence"], card["bn_eps_folded"], card["architecture"]) == ("mine", 0.001, "tiny")
    assert result.stderr == ""
    assert "this is tiny, not vgg16-bn" in refusal(
        WeightsError, "import", checkpoint, "--name", "x", "--as", "vgg16-bn"
    )
    assert "cannot be called '../x'" in refusal(UsageError, "import", checkpoint, "--name", "../x")
    assert "does not exist" in refusal(WeightsError, "import", "nothing.pth")


def test_download_imports_a_file_fetched_by_hand(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setitem(CATALOGUE, "jcs-joint", replace(CATALOGUE["jcs-joint"], architecture="tiny"))
    result = run("download", "jcs-joint", "--from", checkpoint, "--json")
    assert json.loads(result.stdout)["name"] == "jcs-joint"
    assert "jcs: jcs-joint is ready" in result.stderr
    assert "already" in run("download", "jcs-joint").stderr
    assert run("download", "jcs-joint", "--quiet").stderr == ""
    assert "it has jcs-single" in refusal(UsageError, "download", "nothing")


@pytest.mark.parametrize("total", [100_000_000, None])
def test_download_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch, checkpoint: Path, total: int | None) -> None:
    def slow(name: str, *, progress: Any, proxy: str | None, **options: Any) -> Any:
        assert proxy == "http://proxy:3128"
        for done in range(0, 100_000_001, 5_000_000):
            progress(done, total)
        return import_file(checkpoint, name=name)

    monkeypatch.setattr("jcs_ct.weights.obtain.obtain", slow)
    lines = run("download", "vgg16-bn-imagenet", "--proxy", "http://proxy:3128").stderr.splitlines()
    steps = [line for line in lines if "%" in line]
    assert len(steps) == (10 if total else 0)
    if total:
        assert steps[2] == "jcs: vgg16-bn-imagenet: 30 % of 100 MB"


def test_listing_and_showing_load_no_pytorch() -> None:
    code = (
        "import sys; from jcs_ct.cli.models import models\n"
        "for words in (['list'], ['list', '--json'], ['show', 'jcs-joint'], ['--help'], ['import', '--help']):\n"
        "    models(words, standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules or 'requests' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_every_command_has_help() -> None:
    assert isinstance(models, click.Group)
    assert sorted(models.commands) == ["download", "export", "import", "list", "remove", "show"]
    for name in models.commands:
        assert len(run(name, "--help").stdout) > 100
