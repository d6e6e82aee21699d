"""HTTP requests: what is said to the host, and what its answers become. Requests that really leave are the host's tests."""

from types import TracebackType
from typing import Any

import pytest
from componentize_py_types import Err, Ok

import modhost
from modhost import http
from modhost._bindings.imports import http_types, io_streams, outgoing_handler


class Resource:
    """What every resource of the host has in common."""

    def __enter__(self) -> "Resource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Far:
    """The far side: what was sent, and what comes back."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}
        self.status = 200
        self.headers: list[tuple[str, bytes]] = []
        self.pieces: list[bytes] = []
        self.refused: Any = None
        self.failed: Any = None


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Far:
    far = Far()

    class Writing(Resource):
        def blocking_write_and_flush(self, piece: bytes) -> None:
            assert len(piece) <= 4096
            far.sent["body"] = far.sent.get("body", b"") + piece

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
            far.sent["headers"] = fields.pairs

        def body(self) -> Body:
            return Body()

        def set_method(self, method: http_types.Method) -> None:
            far.sent["method"] = method

        def set_scheme(self, scheme: http_types.Scheme) -> None:
            far.sent["scheme"] = scheme

        def set_authority(self, authority: str) -> None:
            far.sent["authority"] = authority

        def set_path_with_query(self, path: str) -> None:
            far.sent["path"] = path

    class Options(Resource):
        def set_first_byte_timeout(self, nanoseconds: int) -> None:
            far.sent["timeout"] = nanoseconds

        def set_between_bytes_timeout(self, nanoseconds: int) -> None: ...

    class Reading(Resource):
        def blocking_read(self, length: int) -> bytes:
            if not far.pieces:
                raise Err(io_streams.StreamError_Closed())
            return far.pieces.pop(0)

    class Incoming(Resource):
        def stream(self) -> Reading:
            return Reading()

    class Answer(Resource):
        def status(self) -> int:
            return far.status

        def headers(self) -> Fields:
            return Fields(far.headers)

        def consume(self) -> Incoming:
            return Incoming()

    class Ready(Resource):
        def block(self) -> None: ...

    class Future(Resource):
        def subscribe(self) -> Ready:
            return Ready()

        def get(self) -> Any:
            return Ok(Err(far.failed) if far.failed else Ok(Answer()))

    def handle(request: Request, options: Options | None) -> Future:
        if far.refused:
            raise Err(far.refused)
        return Future()

    monkeypatch.setattr(http_types, "Fields", Fields)
    monkeypatch.setattr(http_types, "OutgoingRequest", Request)
    monkeypatch.setattr(http_types, "OutgoingBody", Body)
    monkeypatch.setattr(http_types, "RequestOptions", Options)
    monkeypatch.setattr(outgoing_handler, "handle", handle)
    return far


def test_a_request_says_what_it_is_told_to(far: Far) -> None:
    http.post("https://a.test:81/b?c=1#d", params={"q": "x y"}, json={"n": 1}, headers={"accept": "text/plain"}, timeout=1.5)
    assert far.sent == {
        "method": http_types.Method_Post(),
        "scheme": http_types.Scheme_Https(),
        "authority": "a.test:81",
        "path": "/b?c=1&q=x+y",
        "headers": [("accept", b"text/plain"), ("content-type", b"application/json")],
        "body": b'{"n":1}',
        "timeout": 1_500_000_000,
    }


def test_a_long_body_goes_in_pieces(far: Far) -> None:
    http.put("http://a.test", body="é" * 5000)
    assert far.sent["body"] == "é".encode() * 5000
    assert far.sent["path"] == "/"


def test_an_answer_is_read_whole(far: Far) -> None:
    far.status, far.pieces = 201, [b'{"a"', b": 1}"]
    far.headers = [("Content-Type", b"application/json"), ("set-cookie", b"a=1"), ("Set-Cookie", b"b=2")]
    answer = http.request("PROPFIND", "https://a.test/")
    assert far.sent["method"] == http_types.Method_Other("PROPFIND")
    assert (answer.status, answer.ok, answer.json(), answer.text) == (201, True, {"a": 1}, '{"a": 1}')
    assert answer.headers["content-type"] == "application/json"
    assert dict(answer.headers) == {"content-type": "application/json", "set-cookie": "a=1"}
    assert answer.headers.pairs[2] == ("Set-Cookie", "b=2")
    assert answer.raise_for_status() is answer


def test_a_body_of_another_kind_says_so(far: Far) -> None:
    far.pieces = [b"\xff"]
    answer = http.get("https://a.test/")
    with pytest.raises(modhost.Invalid, match="http.send: refused as invalid: the answer is no text"):
        _ = answer.text
    with pytest.raises(modhost.Invalid, match="the answer isn't JSON"):
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
def test_a_status_says_what_can_be_done(far: Far, status: int, kind: type[modhost.Error], retry: bool | float) -> None:
    far.status, far.headers = status, [("Retry-After", b" 7")]
    with pytest.raises(kind) as raised:
        http.get("https://a.test/").raise_for_status()
    assert raised.value.retry == retry
    assert raised.value.call == "http.send"


def test_an_error_of_the_standard_is_told_by_what_can_be_done(far: Far) -> None:
    far.refused = http_types.ErrorCode_HttpRequestDenied()
    with pytest.raises(modhost.Denied, match="not allowed: http-request-denied; the delivery's log says"):
        http.get("https://a.test/")
    far.refused = None
    for code, kind in [
        (http_types.ErrorCode_ConnectionReadTimeout(), modhost.Timeout),
        (http_types.ErrorCode_ConnectionRefused(), modhost.Unavailable),
        (http_types.ErrorCode_HttpResponseBodySize(None), modhost.Invalid),
    ]:
        far.failed = code
        with pytest.raises(kind):
            http.get("https://a.test/")
    far.failed = http_types.ErrorCode_InternalError("no route")
    with pytest.raises(modhost.Unavailable, match="http.send: unavailable: internal-error: no route"):
        http.get("https://a.test/")


@pytest.mark.parametrize("url", ["a.test", "ftp://a.test", "https:///b", "https://[a", ""])
def test_what_is_no_request_says_so(far: Far, url: str) -> None:
    with pytest.raises(modhost.Invalid, match="is no request over HTTP"):
        http.get(url)


def test_a_header_that_cannot_be_sent_says_so(far: Far) -> None:
    with pytest.raises(modhost.Invalid, match="a header of the request can't be sent: forbidden"):
        http.get("https://a.test/", headers={"Host": "b.test"})


def test_without_a_host_a_request_says_so() -> None:
    with pytest.raises(modhost.NoHost):
        http.get("https://a.test/")
