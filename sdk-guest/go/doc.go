// Package modhost is the Go SDK for modhost modules. A module is a function that handles an event.
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
// [Answer] registers a function for events that chose the module, [Handle] one for events of every kind. The subpackages nexus and
// archivus contain the events of those systems. [StartStep] shows progress to the user, [Search] searches the knowledge base,
// [Complete] calls a language model, and [Reply] writes the answer. Package httpclient sends HTTP requests to hosts that the operator
// allows. [OpenStore] keeps values between events, [Config] reads the module's settings, and [log/slog] writes to the operators' log.
//
// A failed call returns an [*Error]. If the function returns it, directly or wrapped, it becomes the reason of the failed delivery and
// decides whether the host retries. A [*Failure] can also set a text for the user. A panic fails the delivery, too, with its stack in
// the reason.
//
// A module never says for whom it acts: every call acts on the event that is being handled.
package modhost
