"""HTTP requests to hosts that the operator allows.

    from modhost import http

    rate = http.get("https://rates.example.com/v1/chf-eur", timeout=5).raise_for_status().json()
    http.post("https://shop.example.com/orders", json={"item": "A-17", "count": 2}).raise_for_status()

The key ``http`` in the module's entry in ``modules.toml`` lists the allowed hosts: ``http = ["rates.example.com"]``. The host
doesn't load a module that imports ``modhost.http`` without that key. Leave credentials to the host, which adds them to the
request: ``http = [{ host = "…", headers = { authorization = "Bearer env:API_TOKEN" } }]``.

The host buffers the whole response. In a retry, completed requests are answered from the call log and not resent. Every request
except GET, HEAD and OPTIONS carries an ``Idempotency-Key``. If the host crashes and sends a request twice, a server that
supports such keys applies it once.

Redirects aren't followed: the module receives the 3xx response. A response with any status is returned normally;
``raise_for_status`` raises an exception if the status isn't 2xx. If there is no response, a subclass of ``modhost.Error`` is
raised: ``Denied`` if the operator doesn't allow the request, ``Invalid`` if the request or its response is malformed,
``Timeout`` or ``Unavailable`` if a retry may succeed. The delivery's log has the details.
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
"""A request body: bytes, or text, which is encoded as UTF-8."""

_CALL = "http.send"
_WRITE_SIZE = 4096  # bytes per write, the maximum of wasi:io
_READ_SIZE = 64 * 1024  # bytes per read

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
    """The headers of a response, by case-insensitive name. For a repeated header, the mapping has the first value."""

    def __init__(self, pairs: tuple[tuple[str, str], ...]) -> None:
        self.pairs = pairs
        """All headers, in the order in which they arrived."""

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
    """A complete response."""

    status: int
    """The status code, such as 200."""
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
        """The body as text. Raises ``modhost.Invalid`` if it isn't UTF-8."""
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise Invalid(_CALL, f"the response body is not UTF-8 (status {self.status}): {error}") from None

    def json(self) -> Any:
        """Returns the body, parsed as JSON. Raises ``modhost.Invalid`` if it isn't JSON."""
        try:
            return _json.loads(self.body)
        except ValueError as error:
            raise Invalid(_CALL, f"cannot parse the response body as JSON (status {self.status}): {error}") from None

    def raise_for_status(self) -> Self:
        """Returns the response if its status is 2xx, otherwise raises the subclass of ``modhost.Error`` that fits the status. If it
        isn't caught, a 429 or a 503 makes the host retry the delivery, and a 404 doesn't."""
        if self.ok:
            return self
        text = f"status {self.status}"
        match self.status:
            case 401 | 403:
                raise Denied(_CALL, text)
            case 404 | 410:
                raise NotFound(_CALL, text)
            case 408 | 504:
                raise Timeout(_CALL, text)
            case 429:
                after = self.headers.get("retry-after", "").strip()
                raise RateLimited(_CALL, int(after) if re.fullmatch("[0-9]{1,9}", after) else None)
            case status if status >= 500:
                raise Unavailable(_CALL, text)
            case _:
                raise Invalid(_CALL, text)


def get(
    url: str,
    *,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | timedelta | None = None,
) -> Response:
    """Sends a GET request and reads the response. The arguments are those of ``request``."""
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
    """Sends a POST request and reads the response. The arguments are those of ``request``."""
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
    """Sends a PUT request and reads the response. The arguments are those of ``request``."""
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
    """Sends a PATCH request and reads the response. The arguments are those of ``request``."""
    return request("PATCH", url, params=params, headers=headers, body=body, json=json, timeout=timeout)


def delete(
    url: str,
    *,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | timedelta | None = None,
) -> Response:
    """Sends a DELETE request and reads the response. The arguments are those of ``request``."""
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
    """Sends a request and reads the response.

    :param params: query parameters to add to the URL.
    :param headers: the headers. The host sets the connection headers (``Host``, ``Connection``, ``Transfer-Encoding`` and the
        like) itself, and rejects a request that contains one of them.
    :param body: the body, as bytes or text.
    :param json: instead of ``body``, a value to send as JSON, with the matching ``Content-Type``.
    :param timeout: the timeout for the start of the response, and for each chunk after it, in seconds or as a ``timedelta``.
        The operator's limit (``limits.http.timeout``, 30 s by default) still applies.
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
    """Sends a request without waiting for the response, so that several requests can be in flight at once. The arguments are
    those of ``request``.

        one, two = http.begin("GET", "https://one.example.com/"), http.begin("GET", "https://two.example.com/")
        print(one.answer().status, two.answer().status)
    """
    headers = dict(headers or {})
    if json is not None:
        if body:
            raise ValueError("a request has only one body; omit `body` or `json`")
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
    # If the host rejects part of the body, its response has the reason.
    return Sent(answer, None if writing is None else _write(writing, content))


class Sent:
    """A request in flight. Dropping it cancels a request that only reads; any other request is carried out to its end."""

    def __init__(self, answer: wit.FutureIncomingResponse, write_error: Error | None) -> None:
        self._answer = answer
        self._write_error = write_error

    def answer(self) -> Response:
        """Waits for the response and reads it. Can be called only once."""
        with self._answer.subscribe() as ready:
            ready.block()
        answered = self._answer.get()
        if not isinstance(answered, Ok):
            raise Unavailable(_CALL, "the host returned no response, or it was already read")
        if isinstance(answered.value, Err):
            raise _error(answered.value.value)
        if self._write_error is not None:
            raise self._write_error
        return _read(answered.value.value)


def _outgoing(
    method: str, url: str, params: Mapping[str, str | int] | None, headers: Mapping[str, str]
) -> wit.OutgoingRequest:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _invalid_request(method, url) from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise _invalid_request(method, url)
    query = "&".join(part for part in (parts.query, urlencode(params or {})) if part)
    path = parts.path or "/"
    try:
        fields = wit.Fields.from_list([(name, value.encode()) for name, value in headers.items()])
    except Err as error:
        raise Invalid(_CALL, f"cannot send a header of the request: {_code(error.value)}") from None
    request = wit.OutgoingRequest(fields)
    try:
        request.set_method(_METHODS.get(method) or wit.Method_Other(method))
        request.set_scheme(scheme)
        request.set_authority(parts.netloc)
        request.set_path_with_query(f"{path}?{query}" if query else path)
    except Err:
        raise _invalid_request(method, url) from None
    return request


def _invalid_request(method: str, url: str) -> Invalid:
    return Invalid(_CALL, f"`{method} {url}` is not an HTTP request")


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
    """Writes a body. Returns an error if the host doesn't accept it."""
    try:
        with body.write() as stream:
            for start in range(0, len(content), _WRITE_SIZE):
                stream.blocking_write_and_flush(content[start : start + _WRITE_SIZE])
        wit.OutgoingBody.finish(body, None)
    except Err:
        return Unavailable(_CALL, "the host did not accept the request body")
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
                    body += stream.blocking_read(_READ_SIZE)
                except Err as error:
                    if isinstance(error.value, io_streams.StreamError_Closed):
                        return Response(status, Headers(pairs), bytes(body))
                    with error.value.value as cause:
                        raise Unavailable(_CALL, cause.to_debug_string()) from None


# The error codes of wasi:http by kind of error. All other codes are Invalid.
_DENIED = (wit.ErrorCode_HttpRequestDenied, wit.ErrorCode_DestinationIpProhibited)
_TIMEOUT = (
    wit.ErrorCode_DnsTimeout,
    wit.ErrorCode_ConnectionTimeout,
    wit.ErrorCode_ConnectionReadTimeout,
    wit.ErrorCode_ConnectionWriteTimeout,
    wit.ErrorCode_HttpResponseTimeout,
)
_UNAVAILABLE = (
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
    text = _code(code)
    if isinstance(code, _DENIED):
        return Denied(_CALL, f"{text}; the delivery's log shows what to add to `http` in modules.toml")
    if isinstance(code, _TIMEOUT):
        return Timeout(_CALL, text)
    return Unavailable(_CALL, text) if isinstance(code, _UNAVAILABLE) else Invalid(_CALL, text)


def _code(case: object) -> str:
    """Returns the name of a WIT case, such as ``http-request-denied``, with its text, if any."""
    name = type(case).__name__.partition("_")[2]
    code = re.sub("(?<!^)(?=[A-Z])", "-", name).lower()
    text = getattr(case, "value", None)
    return f"{code}: {text}" if isinstance(text, str) else code
