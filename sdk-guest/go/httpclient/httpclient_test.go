package httpclient

import (
	"errors"
	"net/http"
	"testing"
	"time"

	modhost "github.com/modhost/modhost/sdk-guest/go"
	wasi "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wasi_http_types"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

func TestStatusDeterminesTheKind(t *testing.T) {
	for status, kind := range map[int]error{
		204: nil, 302: modhost.ErrInvalid, 401: modhost.ErrDenied, 404: modhost.ErrNotFound, 408: modhost.ErrTimeout,
		429: modhost.ErrRateLimited, 503: modhost.ErrUnavailable, 504: modhost.ErrTimeout,
	} {
		err := OK(&http.Response{StatusCode: status, Header: http.Header{"Retry-After": {" 7"}}})
		if !errors.Is(err, kind) {
			t.Errorf("%d: got %v, want %v", status, err, kind)
		}
		if call, ok := errors.AsType[*modhost.Error](err); ok && status == 429 && call.RetryAfter != 7*time.Second {
			t.Errorf("got %v", call.RetryAfter)
		}
	}
}

func TestErrorContainsTheCode(t *testing.T) {
	for _, test := range []struct {
		code wasi.ErrorCode
		text string
	}{
		{wasi.MakeErrorCodeDnsTimeout(), "http.send: " + modhost.ErrTimeout.Error() + ": DNS-timeout"},
		{wasi.MakeErrorCodeConnectionRefused(), "http.send: unavailable: connection-refused"},
		{wasi.MakeErrorCodeHttpResponseTimeout(), "http.send: " + modhost.ErrTimeout.Error() + ": HTTP-response-timeout"},
		{wasi.MakeErrorCodeLoopDetected(), "http.send: invalid: loop-detected"},
		{wasi.MakeErrorCodeInternalError(types.Some("no route")), "http.send: unavailable: internal-error: no route"},
		{wasi.MakeErrorCodeHttpRequestDenied(), "http.send: not allowed: HTTP-request-denied; the delivery's log shows " +
			"what to add to `http` in modules.toml"},
	} {
		if err := errorOf(test.code); err.Error() != test.text {
			t.Errorf("got %q, want %q", err, test.text)
		}
	}
}
