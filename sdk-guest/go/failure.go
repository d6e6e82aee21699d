package modhost

import (
	"errors"
	"math"
	"time"

	events "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_events"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// Failure says why an event was not answered: what the operators read, what the user reads, and whether to try again.
// Any error will do for a module to return; this one says more.
//
//	return &modhost.Failure{Reason: "asked for 12 seats", UserText: "We have eight seats at most."}
type Failure struct {
	// Reason is for the operators: it goes to the log with the delivery, never to the user.
	Reason string
	// UserText is for the user, in place of the host's default apology. Markdown.
	UserText string
	// Retry says whether another try may help. The zero value leaves it to Err: another try if a call behind it failed
	// for something that passes.
	Retry Retry
	// Err is the error behind it, if there is one; Reason may be left empty then.
	Err error
}

// Error is the reason, with that of the error behind it.
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

// Unwrap gives the error behind it.
func (f *Failure) Unwrap() error { return f.Err }

// Retry says whether another try at an event may help, and when. The host decides how many there may be.
type Retry struct {
	kind retryKind
	wait time.Duration
}

type retryKind uint8

const (
	unsaid retryKind = iota
	never
	anytime
	after
)

var (
	// RetryNo: it would end the same; give up now.
	RetryNo = Retry{kind: never}
	// RetryYes: it may help, on the schedule that the module has in modules.toml.
	RetryYes = Retry{kind: anytime}
)

// RetryAfter says that it may help, but not before this long; in whole seconds, rounded up.
func RetryAfter(wait time.Duration) Retry { return Retry{kind: after, wait: wait} }

// failureOf makes a failure of any error.
func failureOf(err error) *Failure {
	failure := &Failure{Reason: err.Error()}
	if said, is := errors.AsType[*Failure](err); is {
		failure.UserText, failure.Retry = said.UserText, said.Retry
	}
	if call, is := errors.AsType[*Error](err); is && failure.Retry.kind == unsaid {
		failure.Retry = call.Retry()
	}
	return failure
}

func (f *Failure) wit() events.Failure {
	retry := events.MakeRetryNo()
	switch f.Retry.kind {
	case anytime:
		retry = events.MakeRetryYes()
	case after:
		retry = events.MakeRetryAfter(seconds(f.Retry.wait))
	}
	return events.Failure{Reason: f.Reason, UserText: optional(f.UserText), Retry: retry}
}

// seconds rounds up, so that nothing is tried earlier than asked; more than fits is as long as fits (136 years).
func seconds(wait time.Duration) uint32 {
	wait = max(wait, 0)
	whole := wait / time.Second
	if wait%time.Second > 0 {
		whole++
	}
	return uint32(min(int64(whole), math.MaxUint32))
}

// optional is none for what was left out.
func optional[T comparable](value T) types.Option[T] {
	var zero T
	if value == zero {
		return types.None[T]()
	}
	return types.Some(value)
}

// pointed is none for nil.
func pointed[T any](value *T) types.Option[T] {
	if value == nil {
		return types.None[T]()
	}
	return types.Some(*value)
}
