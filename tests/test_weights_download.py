"""Downloads, against servers on this machine: resumed, checked, bounded, and with a way out without a network."""

from __future__ import annotations

import hashlib
import io
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import requests
import torch

from jcs_ct.core.errors import DownloadError, UsageError, WeightsError
from jcs_ct.weights import catalogue, download, load, obtain, store
from jcs_ct.weights.catalogue import Entry, KnownFile
from jcs_ct.weights.download import fetch
from weights_help import add_tiny, tiny_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 4000  # 1 MB
CHECKSUM = (hashlib.sha256(DATA).hexdigest(),)


@dataclass
class Site:
    """What a server has and how it behaves; and what it was asked."""

    data: bytes = DATA
    etag: str = '"one"'
    ranges: bool = True
    cut_after: int | None = None  # bytes of each answer after which the connection dies
    cuts: int = 10**6  # how many answers are cut
    statuses: list[int] = field(default_factory=list)  # answers before the file
    content_type: str = "application/octet-stream"
    length: bool = True
    redirect: str = ""
    content_range: str = ""
    port: int = 0
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/file.pth"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        site: Site = self.server.site  # type: ignore[attr-defined]
        site.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        if site.statuses:
            return self.answer(site.statuses.pop(0), {"Content-Length": "0"})
        if site.redirect and "moved" not in self.path:
            return self.answer(302, {"Location": site.redirect, "Content-Length": "0"})
        start, status, headers = 0, 200, {"Content-Type": site.content_type}
        if site.etag:
            headers["ETag"] = site.etag
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if wanted and site.ranges and condition in (None, site.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status = 206
            headers["Content-Range"] = site.content_range or f"bytes {start}-{len(site.data) - 1}/{len(site.data)}"
            if start >= len(site.data):
                return self.answer(416, {"Content-Range": f"bytes */{len(site.data)}", "Content-Length": "0"})
        body = site.data[start:]
        if site.length:
            headers["Content-Length"] = str(len(body))
        self.answer(status, headers)
        if site.cut_after is not None and site.cuts > 0:
            site.cuts -= 1
            body = body[: site.cut_after]
        self.wfile.write(body)
        return None

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")  # and this handler closes it: nobody waits for a second request
        self.end_headers()


@contextmanager
def serving(**behaviour: Any) -> Iterator[Site]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site = Site(**behaviour, port=server.server_address[1])
    server.site = site  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxies of this machine, no pauses, a home of our own."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "TIMEOUT", (2.0, 2.0))
    monkeypatch.setenv("JCS_HOME", str(tmp_path / "home"))
    # The store alone, without what the package ships.
    monkeypatch.setattr("jcs_ct.weights.store.shipped", lambda: tmp_path / "none.safetensors")


def failure(*args: Any, **options: Any) -> str:
    with pytest.raises(DownloadError) as caught:
        fetch(*args, **options)
    line = caught.value.line()
    assert "\n" not in line
    return line


# One file


def test_a_file_arrives_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "new folder" / "f"
    with serving() as site:
        assert (
            fetch(site.url, target, checksums=CHECKSUM, progress=lambda done, total: seen.append((done, total)))
            == target
        )
    assert target.read_bytes() == DATA
    assert [path.name for path in target.parent.iterdir()] == ["f"]
    assert site.asked == [("/file.pth", None, None)]
    assert seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_complete_file_needs_no_request(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    with serving() as site:
        fetch(site.url, tmp_path / "f", checksums=CHECKSUM)
        (tmp_path / "g.part").write_bytes(DATA)  # stopped just before the last step
        fetch(site.url, tmp_path / "g", checksums=CHECKSUM)
    assert site.asked == []
    assert (tmp_path / "g").read_bytes() == DATA


def test_a_cut_connection_is_resumed_where_it_broke(tmp_path: Path) -> None:
    with serving(cut_after=300_000) as site:
        fetch(site.url, tmp_path / "f", checksums=CHECKSUM)
    assert (tmp_path / "f").read_bytes() == DATA
    starts = [wanted for _, wanted, _ in site.asked]
    assert starts[0] is None
    assert len(starts) == 4
    assert all(wanted is not None and wanted != "bytes=0-" for wanted in starts[1:])
    assert all(condition == '"one"' for _, _, condition in site.asked[1:])


def test_the_next_run_resumes_what_the_last_one_left(tmp_path: Path) -> None:
    with serving(cut_after=100_000) as site:
        assert "the connection was cut" in failure(site.url, tmp_path / "f", checksums=CHECKSUM)
        assert len(site.asked) == download.ATTEMPTS
        left = (tmp_path / "f.part").stat().st_size
        assert 0 < left < len(DATA)
        assert "127.0.0.1" not in (tmp_path / "f.part.json").read_text()  # an address can hold a token
        site.cut_after = None
        fetch(site.url, tmp_path / "f", checksums=CHECKSUM)
    assert site.asked[-1][1] == f"bytes={left}-"
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_server_without_ranges_starts_over(tmp_path: Path) -> None:
    with serving(ranges=False, cut_after=300_000, cuts=2) as site:
        fetch(site.url, tmp_path / "f", checksums=CHECKSUM)
    assert (tmp_path / "f").read_bytes() == DATA
    assert len(site.asked) == 3


def test_a_file_that_changed_meanwhile_starts_over(tmp_path: Path) -> None:
    with serving(cut_after=300_000) as site:
        failure(site.url, tmp_path / "f", checksums=("0" * 64,))
    newer = bytes(reversed(DATA))
    (tmp_path / "f.part").write_bytes(DATA[:1000])
    with serving(data=newer, etag='"two"') as site:
        (tmp_path / "f.part.json").write_text(f'{{"address": "{download._mark(site.url)}", "validator": "\\"one\\""}}')
        fetch(site.url, tmp_path / "f")
    assert site.asked == [("/file.pth", "bytes=1000-", '"one"')]
    assert (tmp_path / "f").read_bytes() == newer


def test_without_a_version_or_a_checksum_nothing_is_resumed(tmp_path: Path) -> None:
    with serving(etag='W/"weak"', cut_after=300_000, cuts=1) as site:
        fetch(site.url, tmp_path / "f")
    assert [wanted for _, wanted, _ in site.asked] == [None, None]
    with serving(etag="", cut_after=300_000, cuts=1) as site:
        fetch(site.url, tmp_path / "g", checksums=CHECKSUM)
    assert site.asked[1][1] is not None
    assert site.asked[1][2] is None


def test_a_part_of_full_length_ends_well_and_a_longer_one_starts_over(tmp_path: Path) -> None:
    for length, expected in ((len(DATA), 1), (len(DATA) + 5, 2)):
        with serving() as site:
            (tmp_path / "f.part").write_bytes((DATA + b"12345")[:length])
            (tmp_path / "f.part.json").write_text(
                f'{{"address": "{download._mark(site.url)}", "validator": "\\"one\\""}}'
            )
            fetch(site.url, tmp_path / "f")
        assert len(site.asked) == expected
        assert (tmp_path / "f").read_bytes() == DATA


def test_a_server_that_resumes_elsewhere_is_not_believed(tmp_path: Path) -> None:
    with serving(cut_after=300_000, content_range="bytes 0-9/10") as site:
        assert "another place" in failure(site.url, tmp_path / "f", checksums=CHECKSUM)
    response = requests.Response()
    response.status_code = 206
    response.headers["Content-Range"] = "bytes 5-9/*"  # a total that is not stated is no contradiction
    assert download._announced(response, 5) is None


def test_a_wrong_checksum_removes_the_file(tmp_path: Path) -> None:
    with serving() as site:
        line = failure(site.url, tmp_path / "f", checksums=("12345678",), by_hand="go on foot")
    assert "12345678… was expected; it was removed" in line
    assert "(go on foot)" in line
    assert list(tmp_path.glob("f*")) == []


def test_too_large_files_are_refused_announced_or_not(tmp_path: Path) -> None:
    with serving() as site:
        assert "announces 1024000 bytes" in failure(site.url, tmp_path / "f", largest=1000)
    with serving(length=False) as site:
        assert "more than 1000 bytes" in failure(site.url, tmp_path / "f", largest=1000)
    assert list(tmp_path.glob("f*")) == []


def test_a_length_that_is_not_stated_is_no_problem(tmp_path: Path) -> None:
    with serving(length=False) as site:
        assert fetch(site.url, tmp_path / "f", checksums=CHECKSUM).read_bytes() == DATA


@pytest.mark.parametrize(("status", "requests_made"), [(404, 1), (403, 1), (500, 4), (429, 4)])
def test_refusals_are_final_and_troubles_are_tried_again(tmp_path: Path, status: int, requests_made: int) -> None:
    with serving(statuses=[status] * 9) as site:
        assert f"the server answers {status}" in failure(site.url, tmp_path / "f")
    assert len(site.asked) == requests_made
    with serving(statuses=[503]) as site:
        fetch(site.url, tmp_path / "f")


def test_a_login_page_is_not_taken_for_weights(tmp_path: Path) -> None:
    with serving(content_type="text/html; charset=utf-8") as site:
        assert "login or proxy page" in failure(site.url, tmp_path / "f")


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with serving() as site:
        assert "cannot be written" in failure(site.url, tmp_path / "file" / "f")


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/f",
        "ftp://127.0.0.1/f",
        "file:///etc/passwd",
        "https://",
        "http://127.0.0.1.example.org/f",
        "http://[::1/f",
        "http://me:secret@example.org:99999/f?token=secret",
    ],
)
def test_only_https_and_this_machine_are_asked(tmp_path: Path, url: str) -> None:
    line = failure(url, tmp_path / "f")
    assert "is not https" in line
    assert "secret" not in line


def test_redirects_are_followed_and_checked(tmp_path: Path) -> None:
    with serving(redirect="/moved") as site:
        assert fetch(site.url, tmp_path / "f").read_bytes() == DATA
    assert [path for path, _, _ in site.asked] == ["/file.pth", "/moved"]
    with serving(redirect="http://example.org/f") as site:
        assert "is not https" in failure(site.url, tmp_path / "g")
    with serving(redirect="/round") as site:
        assert "in circles" in failure(site.url, tmp_path / "g")


def test_a_remote_server_cannot_send_us_to_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    response = requests.Response()
    response.status_code = 302
    response.headers["Location"] = "http://localhost/secrets"
    response.raw = io.BytesIO()
    monkeypatch.setattr(requests.Session, "get", lambda *args, **options: response)
    assert "'http://localhost/secrets' is not https" in failure("https://example.org/f", tmp_path / "f")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (requests.exceptions.SSLError(), "REQUESTS_CA_BUNDLE"),
        (requests.exceptions.ProxyError(), "the proxy cannot be reached"),
        (requests.exceptions.ReadTimeout(), "does not answer"),
        (requests.exceptions.ConnectionError(), "is there a network?"),
        (requests.exceptions.InvalidProxyURL(), "the address or the proxy cannot be used"),
        (ValueError("port"), "the address or the proxy cannot be used"),
    ],
)
def test_troubles_on_the_way_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, words: str
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(requests.Session, "get", fail)
    assert words in failure("https://example.org/f", tmp_path / "f")


def test_secrets_are_left_out_of_messages() -> None:
    assert download.public_address("https://me:pw@host:8443/a/b?token=x#y") == "https://host:8443/a/b"
    assert download.public_address("https://me:pw@[host/a?token=x") == "[host/a"


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_proxy_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str) -> None:
    with serving() as proxy:
        address = f"http://127.0.0.1:{proxy.port}"
        if way == "environment":
            monkeypatch.setenv("HTTP_PROXY", address)
        url = "http://127.0.0.1:9/behind.pth"
        fetch(url, tmp_path / "f", proxy=address if way == "option" else None)
    assert proxy.asked == [(url, None, None)]  # a proxy is asked for the whole address


# From the catalogue


@pytest.fixture
def tiny_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    add_tiny(monkeypatch)
    path = tmp_path / "tiny.pth"
    torch.save(tiny_state(), path)
    return path


@contextmanager
def offered(path: Path, monkeypatch: pytest.MonkeyPatch, **behaviour: Any) -> Iterator[Site]:
    """Put the file on a server and into the catalogue."""
    data = path.read_bytes()
    with serving(**{"data": data} | behaviour) as site:
        known = KnownFile("tiny-1.pth", hashlib.sha256(data).hexdigest(), site.url + "?token=1")
        entry = Entry("tiny-net", "tiny", "for tests", (known,), "nowhere", len(data), "CC0", "nobody")
        monkeypatch.setitem(catalogue.CATALOGUE, "tiny-net", entry)
        yield site


def test_weights_are_fetched_checked_and_imported(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with offered(tiny_file, monkeypatch) as site:
        card = obtain.obtain("tiny-net")
        assert obtain.obtain("tiny-net") == card
        assert len(site.asked) == 1  # what is there needs no request
        again = obtain.obtain("tiny-net", overwrite=True)
        assert len(site.asked) == 2
    assert (card.name, card.licence, card.citation) == ("tiny-net", "CC0", "nobody")
    assert card.source_url == site.url
    assert load("tiny-net")[1] == again
    assert list(obtain.downloads_folder().iterdir()) == []


def test_a_file_fetched_by_hand_needs_no_network(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with offered(tiny_file, monkeypatch) as site:
        card = obtain.obtain("tiny-net", source=str(tiny_file))
    assert site.asked == []
    assert card.source_url is None
    assert tiny_file.exists()
    other = tiny_file.with_name("other.pth")
    torch.save(tiny_state(1), other)
    with pytest.raises(DownloadError, match="is not tiny-net: its SHA-256 begins"):
        obtain.obtain("tiny-net", source=str(other), overwrite=True)
    with pytest.raises(WeightsError, match="No such file"):
        obtain.obtain("tiny-net", source="nowhere.pth", overwrite=True)


def test_a_file_put_into_the_folder_is_found_there(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with offered(tiny_file, monkeypatch) as site:
        obtain.downloads_folder().mkdir(parents=True)
        (obtain.downloads_folder() / "tiny-1.pth").write_bytes(tiny_file.read_bytes())
        obtain.obtain("tiny-net")
    assert site.asked == []


def test_without_a_network_one_line_says_what_to_do(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with offered(tiny_file, monkeypatch) as site:
        pass  # the server is gone
    with pytest.raises(DownloadError) as caught:
        obtain.obtain("tiny-net")
    line = caught.value.line()
    assert "is there a network?" in line
    assert f"fetch {site.url} by hand, then run: jcs models download tiny-net --from FILE" in line
    assert f"or save it as {obtain.downloads_folder() / 'tiny-1.pth'} and run this again" in line
    assert "token" not in line
    assert store.list_stored() == []


def test_entries_without_an_address_say_where_to_look(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadError, match=r"Google Drive linked in the README of https://github\.com/yuhuan-wu/JCS"):
        obtain.obtain("jcs-joint")
    entry = replace(catalogue.CATALOGUE["jcs-joint"], architecture="tiny")
    monkeypatch.setitem(catalogue.CATALOGUE, "jcs-joint", entry)
    with serving(data=tiny_file.read_bytes()) as site:
        card = obtain.obtain("jcs-joint", source=site.url)
    assert (card.name, card.source_url) == ("jcs-joint", site.url)
    with pytest.raises(UsageError, match="it has jcs-single"):
        obtain.obtain("nothing")


def test_a_file_of_another_network_is_kept_and_refused(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with offered(tiny_file, monkeypatch):
        entry = replace(catalogue.CATALOGUE["tiny-net"], architecture="jcs-joint")
        monkeypatch.setitem(catalogue.CATALOGUE, "tiny-net", entry)
        with pytest.raises(WeightsError, match="this is tiny, not jcs-joint"):
            obtain.obtain("tiny-net")
    assert store.list_stored() == []
