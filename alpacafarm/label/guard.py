"""Who may ask the page's server for something: pure functions of a request's headers.

The server is on somebody's own machine, beside a browser that also shows pages of others. Such a page must
neither read the pairs, by giving its own name this machine's address (DNS rebinding: the Host header then has
that name), nor give labels (cross-site requests: the Origin header then has another host).
"""

import hmac
import ipaddress
from urllib.parse import urlsplit

COOKIE_S = 30 * 24 * 3600


def is_loopback(host: str) -> bool:
    """Of a name or address, with or without brackets."""
    bare = host.strip("[]")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare.lower() == "localhost"


def name_of(header: str) -> str | None:
    """The name or address in a Host header, without its port; None where it is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def is_own_host(header: str, *, bound_to_loopback: bool) -> bool:
    """Any port is right: it may be forwarded by ssh. Elsewhere than on loopback the token says who may."""
    name = name_of(header)
    return name is not None and (not bound_to_loopback or is_loopback(name))


def is_own_origin(origin: str | None, fetch_site: str | None, host: str) -> bool:
    """Whether what changes something was sent by our page, or by no page (which sends neither header)."""
    if fetch_site not in (None, "same-origin", "none"):
        return False
    if origin is None:
        return True
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def is_token(given: str | None, token: str) -> bool:
    """Takes as long for every wrong one."""
    return hmac.compare_digest((given or "").encode(), token.encode())
