package modhost

import (
	messages "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_messages"
	wit "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_types"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// Role is the author of a message.
type Role uint8

// The roles.
const (
	// RoleSystem is for instructions that aren't part of the chat.
	RoleSystem Role = Role(wit.RoleSystem)
	// RoleUser is a person.
	RoleUser Role = Role(wit.RoleUser)
	// RoleAssistant is a module or a language model.
	RoleAssistant Role = Role(wit.RoleAssistant)
)

// String returns the role's name: system, user or assistant.
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
	// ID is the platform's id of the message; empty if the platform doesn't report it.
	ID string
	// Role is the author.
	Role Role
	// Text is the text; empty for a reply that isn't filled yet.
	Text string
	// References are the sources it cites.
	References []Reference
	// CreatedAt is when the message was written, in the platform's time format (RFC 3339); empty if it isn't reported.
	CreatedAt string
}

// Draft is a message to be written. [Reply], [Create] and [Modify] create a draft; Complete or Save sends it. Fields that aren't set
// leave an existing message unchanged.
type Draft struct {
	write      func(messages.Change) (Message, error)
	text       string
	references []Reference
	// The sources that the text may cite; nil if its citations aren't parsed.
	sources []Reference
	debug   any
}

// Reply writes the event's reply: the assistant message that the platform created for it. Only an event that chose the module has a
// reply.
func Reply(text string) *Draft {
	return &Draft{text: text, write: func(change messages.Change) (Message, error) {
		return sent("messages.reply", messages.Reply(change))
	}}
}

// Create creates an assistant message in the chat, in addition to the reply.
func Create(text string) *Draft {
	return &Draft{text: text, write: func(change messages.Change) (Message, error) {
		return sent("messages.create", messages.Create(change))
	}}
}

// Modify changes an assistant message in the chat, by its id, for example one that [Create] created. An empty text leaves the text
// unchanged.
func Modify(id, text string) *Draft {
	return &Draft{text: text, write: func(change messages.Change) (Message, error) {
		return sent("messages.modify", messages.Modify(id, change))
	}}
}

// Show shows a text in place of the reply while the module works on the answer. Nothing is stored: the text is gone after the user
// reloads the page.
func Show(text string) error { return unwrapUnit("messages.show", messages.Show(text)) }

// History returns the newest messages of the chat, oldest first: at most limit, or all for 0. They include the message being answered
// and the empty reply.
func History(limit int) ([]Message, error) {
	history, err := unwrap("messages.history", messages.History(optional(uint32(limit))))
	return mapSlice(history, messageOf), err
}

// References adds references. <sup>1</sup> in the text refers to the one with the number 1.
func (d *Draft) References(references ...Reference) *Draft {
	d.references = append(d.references, references...)
	return d
}

// Citing sets the hits that the text cites: [source0] in the text becomes a footnote that refers to the first hit, [source1] to the
// second, and so on. If the text cites no hit, the message references all of them. Citations of hits that don't exist are removed.
func (d *Draft) Citing(hits []Hit) *Draft {
	d.sources = ReferencesTo(hits)
	return d
}

// Debug sets debugging information, an object that the platform stores with the message.
func (d *Draft) Debug(info any) *Draft {
	d.debug = info
	return d
}

// Complete writes the message as the final text. Clients that wait for the answer receive it.
func (d *Draft) Complete() error {
	_, err := d.send(true)
	return err
}

// Save writes the message as an interim text.
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

func sent(call string, result types.Result[messages.Message, wit.Error]) (Message, error) {
	message, err := unwrap(call, result)
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
		References: mapSlice(message.References, referenceOf),
		CreatedAt:  message.CreatedAt.SomeOr(""),
	}
}
