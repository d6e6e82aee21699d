// Package nexus contains the NexusGPT events, as the NexusGPT webhook documentation describes them.
//
//	func init() { nexus.Handle(answer) }
//
//	func answer(message nexus.MessageFinalized) error {
//		// Messages from virtual employees arrive as events, too.
//		if message.Sender != nexus.SenderUser || message.Status != nexus.StatusProcessed {
//			return nil
//		}
//		return modhost.Create("You said: " + message.Content).Complete()
//	}
//
// On NexusGPT, a module can only write text messages to the event's thread, with [modhost.Create]. Every other platform call returns
// [modhost.ErrUnsupported].
package nexus

import (
	"bytes"
	"encoding/json"

	modhost "github.com/modhost/modhost/sdk-guest/go"
)

// MessageLimit is the maximum length of a message to a thread, in UTF-16 code units, as JavaScript counts them. The host doesn't send
// longer messages.
const MessageLimit = 4000

// messageFinalized is the name of the event.
const messageFinalized = "MESSAGE_FINALIZED"

// Sender is the kind of sender of a message, in the platform's terms: one of those below, or another that the platform may add.
type Sender string

// The kinds of senders.
const (
	// SenderUser is a person.
	SenderUser Sender = "USER"
	// SenderVirtualEmployee is a virtual employee, or a module that writes for it.
	SenderVirtualEmployee Sender = "VIRTUAL_EMPLOYEE"
)

// Status says whether a message is complete, in the platform's terms: one of those below, or another that the platform may add.
type Status string

// The statuses.
const (
	// StatusProcessed is a complete message.
	StatusProcessed Status = "PROCESSED"
	// StatusInProgress is a message that is still being written.
	StatusInProgress Status = "IN_PROGRESS"
)

// MessageFinalized is the event that a message in a thread is finalized, from a person or a virtual employee.
type MessageFinalized struct {
	// Event is the original event. Its Payload contains fields that this type doesn't have.
	Event modhost.Event
	// ID is the message's id. A message that is changed later arrives again as another event.
	ID string
	// ChatID is the thread, for information only: the host writes to no other thread.
	ChatID string
	// Sender is the kind of sender.
	Sender Sender
	// UserSenderID is the id of the person who wrote the message; empty if no person wrote it.
	UserSenderID string
	// VirtualSenderID is the id of the virtual employee that wrote the message or received it.
	VirtualSenderID string
	// Content is the text; empty if the message has none.
	Content string
	// Kind is the platform's type of the message.
	Kind string
	// Status says whether the message is complete.
	Status Status
	// CreatedAt is when the message was written, in the platform's time format (RFC 3339).
	CreatedAt string
	// UpdatedAt is when the message was last changed.
	UpdatedAt string
	// Files are the attached files, each in the platform's own shape.
	Files []json.RawMessage
	// ExecutionPlan is the plan of a virtual employee, in the platform's own shape, or nil.
	ExecutionPlan json.RawMessage
}

// Handle registers the module's handler for MESSAGE_FINALIZED. Any other event that modules.toml routes to the module fails, with the
// setting to change in its reason. Call it once, in an init function, instead of [modhost.Answer].
func Handle(handle func(MessageFinalized) error) {
	modhost.Handle(func(event modhost.Event) error {
		message, err := Read(event)
		if err != nil {
			return err
		}
		return handle(message)
	})
}

// Read parses an event, for a module that also handles other events. It returns an error if the event is of another kind, or if its
// payload doesn't have the expected shape.
func Read(event modhost.Event) (MessageFinalized, error) {
	if event.Name != messageFinalized {
		return MessageFinalized{}, event.Unexpected(messageFinalized)
	}
	// Pointers are required fields.
	var payload struct {
		ID              *string             `json:"id"`
		ChatID          *string             `json:"chatId"`
		SenderType      *Sender             `json:"senderType"`
		UserSenderID    string              `json:"userSenderId"`
		VirtualSenderID string              `json:"virtualSenderId"`
		VirtualSender   struct{ ID string } `json:"virtualSender"`
		Content         string              `json:"content"`
		ContentJSON     json.RawMessage     `json:"contentJson"`
		Type            string              `json:"type"`
		Status          *Status             `json:"status"`
		CreatedAt       string              `json:"createdAt"`
		UpdatedAt       string              `json:"updatedAt"`
		Files           []json.RawMessage   `json:"files"`
		ExecutionPlan   json.RawMessage     `json:"executionPlan"`
	}
	if err := event.Read(&payload); err != nil {
		return MessageFinalized{}, err
	}
	for _, field := range []struct {
		name    string
		missing bool
	}{
		{"id", payload.ID == nil},
		{"chatId", payload.ChatID == nil},
		{"senderType", payload.SenderType == nil},
		{"status", payload.Status == nil},
	} {
		if field.missing {
			return MessageFinalized{}, event.Lacks(field.name)
		}
	}
	message := MessageFinalized{
		Event:           event,
		ID:              *payload.ID,
		ChatID:          *payload.ChatID,
		Sender:          *payload.SenderType,
		UserSenderID:    payload.UserSenderID,
		VirtualSenderID: payload.VirtualSender.ID,
		Content:         payload.Content,
		Kind:            payload.Type,
		Status:          *payload.Status,
		CreatedAt:       payload.CreatedAt,
		UpdatedAt:       payload.UpdatedAt,
		Files:           payload.Files,
	}
	if message.VirtualSenderID == "" {
		message.VirtualSenderID = payload.VirtualSenderID
	}
	if message.Content == "" {
		message.Content = contentOf(payload.ContentJSON)
	}
	if !bytes.Equal(payload.ExecutionPlan, []byte("null")) {
		message.ExecutionPlan = payload.ExecutionPlan
	}
	return message, nil
}

// contentOf returns the text in the message's JSON content, which may be the only place that has it.
func contentOf(text json.RawMessage) string {
	var content struct{ Content string }
	// JSON of any other shape has no text.
	if json.Unmarshal(text, &content) != nil {
		return ""
	}
	return content.Content
}
