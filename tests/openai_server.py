"""A local server that speaks the OpenAI API: scripted answers, latency, faults, an exact count of requests.

In a test, in a thread of this process:

    with OpenAIServer(lambda body: "Output (a)", latency_s=0.05) as server:
        ask(server.base_url)
        assert server.counts["answered"] == 1

or as a process of its own, which prints its base URL as the first line and its counts at GET /counts:

    python -m tests.openai_server --port 8000 --latency 0.05 --fault-rate 0.3 --script package.module:answer
"""

import argparse
import asyncio
import importlib
import json
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the model says. `arguments` are those of the function that the request offers; `logprobs` gives
    for each token its most probable alternatives, the first of them said. A `status` other than 200 is an
    error."""

    text: str | None = None
    arguments: str | None = None
    logprobs: Sequence[Mapping[str, float]] | None = None
    finish_reason: str = "stop"
    status: int = 200
    error: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    usage: bool = True


Answer = Callable[[Body], str | Reply]
FAULTS = ("429", "429_after", "429_date", "500", "garbage", "empty", "none", "cut", "stall")


@dataclass(frozen=True)
class Faults:
    """Each request meets one of `kinds` with probability `rate`, drawn from `seed` in order of arrival.

    `refuse` says which requests get status 400, always; they are no part of the rate.
    """

    rate: float = 0.0
    kinds: Sequence[str] = FAULTS
    seed: int = 0
    retry_after_s: float = 1.0  # a whole number in HTTP; servers send fractions too
    stall_s: float = 60.0
    refuse: Callable[[Body], bool] = lambda body: False


def said(body: Body) -> str:
    """All text of a request: its prompt, or the contents of its messages."""
    if "prompt" in body:
        return str(body["prompt"])
    return "\n".join(str(message.get("content") or "") for message in body["messages"])


def echo(body: Body) -> str:
    """The request's text in brackets: an answer that can be told from any other."""
    return f"[{said(body)}]"


class OpenAIServer:
    """The server, in a thread of this process. `counts` by outcome: received, answered, each fault by name.

    `answered` counts usable answers. `requests` keeps the bodies where `keep` is set, `answered_texts` how
    often each text was answered.
    """

    def __init__(
        self,
        answer: Answer = echo,
        *,
        latency_s: float = 0.0,
        faults: Faults | None = None,
        models: Sequence[str] | None = None,  # None: any
        api_key: str | None = None,  # None: any
        port: int = 0,
        keep: bool = True,
    ) -> None:
        self.answer, self.latency_s, self.models, self.api_key = answer, latency_s, models, api_key
        self.faults = faults or Faults()
        self.port, self.keep = port, keep
        self.counts: Counter[str] = Counter()
        self.answered_texts: Counter[str] = Counter()
        self.requests: list[Body] = []
        self.in_flight, self.most_in_flight = 0, 0
        self._random = random.Random(self.faults.seed)
        self._connections: set[_Connection] = set()
        self._is_dead = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "OpenAIServer":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *exc: object) -> None:
        self.die()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def die(self) -> None:
        """Hangs up on everybody and listens no more."""
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()

    async def _hang_up(self) -> None:
        self._is_dead = True
        self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()

    def fate(self, body: Body) -> str:
        """What becomes of the next request: the name of a fault, or `answered`."""
        if self.faults.refuse(body):
            return "400"
        if self.faults.rate and self._random.random() < self.faults.rate:
            return self._random.choice(list(self.faults.kinds))
        return "answered"


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as far as the clients of an API use it."""

    def __init__(self, server: OpenAIServer) -> None:
        self.server, self.data = server, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.server._connections.add(self)
        if self.server._is_dead:  # it was accepted before
            transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.server._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, rest = self.data.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.data = rest[length:]
        method, path, _ = first.split(" ")
        self.request(method, path, headers, rest[:length])

    def request(self, method: str, path: str, headers: Mapping[str, str], content: bytes) -> None:
        server = self.server
        if method == "GET":
            told = dict(server.counts) if path == "/counts" else {"object": "list", "data": []}
            self.send(200, told)
            return
        body = json.loads(content)
        server.counts["received"] += 1
        if server.keep:
            server.requests.append(body)
        if server.api_key is not None and headers.get("authorization") != f"Bearer {server.api_key}":
            server.counts["401"] += 1
            self.send(401, error("Incorrect API key provided.", "invalid_api_key"))
            return
        if server.models is not None and body["model"] not in server.models:
            server.counts["404"] += 1
            self.send(404, error(f"The model `{body['model']}` does not exist.", "model_not_found"))
            return
        fate = server.fate(body)
        if fate == "stall":
            server.counts["stall"] += 1
            server._loop.call_later(server.faults.stall_s, self.transport.abort)
            return
        server.in_flight += 1
        server.most_in_flight = max(server.most_in_flight, server.in_flight)
        server._loop.call_later(server.latency_s, self.finish, fate, path, body)

    def finish(self, fate: str, path: str, body: Body) -> None:
        server = self.server
        server.in_flight -= 1
        if fate == "answered":
            self.say(path, body)
            return
        server.counts[fate] += 1
        match fate:
            case "400":
                self.send(400, error("The request is wrong.", "invalid_request"))
            case "429":
                self.send(429, error("Too Many Requests", "rate_limit_exceeded"))
            case "429_after":
                self.send(429, error("Slow down.", "rate_limit"), after(server.faults.retry_after_s))
            case "429_date":
                date = formatdate(time.time() + server.faults.retry_after_s, usegmt=True)
                self.send(429, error("Slow down.", "rate_limit"), {"Retry-After": date})
            case "500":
                self.send(500, error("The server had an error.", None))
            case "garbage":
                self.write(200, b'<html>502 {"choices": [', {})
            case "empty":
                self.send(200, chat(Reply(""), body))
            case "none":
                self.send(200, chat(Reply(None), body))
            case "cut":
                self.transport.abort()

    def say(self, path: str, body: Body) -> None:
        server = self.server
        answer = server.answer(body)
        reply = Reply(answer) if isinstance(answer, str) else answer
        if reply.status != 200:
            server.counts[str(reply.status)] += 1
            self.send(reply.status, {"error": dict(reply.error)}, reply.headers)
            return
        server.counts["answered"] += 1
        if server.keep:
            server.answered_texts[said(body)] += 1
        made = completion(reply, body) if path.endswith("/v1/completions") else chat(reply, body)
        self.send(200, made, reply.headers)

    def send(self, status: int, told: Any, headers: Mapping[str, str] | None = None) -> None:
        self.write(status, json.dumps(told).encode(), headers or {})

    def write(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        lines = [
            f"HTTP/1.1 {status} -",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)


def after(seconds: float) -> dict[str, str]:
    return {"Retry-After": f"{seconds:g}"}


def error(message: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}


def chat(reply: Reply, body: Body) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.arguments is not None:
        name = next(iter(body.get("functions") or [t["function"] for t in body.get("tools", ())]))["name"]
        call = {"name": name, "arguments": reply.arguments}
        if "functions" in body:
            message["function_call"] = call
        else:
            message["tool_calls"] = [{"id": "call_0", "type": "function", "function": call}]
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
    if reply.logprobs is not None:
        choice["logprobs"] = {"content": [token(top) for top in reply.logprobs]}
    return {"object": "chat.completion", **made(choice, reply, body)}


def token(top: Mapping[str, float]) -> dict[str, Any]:
    listed = [{"token": text, "logprob": value, "bytes": None} for text, value in top.items()]
    return {**listed[0], "top_logprobs": listed}


def completion(reply: Reply, body: Body) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "text": reply.text, "finish_reason": reply.finish_reason}
    if reply.logprobs is not None:
        choice["logprobs"] = {
            "tokens": [next(iter(top)) for top in reply.logprobs],
            "top_logprobs": [dict(top) for top in reply.logprobs],
        }
    return {"object": "text_completion", **made(choice, reply, body)}


def made(choice: Mapping[str, Any], reply: Reply, body: Body) -> dict[str, Any]:
    told = {"id": "made-0", "created": 0, "model": body["model"], "choices": [choice]}
    if reply.usage:
        tokens_in, tokens_out = len(said(body)) // 4, len(reply.text or reply.arguments or "") // 4 + 1
        told["usage"] = {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        }
    return told


@dataclass(frozen=True)
class ServerProcess:
    """A server in a process of its own, which takes no time from the client's."""

    base_url: str

    @property
    def counts(self) -> Counter[str]:
        place = self.base_url.removesuffix("/v1") + "/counts"
        with urllib.request.urlopen(place, timeout=10) as reply:
            return Counter(json.loads(reply.read()))


@contextmanager
def server_process(*options: str) -> Iterator[ServerProcess]:
    """`options` are those of the command line."""
    command = [sys.executable, "-m", "tests.openai_server", *options]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        try:
            yield ServerProcess(process.stdout.readline().strip())
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.openai_server", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--script", default="tests.openai_server:echo", help="module:function of the body")
    parser.add_argument("--models", nargs="*", help="those it serves; any where not given")
    parser.add_argument("--api-key", help="the one it asks for; any where not given")
    parser.add_argument("--fault-rate", type=float, default=0.0)
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=FAULTS)
    parser.add_argument(
        "--retry-after", type=float, default=1.0, help="seconds, of faults 429_after and 429_date"
    )
    parser.add_argument("--stall", type=float, default=60.0, help="seconds, of fault stall")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    module, _, name = told.script.partition(":")
    server = OpenAIServer(
        getattr(importlib.import_module(module), name),
        latency_s=told.latency,
        faults=Faults(told.fault_rate, told.faults, told.seed, told.retry_after, told.stall),
        models=told.models,
        api_key=told.api_key,
        port=told.port,
        keep=False,
    )
    with server:
        print(server.base_url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
