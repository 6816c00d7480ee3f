"""Who may reach the service and do what: tokens, roles, pages of other sites, addresses of other machines."""

from __future__ import annotations

import json
import re
import stat
import sys
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fastapi")

from jcs_ct.cli import main
from jcs_ct.core.errors import UsageError
from jcs_ct.service.access import Access, add_token, check_bind, hash_of, refused_origin
from service_help import Server, events, serving, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A file of tokens, and a token of each role."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    return path, {role: add_token(path, f"the {role}", (role,)) for role in ("submit", "read", "admin")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tokens: tuple[Path, dict[str, str]]) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("service"), "--tokens", str(tokens[0])) as server:
        yield server


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without tokens, on the loopback."""
    with serving(tmp_path_factory.mktemp("open")) as server:
        yield server


def test_only_hashes_are_stored(tokens: tuple[Path, dict[str, str]]) -> None:
    path, known = tokens
    text = path.read_text()
    for token in known.values():
        assert len(token) >= 43
        assert token not in text
        assert hash_of(token) in text
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="called 'the read' already"):
        add_token(path, "the read", ("read",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no token"),
        ("nonsense\n", "line 1 is not a token"),
        ('{"name": "a", "roles": ["read"], "sha256": "short"}\n', "line 1 is not a token"),
        (json.dumps({"name": "a", "roles": ["root"], "sha256": "0" * 64}) + "\n", "roles of submit, read, admin"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "tokens").write_text(content)
    with pytest.raises(UsageError, match=words):
        Access(tmp_path / "tokens")
    with pytest.raises(UsageError, match="cannot be read"):
        Access(tmp_path / "missing")


def test_a_token_that_is_withdrawn_ends(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    first, second = add_token(path, "first", ("read",)), add_token(path, "second", ("submit", "read"))
    access = Access(path)
    found = access.who(second)
    assert found is not None
    assert (found.name, found.may("submit"), found.may()) == ("second", True, False)
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert access.who(second) is None
    assert access.who(first) is not None
    assert access.who(None) is None
    assert access.who("") is None


ID = "0" * 32
ALLOWED = {  # what each role is let through to: then the study is not there, or the body is empty
    ("POST", "/api/studies"): {"submit": 400, "read": 403, "admin": 400},
    ("POST", "/api/uploads"): {"submit": 400, "read": 403, "admin": 400},
    ("HEAD", f"/api/uploads/{ID}"): {"submit": 404, "read": 403, "admin": 404},
    ("PATCH", f"/api/uploads/{ID}"): {"submit": 404, "read": 403, "admin": 404},
    ("DELETE", f"/api/uploads/{ID}"): {"submit": 404, "read": 403, "admin": 404},
    ("GET", "/api/studies"): {"submit": 200, "read": 200, "admin": 200},
    ("GET", "/api/queue"): {"submit": 200, "read": 200, "admin": 200},
    ("GET", f"/api/studies/{ID}"): {"submit": 404, "read": 404, "admin": 404},
    ("GET", f"/api/studies/{ID}/files"): {"submit": 403, "read": 404, "admin": 404},
    ("GET", f"/api/studies/{ID}/files/report.html"): {"submit": 403, "read": 404, "admin": 404},
    ("GET", f"/api/studies/{ID}/archive"): {"submit": 403, "read": 404, "admin": 404},
    ("GET", f"/api/studies/{ID}/report"): {"submit": 403, "read": 404, "admin": 404},
    ("DELETE", f"/api/studies/{ID}"): {"submit": 403, "read": 403, "admin": 404},
    ("GET", "/metrics"): {"submit": 200, "read": 200, "admin": 200},
    ("GET", f"/api/studies/{ID}/ct"): {"submit": 403, "read": 404, "admin": 404},
    ("GET", "/info/"): {"submit": 200, "read": 200, "admin": 200},
    ("PUT", "/session/"): {"submit": 400, "read": 403, "admin": 400},
    ("GET", f"/session/{ID}"): {"submit": 404, "read": 404, "admin": 404},
    ("DELETE", f"/session/{ID}"): {"submit": 403, "read": 403, "admin": 404},
    ("POST", "/infer/lesions"): {"submit": 403, "read": 403, "admin": 400},  # without a session: both roles
}


@pytest.mark.parametrize(("method", "path"), list(ALLOWED), ids=lambda x: x.replace(ID, "ID"))
def test_roles(server: Server, tokens: tuple[Path, dict[str, str]], method: str, path: str) -> None:
    for role, status in ALLOWED[method, path].items():
        server.token = tokens[1][role]
        assert server.ask(method, path).status_code == status, role
    for wrong in ("", "wrong", tokens[1]["admin"][:-1], hash_of(tokens[1]["admin"])):
        server.token = wrong
        answer = server.ask(method, path)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_every_request_of_the_api_is_in_the_table(server: Server) -> None:
    described = server.ask("GET", "/openapi.json").json()["paths"]
    found = {
        (
            method.upper(),
            re.sub(r"\{(study_id|upload|session_id)\}", ID, path).format(key="report.html", model="lesions"),
        )
        for path, methods in described.items()
        for method in methods
    }
    open_to_all = {("GET", "/healthz"), ("GET", "/readyz"), ("OPTIONS", "/api/uploads")}
    assert found - set(ALLOWED) == open_to_all | {("GET", "/auth/"), ("POST", "/auth/token")}
    assert set(ALLOWED) <= found


def test_the_page_asks_for_a_token_and_keeps_it_from_scripts(
    server: Server, tokens: tuple[Path, dict[str, str]]
) -> None:
    server.token = ""
    page = server.ask("GET", "/")
    assert page.status_code == 401
    assert 'type="password"' in page.text
    wrong = server.ask("POST", "/login", data={"token": "wrong"})
    assert wrong.status_code == 401
    assert "Set-Cookie" not in wrong.headers
    right = server.ask("POST", "/login", data={"token": tokens[1]["read"]})
    cookie = right.headers["Set-Cookie"]
    assert right.status_code == 303
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    cookies = {"Cookie": cookie.split(";")[0]}
    assert 'id="studies"' in server.ask("GET", "/", headers=cookies).text
    assert server.ask("POST", "/api/studies", data=b"x", headers=cookies).status_code == 403
    until(lambda: any(e["what"] == "login refused" and e["who"] == "nobody" for e in events(server, "audit")))
    assert not any(token in server.said() for token in (*tokens[1].values(), "wrong"))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),  # let through: the body is empty
        ({"Sec-Fetch-Site": "same-origin"}, 400),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example:80"}, 403),
        ({"Host": "localhost:1"}, 400),
        ({"Host": "[::1]:1"}, 400),
    ],
)
def test_pages_of_other_sites(open_server: Server, headers: dict[str, str], status: int) -> None:
    assert open_server.ask("POST", "/api/studies", headers=headers).status_code == status


def test_a_name_that_leads_here_reads_nothing(open_server: Server) -> None:
    for path in ("/", "/api/studies", "/metrics", "/docs", "/page/page.js"):
        assert open_server.ask("GET", path, headers={"Host": "evil.example"}).status_code == 403, path


@pytest.mark.parametrize(
    "path",
    [
        "/api/studies/%00",
        "/api/studies/%ff%fe/files",
        "/api/studies?before=nan",
        "/api/studies?before=-inf&most=-1",
        "/api/studies?most=" + "9" * 5000,
        "/api/studies/" + "0" * 5000,
        "/page/..%2fapp.py",
        "/page/%00",
    ],
)
def test_strange_questions_are_no_faults_of_the_service(open_server: Server, path: str) -> None:
    for method in ("GET", "DELETE", "POST", "PUT", "HEAD"):
        assert open_server.ask(method, path).status_code < 500


def test_an_origin_of_the_same_host() -> None:
    same = {"host": "ct.example:8042", "origin": "https://ct.example:8042"}
    assert refused_origin("POST", same, open_to_all=False) is None
    assert refused_origin("POST", same | {"origin": "https://ct.example"}, open_to_all=False)
    assert refused_origin("GET", {"host": "ct.example"}, open_to_all=False) is None


def test_headers_of_every_answer(open_server: Server) -> None:
    for path in ("/", "/docs", "/openapi.json", "/page/page.js", "/healthz", "/nothing", "/api/studies/x"):
        headers = open_server.ask("GET", path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "server" not in {name.lower() for name in headers}


def test_pages_load_from_here_only(open_server: Server) -> None:
    pages = (
        "/",
        "/docs",
        f"/view/{ID}",
        "/page/page.js",
        "/page/page.css",
        "/page/login.html",
        "/page/view.js",
        "/page/view.css",
    )
    for path in pages:
        answer = open_server.ask("GET", path)
        assert answer.status_code == 200
        assert not re.search(r"(https?:)?//[a-z0-9]+\.", answer.text), path
    docs = open_server.ask("GET", "/docs").text
    for path in open_server.ask("GET", "/openapi.json").json()["paths"]:
        assert path in docs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "no token is needed"),
        (["--host", "::"], "no token is needed"),
        (["--proxy", "127.0.0.1"], "no token is needed"),
        (["--host", "0.0.0.0", "--tokens", "TOKENS"], "without TLS"),
        (["--cert", "TOKENS"], "belong together"),
        (["--cert", "TOKENS", "--key", "TOKENS"], "--cert or --key cannot be used"),
        (["--tokens", "missing"], "cannot be read"),
        (["--database", "mysql://a@b/c"], "--database"),
        (["--model", "nothing"], "no weights are called"),
        (["--host", "192.0.2.1", "--tokens", "TOKENS", "--proxy", "192.0.2.2"], "cannot be used"),
    ],
)
def test_refusals_to_start(
    tmp_path: Path,
    tokens: tuple[Path, dict[str, str]],
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    given = [str(tokens[0]) if a == "TOKENS" else a for a in arguments]
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(tmp_path / "service"), "--port", "0", "--workers", "0", *given])
    error = capfd.readouterr().err
    assert ended.value.code == 2
    assert error.count("\n") == 1
    assert words in error


def test_work_without_workers_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["work", str(tmp_path), "--workers", "0"])
    assert (ended.value.code, "--workers 0 does no work" in capfd.readouterr().err) == (2, True)


def test_addresses(tokens: tuple[Path, dict[str, str]]) -> None:
    nobody, known = Access(None), Access(tokens[0])
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        check_bind(host, nobody, tls=False, proxy=None)
    check_bind("0.0.0.0", known, tls=True, proxy=None)
    check_bind("0.0.0.0", known, tls=False, proxy="10.0.0.1")
    for host in ("0.0.0.0", "ct.example", "10.0.0.1", ""):
        with pytest.raises(UsageError):
            check_bind(host, nobody, tls=True, proxy=None)


def test_the_command_that_makes_tokens(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["token", str(tmp_path / "tokens"), "--name", "ward 3", "--role", "submit", "--role", "read"])
    assert ended.value.code == 0
    who = Access(tmp_path / "tokens").who(capfd.readouterr().out.strip())
    assert who is not None
    assert (who.name, who.roles) == ("ward 3", frozenset({"submit", "read"}))
