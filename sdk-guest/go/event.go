package modhost

import (
	"encoding/json"
	"fmt"
	"time"

	events "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_events"
)

// Event is something that happened on a platform, verified by the host.
type Event struct {
	// ID is the platform's id of the event.
	ID string
	// Source is the name of the source it came through, as in modules.toml.
	Source string
	// Name says what happened, in the platform's words.
	Name string
	// CreatedAt is when the platform says it happened; the zero time where it doesn't say.
	CreatedAt time.Time
	// Attempt is which attempt at this delivery this is, from 1.
	Attempt int
	// Subject is what the host understood of it: a [ModuleChosen], a [UserMessageCreated], or nil for anything else,
	// for which Name and Payload tell.
	Subject any
	// Payload is the platform's own JSON, whole, whatever Subject is.
	Payload json.RawMessage
}

// ModuleChosen says that a user's message chose the module to answer it.
type ModuleChosen struct {
	// Event is the event this is the subject of, but for the subject.
	Event Event
	// Name is the module's name on the platform.
	Name string
	// Description is what the module's owner wrote about it there.
	Description string
	// Configuration is the module's settings in this assistant, a JSON object. [Config] reads them key by key.
	Configuration json.RawMessage
	// ChatID is the chat, for information: the host acts on no other.
	ChatID string
	// AssistantID is the assistant (space) the chat belongs to.
	AssistantID string
	// UserMessage is the message to answer.
	UserMessage UserMessage
	// AssistantMessageID is the empty message shown under it, which [Reply] fills.
	AssistantMessageID string
}

// UserMessage is the message of a user that chose the module.
type UserMessage struct {
	// ID is the platform's id of the message.
	ID string
	// Text is the text to answer.
	Text string
	// OriginalText is what the user wrote, where the platform changed it; else it is empty.
	OriginalText string
	// Language is what the platform believes the text to be in, as a BCP 47 tag; empty where it doesn't say.
	Language string
	// CreatedAt is when it was written, as the platform writes times (RFC 3339).
	CreatedAt string
}

// UserMessageCreated says that a user wrote a message.
type UserMessageCreated struct {
	// Event is the event this is the subject of, but for the subject.
	Event Event
	// ChatID is the chat it was written in.
	ChatID string
	// AssistantID is the assistant (space) the chat belongs to.
	AssistantID string
	// Text is what the user wrote.
	Text string
}

// Read reads the payload into what value points to, as [json.Unmarshal] does. What doesn't fit is an error that names the
// event; returned, it fails the delivery for good.
//
//	var invoice struct{ Number string }
//	if err := event.Read(&invoice); err != nil {
//		return err
//	}
func (e Event) Read(value any) error {
	if err := json.Unmarshal(e.Payload, value); err != nil {
		return fmt.Errorf("the payload of the event `%s` (%s) has an unknown shape: %w", e.Name, e.ID, err)
	}
	return nil
}

// Lacks is the error for a payload without a field that the module can't do without.
func (e Event) Lacks(field string) error {
	return fmt.Errorf("the payload of the event `%s` (%s) has an unknown shape: missing field `%s`", e.Name, e.ID, field)
}

// Unexpected is the error for an event of a kind the module doesn't take, or of its kind that the host didn't understand;
// takes names the kind that it does.
func (e Event) Unexpected(takes string) error {
	if e.Name == takes {
		return fmt.Errorf("the event `%s` (%s) is of the kind this module takes, but its payload has an unknown shape: the "+
			"host's log says which field. A module that is made with modhost.Handle can read it from the payload", e.Name, e.ID)
	}
	return fmt.Errorf("the event `%s` (%s) is of a kind this module doesn't take: it takes `%s`. Name only that under "+
		"`events` of the module in modules.toml, or take it with modhost.Handle", e.Name, e.ID, takes)
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
