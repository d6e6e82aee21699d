// Package export_wit_world is what the generated bindings call for each event: they name it, and it names the SDK's
// function, which can't be imported from here.
package export_wit_world

import (
	events "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_events"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// Answer is the SDK's function; it sets it before any event comes.
var Answer func(events.Event) types.Result[types.Unit, events.Failure]

// Handle is called for each event.
func Handle(event events.Event) types.Result[types.Unit, events.Failure] {
	if Answer == nil {
		reason := "the module names no function that answers events: call modhost.Answer or modhost.Handle in an init function"
		failure := events.Failure{Reason: reason, UserText: types.None[string](), Retry: events.MakeRetryNo()}
		return types.Err[types.Unit](failure)
	}
	return Answer(event)
}
