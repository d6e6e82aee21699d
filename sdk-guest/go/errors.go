package modhost

import (
	"errors"
	"fmt"
	"time"

	witerrors "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_types"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// What can go wrong with a call, told apart by what can be done about it. [errors.Is] finds them in an [*Error].
var (
	// ErrInvalid: the platform can't make sense of the request, or the host refuses it. The same call fails again.
	ErrInvalid = errors.New("refused as invalid")
	// ErrDenied: not allowed for the user, or for this module.
	ErrDenied = errors.New("not allowed")
	// ErrNotFound: what the call names isn't there.
	ErrNotFound = errors.New("not found")
	// ErrRateLimited: too many calls. Worth another try.
	ErrRateLimited = errors.New("too many calls")
	// ErrUnavailable: the platform is out of order or out of reach. Worth another try.
	ErrUnavailable = errors.New("unavailable")
	// ErrTimeout: no answer in time. What was asked for may have happened all the same.
	ErrTimeout = errors.New("no answer in time; what was asked for may have happened all the same")
	// ErrUnsupported: the platform of this event has no such function, or the event lacks what it needs (a chat, a
	// reply).
	ErrUnsupported = errors.New("not supported here")
	// ErrMisconfigured: a setting isn't what the module expects.
	ErrMisconfigured = errors.New("misconfigured")
)

// Error says why a call to the host failed. Mostly it is just returned; where a module can do better, it asks
// [errors.Is] which kind it is:
//
//	hits, err := modhost.Search(query)
//	if errors.Is(err, modhost.ErrDenied) {
//		hits, err = nil, nil // answer without
//	}
type Error struct {
	// Call is the call that failed, by its name in the contract: messages.reply.
	Call string
	// Kind is one of [ErrInvalid] and its like.
	Kind error
	// Text is what the platform or the host says about it, for logs and not for users.
	Text string
	// RetryAfter is how long to wait before another try, where the platform says so ([ErrRateLimited]).
	RetryAfter time.Duration
}

// Error is the call, what went wrong, and what was said about it.
func (e *Error) Error() string {
	text := e.Call + ": " + e.Kind.Error()
	if e.Text != "" {
		text += ": " + e.Text
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf("; free again in %d s", seconds(e.RetryAfter))
	}
	return text
}

// Unwrap gives the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Retry tells whether another try is worth it, and when.
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

// errorOf names the call of an error of the contract.
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

// answered gives what a call answered as Go has it.
func answered[T any](call string, result types.Result[T, witerrors.Error]) (T, error) {
	if result.IsErr() {
		var none T
		return none, errorOf(call, result.Err())
	}
	return result.Ok(), nil
}

// done is for calls that answer nothing.
func done(call string, result types.Result[types.Unit, witerrors.Error]) error {
	_, err := answered(call, result)
	return err
}
