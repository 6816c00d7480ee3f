"""The viewer in a real browser: planes, HU, windows, ruler, two studies side by side; nothing leaves the machine."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from browser_help import Browser, require_browser
from jcs_ct.service.app import PAGE_FILES, PAGE_FOLDER
from service_help import Server, dicom, nifti, serving, zipped
from test_architecture import SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = SOURCE.parent.parent
READY = "document.body.dataset.ready === 'yes'"
CANVAS = ".panel canvas"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("viewer"), "--lease", "60", workers=1) as server:
        yield server


@pytest.fixture(scope="module")
def studies(server: Server) -> list[dict[str, Any]]:
    """Two NIfTI studies that were looked at."""
    sent = [server.send(nifti(seed, slices))["id"] for seed, slices in ((31, 14), (32, 16))]
    return [server.ended(study) for study in sent]


def image_of(data: bytes) -> Any:
    return nib.Nifti1Image.from_bytes(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)


def ct(server: Server, study: dict[str, Any]) -> Any:
    answer = server.ask("GET", f"/api/studies/{study['id']}/ct")
    assert answer.status_code == 200, answer.text
    return image_of(answer.content)


def test_the_ct_is_the_input_on_its_grid(server: Server, studies: list[dict[str, Any]]) -> None:
    sent, found = image_of(nifti(31, 14)), ct(server, studies[0])
    np.testing.assert_array_equal(found.affine, sent.affine)
    np.testing.assert_array_equal(found.get_fdata(), np.clip(np.round(sent.get_fdata()), -1024, 3071))
    again = server.ask("GET", f"/api/studies/{studies[0]['id']}/ct")  # made once
    assert again.status_code == 200
    names = [f["name"] for f in server.ask("GET", f"/api/studies/{studies[0]['id']}/files").json()]
    assert not any("ct" in name.split(".") for name in names)  # the results stay those of the command


def test_the_ct_of_dicom_lies_where_its_results_do(server: Server, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in dicom(tmp_path, seed=33)}
    study = server.ended(server.send(zipped(files))["id"])
    url = next(
        f["url"]
        for f in server.ask("GET", f"/api/studies/{study['id']}/files").json()
        if f["name"] == "attention.nii.gz"
    )
    attention, found = image_of(server.ask("GET", url).content), ct(server, study)
    assert found.shape == attention.shape
    np.testing.assert_array_equal(found.affine, attention.affine)
    assert found.get_fdata().min() < -900
    assert server.ask("DELETE", f"/api/studies/{study['id']}").status_code == 204
    assert server.ask("GET", f"/api/studies/{study['id']}/ct").status_code == 404


def test_pictures_have_no_ct(server: Server) -> None:
    picture = BytesIO()
    grey = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    Image.fromarray(grey).save(picture, "PNG")
    study = server.ended(server.send(picture.getvalue())["id"])
    answer = server.ask("GET", f"/api/studies/{study['id']}/ct")
    assert answer.status_code == 409, (study, answer.text)


def test_the_bundle_is_the_one_that_is_named() -> None:
    (name,) = [name for name in PAGE_FILES if name.startswith("niivue")]
    digest = hashlib.sha256((PAGE_FOLDER / name).read_bytes()).hexdigest()
    notice = (ROOT / "THIRD_PARTY.txt").read_text(encoding="utf-8")
    assert digest in notice
    assert f"src/jcs_ct/service/page/.\n\n{name} is" in notice
    assert (PAGE_FOLDER / name).stat().st_size < 3e6


def opened(browser: Browser, url: str, **options: Any) -> None:
    browser("open", url=url, options={"viewport": {"width": 1200, "height": 800}} | options)
    browser("wait", code=READY)
    assert browser("evaluate", code="document.querySelector('.state').textContent") == ""


def drawn(browser: Browser, panel: int = 0) -> tuple[tuple[int, ...], str]:
    """Return the voxel of the crosshair, and what is told of it."""
    voxel = browser("evaluate", code=f"panels[{panel}].canvas.dataset.drawn")
    told = browser("evaluate", code=f"panels[{panel}].part('.cross').textContent")
    return tuple(int(word) for word in voxel.split()), told


def only_here(browser: Browser, server: Server) -> None:
    asked = browser("requests")
    assert all(url.startswith((server.url, "data:", "blob:")) for url in asked), asked
    assert not [line for line in browser("heard") if line.startswith("error")]


def test_three_planes_and_what_is_told_of_them(server: Server, studies: list[dict[str, Any]], tmp_path: Path) -> None:
    require_browser()
    hu = np.asarray(nib.as_closest_canonical(image_of(nifti(31, 14))).get_fdata())  # type: ignore[no-untyped-call]
    with Browser() as browser:
        browser("open", url=server.url + "/", options={})
        browser("wait", code="document.querySelectorAll('[data-state=done]').length >= 2")
        assert not any("niivue" in url for url in browser("requests"))  # only the viewer loads it
        opened(browser, f"{server.url}/view/{studies[0]['id']}")
        assert any("niivue" in url for url in browser("requests"))
        assert browser("axe") == []
        planes = browser("evaluate", code="panels[0].nv.screenSlices.map((s) => s.axCorSag)")
        assert sorted(planes) == [0, 1, 2]
        voxel, told = drawn(browser)
        assert f"Crosshair: {hu[voxel]:.0f} HU;" in told
        assert "lesion" in told
        assert "attention 0." in told
        browser("screenshot", path=str(tmp_path / "planes.png"))
        assert len(np.unique(np.asarray(Image.open(tmp_path / "planes.png").convert("L"))[300:700])) > 50

        browser("focus", selector=CANVAS)  # keys
        for key in ("ArrowRight", "ArrowUp", "PageDown"):
            browser("press", key=key)
        moved, told = drawn(browser)
        assert moved == (voxel[0] - 1, voxel[1] + 1, voxel[2] - 1)
        assert f"Crosshair: {hu[moved]:.0f} HU;" in told
        browser("press", key="m")
        for _ in range(3):
            browser("press", key="PageUp")
        up = 3 * 240 / 14
        assert f"{up:.1f} mm from the mark" in drawn(browser)[1]
        assert browser("evaluate", code="panels[0].part('.sliders output').textContent") == f"{14 - moved[2] - 3} of 14"
        browser("press", key="2")
        assert browser("evaluate", code="[panels[0].ct.cal_min, panels[0].ct.cal_max]") == [-160, 240]
        browser("press", key="a")
        assert browser("evaluate", code="panels[0].nv.volumes.map((v) => v.opacity)") == [1, 0.5, 0.5]

        # The pointer and the ruler, on the axial plane.
        tile = browser("evaluate", code="panels[0].nv.screenSlices.find((s) => s.axCorSag === 0).leftTopWidthHeight")
        spot = {"x": tile[0] + tile[2] * 0.3, "y": tile[1] + tile[3] / 2}
        browser("hover", selector=CANVAS, position=spot)
        pointer = browser("evaluate", code="panels[0].part('.pointer').textContent")
        seen = int(re.findall(r"Pointer: (-?\d+) HU", pointer)[0])
        column = hu.shape[0] - 1 - int(0.3 * hu.shape[0])  # the patient's right is on the left
        around = hu[column - 1 : column + 2, hu.shape[1] // 2 - 1 : hu.shape[1] // 2 + 1, drawn(browser)[0][2]]
        assert seen in np.round(around)
        browser("click", selector="#ruler")
        browser("drag", selector=CANVAS, **{"from": spot, "to": spot | {"x": spot["x"] + tile[2] / 4}})
        length = float(re.findall(r"ruler ([\d.]+) mm", drawn(browser)[1])[0])
        assert length == pytest.approx(358 / 4, abs=4)
        right = {"from": spot, "to": spot | {"x": spot["x"] + 60}, "button": "right"}
        browser("drag", selector=CANVAS, **right)
        assert browser("evaluate", code="document.getElementById('window').value") == ""  # a window of one's own
        assert browser("evaluate", code="Number(document.getElementById('width').value)") != 400
        browser("click", selector="#clear")
        assert "ruler" not in drawn(browser)[1]
        only_here(browser, server)


def test_two_studies_side_by_side_on_a_telephone(server: Server, studies: list[dict[str, Any]]) -> None:
    """From the list to both, in the dark, and the second is deleted by somebody else then."""
    require_browser()
    first, second = (study["id"] for study in studies)
    options = {"viewport": {"width": 390, "height": 800}, "colorScheme": "dark", "hasTouch": True}
    with Browser() as browser:
        browser("open", url=server.url + "/", options=options)
        browser("wait", code="document.querySelectorAll('[data-state=done]').length >= 2")
        browser("click", selector=f"[data-study='{first}'] [aria-pressed]")
        assert browser("evaluate", code="document.querySelectorAll('[aria-pressed=true]').length") == 1
        assert browser("axe") == []
        address = f"/view/{first}?with={second}"
        browser("click", selector=f"[data-study='{second}'] [aria-pressed]")
        opened(browser, server.url + address, **options)
        assert browser("axe") == []
        wide = browser("evaluate", code="document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
        before = drawn(browser, 1)[0]
        browser("evaluate", code="panels[0].goTo([10, 12, 3])")
        assert drawn(browser)[0] == (10, 12, 3)
        after = drawn(browser, 1)[0]
        assert after != before
        browser("evaluate", code="document.getElementById('linked').click()")
        browser("evaluate", code="panels[0].goTo([40, 40, 6])")
        assert drawn(browser, 1)[0] == after  # each on its own
        only_here(browser, server)
        assert server.ask("DELETE", f"/api/studies/{second}").status_code == 204
        browser("open", url=server.url + address, options=options)
        browser("wait", code=READY)
        said = json.dumps(browser("evaluate", code="panels.map((p) => p.part('.state').textContent)"))
        assert said == '["", "This study cannot be shown: no such study"]'
