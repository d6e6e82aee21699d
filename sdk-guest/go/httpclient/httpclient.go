// Package httpclient lets a module send HTTP requests with net/http, to hosts the operator allows.
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
// Where a request may go stands in the module's entry in modules.toml: http = ["rates.example.com"]. A module that imports
// this package and has no such line isn't loaded; one that doesn't import it needs none, and is spared the megabytes of
// net/http. A credential is best left to the host, which adds it to the request: http = [{ host = "…", headers = {
// authorization = "Bearer env:API_TOKEN" } }].
//
// An answer is read whole before you have it. When a delivery starts again, requests that were answered are answered as they
// were then, without being sent. Every request but GET, HEAD and OPTIONS carries an Idempotency-Key, so that a server that
// knows such keys does once what was sent twice because the host was killed in between.
//
// Where there is no answer, the error has a [*modhost.Error] in it: [modhost.ErrDenied] if the operator doesn't allow the
// request, [modhost.ErrInvalid] if it, or its answer, can't be; [modhost.ErrTimeout] and [modhost.ErrUnavailable] may pass.
// The delivery's log says more. A call holds up all goroutines, so that requests are sent one after the other.
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

// Client sends requests by way of the host. It follows redirects as far as they lead where the operator allows; for other
// settings, make an [http.Client] of your own with [Transport].
var Client = &http.Client{Transport: Transport{}}

// Transport carries requests to the host. A deadline of the request's context, or the client's Timeout, says how long to wait
// for the beginning of the answer, and then for each piece of it. The operator's limit (limits.http.timeout, 30 s where it
// isn't set) holds all the same.
type Transport struct{}

// How errors name the call.
const call = "http.send"

const (
	// How many bytes are written at once: the standard takes no more.
	pieceSize = 4096
	// How many bytes are read at once.
	readSize = 64 * 1024
)

// RoundTrip sends a request, and reads its answer.
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
		if body, err = ours(outgoing.Body(), "the host takes no body"); err != nil {
			return nil, err
		}
	}
	sent := handler.Handle(outgoing, waits(request))
	if sent.IsErr() {
		return nil, errorOf(sent.Err())
	}
	// A host that doesn't take the whole body says why in its answer.
	unwritten := write(body, content)
	answer, err := wait(sent.Ok())
	if err != nil {
		return nil, err
	}
	if unwritten != nil {
		return nil, unwritten
	}
	return read(answer, request)
}

// OK is nil for an answer whose status is 2xx, and else an error, told apart by what can be done about it: returned from a
// module's function, that of a 429 or a 503 has the delivery tried again, that of a 404 hasn't.
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
		return nil, invalid("a header of the request can't be sent: the host writes those of the connection itself")
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
		return nil, invalid("`" + request.Method + " " + address.String() + "` is no request over HTTP")
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

// waits says how long to wait, if the request has a deadline.
func waits(request *http.Request) types.Option[*wasi.RequestOptions] {
	deadline, is := request.Context().Deadline()
	if !is {
		return types.None[*wasi.RequestOptions]()
	}
	left := types.Some(uint64(max(time.Until(deadline), 1)))
	options := wasi.MakeRequestOptions()
	// A host that knows no such options has limits of its own.
	_, _ = options.SetFirstByteTimeout(left), options.SetBetweenBytesTimeout(left)
	return types.Some(options)
}

// write sends a body, and tells why it couldn't.
func write(body *wasi.OutgoingBody, content []byte) error {
	if body == nil {
		return nil
	}
	refused := unavailable("the host takes no body")
	stream, err := ours(body.Write(), "the host takes no body")
	if err != nil {
		return err
	}
	for len(content) > 0 {
		piece := content[:min(len(content), pieceSize)]
		if stream.BlockingWriteAndFlush(piece).IsErr() {
			stream.Drop()
			return refused
		}
		content = content[len(piece):]
	}
	// It belongs to the body, and has to be gone before that is finished.
	stream.Drop()
	if wasi.OutgoingBodyFinish(body, types.None[*wasi.Fields]()).IsErr() {
		return refused
	}
	return nil
}

// wait waits for the head of the answer.
func wait(sent *wasi.FutureIncomingResponse) (*wasi.IncomingResponse, error) {
	defer sent.Drop()
	ready := sent.Subscribe()
	ready.Block()
	ready.Drop()
	got := sent.Get()
	// There once Block returns, and taken once.
	if got.IsNone() || got.Some().IsErr() {
		return nil, unavailable("the host has no answer")
	}
	answered := got.Some().Ok()
	if answered.IsErr() {
		return nil, errorOf(answered.Err())
	}
	return answered.Ok(), nil
}

// read reads an answer to its end.
func read(answer *wasi.IncomingResponse, request *http.Request) (*http.Response, error) {
	defer answer.Drop()
	header := make(http.Header)
	fields := answer.Headers()
	for _, pair := range fields.Entries() {
		header.Add(pair.F0, string(pair.F1))
	}
	fields.Drop()
	incoming, err := ours(answer.Consume(), "the host keeps the answer's body back")
	if err != nil {
		return nil, err
	}
	defer incoming.Drop()
	stream, err := ours(incoming.Stream(), "the host keeps the answer's body back")
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
		piece := stream.BlockingRead(readSize)
		if !piece.IsErr() {
			body = append(body, piece.Ok()...)
			continue
		}
		failed := piece.Err()
		if failed.Tag() == streams.StreamErrorClosed {
			return body, nil
		}
		cause := failed.LastOperationFailed()
		defer cause.Drop()
		return nil, unavailable(cause.ToDebugString())
	}
}

// ours gives what the host hands out, or why it doesn't.
func ours[T any](result types.Result[T, types.Unit], why string) (T, error) {
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
