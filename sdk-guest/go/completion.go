package modhost

import (
	"iter"
	"time"

	completion "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_completion"
	search "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_search"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// Completion is what a language model is asked. Everything but the messages may be left out.
//
//	answer, err := modhost.Complete(modhost.Completion{
//		Messages:    []modhost.Prompt{modhost.System("Answer briefly."), modhost.User(question)},
//		Temperature: new(float32(0.3)),
//	})
type Completion struct {
	// Model is the platform's name of the model; without it, the default the operator gave the tenant's platform.
	Model string
	// Messages are the conversation, oldest first.
	Messages []Prompt
	// Temperature is how freely it words its answer: 0 not at all, 2 at most.
	Temperature *float32
	// MaxTokens is how long the answer may be, in the model's tokens.
	MaxTokens int
	// Options are further options the platform hands to the model as they are (top_p, tools, …), an object.
	Options any
	// Timeout is how long to wait, in whole milliseconds; without it, as long as the delivery may take.
	Timeout time.Duration
}

// Prompt is a message to the model.
type Prompt struct {
	// Role says who says it.
	Role Role
	// Content is what is said.
	Content string
}

// System is a message that instructs the model.
func System(content string) Prompt { return Prompt{Role: RoleSystem, Content: content} }

// User is a message of the user's.
func User(content string) Prompt { return Prompt{Role: RoleUser, Content: content} }

// Assistant is a message the model wrote before.
func Assistant(content string) Prompt { return Prompt{Role: RoleAssistant, Content: content} }

// Completed is what the model answered.
type Completed struct {
	// Text is the answer.
	Text string
	// FinishReason is why it stopped, in the model's words: stop, length, …
	FinishReason string
	// PromptTokens and CompletionTokens are what it cost, read and written; 0 where the platform doesn't tell.
	PromptTokens, CompletionTokens int
}

// Complete asks a language model.
func Complete(ask Completion) (Completed, error) {
	request, err := ask.wit()
	if err != nil {
		return Completed{}, err
	}
	return completed("completion.complete", completion.Complete(request))
}

// CompleteIntoReply streams the model's answer into the event's reply while it is being made, and completes the reply.
// [source0] in the model's text becomes a footnote that refers to the first of the hits, and so on.
func CompleteIntoReply(ask Completion, hits []Hit) (Completed, error) {
	request, err := ask.wit()
	if err != nil {
		return Completed{}, err
	}
	sources := mapped(hits, func(hit Hit) search.Hit { return hit.wit })
	return completed("completion.complete-into-reply", completion.CompleteIntoReply(request, sources))
}

// Stream asks a language model and gives its answer piece by piece, as large as the platform makes them. To leave the
// loop before its end gives the rest up.
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
		tokens, err := answered("completion.stream", completion.Stream(request))
		if err != nil {
			yield("", err)
			return
		}
		defer tokens.Drop()
		for {
			piece, err := answered("completion.tokens.next", tokens.Next())
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
		Messages: mapped(c.Messages, func(prompt Prompt) completion.Message {
			return completion.Message{Role: uint8(prompt.Role), Content: prompt.Content}
		}),
		Temperature: pointed(c.Temperature),
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
	answer, err := answered(call, result)
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
