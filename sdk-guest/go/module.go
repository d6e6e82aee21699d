package modhost

import (
	"fmt"
	"runtime/debug"

	"github.com/modhost/modhost/sdk-guest/go/internal/bindings/export_wit_world"
	events "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_events"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
	// What the host calls.
	_ "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit_exports"
)

// Handle makes a function the module: it answers every event that modules.toml lets through to it. Call it once, in
// an init function.
func Handle(handle func(Event) error) {
	if export_wit_world.Answer != nil {
		panic("modhost: Answer or Handle was called before; a module has one function that answers events")
	}
	export_wit_world.Answer = func(event events.Event) types.Result[types.Unit, events.Failure] {
		if err := guarded(handle, eventOf(event)); err != nil {
			return types.Err[types.Unit](failureOf(err).wit())
		}
		return types.Ok[types.Unit, events.Failure](types.Unit{})
	}
}

// Answer makes a function the module: it answers the events that chose the module. Any other event that modules.toml
// lets through fails, with the setting to change in its reason. Call it once, in an init function.
func Answer(answer func(ModuleChosen) error) {
	Handle(func(event Event) error {
		if chosen, is := event.Subject.(ModuleChosen); is {
			return answer(chosen)
		}
		return event.Unexpected("unique.chat.external-module.chosen")
	})
}

// guarded turns a panic into an error: the operators read where it happened, where a trap would tell them nothing.
// What the function left open, it closes if that answered the event.
func guarded(handle func(Event) error, event Event) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n\n%s", cause, debug.Stack())
		}
	}()
	if err := handle(event); err != nil {
		return err
	}
	return closeLeft()
}
