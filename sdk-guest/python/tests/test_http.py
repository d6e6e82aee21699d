"""HTTP requests to a fake host. The host's tests send real requests."""

from types import TracebackType
from typing import Any

import pytest
from componentize_py_types import Err, Ok

import modhost
from modhost import http
from modhost._bindings.imports import http_types, io_streams, outgoing_handler


class Resource:
    """The base class of the fake resources."""

    def __enter__(self) -> "Resource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class FakeServer:
    """Records the sent request and provides the response."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}
        self.status = 200
        self.headers: list[tuple[str, bytes]] = []
        self.chunks: list[bytes] = []
        self.refused: Any = None
        self.failed: Any = None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    server = FakeServer()

    class Writing(Resource):
        def blocking_write_and_flush(self, chunk: bytes) -> None:
            assert len(chunk) <= 4096
            server.sent["body"] = server.sent.get("body", b"") + chunk

    class Body(Resource):
        def write(self) -> Writing:
            return Writing()

        @classmethod
        def finish(cls, this: Any, trailers: None) -> None: ...

    class Fields(Resource):
        def __init__(self, pairs: list[tuple[str, bytes]]) -> None:
            self.pairs = pairs

        @classmethod
        def from_list(cls, pairs: list[tuple[str, bytes]]) -> "Fields":
            if any(name.lower() == "host" for name, _ in pairs):
                raise Err(http_types.HeaderError_Forbidden())
            return cls(pairs)

        def entries(self) -> list[tuple[str, bytes]]:
            return self.pairs

    class Request(Resource):
        def __init__(self, fields: Fields) -> None:
            server.sent["headers"] = fields.pairs

        def body(self) -> Body:
            return Body()

        def set_method(self, method: http_types.Method) -> None:
            server.sent["method"] = method

        def set_scheme(self, scheme: http_types.Scheme) -> None:
            server.sent["scheme"] = scheme

        def set_authority(self, authority: str) -> None:
            server.sent["authority"] = authority

        def set_path_with_query(self, path: str) -> None:
            server.sent["path"] = path

    class Options(Resource):
        def set_first_byte_timeout(self, nanoseconds: int) -> None:
            server.sent["timeout"] = nanoseconds

        def set_between_bytes_timeout(self, nanoseconds: int) -> None: ...

    class Reading(Resource):
        def blocking_read(self, length: int) -> bytes:
            if not server.chunks:
                raise Err(io_streams.StreamError_Closed())
            return server.chunks.pop(0)

    class Incoming(Resource):
        def stream(self) -> Reading:
            return Reading()

    class Answer(Resource):
        def status(self) -> int:
            return server.status

        def headers(self) -> Fields:
            return Fields(server.headers)

        def consume(self) -> Incoming:
            return Incoming()

    class Ready(Resource):
        def block(self) -> None: ...

    class Future(Resource):
        def subscribe(self) -> Ready:
            return Ready()

        def get(self) -> Any:
            return Ok(Err(server.failed) if server.failed else Ok(Answer()))

    def handle(request: Request, options: Options | None) -> Future:
        if server.refused:
            raise Err(server.refused)
        return Future()

    monkeypatch.setattr(http_types, "Fields", Fields)
    monkeypatch.setattr(http_types, "OutgoingRequest", Request)
    monkeypatch.setattr(http_types, "OutgoingBody", Body)
    monkeypatch.setattr(http_types, "RequestOptions", Options)
    monkeypatch.setattr(outgoing_handler, "handle", handle)
    return server


def test_request_is_sent_as_given(server: FakeServer) -> None:
    http.post("https://a.test:81/b?c=1#d", params={"q": "x y"}, json={"n": 1}, headers={"accept": "text/plain"}, timeout=1.5)
    assert server.sent == {
        "method": http_types.Method_Post(),
        "scheme": http_types.Scheme_Https(),
        "authority": "a.test:81",
        "path": "/b?c=1&q=x+y",
        "headers": [("accept", b"text/plain"), ("content-type", b"application/json")],
        "body": b'{"n":1}',
        "timeout": 1_500_000_000,
    }


def test_long_body_is_written_in_chunks(server: FakeServer) -> None:
    http.put("http://a.test", body="é" * 5000)
    assert server.sent["body"] == "é".encode() * 5000
    assert server.sent["path"] == "/"


def test_response_is_read_to_the_end(server: FakeServer) -> None:
    server.status, server.chunks = 201, [b'{"a"', b": 1}"]
    server.headers = [("Content-Type", b"application/json"), ("set-cookie", b"a=1"), ("Set-Cookie", b"b=2")]
    answer = http.request("PROPFIND", "https://a.test/")
    assert server.sent["method"] == http_types.Method_Other("PROPFIND")
    assert (answer.status, answer.ok, answer.json(), answer.text) == (201, True, {"a": 1}, '{"a": 1}')
    assert answer.headers["content-type"] == "application/json"
    assert dict(answer.headers) == {"content-type": "application/json", "set-cookie": "a=1"}
    assert answer.headers.pairs[2] == ("Set-Cookie", "b=2")
    assert answer.raise_for_status() is answer


def test_malformed_body_raises_invalid(server: FakeServer) -> None:
    server.chunks = [b"\xff"]
    answer = http.get("https://a.test/")
    with pytest.raises(modhost.Invalid, match="http.send: invalid: the response body is not UTF-8"):
        _ = answer.text
    with pytest.raises(modhost.Invalid, match="cannot parse the response body as JSON"):
        answer.json()


@pytest.mark.parametrize(
    ("status", "kind", "retry"),
    [
        (302, modhost.Invalid, False),
        (401, modhost.Denied, False),
        (404, modhost.NotFound, False),
        (408, modhost.Timeout, True),
        (429, modhost.RateLimited, 7.0),
        (503, modhost.Unavailable, True),
        (504, modhost.Timeout, True),
    ],
)
def test_status_determines_the_exception(server: FakeServer, status: int, kind: type[modhost.Error], retry: bool | float) -> None:
    server.status, server.headers = status, [("Retry-After", b" 7")]
    with pytest.raises(kind) as raised:
        http.get("https://a.test/").raise_for_status()
    assert raised.value.retry == retry
    assert raised.value.call == "http.send"


def test_error_code_determines_the_exception(server: FakeServer) -> None:
    server.refused = http_types.ErrorCode_HttpRequestDenied()
    with pytest.raises(modhost.Denied, match="not allowed: http-request-denied; the delivery's log shows"):
        http.get("https://a.test/")
    server.refused = None
    for code, kind in [
        (http_types.ErrorCode_ConnectionReadTimeout(), modhost.Timeout),
        (http_types.ErrorCode_ConnectionRefused(), modhost.Unavailable),
        (http_types.ErrorCode_HttpResponseBodySize(None), modhost.Invalid),
    ]:
        server.failed = code
        with pytest.raises(kind):
            http.get("https://a.test/")
    server.failed = http_types.ErrorCode_InternalError("no route")
    with pytest.raises(modhost.Unavailable, match="http.send: unavailable: internal-error: no route"):
        http.get("https://a.test/")


@pytest.mark.parametrize("url", ["a.test", "ftp://a.test", "https:///b", "https://[a", ""])
def test_invalid_url_raises_invalid(server: FakeServer, url: str) -> None:
    with pytest.raises(modhost.Invalid, match="is not an HTTP request"):
        http.get(url)


def test_forbidden_header_raises_invalid(server: FakeServer) -> None:
    with pytest.raises(modhost.Invalid, match="cannot send a header of the request: forbidden"):
        http.get("https://a.test/", headers={"Host": "b.test"})


def test_request_raises_no_host_outside_of_a_component() -> None:
    with pytest.raises(modhost.NoHost):
        http.get("https://a.test/")
