package modhost

import (
	"iter"
	"time"

	completion "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_completion"
	search "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_search"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// Completion is a request to a language model. All fields except Messages are optional.
//
//	answer, err := modhost.Complete(modhost.Completion{
//		Messages:    []modhost.Prompt{modhost.System("Answer briefly."), modhost.User(question)},
//		Temperature: new(float32(0.3)),
//	})
type Completion struct {
	// Model is the model, by its name on the platform. Default: the default the operator set for the tenant's platform.
	Model string
	// Messages are the conversation, oldest first.
	Messages []Prompt
	// Temperature is the sampling temperature, from 0 to 2.
	Temperature *float32
	// MaxTokens is the maximum length of the answer, in the model's tokens.
	MaxTokens int
	// Options are more options, passed to the model unchanged (top_p, tools, …), an object.
	Options any
	// Timeout is the timeout, in whole milliseconds. Default: the delivery's own time limit.
	Timeout time.Duration
}

// Prompt is a message to the model.
type Prompt struct {
	// Role is the author.
	Role Role
	// Content is the text.
	Content string
}

// System returns a system message: instructions to the model.
func System(content string) Prompt { return Prompt{Role: RoleSystem, Content: content} }

// User returns a user message.
func User(content string) Prompt { return Prompt{Role: RoleUser, Content: content} }

// Assistant returns a message that the model wrote before.
func Assistant(content string) Prompt { return Prompt{Role: RoleAssistant, Content: content} }

// Completed is the model's answer.
type Completed struct {
	// Text is the text of the answer.
	Text string
	// FinishReason is why the model stopped, in its own terms: stop, length, …
	FinishReason string
	// PromptTokens and CompletionTokens are the tokens read and written; 0 if the platform doesn't report them.
	PromptTokens, CompletionTokens int
}

// Complete calls a language model and waits for the whole answer.
func Complete(ask Completion) (Completed, error) {
	request, err := ask.wit()
	if err != nil {
		return Completed{}, err
	}
	return completed("completion.complete", completion.Complete(request))
}

// CompleteIntoReply streams the model's answer into the event's reply, then completes the reply. [source0] in the model's text becomes
// a footnote that refers to the first hit, [source1] to the second, and so on.
func CompleteIntoReply(ask Completion, hits []Hit) (Completed, error) {
	request, err := ask.wit()
	if err != nil {
		return Completed{}, err
	}
	sources := mapSlice(hits, func(hit Hit) search.Hit { return hit.wit })
	return completed("completion.complete-into-reply", completion.CompleteIntoReply(request, sources))
}

// Stream calls a language model and iterates over the chunks of its answer. The platform chooses the chunk size. If the loop ends
// early, the rest of the answer is canceled.
//
//	for piece, err := range modhost.Stream(ask) {
//		if err != nil {
//			return err
//		}
//		text += piece
//	}
func Stream(ask Completion) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		request, err := ask.wit()
		if err != nil {
			yield("", err)
			return
		}
		tokens, err := unwrap("completion.stream", completion.Stream(request))
		if err != nil {
			yield("", err)
			return
		}
		defer tokens.Drop()
		for {
			piece, err := unwrap("completion.tokens.next", tokens.Next())
			if err != nil {
				yield("", err)
				return
			}
			if piece.IsNone() || !yield(piece.Some(), nil) {
				return
			}
		}
	}
}

func (c Completion) wit() (completion.Request, error) {
	request := completion.Request{
		Model: optional(c.Model),
		Messages: mapSlice(c.Messages, func(prompt Prompt) completion.Message {
			return completion.Message{Role: uint8(prompt.Role), Content: prompt.Content}
		}),
		Temperature: optionalPointer(c.Temperature),
		MaxTokens:   optional(uint32(c.MaxTokens)),
		Options:     types.None[string](),
		TimeoutMs:   optional(uint32(c.Timeout.Milliseconds())),
	}
	if c.Options != nil {
		options, err := toJSON("options", c.Options)
		if err != nil {
			return request, err
		}
		request.Options = types.Some(options)
	}
	return request, nil
}

func completed(call string, result types.Result[completion.Answer, completion.Error]) (Completed, error) {
	answer, err := unwrap(call, result)
	if err != nil {
		return Completed{}, err
	}
	usage := answer.Usage.SomeOr(completion.Usage{})
	return Completed{
		Text:             answer.Text,
		FinishReason:     answer.FinishReason.SomeOr(""),
		PromptTokens:     int(usage.PromptTokens),
		CompletionTokens: int(usage.CompletionTokens),
	}, nil
}
