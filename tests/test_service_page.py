"""The page in a real browser: send, watch, open the report, delete; nothing leaves the machine, axe finds nothing."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fastapi")

from browser_help import Browser, require_browser
from jcs_ct.service.access import add_token
from jcs_ct.service.record import Record
from jcs_ct.service.settings import DiagnosisSettings, sqlite_in
from service_help import nifti, serving, until

if TYPE_CHECKING:
    from pathlib import Path


def arrived(browser: Browser, code: str) -> None:
    """Wait for something of the page that comes next; asking the one that goes fails."""

    def there() -> bool:
        try:
            return bool(browser("evaluate", code=code))
        except AssertionError as error:
            assert "navigation" in str(error)  # noqa: PT017  # any other is a failure
            return False

    until(there, 60)


def words(browser: Browser, selector: str) -> str:
    return str(browser("evaluate", code=f"document.querySelector('{selector}').textContent"))


def test_light_and_wide(tmp_path: Path) -> None:
    require_browser()
    with (
        serving(tmp_path / "service") as server,
        Browser() as browser,
        closing(Record(sqlite_in(tmp_path / "service"))) as record,
    ):
        digest = DiagnosisSettings().digest()
        for number in range(51):  # as if they had been sent: they wait for ever
            record.submit(f"{number:064d}", digest, f"{number:032d}", 1, 2000)
        browser("open", url=server.url + "/", options={"viewport": {"width": 1200, "height": 800}})
        browser("wait", code="document.querySelectorAll('#studies tr').length === 50")
        assert words(browser, "#state") == "51 waiting, 0 being looked at, 0 done, 0 failed"
        assert browser("evaluate", code="document.getElementById('leave').hidden")  # nobody has logged in
        browser("click", selector="#older")
        browser("wait", code="document.querySelectorAll('#studies tr').length === 51 && older.hidden")

        # How far a study is; and the focus stays while the queue moves.
        browser("focus", selector="tr:last-child button")
        held = record.claim("worker", digest, 600, 3)
        assert held is not None
        assert record.renew(held, 600, 0.5)
        browser("wait", code="document.querySelector('[data-state=running] progress')?.value === 50")
        focused = f"document.activeElement.closest('tr')?.dataset.study === '{held.id}'"
        assert browser("evaluate", code=focused)
        assert browser("axe") == []
        assert record.renew(held, 600, 0.75)
        assert record.submit("f" * 64, digest, "f" * 32, 1, 2000)[1]
        browser("wait", code="document.querySelector('[data-state=running] progress')?.value === 75")
        browser("wait", code="document.querySelectorAll('#studies tr').length === 52")
        assert browser("evaluate", code=focused)
        assert words(browser, "[data-state=running] td:nth-child(2)") == "running  75 %"
        browser("open", url=server.url + "/docs", options={"viewport": {"width": 1200, "height": 800}})
        assert browser("axe") == []
        assert browser("heard") == []


def test_a_study_from_upload_to_deletion(tmp_path: Path) -> None:
    """Dark, and on a telephone."""
    require_browser()
    token = add_token(tmp_path / "tokens", "somebody", ("admin",))
    (tmp_path / "study.nii").write_bytes(nifti(30))
    (tmp_path / "nonsense.zip").write_bytes(b"PK nonsense")
    with serving(tmp_path / "service", "--tokens", str(tmp_path / "tokens"), workers=1) as server, Browser() as browser:
        options = {"viewport": {"width": 360, "height": 800}, "colorScheme": "dark"}
        browser("open", url=server.url + "/", options=options)
        assert browser("axe") == []
        browser("set", selector="#token", value=token)
        browser("press", key="Enter")
        arrived(browser, "document.getElementById('state')?.textContent === 'No studies yet'")
        assert browser("axe") == []

        browser("files", selector="#files", paths=[str(tmp_path / "study.nii"), str(tmp_path / "nonsense.zip")])
        browser("wait", code="document.querySelectorAll('#studies tr').length === 2")
        browser("wait", code="document.querySelectorAll('[data-state=done]').length === 1")
        browser("wait", code="document.querySelectorAll('[data-state=failed]').length === 1")
        words = browser("evaluate", code="document.querySelector('[data-state=failed] .bad').textContent")
        assert words.startswith("study: ")
        words = browser("evaluate", code="document.querySelector('[data-state=done]').textContent")
        assert any(f"{verdict}, 0." in words for verdict in ("positive", "negative", "indeterminate"))
        assert browser("axe") == []
        wide = browser("evaluate", code="document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0

        browser("focus", selector="[data-state=failed] button")  # by keyboard
        browser("press", key="Enter")
        browser("wait", code="document.getElementById('sure').open")
        assert browser("axe") == []
        browser("press", key="Escape")
        browser("wait", code="!document.getElementById('sure').open")
        browser("click", selector="[data-state=failed] button")
        browser("click", selector="#yes")
        browser("wait", code="document.querySelectorAll('#studies tr').length === 1")

        browser("click", selector="[data-state=done] a")
        arrived(browser, "document.getElementById('stage')?.dataset.drawn !== undefined")  # its viewer works
        cookies = "try { document.cookie } catch (error) { error.name }"
        assert browser("evaluate", code=cookies) == "SecurityError"  # it is nobody's page
        reached = f"fetch({json.dumps(server.url + '/api/studies')}).then((a) => a.status).catch((error) => error.name)"
        assert browser("evaluate", code=reached) == "TypeError"

        asked = browser("requests")
        assert asked
        assert all(url.startswith((server.url, "data:", "blob:")) for url in asked), asked
        errors = [line for line in browser("heard") if line.startswith("error") and "/api/studies'" not in line]
        assert not [e for e in errors if "Content Security Policy" not in e and "401" not in e], errors
