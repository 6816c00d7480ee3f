"""Studies in an object store, over real HTTP: as the local run, killed and resumed, shared, and what goes wrong."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from archive_help import BUCKET, Store, blows, png, s3_server, studies
from jcs_ct.archive.places import is_url
from jcs_ct.cli import jcs
from jcs_ct.core.errors import InputError, OutputError, UsageError
from jcs_ct.inference import apply
from study_help import mark_all, write_lite

if TYPE_CHECKING:
    from collections.abc import Iterator

IN, OUT = f"s3://{BUCKET}/in", f"s3://{BUCKET}/out"
STUDIES = 4


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("s3fs", reason="needs the extra cloud")
    with s3_server() as where:
        yield where


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A bucket with studies of pictures."""
    for name, value in surroundings(endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)
    bucket = Store(endpoint)
    for key in list(bucket.keys()):
        bucket.remove(key)
    bucket.put_studies(STUDIES)
    return bucket


def surroundings(endpoint: str) -> dict[str, str]:
    names = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    return names | {"AWS_ENDPOINT_URL": endpoint, "AWS_MAX_ATTEMPTS": "2"}


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(jcs, [*arguments, *(["--no-html"] if arguments[0] == "diagnose" else [])])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def reports(store: Store) -> dict[str, dict[str, Any]]:
    """Folder → what its report says."""
    keys = [key for key in store.keys("out/") if key.endswith("/report.json")]
    return {key.split("/")[1]: json.loads(store.get(key)) for key in keys}


def test_what_is_a_url() -> None:
    assert [is_url(text) for text in ("s3://a/b", "memory://x", "C:\\a", "a/b", "a:b", "./s3:/x")] == [
        *(True, True),
        *(False,) * 4,
    ]


def test_a_store_gets_what_a_disk_gets(store: Store, tmp_path: Path) -> None:
    for key in store.keys("in/"):
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(key))
    assert run("diagnose", str(tmp_path / "in"), "-o", str(tmp_path / "out")).exit_code == 0
    assert run("diagnose", IN, "-o", OUT).exit_code == 0
    local = {one["source"]["digest"]: one for path in tmp_path.glob("out/*/report.json") for one in [_json(path)]}
    remote = {one["source"]["digest"]: (name, one) for name, one in reports(store).items()}
    assert local.keys() == remote.keys()
    assert len(local) == STUDIES
    for digest, (name, report) in remote.items():
        assert report["verdict"] == local[digest]["verdict"]
        assert report["slices"] == local[digest]["slices"]
        place = Path(local[digest]["source"]["path"]).relative_to(tmp_path)
        assert report["source"]["path"] == f"s3://{BUCKET}/{place}"
        assert "/tmp/" not in store.get(f"out/{name}/report.json").decode()
        folder = Path(local[digest]["source"]["path"]).name
        own = next(path for path in tmp_path.glob(f"out/{folder}*") if _json(path / "report.json") == local[digest])
        files = {str(path.relative_to(own)) for path in own.rglob("*") if path.is_file()}
        assert {key.removeprefix(f"out/{name}/") for key in store.keys(f"out/{name}/")} == files
    rows = list(csv.DictReader(store.get("out/summary.csv").decode().splitlines()))
    assert {(row["case"], row["status"]) for row in rows} == {(name, "done") for name in reports(store)}
    here = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text().splitlines()))
    for row in here:
        row["path"] = f"s3://{BUCKET}/{Path(row['path']).relative_to(tmp_path)}"
    differ = {"case", "seconds"}
    there, local_rows = (
        {tuple((k, v) for k, v in r.items() if k not in differ) for r in table} for table in (rows, here)
    )
    assert there == local_rows
    assert len(there) == STUDIES


def test_problems_and_kept_studies_have_the_lines_that_a_disk_gets(store: Store) -> None:
    store.put("in/p8/1.dcm", b"no image")
    store.put("out/summary.csv", b"case,status\nold,done\n")
    told = run("diagnose", f"{IN}/p0", IN + "/p8", f"{IN}/nothing", "-o", OUT)
    assert told.exit_code == 1
    assert "summary.old.csv now" in told.stderr
    assert store.get("out/summary.old.csv") == b"case,status\nold,done\n"
    assert run("diagnose", f"{IN}/p0", f"{IN}/p1", "-o", OUT, "--resume").exit_code == 0
    rows = list(csv.DictReader(store.get("out/summary.csv").decode().splitlines()))
    assert {row["path"].removeprefix(f"{IN}/"): row["status"] for row in rows} == {
        "p0/chest": "kept", "p1/chest": "done", "p8/1.dcm": "failed", "nothing": "failed",
    }  # fmt: skip
    assert len(rows) == 4


def test_results_in_a_store_are_no_inputs(store: Store, tmp_path: Path) -> None:
    run("diagnose", f"{IN}/p0", "-o", OUT)
    (name,) = reports(store)
    local, again = str(tmp_path / "local"), f"s3://{BUCKET}/again"
    for given in (f"{OUT}/{name}/masks", f"{OUT}/{name}"):
        with pytest.raises(InputError, match="never read as input"):
            run("diagnose", given, "-o", local)
    told = run("diagnose", OUT, f"{IN}/p1", "-o", again)
    assert (told.exit_code, f"1 folder with results of this program, not read: {OUT}/{name}" in told.stderr) == (
        0,
        True,
    )
    assert {key.split("/")[1] for key in store.keys("again/")} >= {"summary.csv", ".units"}
    assert len([key for key in store.keys("again/") if key.endswith("report.json")]) == 1
    assert run("collect", again, "-o", again, "--of", OUT, "--of", f"{IN}/p1").exit_code == 0


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_resume_keeps_what_is_the_same(store: Store) -> None:
    run("diagnose", IN, "-o", OUT)
    before = {key: store.client.head_object(Bucket=BUCKET, Key=key)["LastModified"] for key in store.keys("out/")}
    with pytest.raises(OutputError, match="has results there already, and 3 more units"):
        run("diagnose", IN, "-o", OUT)
    store.put("in/p1/chest/0.png", png(7777))
    time.sleep(1.1)  # times in a store are of seconds
    again = run("diagnose", IN, "-o", OUT, "--resume")
    assert again.stderr.count("finished before") == STUDIES - 1
    after = {key: store.client.head_object(Bucket=BUCKET, Key=key)["LastModified"] for key in store.keys("out/")}
    changed = {key.split("/")[1] for key in after if key.endswith("report.json") and after[key] != before.get(key)}
    assert len(changed) == 1
    assert len(reports(store)) == STUDIES


def test_shares_of_a_store_are_collected(store: Store) -> None:
    seen: list[str] = []
    for k in (1, 2, 3):
        told = run("diagnose", IN, "-o", OUT, "--part", f"{k}/3", "--json")
        assert told.exit_code == 0
        seen += [one["case"] for one in json.loads(told.stdout)["cases"]]
    assert sorted(seen) == sorted(reports(store))
    assert len(set(seen)) == STUDIES
    store.put_studies(STUDIES + 1)
    collected = run("collect", OUT, "-o", OUT, "--of", IN, "--json")
    assert (collected.exit_code, json.loads(collected.stdout)["missing"]) == (1, [f"{IN}/p{STUDIES}"])
    assert run("diagnose", IN, "-o", OUT, "--resume").stderr.count("finished before") == STUDIES
    assert run("collect", OUT, "-o", OUT, "--of", IN).exit_code == 0


def test_what_is_broken_stops_no_other(store: Store) -> None:
    store.put("in/p8.zip", b"PK\x03\x04 and no more")
    store.put("in/p9.nii.gz", b"no volume")
    store.put("in/README.txt", b"of the archive")
    told = run("diagnose", IN, "-o", OUT)
    assert told.exit_code == 1
    assert "1 files beside the studies are not read" in told.stderr
    for name in ("p8.zip", "p9.nii.gz"):
        assert f"{IN}/{name}: " in told.stderr
    assert len(reports(store)) == STUDIES
    again = run("diagnose", IN, "-o", OUT, "--resume")  # what failed is tried again
    assert (again.exit_code, again.stderr.count("finished before")) == (1, STUDIES)


def test_of_two_runs_that_make_one_result_one_is_refused(store: Store) -> None:
    run("diagnose", f"{IN}/p0", "-o", OUT)
    for key in store.keys("out/.units/"):
        store.remove(key)
    (name,) = reports(store)
    content = store.get(f"out/{name}/report.json")
    told = run("diagnose", f"{IN}/p0", "-o", OUT)
    assert (told.exit_code, f"{OUT}/{name}: exists already" in told.stderr) == (2, True)
    assert store.get(f"out/{name}/report.json") == content


def test_results_on_a_disk_and_inputs_too(store: Store, tmp_path: Path) -> None:
    assert run("diagnose", IN, "-o", str(tmp_path / "out")).exit_code == 0
    assert len(list(tmp_path.glob("out/chest-*/report.json"))) == STUDIES
    assert (tmp_path / "out" / "summary.csv").is_file()
    (tmp_path / "in" / "one").mkdir(parents=True)
    (tmp_path / "in" / "one" / "0.png").write_bytes(png(1))
    assert run("diagnose", str(tmp_path / "in"), "-o", OUT).exit_code == 0
    (report,) = reports(store).values()
    assert report["source"]["path"] == str(tmp_path / "in" / "one")


def test_stores_that_cannot_be_used_are_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="s3://nowhere/in: does not exist"):
        run("diagnose", "s3://nowhere/in", "-o", OUT)
    with pytest.raises(UsageError, match="s4"):
        run("diagnose", "s4://bucket/in", "-o", OUT)
    with pytest.raises(OutputError, match=r"cannot be written|exists"):
        run("diagnose", f"{IN}/p0", "-o", "s3://nowhere/out")
    with pytest.raises(UsageError, match="shared by entry"):
        run("diagnose", IN, "-o", OUT, "--part", "1/2", "--part-by", "study")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UsageError, match=r"\[cloud\]"):
        run("diagnose", IN, "-o", OUT)


def test_names_that_lead_out_are_refused(store: Store) -> None:
    store.put("in/p0/chest/a\\..\\..\\evil.png", png(3))
    told = run("diagnose", f"{IN}/p0", "-o", OUT)
    assert (told.exit_code, "a name that leads out" in told.stderr) == (2, True)


def test_a_killed_run_goes_on(store: Store, endpoint: str, tmp_path: Path) -> None:
    """SIGKILL in the middle: no half result is taken for one, and what was recorded is not made again."""
    count = studies(8)
    store.put_studies(count)
    command = [sys.executable, "-m", "jcs_ct", "diagnose", IN, "-o", OUT, "--resume", "--no-html", "--runtime", "torch"]
    command += ["-m", str(write_lite(tmp_path))]
    given = os.environ | surroundings(endpoint) | {"TMPDIR": str(tmp_path)}
    recorded: dict[str, bytes] = {}
    for blow in blows(count, 2):
        process = subprocess.Popen(command, env=given, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(store.keys("out/.units/")) < blow:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert {key: store.get(key) for key in recorded} == recorded
        recorded = {key: store.get(key) for key in store.keys("out/.units/")}
    assert 2 <= len(recorded) <= count
    ended = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("finished before") >= 2
    assert {key: store.get(key) for key in recorded} == recorded
    for name, report in reports(store).items():
        files = {key.removeprefix(f"out/{name}/") for key in store.keys(f"out/{name}/")}
        assert {report["files"]["slices"], "report.json"} <= files
    assert len(reports(store)) == len({one["source"]["digest"] for one in reports(store).values()}) == count
