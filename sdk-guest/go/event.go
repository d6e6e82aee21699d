package modhost

import (
	"encoding/json"
	"fmt"
	"time"

	events "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_events"
)

// Event is an event on a platform, verified by the host.
type Event struct {
	// ID is the platform's id of the event.
	ID string
	// Source is the name of the source that received the event, as in modules.toml.
	Source string
	// Name is the event's name on the platform.
	Name string
	// CreatedAt is when the event happened, as the platform reports it; the zero time if it doesn't.
	CreatedAt time.Time
	// Attempt is the attempt number of this delivery, from 1.
	Attempt int
	// Subject is the event as the host parsed it: a [ModuleChosen], a [UserMessageCreated], or nil for any other event: read Name and
	// Payload.
	Subject any
	// Payload is the platform's complete JSON, whatever Subject is.
	Payload json.RawMessage
}

// ModuleChosen is the event that a user's message chose the module to answer it.
type ModuleChosen struct {
	// Event is the event that has this subject, without the subject.
	Event Event
	// Name is the module's name on the platform.
	Name string
	// Description is the description the module's owner wrote on the platform.
	Description string
	// Configuration is the module's settings in this assistant, a JSON object. [Config] reads them key by key.
	Configuration json.RawMessage
	// ChatID is the chat, for information only: the host acts on no other chat.
	ChatID string
	// AssistantID is the assistant (space) the chat belongs to.
	AssistantID string
	// UserMessage is the message to answer.
	UserMessage UserMessage
	// AssistantMessageID is the empty message shown below the user's message; [Reply] fills it.
	AssistantMessageID string
}

// UserMessage is a message from a user who chose the module.
type UserMessage struct {
	// ID is the platform's id of the message.
	ID string
	// Text is the text to answer.
	Text string
	// OriginalText is the text as the user wrote it, if the platform changed it; otherwise it is empty.
	OriginalText string
	// Language is the language the platform detected in the text, as a BCP 47 tag; empty if it doesn't report one.
	Language string
	// CreatedAt is when the message was written, in the platform's time format (RFC 3339).
	CreatedAt string
}

// UserMessageCreated is the event that a user wrote a message.
type UserMessageCreated struct {
	// Event is the event that has this subject, without the subject.
	Event Event
	// ChatID is the chat it was written in.
	ChatID string
	// AssistantID is the assistant (space) the chat belongs to.
	AssistantID string
	// Text is the text the user wrote.
	Text string
}

// Read unmarshals the payload into the value that value points to, like [json.Unmarshal]. If the payload doesn't fit, it returns an
// error that names the event. If the module returns that error, the delivery fails without a retry.
//
//	var invoice struct{ Number string }
//	if err := event.Read(&invoice); err != nil {
//		return err
//	}
func (e Event) Read(value any) error {
	if err := json.Unmarshal(e.Payload, value); err != nil {
		return fmt.Errorf("cannot parse the payload of event `%s` (%s): %w", e.Name, e.ID, err)
	}
	return nil
}

// Lacks returns the error for a payload that lacks a required field.
func (e Event) Lacks(field string) error {
	return fmt.Errorf("cannot parse the payload of event `%s` (%s): missing field `%s`", e.Name, e.ID, field)
}

// Unexpected returns the error for an event that the module can't handle: an event of another kind, or an event of the expected kind
// whose payload the host couldn't parse.
func (e Event) Unexpected(expected string) error {
	if e.Name == expected {
		return fmt.Errorf("the host couldn't parse the payload of event `%s` (%s); its log names the field. "+
			"A module that uses modhost.Handle can read the payload itself", e.Name, e.ID)
	}
	return fmt.Errorf("this module doesn't handle event `%s` (%s); it handles `%s`. List only that event under "+
		"`events` of the module in modules.toml, or use modhost.Handle", e.Name, e.ID, expected)
}

func eventOf(wit events.Event) Event {
	event := Event{
		ID:      wit.Id,
		Source:  wit.Source,
		Name:    wit.Name,
		Attempt: int(wit.Attempt),
		Payload: json.RawMessage(wit.Payload),
	}
	if wit.CreatedAt.IsSome() {
		event.CreatedAt = time.Unix(int64(wit.CreatedAt.Some()), 0).UTC()
	}
	event.Subject = subjectOf(event, wit.Subject)
	return event
}

func subjectOf(event Event, wit events.Subject) any {
	switch wit.Tag() {
	case events.SubjectModuleChosen:
		chosen := wit.ModuleChosen()
		return ModuleChosen{
			Event:         event,
			Name:          chosen.Name,
			Description:   chosen.Description,
			Configuration: json.RawMessage(chosen.Configuration),
			ChatID:        chosen.ChatId,
			AssistantID:   chosen.AssistantId,
			UserMessage: UserMessage{
				ID:           chosen.UserMessage.Id,
				Text:         chosen.UserMessage.Text,
				OriginalText: chosen.UserMessage.OriginalText.SomeOr(""),
				Language:     chosen.UserMessage.Language.SomeOr(""),
				CreatedAt:    chosen.UserMessage.CreatedAt,
			},
			AssistantMessageID: chosen.AssistantMessageId,
		}
	case events.SubjectUserMessageCreated:
		created := wit.UserMessageCreated()
		return UserMessageCreated{
			Event:       event,
			ChatID:      created.ChatId,
			AssistantID: created.AssistantId,
			Text:        created.Text,
		}
	default:
		return nil
	}
}
