// Package modhost is for writing modhost modules in Go: ordinary functions that take an event and answer it.
//
//	package main
//
//	import "github.com/modhost/modhost/sdk-guest/go"
//
//	func init() { modhost.Answer(answer) }
//
//	func main() {}
//
//	func answer(event modhost.ModuleChosen) error {
//		question := event.UserMessage.Text
//
//		step, err := modhost.StartStep("Searching knowledge base…")
//		if err != nil {
//			return err
//		}
//		defer step.Close()
//		hits, err := modhost.Search(modhost.Query{Text: question, Limit: 3})
//		if err != nil {
//			return err
//		}
//		if err := step.Done(fmt.Sprintf("Found %d", len(hits))); err != nil {
//			return err
//		}
//		return modhost.Reply("This is what I found.").Citing(hits).Complete()
//	}
//
// [Answer] names the function for events that chose the module, [Handle] one for events of every kind; the packages
// nexus and archivus, below this one, have the events of those systems. [StartStep] shows the user what is being done,
// [Search] asks the knowledge base, [Complete] a language model, and [Reply] writes the answer. Package httpclient
// sends HTTP requests where the operator allows it. [OpenStore] keeps values from one event to the next, [Config] reads
// the module's settings, and [log/slog] writes to the operators' log.
//
// A call that fails gives an [*Error]. Returned from the function as it is, or wrapped, it becomes the reason of the
// failed delivery, and says whether another try is worth it; a [*Failure] says more, a text for the user say. A panic
// fails the delivery, too, with its stack in the reason.
//
// Who is acted for is not a module's to say: every call acts on the event that is being answered.
package modhost
