"""The page's server, on Starlette: what the page asks for, behind the guard."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alpacafarm.errors import ArtifactError
from alpacafarm.label import guard
from alpacafarm.label.folder import Folder
from alpacafarm.label.labels import Choice, Label, Taken
from alpacafarm.label.verdicts import agreement
from alpacafarm.spec.base import Strict

S = TypeVar("S", bound=Strict)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the first address has the token in it
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
PAGE = {  # path: file and type
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
LARGEST_BODY = 64 * 2**10


def person(name: str) -> str:
    """A name as it is kept: its words with single spaces."""
    if not name.isprintable():
        raise ValueError("must have printable characters only")
    return " ".join(name.split())


Person = Annotated[str, Field(min_length=1, max_length=40, pattern=r"\S"), AfterValidator(person)]
Id = Annotated[str, Field(min_length=1, max_length=80)]


class Who(Strict):
    """A person in a tab of a browser."""

    labeller: Person
    tab: Id


class Asked(Who):
    """For pairs: `keep` are those that the page has."""

    keep: list[str] = Field(default=[], max_length=10)
    count: int = Field(default=2, ge=1, le=10)


class Given(Who):
    """A label. `id` is drawn by the page, so that it can send it again."""

    id: Id
    pair: str
    choice: Literal["left", "right", "tie", "skip"]
    comment: str = Field(default="", max_length=5000)
    seconds: float | None = Field(default=None, ge=0)
    replaces: str | None = None


class Back(Who):
    before: int | None = Field(default=None, ge=0, lt=2**63)  # what SQLite counts to


def build(folder: Folder, *, token: str | None, bound_to_loopback: bool) -> ASGIApp:
    """The application for one folder. With a `token` nothing is answered without it."""
    server = Server(folder)
    pages = [Route(path, _file(*file)) for path, file in PAGE.items()]
    posts = {
        "/api/pairs": _post(Asked, server.pairs),
        "/api/label": _post(Given, server.label),
        "/api/back": _post(Back, server.back),
        "/api/leave": _post(Who, server.leave),
    }
    routes = [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
    reads = [Route("/api/standing", server.standing), Route("/api/agreement", server.agreement)]
    # A cookie holds for all ports of a host: each folder has its own.
    cookie = f"alpacafarm-label-{folder.key}"
    app = Starlette(routes=[*pages, *routes, *reads], exception_handlers={ArtifactError: _unkept})
    return Guard(app, token=token, cookie=cookie, bound_to_loopback=bound_to_loopback)


class Server:
    """What the page's requests do."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def pairs(self, asked: Asked) -> dict[str, Any]:
        """Pairs for this tab, the first to be shown."""
        leased = self.folder.labels.lease(
            asked.labeller, asked.tab, keep=asked.keep, count=asked.count, now=time.time()
        )
        return {
            "pairs": [self._shown(pair, asked.labeller) for pair in leased],
            **self._standing(asked.labeller),
        }

    def label(self, given: Given) -> dict[str, Any]:
        swapped = self.folder.is_swapped(given.pair, given.labeller)
        sides: Mapping[str, Choice] = {"left": "2", "right": "1"} if swapped else {"left": "1", "right": "2"}
        choice: Choice = sides[given.choice] if given.choice in ("left", "right") else given.choice  # type: ignore[assignment]
        label = Label(
            given.id, given.pair, given.labeller, choice, swapped, given.comment.strip(), given.seconds
        )
        self.folder.labels.give(label, replaces=given.replaces)
        return self._standing(given.labeller)

    def back(self, asked: Back) -> dict[str, Any]:
        """The person's label before that of number `before`, with its pair; null where there is none."""
        label = self.folder.labels.before(asked.labeller, asked.before)
        if label is None:
            return {"label": None}
        left = "2" if label.swapped else "1"
        side = (
            label.choice if label.choice in ("tie", "skip") else "left" if label.choice == left else "right"
        )
        told = {"id": label.id, "seq": label.seq, "choice": side, "comment": label.comment}
        return {"label": told | {"shown": self._shown(label.pair, asked.labeller)}}

    def leave(self, who: Who) -> dict[str, Any]:
        self.folder.labels.release(who.labeller, who.tab)
        return {}

    def standing(self, request: Request) -> Response:
        return JSONResponse(self._standing(request.query_params.get("labeller", "")))

    def agreement(self, request: Request) -> Response:
        return JSONResponse(agreement(self.folder.labels.given()))

    def _shown(self, pair: str, labeller: str) -> dict[str, str]:
        """Nothing here says which output is which."""
        row = self.folder.pairs[pair]
        left, right = row.output_1, row.output_2
        if self.folder.is_swapped(pair, labeller):
            left, right = right, left
        return {
            "pair": pair,
            "instruction": row.instruction,
            "input": row.input,
            "left": left,
            "right": right,
        }

    def _standing(self, labeller: str) -> dict[str, Any]:
        standing, counts = self.folder.labels.standing(), self.folder.labels.counts()
        told = {"missing": standing.missing, "mine": counts.get(labeller, 0), "people": counts}
        return {"folder": self.folder.key, "standing": asdict(standing) | told}


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    content = files("alpacafarm.label").joinpath("page", name).read_bytes()
    return lambda request: Response(content, media_type=kind)


def _post(spec: type[S], act: Callable[[S], dict[str, Any]]) -> Callable[..., Any]:
    """An endpoint that reads a `spec` and answers what `act` says of it."""

    async def endpoint(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _refused(415, "the body must be application/json")
        body = await _body(request)
        if body is None:
            return _refused(413, f"the body must have at most {LARGEST_BODY} bytes")
        try:
            asked = spec.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            return _refused(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        try:
            return JSONResponse(await run_in_threadpool(act, asked))
        except Taken:
            return _refused(409, "you have labelled this pair already; the first label stays")
        except KeyError:
            return _refused(404, "there is no such pair in this folder")

    return endpoint


async def _body(request: Request) -> bytes | None:
    """None where it is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            return None
    return body


def _unkept(request: Request, error: Exception) -> Response:
    """The file of labels cannot be read or written."""
    return _refused(503, str(error))


def _refused(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)


class Guard:
    """Lets through what `guard` allows, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, *, token: str | None, cookie: str, bound_to_loopback: bool) -> None:
        self.app, self.token, self.cookie, self.bound_to_loopback = app, token, cookie, bound_to_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope)
        in_address = request.query_params.get("token")
        is_first = self.token is not None and guard.is_token(in_address, self.token)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if is_first:
                    headers.append("Set-Cookie", self._set_cookie())
            await send(message)

        answer = self.app if (told := self._refusal(request, is_first)) is None else told
        await answer(scope, receive, guarded)

    def _refusal(self, request: Request, has_token: bool) -> Response | None:
        headers, host = request.headers, request.headers.get("host", "")
        if not guard.is_own_host(host, bound_to_loopback=self.bound_to_loopback):
            return PlainTextResponse("This page is asked for by the name localhost or 127.0.0.1.", 421)
        if request.method not in ("GET", "HEAD") and not guard.is_own_origin(
            headers.get("origin"), headers.get("sec-fetch-site"), host
        ):
            return PlainTextResponse("Sent by another site.", 403)
        if self.token is None or has_token or guard.is_token(request.cookies.get(self.cookie), self.token):
            return None
        return PlainTextResponse("Open the address that the command printed: it has the token in it.", 401)

    def _set_cookie(self) -> str:
        return f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={guard.COOKIE_S}"
