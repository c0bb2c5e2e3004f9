"""Which requests are answered."""

import pytest

from alpacafarm.label import guard


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "::1", "[::1]", "127.9.9.9"])
def test_loopback(host):
    assert guard.is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.0.7", "localhost.evil.example", "127.0.0.1.nip.io", ""]
)
def test_not_loopback(host):
    assert not guard.is_loopback(host)


@pytest.mark.parametrize("header", ["localhost:8642", "127.0.0.1", "[::1]:1", "localhost:99"])
def test_own_host(header):
    assert guard.is_own_host(header, bound_to_loopback=True)


@pytest.mark.parametrize(
    "header", ["evil.example:8642", "", ":8642", "[", "localhost.evil.example", "10.0.0.1"]
)
def test_a_page_that_gave_its_name_our_address_is_refused(header):
    assert not guard.is_own_host(header, bound_to_loopback=True)


def test_elsewhere_any_name_may_be_the_machines():
    assert guard.is_own_host("lab.example:8642", bound_to_loopback=False)
    assert not guard.is_own_host("", bound_to_loopback=False)


@pytest.mark.parametrize(
    ("origin", "site", "own"),
    [
        (None, None, True),  # no browser
        ("http://localhost:8642", "same-origin", True),
        ("http://LOCALHOST:8642", None, True),
        ("http://localhost:8000", "same-site", False),  # another server on this machine
        ("http://localhost:8000", None, False),
        ("http://evil.example", "cross-site", False),
        ("null", None, False),  # a sandboxed frame
        (None, "cross-site", False),
        ("file://localhost:8642", None, False),
    ],
)
def test_origin(origin, site, own):
    assert guard.is_own_origin(origin, site, "localhost:8642") is own


def test_token():
    assert guard.is_token("abc", "abc")
    assert not any(guard.is_token(given, "abc") for given in (None, "", "ab", "abcd", "äbc"))
