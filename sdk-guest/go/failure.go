package modhost

import (
	"errors"
	"math"
	"time"

	events "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_events"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// Failure is the reason why the module couldn't handle an event: a reason for operators, a text for the user, and whether to retry.
// A module can return any error; this type sets the details.
//
//	return &modhost.Failure{Reason: "asked for 12 seats", UserText: "We have eight seats at most."}
type Failure struct {
	// Reason is for operators: it is written to the log with the delivery, never shown to the user.
	Reason string
	// UserText is for the user, in place of the host's default apology, in Markdown.
	UserText string
	// Retry says whether a retry may succeed. With the zero value, Err decides: a retry if it contains a failed call with a temporary
	// error.
	Retry Retry
	// Err is the cause, if any. Reason may then be empty.
	Err error
}

// Error returns the reason, followed by the cause.
func (f *Failure) Error() string {
	switch {
	case f.Err == nil:
		return f.Reason
	case f.Reason == "":
		return f.Err.Error()
	default:
		return f.Reason + ": " + f.Err.Error()
	}
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Retry says whether a retry of the event may succeed, and when. The host limits the number of attempts.
type Retry struct {
	kind retryKind
	wait time.Duration
}

type retryKind uint8

const (
	retryUnset retryKind = iota
	retryNever
	retryOnSchedule
	retryAfterDelay
)

var (
	// RetryNo means that a retry would fail the same way: give up now.
	RetryNo = Retry{kind: retryNever}
	// RetryYes means that a retry may succeed, on the module's retry schedule in modules.toml.
	RetryYes = Retry{kind: retryOnSchedule}
)

// RetryAfter means that a retry may succeed, but not before this delay, rounded up to whole seconds.
func RetryAfter(wait time.Duration) Retry { return Retry{kind: retryAfterDelay, wait: wait} }

// failureOf converts any error to a failure.
func failureOf(err error) *Failure {
	failure := &Failure{Reason: err.Error()}
	if cause, ok := errors.AsType[*Failure](err); ok {
		failure.UserText, failure.Retry = cause.UserText, cause.Retry
	}
	if call, ok := errors.AsType[*Error](err); ok && failure.Retry.kind == retryUnset {
		failure.Retry = call.Retry()
	}
	return failure
}

func (f *Failure) wit() events.Failure {
	retry := events.MakeRetryNo()
	switch f.Retry.kind {
	case retryOnSchedule:
		retry = events.MakeRetryYes()
	case retryAfterDelay:
		retry = events.MakeRetryAfter(seconds(f.Retry.wait))
	}
	return events.Failure{Reason: f.Reason, UserText: optional(f.UserText), Retry: retry}
}

// seconds rounds up, so that no retry is early, and saturates at the maximum of uint32 (136 years).
func seconds(wait time.Duration) uint32 {
	wait = max(wait, 0)
	whole := wait / time.Second
	if wait%time.Second > 0 {
		whole++
	}
	return uint32(min(int64(whole), math.MaxUint32))
}

// optional returns none for the zero value.
func optional[T comparable](value T) types.Option[T] {
	var zero T
	if value == zero {
		return types.None[T]()
	}
	return types.Some(value)
}

// optionalPointer returns none for nil.
func optionalPointer[T any](value *T) types.Option[T] {
	if value == nil {
		return types.None[T]()
	}
	return types.Some(*value)
}
