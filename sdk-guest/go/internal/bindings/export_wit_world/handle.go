// Package export_wit_world contains the function that the generated bindings call for each event. It calls the SDK through a variable,
// because it can't import the SDK.
package export_wit_world

import (
	events "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_events"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// Answer is the SDK's function. The SDK sets it before the first event.
var Answer func(events.Event) types.Result[types.Unit, events.Failure]

// Handle handles an event.
func Handle(event events.Event) types.Result[types.Unit, events.Failure] {
	if Answer == nil {
		reason := "the module has no event handler; call modhost.Answer or modhost.Handle in an init function"
		failure := events.Failure{Reason: reason, UserText: types.None[string](), Retry: events.MakeRetryNo()}
		return types.Err[types.Unit](failure)
	}
	return Answer(event)
}
