package modhost

import (
	"fmt"
	"runtime/debug"

	"github.com/modhost/modhost/sdk-guest/go/internal/bindings/export_wit_world"
	events "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_events"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
	// The component's exports.
	_ "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit_exports"
)

// Handle registers the module's event handler. It receives every event that modules.toml routes to the module. Call it once, in an init
// function.
func Handle(handle func(Event) error) {
	if export_wit_world.Answer != nil {
		panic("modhost: Answer or Handle was called twice; a module has one event handler")
	}
	export_wit_world.Answer = func(event events.Event) types.Result[types.Unit, events.Failure] {
		if err := call(handle, eventOf(event)); err != nil {
			return types.Err[types.Unit](failureOf(err).wit())
		}
		return types.Ok[types.Unit, events.Failure](types.Unit{})
	}
}

// Answer registers the module's handler for events that chose the module. Any other event that modules.toml routes to the module fails,
// with the setting to change in its reason. Call it once, in an init function.
func Answer(answer func(ModuleChosen) error) {
	Handle(func(event Event) error {
		if chosen, ok := event.Subject.(ModuleChosen); ok {
			return answer(chosen)
		}
		return event.Unexpected("unique.chat.external-module.chosen")
	})
}

// call calls the handler and converts a panic to an error with its stack, because a trap would have no location. If the handler
// succeeds, call closes the steps that it left open.
func call(handle func(Event) error, event Event) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n\n%s", cause, debug.Stack())
		}
	}()
	if err := handle(event); err != nil {
		return err
	}
	return closeAbandoned()
}
