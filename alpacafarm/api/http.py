"""One POST to an endpoint. aiohttp stands here and nowhere else.

Not the openai package: its retries, parsing and types are not used here, and of one call on one core it takes
1.8 ms where aiohttp takes 0.3.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

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
        import aiohttp

        self.base_url, self.timeout_s = base_url, timeout_s
        self.session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
            connector=aiohttp.TCPConnector(
                limit=0,  # the endpoint's concurrency is the limit
                keepalive_timeout=KEEP_ALIVE_S,
            ),
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S),
            trust_env=True,  # proxies, as in other clients
        )

    async def post(self, path: str, body: str) -> Reply:
        """NotReachedError or CutError where there is no reply."""
        import aiohttp

        try:
            async with self.session.post(self.base_url + path, data=body.encode()) as response:
                text = (await response.read()).decode("utf-8", errors="replace")
                return Reply(response.status, text, response.headers.get("Retry-After"))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotReachedError(str(error) or type(error).__name__) from None
        except TimeoutError:
            raise CutError(f"no answer within timeout_s={self.timeout_s:g}") from None
        except aiohttp.ClientError as error:
            raise CutError(f"the connection broke ({error or type(error).__name__})") from None

    async def close(self) -> None:
        await self.session.close()
        await asyncio.sleep(0)  # lets the transports say goodbye
