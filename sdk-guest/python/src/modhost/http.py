"""HTTP requests, to hosts the operator allows.

    from modhost import http

    rate = http.get("https://rates.example.com/v1/chf-eur", timeout=5).raise_for_status().json()
    http.post("https://shop.example.com/orders", json={"item": "A-17", "count": 2}).raise_for_status()

Where a request may go stands in the module's entry in ``modules.toml``: ``http = ["rates.example.com"]``. A module that
imports this and has no such line isn't loaded; one that doesn't import it needs none. A credential is best left to the host,
which adds it to the request: ``http = [{ host = "…", headers = { authorization = "Bearer env:API_TOKEN" } }]``.

An answer is read whole before you have it. When a delivery starts again, requests that were answered are answered as they
were then, without being sent. Every request but GET, HEAD and OPTIONS carries an ``Idempotency-Key``, so that a server that
knows such keys does once what was sent twice because the host was killed in between.

Redirects aren't followed: the answer is the 3xx itself. Any answer is a success here, whatever its status;
``raise_for_status`` makes an exception of those that aren't 2xx. Where there is no answer, a kind of ``modhost.Error`` is
raised: ``Denied`` if the operator doesn't allow the request, ``Invalid`` if it, or its answer, can't be; ``Timeout`` and
``Unavailable`` may pass. The delivery's log says more.
"""

import json as _json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeAlias
from urllib.parse import urlencode, urlsplit

from componentize_py_types import Err, Ok

from modhost._bindings.imports import http_types as wit
from modhost._bindings.imports import io_streams, outgoing_handler
from modhost._calls import no_host
from modhost._errors import Denied, Error, Invalid, NotFound, RateLimited, Timeout, Unavailable

Body: TypeAlias = bytes | str
"""What can be sent: bytes, or text, which is sent in UTF-8."""

_CALL = "http.send"
_PIECE = 4096  # bytes that are written at once: the standard takes no more
_READ = 64 * 1024  # bytes that are read at once

_METHODS: dict[str, wit.Method] = {
    "GET": wit.Method_Get(),
    "HEAD": wit.Method_Head(),
    "POST": wit.Method_Post(),
    "PUT": wit.Method_Put(),
    "DELETE": wit.Method_Delete(),
    "PATCH": wit.Method_Patch(),
    "OPTIONS": wit.Method_Options(),
}

_SCHEMES: dict[str, wit.Scheme] = {"https": wit.Scheme_Https(), "http": wit.Scheme_Http()}


class Headers(Mapping[str, str]):
    """The headers of an answer, by their names in whatever case. Of several of one name, this has the first."""

    def __init__(self, pairs: tuple[tuple[str, str], ...]) -> None:
        self.pairs = pairs
        """All of them, in the order they came."""

    def __getitem__(self, name: str) -> str:
        for known, value in self.pairs:
            if known.lower() == name.lower():
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name, _ in self.pairs))

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self.pairs})

    def __repr__(self) -> str:
        return f"Headers({self.pairs!r})"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, read whole."""

    status: int
    """The status, 200 for example."""
    headers: Headers
    """The headers: ``response.headers["content-type"]``."""
    body: bytes
    """The body."""

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text; something else than UTF-8 raises ``modhost.Invalid``."""
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise Invalid(_CALL, f"the answer is no text (status {self.status}): {error}") from None

    def json(self) -> Any:
        """The body, read as JSON; something else raises ``modhost.Invalid``."""
        try:
            return _json.loads(self.body)
        except ValueError as error:
            raise Invalid(_CALL, f"the answer isn't JSON (status {self.status}): {error}") from None

    def raise_for_status(self) -> Self:
        """The answer itself if its status is 2xx; else raises a ``modhost.Error``, told apart by what can be done about it:
        left uncaught, a 429 or a 503 has the delivery tried again, a 404 hasn't."""
        if self.ok:
            return self
        told = f"status {self.status}"
        match self.status:
            case 401 | 403:
                raise Denied(_CALL, told)
            case 404 | 410:
                raise NotFound(_CALL, told)
            case 408 | 504:
                raise Timeout(_CALL, told)
            case 429:
                after = self.headers.get("retry-after", "").strip()
                raise RateLimited(_CALL, int(after) if re.fullmatch("[0-9]{1,9}", after) else None)
            case status if status >= 500:
                raise Unavailable(_CALL, told)
            case _:
                raise Invalid(_CALL, told)


def get(
    url: str,
    *,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | timedelta | None = None,
) -> Response:
    """Sends a GET request, and reads the answer. The arguments are those of ``request``."""
    return request("GET", url, params=params, headers=headers, timeout=timeout)


def post(
    url: str,
    *,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Body = b"",
    json: Any = None,
    timeout: float | timedelta | None = None,
) -> Response:
    """Sends a POST request, and reads the answer. The arguments are those of ``request``."""
    return request("POST", url, params=params, headers=headers, body=body, json=json, timeout=timeout)


def put(
    url: str,
    *,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Body = b"",
    json: Any = None,
    timeout: float | timedelta | None = None,
) -> Response:
    """Sends a PUT request, and reads the answer. The arguments are those of ``request``."""
    return request("PUT", url, params=params, headers=headers, body=body, json=json, timeout=timeout)


def patch(
    url: str,
    *,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Body = b"",
    json: Any = None,
    timeout: float | timedelta | None = None,
) -> Response:
    """Sends a PATCH request, and reads the answer. The arguments are those of ``request``."""
    return request("PATCH", url, params=params, headers=headers, body=body, json=json, timeout=timeout)


def delete(
    url: str,
    *,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | timedelta | None = None,
) -> Response:
    """Sends a DELETE request, and reads the answer. The arguments are those of ``request``."""
    return request("DELETE", url, params=params, headers=headers, timeout=timeout)


def request(
    method: str,
    url: str,
    *,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Body = b"",
    json: Any = None,
    timeout: float | timedelta | None = None,
) -> Response:
    """Sends a request, and reads the answer.

    :param params: what is added to the address as its query.
    :param headers: those of the connection (``Host``, ``Connection``, ``Transfer-Encoding`` and the like) are the host's to
        write: with one of them the request is refused.
    :param body: the bytes, or the text, to send.
    :param json: in place of ``body``: a value to send as JSON, with a ``Content-Type`` that says so.
    :param timeout: how long to wait for the beginning of the answer, and then for each piece of it, in seconds or as a
        ``timedelta``. The operator's limit (``limits.http.timeout``, 30 s where it isn't set) holds all the same.
    """
    return begin(method, url, params=params, headers=headers, body=body, json=json, timeout=timeout).answer()


def begin(
    method: str,
    url: str,
    *,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Body = b"",
    json: Any = None,
    timeout: float | timedelta | None = None,
) -> "Sent":
    """Sends a request, and waits for the answer later: several can be under way at once. The arguments are those of
    ``request``.

        one, two = http.begin("GET", "https://one.example.com/"), http.begin("GET", "https://two.example.com/")
        print(one.answer().status, two.answer().status)
    """
    headers = dict(headers or {})
    if json is not None:
        if body:
            raise ValueError("a request has one body: leave out `body` or `json`")
        body = _json.dumps(json, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if not any(name.lower() == "content-type" for name in headers):
            headers["content-type"] = "application/json"
    content = body.encode() if isinstance(body, str) else body
    try:
        outgoing = _outgoing(method, url, params, headers)
        writing = outgoing.body() if content else None
        answer = outgoing_handler.handle(outgoing, _options(timeout))
    except Err as error:
        raise _error(error.value) from None
    except NotImplementedError:
        raise no_host(_CALL) from None
    # A host that doesn't take the whole body says why in its answer.
    return Sent(answer, None if writing is None else _write(writing, content))


class Sent:
    """A request that is under way. Given up, it is cut off if it only reads, and carried to its end otherwise."""

    def __init__(self, answer: wit.FutureIncomingResponse, unwritten: Error | None) -> None:
        self._answer = answer
        self._unwritten = unwritten

    def answer(self) -> Response:
        """Waits for the answer and reads it. There is one answer, to be asked for once."""
        with self._answer.subscribe() as ready:
            ready.block()
        answered = self._answer.get()
        if not isinstance(answered, Ok):
            raise Unavailable(_CALL, "the host has no answer, or it was read before")
        if isinstance(answered.value, Err):
            raise _error(answered.value.value)
        if self._unwritten is not None:
            raise self._unwritten
        return _read(answered.value.value)


def _outgoing(
    method: str, url: str, params: Mapping[str, str | int] | None, headers: Mapping[str, str]
) -> wit.OutgoingRequest:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _no_request(method, url) from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise _no_request(method, url)
    query = "&".join(part for part in (parts.query, urlencode(params or {})) if part)
    path = parts.path or "/"
    try:
        fields = wit.Fields.from_list([(name, value.encode()) for name, value in headers.items()])
    except Err as error:
        raise Invalid(_CALL, f"a header of the request can't be sent: {_words(error.value)}") from None
    request = wit.OutgoingRequest(fields)
    try:
        request.set_method(_METHODS.get(method) or wit.Method_Other(method))
        request.set_scheme(scheme)
        request.set_authority(parts.netloc)
        request.set_path_with_query(f"{path}?{query}" if query else path)
    except Err:
        raise _no_request(method, url) from None
    return request


def _no_request(method: str, url: str) -> Invalid:
    return Invalid(_CALL, f"`{method} {url}` is no request over HTTP")


def _options(timeout: float | timedelta | None) -> wit.RequestOptions | None:
    if timeout is None:
        return None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    nanoseconds = min(max(round(seconds * 1e9), 0), 2**64 - 1)
    options = wit.RequestOptions()
    options.set_first_byte_timeout(nanoseconds)
    options.set_between_bytes_timeout(nanoseconds)
    return options


def _write(body: wit.OutgoingBody, content: bytes) -> Error | None:
    """Writes a body; says why it couldn't."""
    try:
        with body.write() as stream:
            for start in range(0, len(content), _PIECE):
                stream.blocking_write_and_flush(content[start : start + _PIECE])
        wit.OutgoingBody.finish(body, None)
    except Err:
        return Unavailable(_CALL, "the host takes no body")
    return None


def _read(answer: wit.IncomingResponse) -> Response:
    with answer:
        status = answer.status()
        with answer.headers() as fields:
            pairs = tuple((name, value.decode("latin-1")) for name, value in fields.entries())
        body = bytearray()
        with answer.consume() as incoming, incoming.stream() as stream:
            while True:
                try:
                    body += stream.blocking_read(_READ)
                except Err as error:
                    if isinstance(error.value, io_streams.StreamError_Closed):
                        return Response(status, Headers(pairs), bytes(body))
                    with error.value.value as cause:
                        raise Unavailable(_CALL, cause.to_debug_string()) from None


# What the standard's codes mean for a module: what can be done about it. The others are of what can't be.
_DENIED = (wit.ErrorCode_HttpRequestDenied, wit.ErrorCode_DestinationIpProhibited)
_LATE = (
    wit.ErrorCode_DnsTimeout,
    wit.ErrorCode_ConnectionTimeout,
    wit.ErrorCode_ConnectionReadTimeout,
    wit.ErrorCode_ConnectionWriteTimeout,
    wit.ErrorCode_HttpResponseTimeout,
)
_PASSING = (
    wit.ErrorCode_DnsError,
    wit.ErrorCode_DestinationNotFound,
    wit.ErrorCode_DestinationUnavailable,
    wit.ErrorCode_DestinationIpUnroutable,
    wit.ErrorCode_ConnectionRefused,
    wit.ErrorCode_ConnectionTerminated,
    wit.ErrorCode_ConnectionLimitReached,
    wit.ErrorCode_TlsProtocolError,
    wit.ErrorCode_TlsCertificateError,
    wit.ErrorCode_TlsAlertReceived,
    wit.ErrorCode_HttpResponseIncomplete,
    wit.ErrorCode_HttpProtocolError,
    wit.ErrorCode_InternalError,
)


def _error(code: wit.ErrorCode) -> Error:
    words = _words(code)
    if isinstance(code, _DENIED):
        return Denied(_CALL, f"{words}; the delivery's log says what to add to `http` in modules.toml")
    if isinstance(code, _LATE):
        return Timeout(_CALL, words)
    return Unavailable(_CALL, words) if isinstance(code, _PASSING) else Invalid(_CALL, words)


def _words(case: object) -> str:
    """The name of a case as the standard has it, with what it says besides: ``http-request-denied``."""
    name = type(case).__name__.partition("_")[2]
    words = re.sub("(?<!^)(?=[A-Z])", "-", name).lower()
    said = getattr(case, "value", None)
    return f"{words}: {said}" if isinstance(said, str) else words
