"""mercure's contract: its folders and settings, what it sends on, and a uid, root and network that allow nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pydicom import dcmread

from jcs_ct.cli import jcs
from jcs_ct.core import processors
from jcs_ct.core.errors import UsageError
from jcs_ct.hospital import mercure
from jcs_ct.hospital.mercure import Wishes, read_wishes
from jcs_ct.inference import apply
from jcs_ct.io.dicom.write import write_ct_series
from study_help import BandNetwork, mark_all, small_phantom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
READ_ONLY = (
    'm=$(mktemp -d); mount --rbind / "$m"; mount -o remount,bind,ro "$m"; mount -t tmpfs tmpfs "$m/tmp"; '
    '{hidden}mkdir -p "$m{given}" "$m{out}"; mount --bind "{given}" "$m{given}"; mount --bind "{out}" "$m{out}"; '
    'exec chroot --userspec=54321:54321 "$m" "$@"'
)


def write_series(folder: Path, hu: NDArray[np.int16]) -> None:
    """Write a series as mercure names its files."""
    phantom = small_phantom()
    folder.mkdir(parents=True)
    for path in write_ct_series(folder.parent / "made", hu, phantom.spacing, phantom.origin, key="m"):
        header = dcmread(path, stop_before_pixels=True)
        shutil.move(path, folder / f"{header.SeriesInstanceUID}#{header.SOPInstanceUID}.dcm")


def abdomen() -> NDArray[np.int16]:
    """A body without lungs: all that is air within it is tissue."""
    hu = small_phantom().hu.copy()
    inside = small_phantom().lungs > 0
    hu[inside] = 40
    rows, columns = np.mgrid[0:128, 0:128]
    body = ((rows - 64) / 40) ** 2 + ((columns - 64) / 55) ** 2 < 1
    hu[:, body] = 40
    return hu


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The two folders, and a network that marks grey."""
    lite: Any = BandNetwork()
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)
    monkeypatch.setattr(mercure, "open_network", lambda *_: lite)
    (tmp_path / "out").mkdir()
    return tmp_path / "in", tmp_path / "out"


def run(given: Path, out: Path) -> tuple[int, dict[str, Any]]:
    status, _ = mercure.run({"MERCURE_IN_DIR": str(given), "MERCURE_OUT_DIR": str(out)})
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return status, result


def test_a_chest_gives_objects_that_mercure_sends_on(folders: tuple[Path, Path]) -> None:
    given, out = folders
    write_series(given, small_phantom().hu)
    (given / "task.json").write_text(json.dumps({"process": {"settings": {"notify": "always", "colour": "red"}}}))
    status, result = run(given, out)
    assert (status, result["status"], result["failed"]) == (0, "done", [])
    (study,) = result["studies"]
    assert sorted(path.name for path in out.iterdir()) == sorted(["result.json", *study["files"]])
    assert sorted(dcmread(out / name).Modality for name in study["files"]) == ["SEG", "SR"]
    for name in study["files"]:
        header = dcmread(out / name)
        assert name == f"{header.SeriesInstanceUID}#{header.SOPInstanceUID}.dcm"
    notification = result["__mercure_notification"]
    assert notification["requested"] is True
    assert "Research only" in notification["text"]
    assert study["verdict"]["text"] in notification["text"]
    assert "the setting colour is not known here" in result["notes"]


@pytest.mark.parametrize(("stated", "count"), [(None, 1), ("3", 3)])
def test_it_keeps_to_the_processors_that_the_container_has(
    stated: str | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if stated is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
    monkeypatch.setattr(processors, "quota", lambda *_: 0.5)
    seen, before = [], torch.get_num_threads()

    def run(environment: Any) -> Any:
        seen.append((torch.get_num_threads(), environment["OMP_NUM_THREADS"]))
        return 0, {"failed": [], "notes": [], "no_chest": [], "status": "", "__mercure_notification": {"text": ""}}

    monkeypatch.setattr(mercure, "run", run)
    assert CliRunner().invoke(jcs, ["mercure"]).exit_code == 0
    assert seen == [(count, str(count))]
    assert torch.get_num_threads() == before


def test_no_chest_is_an_answer(folders: tuple[Path, Path]) -> None:
    given, out = folders
    write_series(given, abdomen())
    status, result = run(given, out)
    assert (status, result["status"], result["studies"], result["failed"]) == (0, "no chest", [], [])
    assert len(result["no_chest"]) == 1
    assert result["__mercure_notification"]["requested"] is False
    assert [path.name for path in out.iterdir()] == ["result.json"]


def test_what_cannot_be_used_is_status_2(folders: tuple[Path, Path]) -> None:
    given, out = folders
    given.mkdir()
    (given / "1#2.dcm").write_text("no DICOM")
    status, result = run(given, out)
    assert (status, result["status"]) == (2, "failed")
    assert result["__mercure_notification"]["requested"] is True
    (given / "1#2.dcm").unlink()
    assert run(given, out)[0] == 2
    with pytest.raises(UsageError, match="MERCURE_OUT_DIR is not set"):
        mercure.run({"MERCURE_IN_DIR": str(given)})
    with pytest.raises(UsageError, match="is not a folder"):
        mercure.run({"MERCURE_IN_DIR": str(given / "none"), "MERCURE_OUT_DIR": str(out)})


STEP, OTHER = {"module_name": "jcs", "settings": {"rule": "fraction"}}, {"module_name": "x", "settings": {"rule": 3}}


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        ({"settings": {"rule": "fraction", "allow_gaps": True}}, Wishes(rule="fraction", allow_gaps=True)),
        ({"settings": [{"rule": "fraction"}, {"series": 3}]}, Wishes(rule="fraction", series="3")),
        ([OTHER, STEP], Wishes(rule="fraction")),
        ([{"module_config": {"docker_tag": "x/jcs-ct:1"}, "settings": {"notify": "never"}}], Wishes(notify="never")),
        ([{"settings": {"segment": "never"}}], Wishes(segment="never")),
        ({"settings": None}, Wishes()),
        (None, Wishes()),
    ],
)
def test_settings_come_as_objects_or_lists(process: Any, expected: Wishes, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(json.dumps({"id": "x", "process": process}))
    assert read_wishes(tmp_path / "task.json") == expected


def test_settings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    assert read_wishes(path) == Wishes()
    path.write_text(json.dumps({"process": {"settings": {"rule": "guess"}}}))
    with pytest.raises(UsageError, match="its setting rule is 'guess'; one of whole-study"):
        read_wishes(path)
    path.write_text("{")
    with pytest.raises(UsageError, match="is not JSON"):
        read_wishes(path)


def confined(words: Sequence[str], given: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run `jcs` under another uid, with a read-only root, a fresh /tmp and no network."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    homes = {str(ROOT), sys.prefix}  # a fresh /tmp would hide a checkout that lies there
    hidden = "".join(f'mkdir -p "$m{p}"; mount --bind "{p}" "$m{p}"; ' for p in homes if p.startswith("/tmp/"))
    script = READ_ONLY.replace("{hidden}", hidden).replace("{given}", str(given)).replace("{out}", str(out))
    line = [str(shutil.which("unshare")), "-m", "-n", "sh", "-ec", script, "sh", sys.executable, "-m", "jcs_ct", *words]
    environment = {"MERCURE_IN_DIR": str(given), "MERCURE_OUT_DIR": str(out), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    environment |= {"HOME": "/tmp", "XDG_CACHE_HOME": "/tmp/cache", "MPLCONFIGDIR": "/tmp/m", "JCS_HOME": "/tmp/jcs"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT / "src"), *sys.path) if Path(p).is_dir())
    return subprocess.run(line, env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(("chest", "expected"), [(True, "done"), (False, "no chest")])
def test_another_uid_a_read_only_root_and_no_network(chest: bool, expected: str, tmp_path: Path) -> None:
    given, out = tmp_path / "in", tmp_path / "out"
    write_series(given, small_phantom().hu if chest else abdomen())
    out.mkdir()
    for part in (tmp_path, *tmp_path.parents[:2], given):
        part.chmod(0o755)
    out.chmod(0o777)
    before = sorted(path.name for path in given.iterdir())
    done = confined(["mercure"], given, out)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == expected
    assert len(list(out.glob("*#*.dcm"))) == (2 if chest else 0)
    assert {path.stat().st_uid for path in out.iterdir()} == {54321}
    assert sorted(path.name for path in given.iterdir()) == before
    alien = [line for line in (done.stdout + done.stderr).splitlines() if line and not line.startswith("jcs: ")]
    assert alien == []
