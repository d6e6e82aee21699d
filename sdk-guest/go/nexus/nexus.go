// Package nexus has the events of NexusGPT, as its documentation of webhooks describes them.
//
//	func init() { nexus.Handle(answer) }
//
//	func answer(message nexus.MessageFinalized) error {
//		// What virtual employees write comes back as an event too.
//		if message.Sender != nexus.SenderUser || message.Status != nexus.StatusProcessed {
//			return nil
//		}
//		return modhost.Create("You said: " + message.Content).Complete()
//	}
//
// All a module can do on NexusGPT is to write messages into the event's thread, of text, with [modhost.Create]; every other
// call is [modhost.ErrUnsupported].
package nexus

import (
	"bytes"
	"encoding/json"

	modhost "github.com/modhost/modhost/sdk-guest/go"
)

// MessageLimit is the most characters a message into a thread may have, counted as JavaScript counts them: in UTF-16 code
// units. The host sends no longer one.
const MessageLimit = 4000

// messageFinalized is the name of the event.
const messageFinalized = "MESSAGE_FINALIZED"

// Sender is the kind of who wrote a message, in the platform's word: one of those below, or another it may add.
type Sender string

// Who writes messages.
const (
	// SenderUser is a person.
	SenderUser Sender = "USER"
	// SenderVirtualEmployee is a virtual employee, or a module in its place.
	SenderVirtualEmployee Sender = "VIRTUAL_EMPLOYEE"
)

// Status says whether a message is whole, in the platform's word: one of those below, or another it may add.
type Status string

// How far messages are.
const (
	// StatusProcessed is a message that is whole.
	StatusProcessed Status = "PROCESSED"
	// StatusInProgress is one that is still being written.
	StatusInProgress Status = "IN_PROGRESS"
)

// MessageFinalized says that a message of a thread is there: a person's, or a virtual employee's.
type MessageFinalized struct {
	// Event is the event this was read from; its Payload has what this type doesn't know.
	Event modhost.Event
	// ID is the message's. One that is changed later comes again as another event.
	ID string
	// ChatID is the thread, for information: the host writes into no other.
	ChatID string
	// Sender is what kind of sender wrote it.
	Sender Sender
	// UserSenderID is the person who wrote it; empty if none did.
	UserSenderID string
	// VirtualSenderID is the virtual employee that wrote it, or that it was written to.
	VirtualSenderID string
	// Content is what it says; empty if it says nothing in words.
	Content string
	// Kind is the platform's type of the message.
	Kind string
	// Status says whether it is whole.
	Status Status
	// CreatedAt is when it was written, as the platform writes times (RFC 3339).
	CreatedAt string
	// UpdatedAt is when it was last changed.
	UpdatedAt string
	// Files came with it, each in the platform's own shape.
	Files []json.RawMessage
	// ExecutionPlan is what a virtual employee means to do, in the platform's own shape; nil where there is none.
	ExecutionPlan json.RawMessage
}

// Handle makes a function the module: it answers MESSAGE_FINALIZED. Any other event that modules.toml lets through fails,
// with the setting to change in its reason. Call it once, in an init function, in the place of [modhost.Answer].
func Handle(handle func(MessageFinalized) error) {
	modhost.Handle(func(event modhost.Event) error {
		message, err := Read(event)
		if err != nil {
			return err
		}
		return handle(message)
	})
}

// Read reads an event, for a module that takes others besides. One of another kind or shape is an error that says so.
func Read(event modhost.Event) (MessageFinalized, error) {
	if event.Name != messageFinalized {
		return MessageFinalized{}, event.Unexpected(messageFinalized)
	}
	// What is a pointer has to be there.
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

// contentOf finds the words in the message's JSON content, where they may stand alone.
func contentOf(text json.RawMessage) string {
	var content struct{ Content string }
	// Whatever else it is has no words.
	if json.Unmarshal(text, &content) != nil {
		return ""
	}
	return content.Content
}
