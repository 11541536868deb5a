"""What a stranger, a hostile site, a hostile document or a slow client tries comes to nothing."""

import csv
import html
import http.client
import io
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import pytest

from dashboard.access import patience
from dashboard.access.guard import COOKIE, MOST_BODY, form_token, pass_of
from tests.support.story import BREAKOUT, CANARY, DOCS, HOSTILE, ODD_ID, PICTURE, SCRIPT, TEMPLATE, Story
from tests.support.window import TOKEN, Window, serving

VIEWER = {"Cookie": f"{COOKIE}={pass_of(TOKEN)}"}
PAGES = ["/", "/runs", *(f"/c/{DOCS}{page}" for page in ("", "/quality", "/letters", "/map", "/search", "/documents", "/compare", "/plan"))]
LONG = "x" * (10 << 20)


class Answer:
    def __init__(self, got: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.text = got.status, got.headers, got.read().decode("utf-8", "replace")


def ask(
    address: str, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: str | None = None, as_viewer: bool = True
) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.putrequest(method, path, skip_host="Host" in (headers or {}))
        everything = {**(VIEWER if as_viewer else {}), **(headers or {})}
        if body is not None:
            everything.setdefault("Content-Length", str(len(body)))
        for name, value in everything.items():
            connection.putheader(name, value)
        with suppress(BrokenPipeError, ConnectionResetError):  # it answers before all has come
            connection.endheaders(body.encode() if body is not None else None)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def post(address: str, path: str, body: str, **headers: str) -> Answer:
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": address}
    return ask(address, path, "POST", {**form, **{name.replace("_", "-"): value for name, value in headers.items()}}, body)


@pytest.fixture(scope="module")
def acting(story: Story) -> Iterator[str]:
    """A dashboard that offers all acts."""
    with serving(story.store, allow=frozenset({"promote", "rollback"})) as made:
        yield made


@pytest.fixture(scope="module")
def figures(story: Story) -> Iterator[str]:
    """A dashboard without texts."""
    with serving(story.store, texts=False) as made:
        yield made


def standing(story: Story) -> list[str]:
    """All that a stranger must not change."""
    return sorted(str(path) for path in Path(story.store).rglob("*") if path.is_file() and "notes" not in path.parts)


# Who is let in


@pytest.mark.parametrize("path", PAGES)
def test_without_the_token_nothing_of_the_store_is_seen(address: str, path: str) -> None:
    answer = ask(address, path, as_viewer=False)
    assert answer.status == 401
    assert DOCS not in answer.text.replace(path, "").replace(quote(path), "")


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": f"{COOKIE}={'0' * 64}"},
        {"Cookie": f"{COOKIE}={TOKEN}"},
        {"Cookie": f'{COOKIE}="; {COOKIE}=\\""'},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"X-Forwarded-User": "root"},
        {"Remote-User": "root"},
    ],
)
def test_a_forged_pass_opens_nothing(address: str, headers: dict[str, str]) -> None:
    assert ask(address, "/", headers=headers, as_viewer=False).status == 401


def test_the_token_stays_in_no_address(address: str) -> None:
    answer = ask(address, f"/c/{DOCS}?token={quote(TOKEN)}&a=1", as_viewer=False)
    assert answer.status == 303
    assert answer.headers["location"] == f"/c/{DOCS}?a=1"
    assert "HttpOnly" in answer.headers["set-cookie"] and TOKEN not in answer.headers["set-cookie"]


def test_the_token_stays_in_no_address_of_who_is_known_already(address: str) -> None:
    answer = ask(address, f"/c/{DOCS}?token={quote(TOKEN)}&a=1")
    assert (answer.status, answer.headers["location"]) == (303, f"/c/{DOCS}?a=1")


@pytest.mark.parametrize("path", ["/static/nowhere", "/static/", "/healthz"])
def test_what_is_open_to_all_does_not_tell_where_the_store_is(address: str, story: Story, path: str) -> None:
    for method in ("GET", "POST"):
        assert story.store not in ask(address, path, method, {"Origin": address}, as_viewer=False).text


@pytest.mark.parametrize("other", ['a={"x": 1}', "a[b]=1", 'a="', "secure", f"{COOKIE}=junk", "\xe9=1"])
def test_cookies_of_other_servers_of_this_machine_lock_nobody_out(address: str, other: str) -> None:
    for cookies in (f"{other}; {VIEWER['Cookie']}", f"{VIEWER['Cookie']}; {other}"):
        assert ask(address, "/", headers={"Cookie": cookies}, as_viewer=False).status == 200


def test_who_enters_another_dashboard_of_this_machine_stays_in_the_first(address: str) -> None:
    other = "0123456789abcdef" * 4
    answer = ask(address, f"/?token={quote(TOKEN)}", headers={"Cookie": f"{COOKIE}={other}"}, as_viewer=False)
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert other in cookie
    assert ask(address, "/", headers={"Cookie": cookie}, as_viewer=False).status == 200


def test_two_viewers_in_one_request_are_one_too_many(story: Story) -> None:
    with serving(story.store, header="X-User") as address:
        where = urlsplit(address)
        with socket.create_connection((where.hostname, where.port)) as line:
            line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-User: mallory\r\nX-User: alice\r\n\r\n")
            assert b" 400 " in line.recv(100)


@pytest.mark.parametrize(
    "to",
    [
        *("https://evil.example/", "//evil.example/", "/\\evil.example", "/%0d%0aSet-Cookie: a=b", "javascript:alert(1)"),
        *("/\t/evil.example", "/\r\nSet-Cookie: a=b", "/\n/evil.example", "\t//evil.example", "/\x00"),
    ],
)
def test_the_door_leads_nowhere_else(address: str, to: str) -> None:
    answer = ask(address, "/enter", "POST", {"Origin": address}, f"token={quote(TOKEN)}&to={quote(to)}", as_viewer=False)
    found = answer.headers["location"]
    assert re.match(r"/(?![/\\\s])", found)
    assert answer.headers.get_all("set-cookie") and len(answer.headers.get_all("set-cookie")) == 1


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "a b", "@127.0.0.1:1@evil.example"],
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(address: str, host: str) -> None:
    assert ask(address, "/", headers={"Host": host}).status == 400


def test_two_hosts_are_one_too_many(address: str) -> None:
    where = urlsplit(address)
    with socket.create_connection((where.hostname, where.port)) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert b" 400 " in line.recv(100)


# Who changes something


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(acting: str, method: str) -> None:
    assert ask(acting, f"/c/{DOCS}/rollback" if method != "CONNECT" else "evil.example:80", method, {"Origin": acting}).status >= 400


FORM = f"form_token={form_token(TOKEN)}&why=because&confirm=yes"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_of_another_site_does_nothing(acting: str, story: Story, headers: dict[str, str]) -> None:
    before = standing(story)
    for path in (f"/c/{DOCS}/rollback", f"/c/{DOCS}/promote"):
        assert post(acting, path, FORM, **{name.replace("-", "_"): value for name, value in headers.items()}).status in (400, 403)
    assert standing(story) == before


@pytest.mark.parametrize(
    "body", ["", "why=because", f"form_token={'0' * 64}&why=x", f"form_token={pass_of(TOKEN)}&why=x", "form_token=%00"]
)
def test_a_form_without_the_token_of_forms_does_nothing(acting: str, story: Story, body: str) -> None:
    before = standing(story)
    for path in (f"/c/{DOCS}/rollback", f"/c/{DOCS}/promote"):
        assert post(acting, path, body).status >= 400
    assert standing(story) == before


def test_without_leave_nothing_is_offered_and_nothing_done(address: str, story: Story) -> None:
    before = standing(story)
    for path in (f"/c/{DOCS}/rollback", f"/c/{DOCS}/promote"):
        assert post(address, path, FORM).status >= 400
    assert 'method="post"' not in ask(address, f"/c/{DOCS}").text.lower()
    assert standing(story) == before


def test_no_get_changes_anything(acting: str, story: Story) -> None:
    before = standing(story)
    for path in (*PAGES, f"/c/{DOCS}/rollback?{FORM}", f"/c/{DOCS}/promote?{FORM}&generation=docs.vectors.7040"):
        ask(acting, path)
    assert standing(story) == before


# What is asked too much


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/%2e%2e/pyproject.toml",
        "/static//etc/passwd",
        "/static/%00",
        "/c/..%2f..%2fetc/passwd",
        "/c/../..",
        "/c/_revector",
        "/c/marts.d",
        "/c/docs%00",
        "/c/docs/../../etc",
        "/runs/docs/..%2f..%2flive.json",
        "/runs/docs/%2e%2e",
        "/runs/docs/" + "a" * 3000,
    ],
)
def test_no_path_leads_out(address: str, path: str) -> None:
    answer = ask(address, path)
    assert answer.status in (400, 404), answer.status
    assert "root:" not in answer.text and "import" not in answer.text and "[project]" not in answer.text


@pytest.mark.parametrize(
    "query", ["judgement=../live", "judgement=..%2f..%2fnotes", "judgement=%00", "judgement=" + "a" * 5000, "gate=" + quote(SCRIPT)]
)
def test_no_judgement_is_read_from_elsewhere(address: str, query: str) -> None:
    answer = ask(address, f"/c/{DOCS}/quality?{query}")
    assert answer.status in (200, 400, 422)
    assert SCRIPT not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        f"/c/{DOCS}/search?q=tide&k=1000000",
        f"/c/{DOCS}/search?q=tide&k=-1",
        f"/c/{DOCS}/search?q=tide&k=nan",
        f"/c/{DOCS}/compare?q=tide&k=1000000",
        f"/c/{DOCS}/letters?page=999999999999999999999",
        f"/c/{DOCS}/letters?page=0",
        "/runs?page=-5",
        f"/c/{DOCS}/documents?page=1e9",
    ],
)
def test_numbers_are_capped(address: str, path: str) -> None:
    began = time.monotonic()
    answer = ask(address, path)
    assert answer.status in (200, 400, 404, 422)
    assert len(answer.text) < 500_000 and time.monotonic() - began < 10


INJECTED = [
    {"field": "topic", "op": "=", "value": "x' OR '1'='1"},
    {"field": "topic = 'x' OR 1=1 --", "op": "=", "value": "x"},
    {"field": "topic", "op": "OR 1=1 OR", "value": "x"},
    {"field": "metadata.topic`) OR (true", "op": "=", "value": "x"},
    {"field": "year", "op": ">", "value": "0) OR (1=1"},
    {"field": "doc_id", "op": "in", "value": "'), (true"},
    {"field": "vector", "op": "=", "value": "1"},
]


@pytest.mark.parametrize("condition", INJECTED)
def test_a_condition_is_no_code(address: str, condition: dict[str, str]) -> None:
    answer = ask(address, f"/c/{DOCS}/search?{urlencode({'id': 'd0100#0', 'as': 'json', **condition})}")
    assert answer.status in (200, 400, 404)
    assert answer.status != 200 or json.loads(answer.text) == []


def test_a_name_with_quotes_finds_nothing_but_itself(address: str) -> None:
    for page in ("search?as=json&id", "documents?as=json&id"):
        answer = ask(address, f"/c/{DOCS}/{page}={quote(chr(39) + ' OR ' + chr(39) + '1' + chr(39) + '=' + chr(39) + '1')}")
        assert answer.status == 404 or json.loads(answer.text) == []


@pytest.mark.parametrize(
    "version", ["../notes", "docs.chunks.x@1", "notes.vectors.0a13aef5691d", "docs.vectors.x@99999", "1e9", "%00", "-1", "v" * 300]
)
def test_no_version_is_read_but_those_that_there_are(address: str, version: str) -> None:
    for page in ("search?id=d0100%230&v", "documents?id=d0100&v", "compare?id=d0100%230&a", "compare/changed?a", "map?of", "map/points?of"):
        assert ask(address, f"/c/{DOCS}/{page}={version}").status in (400, 404, 422), page


@pytest.mark.parametrize(
    "asked",
    ["lasso=" + "1,1," * 450, "lasso=nan,nan,inf,1,2,3", "lasso=1", "point=-1", "point=9999999999", "cluster=%27+OR+1", "by=metadata.x"],
)
def test_nothing_is_chosen_on_the_map_that_is_not_there(address: str, asked: str) -> None:
    for page in ("map", "map/chosen", "map/codes"):
        answer = ask(address, f"/c/{DOCS}/{page}?{asked}")
        assert answer.status in (200, 400, 404, 422), (page, answer.status)
        assert len(answer.text) < 300_000


def test_a_question_of_ten_megabytes_is_not_read(address: str) -> None:
    assert post(address, f"/c/{DOCS}/search", f"q={LONG}").status == 413
    where = urlsplit(address)
    with socket.create_connection((where.hostname, where.port)) as line:
        try:
            line.sendall(f"GET /c/{DOCS}/search?q={LONG} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        except (BrokenPipeError, ConnectionResetError):
            return  # it did not even listen to the end
        line.settimeout(20)
        answer = line.recv(100)
        assert not answer or b" 400 " in answer or b" 414 " in answer


def test_a_question_of_a_hundred_thousand_characters_is_refused(address: str) -> None:
    assert ask(address, f"/c/{DOCS}/search?q={'x' * 15_000}").status in (400, 404, 413, 414, 422)


@pytest.mark.parametrize("length", ["99999999999", "-1", "abc", "1e3"])
def test_a_body_that_lies_about_its_length_is_refused(address: str, length: str) -> None:
    assert ask(address, "/enter", "POST", {"Origin": address, "Content-Length": length}, as_viewer=False).status in (400, 413)


def test_a_body_in_pieces_is_counted(address: str) -> None:
    where = urlsplit(address)
    piece = b"%x\r\n%s\r\n" % (8 << 10, b"a" * (8 << 10))
    with socket.create_connection((where.hostname, where.port)) as line:
        line.settimeout(20)
        line.sendall(b"POST /enter HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(2 * MOST_BODY // (8 << 10)):
                line.sendall(piece)
        assert b" 413 " in line.recv(100)


def test_a_form_that_is_too_long_is_refused_where_it_is_read(address: str) -> None:
    where = urlsplit(address)
    piece = b"%x\r\n%s\r\n" % (8 << 10, b"a" * (8 << 10))
    with socket.create_connection((where.hostname, where.port)) as line:
        line.settimeout(20)
        line.sendall(f"POST /c/{DOCS}/plan HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n".encode())
        line.sendall(f"Cookie: {VIEWER['Cookie']}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(2 * MOST_BODY // (8 << 10)):
                line.sendall(piece)
        assert b" 413 " in line.recv(100)


def test_who_sends_a_byte_now_and_then_is_cut_off_and_in_nobodys_way(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 2.0)
    with serving(story.store) as address:
        where = urlsplit(address)
        lines = [socket.create_connection((where.hostname, where.port)) for _ in range(200)]
        for line in lines:
            line.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert ask(address, "/").status == 200
        with suppress(OSError):  # until it is cut off
            for _ in range(100):
                lines[0].sendall(b"a")
                time.sleep(0.2)
        for line in lines:
            line.settimeout(30)
            with suppress(ConnectionResetError):
                assert line.recv(1) == b"", "closed"
            line.close()


# What documents, and people who may write, put in


@pytest.mark.parametrize("path", [*PAGES, *(f"/c/{DOCS}/documents?id=hostile-{number}" for number in range(len(HOSTILE)))])
def test_nothing_that_was_written_is_markup(address: str, path: str) -> None:
    answer = ask(address, path)
    lowered = answer.text.lower()
    assert SCRIPT not in answer.text and PICTURE not in answer.text and "<svg onload" not in lowered
    assert not re.search(r"<[^>]*\son\w+\s*=", re.sub(r'"[^"]*"|\'[^\']*\'', '""', answer.text)), "a handler in a tag"
    assert not re.search(r"<script(?![^>]*\ssrc=)", lowered), "a script in the page"
    assert not re.search(r"<[^>]*\sstyle\s*=", lowered), "a style in a tag"
    assert "1337" not in answer.text.replace(",", ""), "a template in a text was worked out"


@pytest.mark.parametrize("given", [*HOSTILE, ODD_ID, BREAKOUT])
def test_what_an_address_says_is_a_text(address: str, given: str) -> None:
    for path in (
        f"/c/{quote(given, safe='')}",
        f"/c/{DOCS}/letters?kind={quote(given)}",
        f"/c/{DOCS}/quality?gate={quote(given)}",
        f"/c/{DOCS}/documents?id={quote(given)}",
    ):
        answer = ask(address, path)
        assert answer.status in (200, 400, 404, 422)
        assert SCRIPT not in answer.text and PICTURE not in answer.text and "<svg onload" not in answer.text


@pytest.mark.parametrize("page", ["letters", "documents", "search?id=d0100%230"])
def test_a_spreadsheet_gets_no_formula(address: str, page: str) -> None:
    answer = ask(address, f"/c/{DOCS}/{page}{'&' if '?' in page else '?'}as=csv")
    assert answer.status == 200 and answer.headers["content-disposition"].startswith("attachment")
    cells = [cell for line in csv.reader(io.StringIO(answer.text)) for cell in line]
    assert cells and not [cell for cell in cells if cell.startswith(("=", "+", "@"))]


ODD = quote(ODD_ID + "#0")
WITH_TEXTS = [f"/c/{DOCS}/documents?id={quote(ODD_ID)}", *(f"/c/{DOCS}/{page}?id={ODD}" for page in ("search", "compare"))]
WITH_TEXTS += [f"/c/{DOCS}/{page}" for page in ("documents/known?id=" + quote(ODD_ID), "compare/changed", "map/chosen?cluster=0")]
AS_FILES = [f"/c/{DOCS}/{page}as=json" for page in ("letters?", "documents?", "compare/changed?", "map/chosen?cluster=0&")]


@pytest.mark.parametrize("path", [*PAGES, *WITH_TEXTS, *AS_FILES])
def test_figures_alone_show_no_text_and_no_metadata(figures: str, path: str) -> None:
    answer = ask(figures, path)
    assert answer.status in (200, 400, 403, 404)
    said = html.unescape(answer.text)
    assert CANARY not in said and TEMPLATE not in said and "by the harbour" not in said


def test_figures_alone_name_no_cluster_by_words_of_documents(figures: str, address: str) -> None:
    path = f"/c/{DOCS}/documents/known?id=d0100"
    named, numbered = (re.findall(r'<td class="words">([^<]*)', ask(where, path).text) for where in (address, figures))
    assert any("," in name for name in named) and all(re.fullmatch(r"cluster \d+|–", name) for name in numbered)


def test_what_figures_alone_leave_out_is_shown_otherwise(address: str) -> None:
    assert CANARY in ask(address, WITH_TEXTS[0]).text
    assert TEMPLATE in html.unescape(ask(address, f"/c/{DOCS}/documents?id=hostile-3").text)


@pytest.mark.parametrize("path", ["/", "/static/style.css", "/nowhere", f"/c/{DOCS}", f"/c/{DOCS}/letters?as=json"])
def test_every_answer_forbids_what_a_page_does_not_need(address: str, path: str) -> None:
    headers = ask(address, path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "same-origin")
    assert "server" not in headers and "access-control-allow-origin" not in headers
    assert headers["cache-control"] == ("max-age=3600" if path.startswith("/static") else "no-store")


def test_no_page_tells_the_token_or_a_secret(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(story.store) as address:
        for path in (*PAGES, "/nowhere", f"/c/{DOCS}/letters?as=json"):
            answer = ask(address, path)
            assert TOKEN not in answer.text and pass_of(TOKEN) not in answer.text and pass_of(TOKEN) not in json.dumps(dict(answer.headers))


def test_a_page_of_another_site_cannot_show_or_read_it(address: str, browser: Window, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.html"
    hostile.write_text(f'<iframe src="{address}/"></iframe><script src="{address}/"></script><img src="{address}/static/icon.svg">')
    with browser.at(address) as page:
        page.goto(hostile.as_uri())
        page.wait_for_timeout(300)
        [frame] = [frame for frame in page.frames if frame.parent_frame]
        assert "revector" not in (frame.content() if "chrome-error" not in frame.url else "")
    browser.complaints.clear()  # of the browser, about the other site


def test_hostile_words_do_nothing_in_a_browser(address: str, browser: Window) -> None:
    paths = [
        *PAGES,
        *WITH_TEXTS,
        f"/c/{DOCS}/search?q={quote(SCRIPT)}",
        f"/c/{DOCS}/letters?kind={quote(PICTURE)}",
    ]
    with browser.at(address) as page:
        for path in paths:
            page.goto(address + path)
            assert page.evaluate("window.broken") is None, path
    assert [said for said in browser.complaints if "404" not in said and "400" not in said] == []
