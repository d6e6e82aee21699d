package modhost

import (
	messages "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_messages"
	wit "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_types"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// Role says who wrote a message.
type Role uint8

// Who writes messages.
const (
	// RoleSystem has instructions nobody wrote in the chat.
	RoleSystem Role = Role(wit.RoleSystem)
	// RoleUser is a person.
	RoleUser Role = Role(wit.RoleUser)
	// RoleAssistant is a module or a language model.
	RoleAssistant Role = Role(wit.RoleAssistant)
)

// String is the role's name: system, user or assistant.
func (r Role) String() string {
	switch r {
	case RoleSystem:
		return "system"
	case RoleUser:
		return "user"
	default:
		return "assistant"
	}
}

// Message is a message of the chat.
type Message struct {
	// ID is the platform's id; empty where it doesn't tell.
	ID string
	// Role says who wrote it.
	Role Role
	// Text is what it says; empty for a reply nobody filled yet.
	Text string
	// References are the sources it names.
	References []Reference
	// CreatedAt is when it was written, as the platform writes times (RFC 3339); empty where it doesn't tell.
	CreatedAt string
}

// Draft is a message that is being written: [Reply], [Create] and [Modify] begin one, Complete or Save sends it. What
// isn't said about a message that exists stays as it is.
type Draft struct {
	write      func(messages.Change) (Message, error)
	text       string
	references []Reference
	// The references the text may cite, if it cites.
	sources []Reference
	debug   any
}

// Reply writes the event's reply: the assistant message the platform made for it. Only an event that chose the module
// has one.
func Reply(text string) *Draft {
	return &Draft{text: text, write: func(change messages.Change) (Message, error) {
		return written("messages.reply", messages.Reply(change))
	}}
}

// Create writes a new assistant message into the chat, besides the reply.
func Create(text string) *Draft {
	return &Draft{text: text, write: func(change messages.Change) (Message, error) {
		return written("messages.create", messages.Create(change))
	}}
}

// Modify changes an assistant message of the chat, by its id: say one that [Create] made. An empty text leaves the text
// as it is.
func Modify(id, text string) *Draft {
	return &Draft{text: text, write: func(change messages.Change) (Message, error) {
		return written("messages.modify", messages.Modify(id, change))
	}}
}

// Show shows a text in the reply's place while the answer is being made. Nothing is stored: a reload of the page has it
// gone.
func Show(text string) error { return done("messages.show", messages.Show(text)) }

// History gives the chat's messages, oldest first: the newest that many, or all for 0. The message that is being answered
// and the empty reply are among them.
func History(limit int) ([]Message, error) {
	history, err := answered("messages.history", messages.History(optional(uint32(limit))))
	return mapped(history, messageOf), err
}

// References names sources. <sup>1</sup> in the text points to the one with the number 1.
func (d *Draft) References(references ...Reference) *Draft {
	d.references = append(d.references, references...)
	return d
}

// Citing names the hits that the text cites: [source0] in it becomes a footnote that refers to the first of them, and so
// on. All of them are named where the text cites none; what it cites beyond them is taken out.
func (d *Draft) Citing(hits []Hit) *Draft {
	d.sources = ReferencesTo(hits)
	return d
}

// Debug is for people who look for mistakes: an object the platform keeps with the message.
func (d *Draft) Debug(info any) *Draft {
	d.debug = info
	return d
}

// Complete writes it as the final text: whoever waits for the answer has it.
func (d *Draft) Complete() error {
	_, err := d.send(true)
	return err
}

// Save writes it for now: more is to come.
func (d *Draft) Save() (Message, error) { return d.send(false) }

func (d *Draft) send(completed bool) (Message, error) {
	text, references := d.text, d.references
	if d.sources != nil {
		var cited []Reference
		text, cited = cite(text, d.sources)
		references = append(references, cited...)
	}
	change := messages.Change{
		Text:       optional(text),
		References: witReferences(references),
		DebugInfo:  types.None[string](),
		Completed:  completed,
	}
	if d.debug != nil {
		info, err := toJSON("debug info", d.debug)
		if err != nil {
			return Message{}, err
		}
		change.DebugInfo = types.Some(info)
	}
	return d.write(change)
}

func written(call string, result types.Result[messages.Message, wit.Error]) (Message, error) {
	message, err := answered(call, result)
	if err != nil {
		return Message{}, err
	}
	return messageOf(message), nil
}

func messageOf(message messages.Message) Message {
	return Message{
		ID:         message.Id,
		Role:       Role(message.Role),
		Text:       message.Text.SomeOr(""),
		References: mapped(message.References, referenceOf),
		CreatedAt:  message.CreatedAt.SomeOr(""),
	}
}
