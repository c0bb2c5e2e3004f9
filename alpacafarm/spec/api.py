"""`api` and `budget`: where models are asked, and how much that may cost. Neither enters a stage's key."""

from urllib.parse import urlsplit

from pydantic import Field, model_validator

from alpacafarm.spec.base import Problem, Strict, refuse


def plain_url(raw: object) -> object:
    """A base URL as endpoints take it. Keys travel in the environment, so none may stand in it."""
    if isinstance(raw, str) and not is_plain(raw):
        text = (
            "must be http(s)://HOST[:PORT]/PATH without user, password and query, since it is written to "
            "files; set it to http://localhost:8000/v1, for example, and name the key in api_key_env"
        )
        refuse(Problem("base_url", "...", text))
    return raw.rstrip("/") if isinstance(raw, str) else raw


def is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
        sound = parts.port is None or parts.port > 0
    except ValueError:  # a port that is none
        return False
    extra = parts.username or parts.password or parts.query or parts.fragment or len(url.split()) > 1
    return sound and parts.scheme in ("http", "https") and bool(parts.hostname) and not extra


class EndpointSpec(Strict):
    """One server that speaks the OpenAI API. Limits are those of one process."""

    base_url: str
    api_key_env: str | None = None  # the environment variable with the key; local servers often need none
    models: list[str] | None = None  # those it serves; null: any that no other endpoint names
    free: bool = False  # nothing asked here has a price
    concurrency: int = Field(default=32, ge=1)  # requests in flight
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)  # estimated prompt tokens and max_tokens
    timeout_s: float = Field(default=120.0, gt=0)  # of one try
    tries: int = Field(default=8, ge=1)  # of one request, the first included

    @model_validator(mode="before")
    @classmethod
    def has_a_plain_url(cls, raw: object) -> object:
        return (
            {**raw, "base_url": plain_url(raw["base_url"])}
            if isinstance(raw, dict) and "base_url" in raw
            else raw
        )


class ApiSpec(Strict):
    """The endpoints by name, and the user's own prices: a YAML file over the packaged table."""

    endpoints: dict[str, EndpointSpec] = Field(min_length=1)
    prices: str | None


class BudgetSpec(Strict):
    """Caps on what the stages of this run's plan cost, in all processes and all times it is started.

    `max_calls` counts requests that were sent, retries included. Both at null: no cap.
    """

    max_usd: float | None = Field(ge=0, le=10**9)
    max_calls: int | None = Field(ge=0)
