"""One POST to an endpoint, by OpenAI's own client. The openai package stands here and nowhere else.

Its retries and its types are not used: which faults are tried again is decided where the budget is known, and
building its types takes half of a call's time. Over aiohttp a call takes half of what it takes over httpx.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

CONNECT_S = 10.0  # a server that is there accepts at once, however busy it is
KEEP_ALIVE_S = 4.0  # less than servers keep idle connections: uvicorn, which vLLM runs on, does so for 5


@dataclass(frozen=True)
class Reply:
    """What came back, whatever it is."""

    status: int
    text: str
    retry_after: str | None


class NotReachedError(Exception):
    """No connection: the request never left."""


class CutError(Exception):
    """The connection broke, or nothing came in time: the request may have been answered, and billed."""


class Connection:
    """One client for one endpoint, reused. Made and closed inside the event loop that uses it."""

    def __init__(self, base_url: str, api_key: str, timeout_s: float) -> None:
        import httpx2
        import openai

        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request; the ledger counts them
        self.timeout_s = timeout_s
        limits = httpx2.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE_S)
        timeout = httpx2.Timeout(None, connect=CONNECT_S)  # of the whole: below
        self.client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(limits=limits, timeout=timeout),
        )

    async def post(self, path: str, body: str) -> Reply:
        """NotReachedError or CutError where there is no reply."""
        import openai

        try:
            async with asyncio.timeout(self.timeout_s):
                return reply(await self._sent(path, body))
        except openai.APIStatusError as error:
            return reply(error.response)
        except TimeoutError:
            raise CutError(f"no answer within timeout_s={self.timeout_s:g}") from None
        except openai.APIConnectionError as error:
            if never_left(error):
                raise NotReachedError(told(error)) from None
            raise CutError(f"the connection broke ({told(error)})") from None

    async def _sent(self, path: str, body: str) -> Any:
        import httpx2

        return await self.client.post(
            path,
            cast_to=httpx2.Response,
            content=body.encode(),
            options={"headers": {"Content-Type": "application/json"}},
        )

    async def close(self) -> None:
        await self.client.close()


def reply(response: Any) -> Reply:
    text = response.content.decode("utf-8", errors="replace")
    return Reply(response.status_code, text, response.headers.get("Retry-After"))


def never_left(error: BaseException) -> bool:
    """As aiohttp tells: the client calls a server that hung up on a request a connection that timed out."""
    import aiohttp

    gone = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
    return any(isinstance(cause, gone) for cause in causes(error))


def told(error: BaseException) -> str:
    """What is behind the client's own "Connection error."."""
    behind = causes(error)[:2][-1]
    return str(behind) or type(behind).__name__


def causes(error: BaseException) -> list[BaseException]:
    """The error, what raised it, and so on."""
    found = [error]
    while (cause := found[-1].__cause__) is not None:
        found.append(cause)
    return found
