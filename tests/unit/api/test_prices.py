"""A model costs what its line says, and one without a line is refused."""

import pytest

from alpacafarm.api.prices import PACKAGED, Prices, read, serving_endpoints
from alpacafarm.errors import PlanError
from alpacafarm.spec.api import ApiSpec, EndpointSpec, is_plain


def api(prices: str | None = None, **endpoints: dict) -> ApiSpec:
    specs = endpoints or {"any": {}}
    return ApiSpec(
        endpoints={name: EndpointSpec(base_url="http://localhost:1", **told) for name, told in specs.items()},
        prices=prices,
    )


def test_price_is_for_a_million_tokens_of_each_kind():
    price = Prices(api()).of("gpt-4o")
    assert price.usd(1_000_000, 0) == 2.5
    assert price.usd(0, 500_000) == 5.0


def test_every_packaged_line_can_be_read():
    assert len(read(PACKAGED)) > 30


def test_own_file_extends_and_wins(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text("mine: {input: 0, output: 0}\ngpt-4o: {input: 1, output: 2.5}\n")
    prices = Prices(api(str(file)))
    assert prices.of("mine").is_free
    assert prices.of("gpt-4o").per_million_out == 2.5
    assert prices.of("gpt-4").per_million_in == 30


def test_unknown_model_is_refused_with_a_way_out():
    text = r"model gpt-4oo: its price is unknown.*did you mean gpt-4o\?; set api\.prices=FILE.*free=true"
    with pytest.raises(PlanError, match=text):
        Prices(api()).of("gpt-4oo")


def test_model_that_no_endpoint_serves_is_refused():
    with pytest.raises(
        PlanError, match=r"model llama: no endpoint serves it; did you mean llama-2\?; add it"
    ):
        Prices(api(a={"models": ["llama-2"]})).of("llama")


def test_endpoints_that_name_a_model_come_before_those_that_serve_any():
    spec = api(paid={}, own={"models": ["llama"], "free": True})
    assert list(serving_endpoints(spec.endpoints, "llama")) == ["own"]
    assert list(serving_endpoints(spec.endpoints, "gpt-4o")) == ["paid"]
    assert Prices(spec).of("llama").is_free


def test_price_of_several_endpoints_is_the_highest():
    spec = api(free={"models": ["gpt-4o"], "free": True}, paid={"models": ["gpt-4o"]})
    assert Prices(spec).of("gpt-4o").per_million_in == 2.5


@pytest.mark.parametrize(
    "text",
    [
        "m: 3",
        "m: {input: 1}",
        "m: {input: -1, output: 1}",
        "m: {input: .inf, output: 1}",
        "m: {input: yes, output: 1}",
    ],
)
def test_wrong_line_is_named(tmp_path, text):
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(PlanError, match=r"prices\.yaml: m: .*must be input and output in USD for a million"):
        Prices(api(str(file)))


@pytest.mark.parametrize("text", ["[1]", "a: {", "justaword"])
def test_file_that_is_no_table_is_named(tmp_path, text):
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(PlanError, match=r"api\.prices=.*prices\.yaml: (must hold|cannot be read)"):
        Prices(api(str(file)))


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://localhost:8000/v1", True),
        ("https://api.openai.com/v1/", True),
        ("http://[::1]:65535", True),
        ("http://me@host/v1", False),
        ("http://host/v1?key=secret", False),
        ("http://host:99999/v1", False),
        ("ftp://host", False),
        ("http://", False),
        ("http://ho st/", False),
        ("", False),
    ],
)
def test_base_url_is_an_address_and_nothing_secret(url, good):
    assert is_plain(url) == good


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("m: {input: 1, output: 1.0e+9}", r"m: .*: must be input and output in USD .*, from 0 to 100,000"),
        ("m: {input: 1, output: 2}\nm: {input: 2, output: 2}", r"comes twice: m; give each model one line"),
    ],
)
def test_prices_that_cannot_be_meant_are_refused(tmp_path, lines, said):
    (tmp_path / "prices.yaml").write_text(lines)
    with pytest.raises(PlanError, match=said):
        read(tmp_path / "prices.yaml")
