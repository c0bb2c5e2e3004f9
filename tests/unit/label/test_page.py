"""The page in a real browser: what people press is what is kept, and answers can only be read."""

import json

import httpx
import pytest

from alpacafarm.label.folder import opened
from tests.browser import Person, chromium
from tests.labelling import Served, folder_of, pairs, served

HOSTILE = [
    "<img src=x onerror=window.hacked=1>",
    "</textarea></script><script>window.hacked=1</script>",
    "<svg/onload=window.hacked=1>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "<a href='javascript:window.hacked=1' autofocus onfocus=window.hacked=1>x</a>",
    "<style>body{display:none}</style><meta http-equiv=refresh content='0;url=http://evil.example'>",
    "<link rel=stylesheet href=http://evil.example/x.css>",
    "{{7*7}} ${7*7} <%= 7*7 %>",
    "\u202eevil \u2066 \x00 \x1b[31m \ufeff",
    "&lt;b&gt; &amp; <b>",
]


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def context(browser):
    context = browser.new_context()
    yield context
    context.close()


def given(folder):
    """By person and pair what is in the file."""
    return {(one.labeller, one.pair): one.choice for one in opened(folder).labels.given()}


def settled(person, count):
    """Waits until the server has that many labels of the person."""
    person.tab.wait_for_function("n => state.standing.mine === n", arg=count)


def test_every_key_says_what_it_stands_for(context, tmp_path):
    folder = folder_of(tmp_path, pairs(30))
    with served(folder) as server:
        ann = Person(context.new_page(), folder).begins(server.address, "Ann")
        for key in ["1", "2", "3", "ArrowLeft", "ArrowRight", "t", "s", "1", "1", "2", "2", "ArrowLeft"]:
            ann.press(key)
        settled(ann, 12)
    assert given(folder) == {("Ann", pair): choice for pair, choice in ann.said.items()}
    assert {"1", "2", "tie", "skip"} == set(ann.said.values())
    assert len({one.swapped for one in opened(folder).labels.given()}) == 2
    assert ann.heard == []
    assert all(address.startswith(str(server.url)) for address in ann.asked)


def test_answers_are_text_and_nothing_else(context, tmp_path):
    rows = [
        {"id": str(i), "instruction": text, "input": text, "output_1": text, "output_2": f"{text} too"}
        for i, text in enumerate(HOSTILE)
    ]
    folder = folder_of(tmp_path, rows)
    with served(folder) as server:
        eve = Person(context.new_page(), folder).begins(server.address, "<b onclick=hacked=1>Eve")
        for row in rows:
            assert eve.pair == row["id"]
            assert eve.tab.text_content("#instruction") == row["instruction"]
            assert {eve.shown("left"), eve.shown("right")} == {row["output_1"], row["output_2"]}
            eve.tab.keyboard.press("c")
            eve.tab.keyboard.insert_text(row["instruction"].replace("\x00", ""))
            eve.tab.keyboard.press("Escape")
            eve.press("1")
        assert eve.is_done
        eve.tab.keyboard.press("u")
        eve.tab.wait_for_selector("#revising:visible")
        eve.tab.keyboard.press("?")
        eve.tab.wait_for_function("() => document.getElementById('agreement').children.length")
        assert eve.tab.evaluate("() => window.hacked") is None
        assert eve.tab.locator("main img, main script, main iframe, main a, #people b").count() == 0
        assert eve.tab.url.startswith(str(server.url))
    assert eve.heard == []
    assert all(address.startswith(str(server.url)) for address in eve.asked)
    assert given(folder) == {("<b onclick=hacked=1>Eve", pair): choice for pair, choice in eve.said.items()}


def test_back_shows_what_was_said_and_changes_it(context, tmp_path):
    folder = folder_of(tmp_path, pairs(5))
    with served(folder) as server:
        ann = Person(context.new_page(), folder).begins(server.address, "Ann")
        first = ann.pair
        ann.tab.keyboard.press("c")
        ann.tab.keyboard.type("1 is 2 t s u")  # keys in a comment choose nothing
        ann.tab.keyboard.press("Escape")
        ann.press("1")
        second = ann.pair
        ann.press("2")
        third = ann.pair
        for expected in (second, first):
            ann.tab.keyboard.press("u")
            ann.tab.wait_for_function("p => document.getElementById('pair').dataset.pair === p", arg=expected)
        assert ann.tab.get_attribute("#left", "class") == "answer chosen"
        assert ann.tab.input_value("#comment") == "1 is 2 t s u"
        ann.press("2")
        assert ann.pair == third  # where it was
        assert ann.tab.input_value("#comment") == ""
        ann.tab.keyboard.press("u")
        ann.tab.wait_for_selector("#revising:visible")
        ann.tab.keyboard.press("Escape")
        assert ann.pair == third
        settled(ann, 2)
    assert given(folder) == {("Ann", pair): choice for pair, choice in ann.said.items()}
    assert {one.comment for one in opened(folder).labels.given()} == {"1 is 2 t s u", ""}


def test_a_key_that_is_held_down_is_one_choice(context, tmp_path):
    folder = folder_of(tmp_path, pairs(9))
    with served(folder) as server:
        ann = Person(context.new_page(), folder).begins(server.address, "Ann")
        for _ in range(5):
            ann.tab.keyboard.down("1")
        ann.tab.keyboard.up("1")
        settled(ann, 1)
    assert len(given(folder)) == 1


def test_what_is_chosen_while_the_server_is_down_arrives_later(context, tmp_path):
    folder = folder_of(tmp_path, pairs(9))
    server = Served(folder)
    ann = Person(context.new_page(), folder).begins(server.address, "Ann")
    server.stop()
    ann.press("1")  # to the pair that was loaded ahead
    ann.said[ann.pair] = ann._meant("2")
    ann.tab.keyboard.press("2")
    ann.tab.wait_for_selector("#trouble:visible")
    assert "kept in this browser" in ann.tab.text_content("#trouble")
    assert given(folder) == {}
    with served(folder, port=server.port):
        settled(ann, 2)
        ann.ready()
        assert not ann.tab.is_visible("#trouble")
    assert given(folder) == {("Ann", pair): choice for pair, choice in ann.said.items()}


def test_what_a_closed_tab_had_not_sent_is_sent_by_the_next(context, tmp_path):
    folder = folder_of(tmp_path, pairs(9))
    server = Served(folder)
    ann = Person(context.new_page(), folder).begins(server.address, "Ann")
    server.stop()
    ann.press("1")
    ann.tab.close()
    with served(folder, port=server.port) as again:
        other = Person(context.new_page(), folder).begins(again.address, "Ben")
        other.press("2")
        settled(other, 1)
    said = {("Ann", pair): choice for pair, choice in ann.said.items()}
    assert given(folder) == said | {("Ben", pair): choice for pair, choice in other.said.items()}


def test_a_closed_tab_gives_its_pairs_back(context, tmp_path):
    folder = folder_of(tmp_path, pairs(2))
    with served(folder) as server:
        ann = Person(context.new_page(), folder).begins(server.address, "Ann")
        ben = Person(context.new_page(), folder).begins(server.address, "Ben")
        assert ben.is_done
        assert "2 pairs wait for other people's labels" in ben.tab.text_content("#done-text")
        ann.tab.close(run_before_unload=True)
        ben.tab.wait_for_selector("#pair:visible")  # it looks again by itself


def test_a_token_in_the_address_is_enough_and_leaves_it(context, tmp_path):
    folder = folder_of(tmp_path, pairs(3))
    with served(folder, "--token", "a-token-of-ours") as server:
        ann = Person(context.new_page(), folder).begins(server.address, "Ann")
        assert "token" not in ann.tab.url
        ann.tab.reload()  # the name is in the address, the token in a cookie
        ann.ready()
        ann.press("1")
        settled(ann, 1)
        assert ann.tab.evaluate("document.cookie") == ""
        assert httpx.get(server.url, timeout=60).status_code == 401
    assert list(given(folder)) == [("Ann", pair) for pair in ann.said]


def test_a_name_that_cannot_be_is_asked_again(context, tmp_path):
    folder = folder_of(tmp_path, pairs(1))
    with served(folder) as server:
        ann = Person(context.new_page(), folder)
        ann.tab.goto(f"{server.url}?name=a%E2%80%AEb")
        ann.tab.wait_for_selector("#name:visible")
        assert "This name cannot be used" in ann.tab.text_content("#trouble")
        ann.tab.fill("#labeller", "Ann")
        ann.tab.keyboard.press("Enter")
        ann.ready()
        assert json.loads(httpx.get(f"{server.url}api/standing", timeout=60).text)["standing"]["people"] == {}
