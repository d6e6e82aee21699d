// Package httpclient sends HTTP requests with net/http to hosts that the operator allows.
//
//	response, err := httpclient.Client.Get("https://rates.example.com/v1/chf-eur")
//	if err != nil {
//		return err
//	}
//	defer response.Body.Close()
//	if err := httpclient.OK(response); err != nil {
//		return err
//	}
//
// The key http in the module's entry in modules.toml lists the allowed hosts: http = ["rates.example.com"]. The host doesn't load a
// module that imports this package without that key. A module that doesn't import it needs no key, and doesn't contain the megabytes
// of net/http. Leave credentials to the host, which adds them to the request: http = [{ host = "…", headers = { authorization =
// "Bearer env:API_TOKEN" } }].
//
// The host buffers the whole response. In a retry, completed requests are answered from the call log and not resent. Every request
// except GET, HEAD and OPTIONS carries an Idempotency-Key. If the host crashes and sends a request twice, a server that supports such
// keys applies it once.
//
// If there is no response, the error contains a [*modhost.Error]: [modhost.ErrDenied] if the operator doesn't allow the request,
// [modhost.ErrInvalid] if the request or its response is malformed, [modhost.ErrTimeout] or [modhost.ErrUnavailable] if a retry may
// succeed. The delivery's log has the details. A call blocks all goroutines, so requests are sent one after another.
package httpclient

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	modhost "github.com/modhost/modhost/sdk-guest/go"
	handler "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wasi_http_outgoing_handler"
	wasi "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wasi_http_types"
	streams "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wasi_io_streams"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// Client sends requests through the host. It follows redirects to hosts that the operator allows. For other settings, create your own
// [http.Client] with [Transport].
var Client = &http.Client{Transport: Transport{}}

// Transport sends requests through the host. A deadline of the request's context, or the client's Timeout, is the timeout for the start
// of the response, and for each chunk after it. The operator's limit (limits.http.timeout, 30 s by default) still applies.
type Transport struct{}

// The name of the call in errors.
const call = "http.send"

const (
	// Bytes per write, the maximum of wasi:io.
	writeSize = 4096
	// Bytes per read.
	readSize = 64 * 1024
)

// Reasons of errors.
const (
	bodyRejected   = "the host did not accept the request body"
	noResponseBody = "the host returned no response body"
)

// RoundTrip sends a request and reads its response.
func (Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := request.Context().Err(); err != nil {
		return nil, err
	}
	content, err := contentOf(request)
	if err != nil {
		return nil, err
	}
	outgoing, err := outgoingOf(request)
	if err != nil {
		return nil, err
	}
	var body *wasi.OutgoingBody
	if len(content) > 0 {
		if body, err = unwrap(outgoing.Body(), bodyRejected); err != nil {
			return nil, err
		}
	}
	sent := handler.Handle(outgoing, requestOptions(request))
	if sent.IsErr() {
		return nil, errorOf(sent.Err())
	}
	// If the host rejects part of the body, its response has the reason.
	writeErr := write(body, content)
	answer, err := wait(sent.Ok())
	if err != nil {
		return nil, err
	}
	if writeErr != nil {
		return nil, writeErr
	}
	return read(answer, request)
}

// OK returns nil if the status is 2xx, otherwise an error of the kind that fits the status. If the module's function returns it, a 429
// or a 503 makes the host retry the delivery, and a 404 doesn't.
func OK(response *http.Response) error {
	err := &modhost.Error{Call: call, Text: "status " + strconv.Itoa(response.StatusCode)}
	switch status := response.StatusCode; {
	case status >= 200 && status < 300:
		return nil
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		err.Kind = modhost.ErrDenied
	case status == http.StatusNotFound, status == http.StatusGone:
		err.Kind = modhost.ErrNotFound
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		err.Kind = modhost.ErrTimeout
	case status == http.StatusTooManyRequests:
		err.Kind = modhost.ErrRateLimited
		after, _ := strconv.ParseUint(strings.TrimSpace(response.Header.Get("Retry-After")), 10, 31)
		err.RetryAfter = time.Duration(after) * time.Second
	case status >= 500:
		err.Kind = modhost.ErrUnavailable
	default:
		err.Kind = modhost.ErrInvalid
	}
	return err
}

// contentOf reads the body to send.
func contentOf(request *http.Request) ([]byte, error) {
	if request.Body == nil {
		return nil, nil
	}
	defer request.Body.Close()
	return io.ReadAll(request.Body)
}

func outgoingOf(request *http.Request) (*wasi.OutgoingRequest, error) {
	var pairs []types.Tuple2[string, []uint8]
	for name, values := range request.Header {
		for _, value := range values {
			pairs = append(pairs, types.Tuple2[string, []uint8]{F0: name, F1: []byte(value)})
		}
	}
	fields := wasi.FieldsFromList(pairs)
	if fields.IsErr() {
		return nil, invalid("cannot send a header of the request: the host sets connection headers itself")
	}
	outgoing := wasi.MakeOutgoingRequest(fields.Ok())
	address := request.URL
	scheme := wasi.MakeSchemeHttps()
	if address.Scheme == "http" {
		scheme = wasi.MakeSchemeHttp()
	}
	known := address.Host != "" && (address.Scheme == "http" || address.Scheme == "https")
	if !known ||
		outgoing.SetMethod(methodOf(request.Method)).IsErr() ||
		outgoing.SetScheme(types.Some(scheme)).IsErr() ||
		outgoing.SetAuthority(types.Some(address.Host)).IsErr() ||
		outgoing.SetPathWithQuery(types.Some(address.RequestURI())).IsErr() {
		outgoing.Drop()
		return nil, invalid("`" + request.Method + " " + address.String() + "` is not an HTTP request")
	}
	return outgoing, nil
}

func methodOf(name string) wasi.Method {
	switch name {
	case "", http.MethodGet:
		return wasi.MakeMethodGet()
	case http.MethodHead:
		return wasi.MakeMethodHead()
	case http.MethodPost:
		return wasi.MakeMethodPost()
	case http.MethodPut:
		return wasi.MakeMethodPut()
	case http.MethodPatch:
		return wasi.MakeMethodPatch()
	case http.MethodDelete:
		return wasi.MakeMethodDelete()
	case http.MethodOptions:
		return wasi.MakeMethodOptions()
	default:
		return wasi.MakeMethodOther(name)
	}
}

// requestOptions returns the timeouts, if the request has a deadline.
func requestOptions(request *http.Request) types.Option[*wasi.RequestOptions] {
	deadline, ok := request.Context().Deadline()
	if !ok {
		return types.None[*wasi.RequestOptions]()
	}
	left := types.Some(uint64(max(time.Until(deadline), 1)))
	options := wasi.MakeRequestOptions()
	// A host that doesn't support these options applies its own limits.
	_, _ = options.SetFirstByteTimeout(left), options.SetBetweenBytesTimeout(left)
	return types.Some(options)
}

// write sends a body. It returns an error if the host doesn't accept it.
func write(body *wasi.OutgoingBody, content []byte) error {
	if body == nil {
		return nil
	}
	stream, err := unwrap(body.Write(), bodyRejected)
	if err != nil {
		return err
	}
	for len(content) > 0 {
		chunk := content[:min(len(content), writeSize)]
		if stream.BlockingWriteAndFlush(chunk).IsErr() {
			stream.Drop()
			return unavailable(bodyRejected)
		}
		content = content[len(chunk):]
	}
	// The stream belongs to the body and must be dropped before the body is finished.
	stream.Drop()
	if wasi.OutgoingBodyFinish(body, types.None[*wasi.Fields]()).IsErr() {
		return unavailable(bodyRejected)
	}
	return nil
}

// wait waits for the head of the response.
func wait(sent *wasi.FutureIncomingResponse) (*wasi.IncomingResponse, error) {
	defer sent.Drop()
	ready := sent.Subscribe()
	ready.Block()
	ready.Drop()
	got := sent.Get()
	// The response is ready once Block returns, and can be taken once.
	if got.IsNone() || got.Some().IsErr() {
		return nil, unavailable("the host returned no response")
	}
	answered := got.Some().Ok()
	if answered.IsErr() {
		return nil, errorOf(answered.Err())
	}
	return answered.Ok(), nil
}

// read reads a response to its end.
func read(answer *wasi.IncomingResponse, request *http.Request) (*http.Response, error) {
	defer answer.Drop()
	header := make(http.Header)
	fields := answer.Headers()
	for _, pair := range fields.Entries() {
		header.Add(pair.F0, string(pair.F1))
	}
	fields.Drop()
	incoming, err := unwrap(answer.Consume(), noResponseBody)
	if err != nil {
		return nil, err
	}
	defer incoming.Drop()
	stream, err := unwrap(incoming.Stream(), noResponseBody)
	if err != nil {
		return nil, err
	}
	defer stream.Drop()
	body, err := readAll(stream)
	if err != nil {
		return nil, err
	}
	status := int(answer.Status())
	return &http.Response{
		Status:        strconv.Itoa(status) + " " + http.StatusText(status),
		StatusCode:    status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       request,
	}, nil
}

func readAll(stream *streams.InputStream) ([]byte, error) {
	var body []byte
	for {
		chunk := stream.BlockingRead(readSize)
		if !chunk.IsErr() {
			body = append(body, chunk.Ok()...)
			continue
		}
		failed := chunk.Err()
		if failed.Tag() == streams.StreamErrorClosed {
			return body, nil
		}
		cause := failed.LastOperationFailed()
		defer cause.Drop()
		return nil, unavailable(cause.ToDebugString())
	}
}

// unwrap converts a result without an error value to a value and an error with this reason.
func unwrap[T any](result types.Result[T, types.Unit], why string) (T, error) {
	if result.IsErr() {
		var none T
		return none, unavailable(why)
	}
	return result.Ok(), nil
}

func invalid(why string) error {
	return &modhost.Error{Call: call, Kind: modhost.ErrInvalid, Text: why}
}

func unavailable(why string) error {
	return &modhost.Error{Call: call, Kind: modhost.ErrUnavailable, Text: why}
}
