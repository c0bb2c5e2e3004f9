"""The page's server over HTTP: what it says, whom it answers, and how it ends."""

import shutil
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from tests.labelling import Served, folder_of, pairs, served

XSS = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = folder_of(tmp_path_factory.mktemp("some where") / "label", pairs(400))
    with served(folder) as server:
        yield server


@pytest.fixture
def client(page):
    with httpx.Client(base_url=page.url, timeout=60) as client:
        yield client


def ask(client, path, **body):
    return client.post(f"/api/{path}", json={"labeller": "ann", "tab": "t", **body})


def say(client, pair, choice, label_id, **body):
    return ask(client, "label", pair=pair, choice=choice, id=label_id, **body)


def test_the_page_needs_no_other_site_and_forbids_it(client):
    answer = client.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
    assert "unsafe" not in policy
    for path in ("/", "/page.css", "/page.js", "/icon.svg"):
        text = client.get(path).text
        assert "https://" not in text
        assert text.count("http://") == text.count('xmlns="http://www.w3.org/2000/svg"')
    assert "innerHTML" not in client.get("/page.js").text


def test_a_label_is_of_the_output_and_not_of_its_side(page, tmp_path):
    folder = folder_of(tmp_path, pairs(24))
    with served(folder) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        sides = set()
        for who in ("ann", "ben"):
            shown = ask(client, "pairs", labeller=who, count=10).json()["pairs"]
            for pair in shown:
                assert set(pair) == {"pair", "instruction", "input", "left", "right"}
                left_is_first = pair["left"].startswith("first")
                sides.add((who, left_is_first))
                choice = "left" if left_is_first else "right"  # always output 1
                done = ask(
                    client, "label", labeller=who, pair=pair["pair"], choice=choice, id=who + pair["pair"]
                )
                assert done.status_code == 200
        assert len(sides) == 4  # both orders for both people
    done = subprocess.run(
        [sys.executable, "-m", "alpacafarm.label", folder, "--write", tmp_path / "judged.jsonl"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "20 of 24 pairs have a verdict" in done.stdout
    rows = (tmp_path / "judged.jsonl").read_text().splitlines()
    assert len(rows) == 20
    assert all('"preference": 1.0' in row for row in rows)


def test_labels_are_counted_and_sent_again_without_harm(client):
    for _ in range(2):
        answer = say(client, "p300", "tie", "twice", labeller="ida")
        assert answer.json()["standing"]["mine"] == 1
    answer = say(client, "p300", "left", "other", labeller="ida")
    assert (answer.status_code, answer.json()) == (
        409,
        {"error": "you have labelled this pair already; the first label stays"},
    )


def test_back_shows_the_last_label_on_the_sides_it_was_given_on(client):
    say(client, "p301", "left", "b1", labeller="jo", comment=" why ")
    label = ask(client, "back", labeller="jo").json()["label"]
    assert (label["id"], label["choice"], label["comment"]) == ("b1", "left", "why")
    assert label["shown"]["pair"] == "p301"
    say(client, "p301", "right", "b2", labeller="jo", replaces="b1")
    label = ask(client, "back", labeller="jo").json()["label"]
    assert (label["id"], label["choice"]) == ("b2", "right")
    assert ask(client, "back", labeller="jo", before=label["seq"]).json() == {"label": None}


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"pair": "nowhere"}, 404, "no such pair"),
        ({"choice": "1"}, 422, "choice"),
        ({"labeller": " \t"}, 422, "labeller"),
        ({"labeller": "a\u202eb"}, 422, "printable"),
        ({"labeller": "a" * 41}, 422, "labeller"),
        ({"id": ""}, 422, "id"),
        ({"seconds": -1}, 422, "seconds"),
        ({"more": 1}, 422, "more"),
        ({"comment": "a" * 70_000}, 413, "at most"),
    ],
)
def test_a_wrong_label_is_refused(client, change, status, message):
    body = {"labeller": "ann", "tab": "t", "pair": "p1", "choice": "left", "id": "w"} | change
    answer = client.post("/api/label", json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]


def test_what_is_no_json_is_refused(client):
    assert client.post("/api/label", content=b"{}").status_code == 415
    headers = {"content-type": "application/json"}
    assert client.post("/api/label", content=b"{", headers=headers).status_code == 422
    assert client.get("/api/label").status_code == 405
    assert client.get("/../labels.sqlite").status_code == 404


@pytest.mark.parametrize("path", ["/", "/api/standing", "/api/agreement"])
def test_another_name_for_this_machine_is_not_answered(client, path):
    answer = client.get(path, headers={"Host": f"evil.example:{client.base_url.port}"})
    assert answer.status_code == 421
    assert "localhost" in answer.text


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_another_sites_page_gives_no_labels(client, headers):
    body = {"labeller": "eve", "tab": "t", "pair": "p2", "choice": "left", "id": "evil"}
    assert client.post("/api/label", json=body, headers=headers).status_code == 403
    assert "eve" not in client.get("/api/standing").json()["standing"]["people"]


def test_with_a_token_nothing_is_answered_without_it(tmp_path):
    with served(folder_of(tmp_path, pairs(3)), "--host", "0.0.0.0") as server:
        token = httpx.URL(server.address).params["token"]
        assert len(token) >= 30
        assert f"http://{socket.gethostname()}:" in server.address
        url = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=url, timeout=60) as client:
            for path in ("/", "/page.js", "/api/standing", "/?token=", f"/?token={token[:-1]}"):
                answer = client.get(path)
                assert answer.status_code == 401
                assert token not in answer.text
                assert answer.headers["content-security-policy"]
            assert ask(client, "pairs").status_code == 401
            first = client.get("/", params={"token": token})
            assert first.status_code == 200
            cookie = first.headers["set-cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            assert ask(client, "pairs").status_code == 200  # the cookie is enough


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_a_new_one_goes_on(tmp_path, number):
    folder = folder_of(tmp_path, pairs(3))
    server = Served(folder)
    with httpx.Client(base_url=server.url, timeout=60) as client:  # with a connection that stays open
        say(client, "p0", "left", "one")
        assert server.stop(number) == 0
    assert "Stopped. 1 labels are kept in" in "".join(server.told)
    assert "Traceback" not in "".join(server.told)
    with served(folder, port=server.port) as again, httpx.Client(base_url=again.url, timeout=60) as client:
        assert client.get("/api/standing").json()["standing"]["judged"] == 1


def test_two_servers_on_a_folder_share_its_pairs(tmp_path):
    folder = folder_of(tmp_path, pairs(4))
    with (
        served(folder) as one,
        served(folder) as two,
        httpx.Client(base_url=one.url, timeout=60) as ann,
        httpx.Client(base_url=two.url, timeout=60) as ben,
    ):
        mine = [p["pair"] for p in ask(ann, "pairs").json()["pairs"]]
        theirs = [p["pair"] for p in ask(ben, "pairs", labeller="ben").json()["pairs"]]
        assert sorted(mine + theirs) == ["p0", "p1", "p2", "p3"]
        say(ann, mine[0], "left", "x")
        assert ben.get("/api/standing").json()["standing"]["judged"] == 1


def command(*arguments):
    asked = [sys.executable, "-m", "alpacafarm.label", *map(str, arguments)]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60)


def test_a_port_in_use_is_told_with_a_way_out(page, tmp_path):
    done = command(folder_of(tmp_path, pairs(1)), "--port", page.port)
    assert done.returncode == 2
    assert f"--port {page.port}: is in use, perhaps by another of these pages; choose another" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"there is no pairs\.jsonl in it, so nothing to label; name the folder that a waiting run"),
        ("", "the file has no pairs; at least one is required"),
        ('{"instruction": "a"}\n', "pairs.jsonl:1: output_1=None must be text"),
        ("nonsense\n", "pairs.jsonl:1: not JSON"),
    ],
)
def test_a_folder_without_pairs_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "pairs.jsonl").write_text(content)
    done = command(tmp_path)
    assert done.returncode == 2
    assert message.replace("\\", "") in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "labels.sqlite").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--token", "short"], ["--token", "has a space in it"], ["--port", "70000"], ["--labels-per-pair", "0"]],
)
def test_wrong_arguments_are_refused(tmp_path, arguments):
    done = command(folder_of(tmp_path, pairs(1)), *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_pairs_that_were_changed_are_not_labelled_on(tmp_path):
    folder = folder_of(tmp_path, pairs(2))
    assert command(folder, "--write", tmp_path / "out.jsonl").returncode == 0
    folder_of(tmp_path, pairs(3))
    done = command(folder, "--write", tmp_path / "out.jsonl")
    assert done.returncode == 1
    assert "has labels of other pairs than" in done.stderr


def test_text_comes_as_it_is(tmp_path):
    row = {"instruction": XSS, "input": XSS, "output_1": XSS, "output_2": "é\u2028\0"}
    with (
        served(folder_of(tmp_path, [row])) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        answer = ask(client, "pairs")
        assert answer.headers["content-type"] == "application/json"
        (shown,) = answer.json()["pairs"]
        assert {shown["left"], shown["right"]} == {XSS, "é\u2028\0"}


def test_a_number_that_no_label_can_have_is_refused(client):
    assert ask(client, "back", before=10**30).status_code == 422


def test_a_folder_that_is_gone_is_told(tmp_path):
    folder = folder_of(tmp_path / "label", pairs(2))
    with served(folder) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        shutil.rmtree(folder)
        for answer in (client.get("/api/standing"), client.get("/api/agreement"), ask(client, "pairs")):
            assert answer.status_code == 503
            assert "cannot be opened" in answer.json()["error"]
