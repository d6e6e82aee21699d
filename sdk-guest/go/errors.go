package modhost

import (
	"errors"
	"fmt"
	"time"

	witerrors "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_types"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// The kinds of errors, by the action the module can take. [errors.Is] finds them in an [*Error].
var (
	// ErrInvalid means that the platform or the host rejects the request. The same call would fail again.
	ErrInvalid = errors.New("invalid")
	// ErrDenied means that the user or this module isn't allowed to make the call.
	ErrDenied = errors.New("not allowed")
	// ErrNotFound means that the object the call refers to doesn't exist.
	ErrNotFound = errors.New("not found")
	// ErrRateLimited means that there were too many calls. A retry may succeed.
	ErrRateLimited = errors.New("rate limited")
	// ErrUnavailable means that the platform is down or unreachable. A retry may succeed.
	ErrUnavailable = errors.New("unavailable")
	// ErrTimeout means that there was no answer in time. The call may still have taken effect.
	ErrTimeout = errors.New("timed out; the call may still have taken effect")
	// ErrUnsupported means that the event's platform has no such function, or that the event lacks something it needs (a chat, a
	// reply).
	ErrUnsupported = errors.New("not supported")
	// ErrMisconfigured means that a setting doesn't have the type that the module expects.
	ErrMisconfigured = errors.New("misconfigured")
)

// Error is the error of a call to the host. Modules usually return it. A module that can recover checks its kind with [errors.Is]:
//
//	hits, err := modhost.Search(query)
//	if errors.Is(err, modhost.ErrDenied) {
//		hits, err = nil, nil // answer without sources
//	}
type Error struct {
	// Call is the call that failed, by its name in the contract, such as messages.reply.
	Call string
	// Kind is [ErrInvalid] or another of the kinds above.
	Kind error
	// Text is the error text of the platform or the host, for logs, not for users.
	Text string
	// RetryAfter is the delay before a retry, if the platform reports one ([ErrRateLimited]).
	RetryAfter time.Duration
}

// Error returns the call, the kind and the text.
func (e *Error) Error() string {
	text := e.Call + ": " + e.Kind.Error()
	if e.Text != "" {
		text += ": " + e.Text
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf("; retry after %d s", seconds(e.RetryAfter))
	}
	return text
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Retry reports whether a retry may succeed, and when.
func (e *Error) Retry() Retry {
	switch {
	case e.RetryAfter > 0:
		return RetryAfter(e.RetryAfter)
	case e.Kind == ErrRateLimited, e.Kind == ErrUnavailable, e.Kind == ErrTimeout:
		return RetryYes
	default:
		return RetryNo
	}
}

// errorOf converts an error of the contract.
func errorOf(call string, wit witerrors.Error) error {
	err := &Error{Call: call}
	switch wit.Tag() {
	case witerrors.ErrorInvalid:
		err.Kind, err.Text = ErrInvalid, wit.Invalid()
	case witerrors.ErrorDenied:
		err.Kind, err.Text = ErrDenied, wit.Denied()
	case witerrors.ErrorNotFound:
		err.Kind, err.Text = ErrNotFound, wit.NotFound()
	case witerrors.ErrorRateLimited:
		err.Kind, err.RetryAfter = ErrRateLimited, time.Duration(wit.RateLimited().SomeOr(0))*time.Second
	case witerrors.ErrorUnavailable:
		err.Kind, err.Text = ErrUnavailable, wit.Unavailable()
	case witerrors.ErrorTimeout:
		err.Kind = ErrTimeout
	default:
		err.Kind, err.Text = ErrUnsupported, wit.Unsupported()
	}
	return err
}

// unwrap converts a result of the contract to a value and an error.
func unwrap[T any](call string, result types.Result[T, witerrors.Error]) (T, error) {
	if result.IsErr() {
		var none T
		return none, errorOf(call, result.Err())
	}
	return result.Ok(), nil
}

// unwrapUnit is unwrap for calls that return no value.
func unwrapUnit(call string, result types.Result[types.Unit, witerrors.Error]) error {
	_, err := unwrap(call, result)
	return err
}
