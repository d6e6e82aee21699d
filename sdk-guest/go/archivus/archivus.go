// Package archivus contains the Archivus events, as the Archivus webhook documentation describes them.
//
//	func init() { archivus.Handle(note) }
//
//	func note(event archivus.Event) error {
//		switch event := event.(type) {
//		case archivus.DocumentProcessed:
//			slog.Info(event.Document.Filename + " is ready")
//		case archivus.DocumentFailed:
//			slog.Warn(event.DocumentID + " failed: " + event.Error)
//		}
//		return nil
//	}
//
// Archivus has no API for replies: the tenant has platform = { kind = "none" } in modules.toml, and calls that need a platform
// return [modhost.ErrUnsupported].
package archivus

import (
	"encoding/json"

	modhost "github.com/modhost/modhost/sdk-guest/go"
)

// The names of the events.
const (
	documentProcessed  = "document.processed"
	documentFailed     = "document.failed"
	documentUploaded   = "document.uploaded"
	chatMessageCreated = "chat.message.created"
)

// Event is an Archivus event: a [DocumentProcessed], a [DocumentFailed], a [DocumentUploaded], a [ChatMessageCreated], or
// an [Other].
type Event interface{ isEvent() }

// DocumentProcessed is the event that a document was processed (document.processed).
type DocumentProcessed struct {
	// Event is the original event. Its Payload contains fields that this type doesn't have.
	Event modhost.Event
	// DocumentID is the document's id.
	DocumentID string
	// Document is the document.
	Document Document
}

// Document is a document on the platform.
type Document struct {
	// ID is the document's id.
	ID string
	// Filename is the file name.
	Filename string
	// Status is the status, in the platform's terms.
	Status string
	// AIStatus is the status of the AI processing, in the platform's terms.
	AIStatus string
	// AISummary is a summary by a language model.
	AISummary string
	// AITags are tags by a language model.
	AITags []string
}

// DocumentFailed is the event that a document couldn't be processed (document.failed).
type DocumentFailed struct {
	// Event is the original event. Its Payload contains fields that this type doesn't have.
	Event modhost.Event
	// DocumentID is the document's id.
	DocumentID string
	// Error is the error, in the platform's terms. A value that isn't a string is given as JSON.
	Error string
}

// DocumentUploaded is the event that a document was uploaded and isn't processed yet (document.uploaded).
type DocumentUploaded struct {
	// Event is the original event. Its Payload contains fields that this type doesn't have.
	Event modhost.Event
	// DocumentID is the document's id.
	DocumentID string
}

// ChatMessageCreated is the event that a message was written in a chat about documents (chat.message.created). It doesn't contain
// the text.
type ChatMessageCreated struct {
	// Event is the original event. Its Payload contains fields that this type doesn't have.
	Event modhost.Event
	// SessionID is the chat's id.
	SessionID string
	// MessageID is the message's id.
	MessageID string
	// Role is the author's role, in the platform's terms.
	Role string
	// DocumentID is the id of the document that the message is about; empty if there is none.
	DocumentID string
}

// Other is any other event.
type Other struct {
	// Event is the original event.
	Event modhost.Event
}

func (DocumentProcessed) isEvent()  {}
func (DocumentFailed) isEvent()     {}
func (DocumentUploaded) isEvent()   {}
func (ChatMessageCreated) isEvent() {}
func (Other) isEvent()              {}

// Handle registers the module's event handler. It receives every event that modules.toml routes to the module. Call it once, in an
// init function, instead of [modhost.Handle].
func Handle(handle func(Event) error) {
	modhost.Handle(func(event modhost.Event) error {
		parsed, err := Read(event)
		if err != nil {
			return err
		}
		return handle(parsed)
	})
}

// Read parses an event, for a module that also handles events of other systems. It returns an error if the payload of an Archivus
// event doesn't have the expected shape.
func Read(event modhost.Event) (Event, error) {
	switch event.Name {
	case documentProcessed:
		return readProcessed(event)
	case documentFailed:
		return readFailed(event)
	case documentUploaded:
		return readUploaded(event)
	case chatMessageCreated:
		return readMessage(event)
	default:
		return Other{event}, nil
	}
}

func readProcessed(event modhost.Event) (Event, error) {
	var data struct {
		DocumentID *string `json:"document_id"`
		Document   *struct {
			ID        *string  `json:"id"`
			Filename  *string  `json:"filename"`
			Status    string   `json:"status"`
			AIStatus  string   `json:"ai_status"`
			AISummary string   `json:"ai_summary"`
			AITags    []string `json:"ai_tags"`
		} `json:"document"`
	}
	if err := event.Read(&data); err != nil {
		return nil, err
	}
	document := data.Document
	switch {
	case data.DocumentID == nil:
		return nil, event.Lacks("document_id")
	case document == nil:
		return nil, event.Lacks("document")
	case document.ID == nil:
		return nil, event.Lacks("document.id")
	case document.Filename == nil:
		return nil, event.Lacks("document.filename")
	}
	return DocumentProcessed{Event: event, DocumentID: *data.DocumentID, Document: Document{
		ID:        *document.ID,
		Filename:  *document.Filename,
		Status:    document.Status,
		AIStatus:  document.AIStatus,
		AISummary: document.AISummary,
		AITags:    document.AITags,
	}}, nil
}

func readFailed(event modhost.Event) (Event, error) {
	var data struct {
		DocumentID *string         `json:"document_id"`
		Error      json.RawMessage `json:"error"`
	}
	if err := event.Read(&data); err != nil {
		return nil, err
	}
	switch {
	case data.DocumentID == nil:
		return nil, event.Lacks("document_id")
	case data.Error == nil:
		return nil, event.Lacks("error")
	}
	failed := DocumentFailed{Event: event, DocumentID: *data.DocumentID}
	if json.Unmarshal(data.Error, &failed.Error) != nil {
		failed.Error = string(data.Error)
	}
	return failed, nil
}

func readUploaded(event modhost.Event) (Event, error) {
	var data struct {
		DocumentID *string `json:"document_id"`
	}
	if err := event.Read(&data); err != nil {
		return nil, err
	}
	if data.DocumentID == nil {
		return nil, event.Lacks("document_id")
	}
	return DocumentUploaded{event, *data.DocumentID}, nil
}

func readMessage(event modhost.Event) (Event, error) {
	var data struct {
		SessionID  *string `json:"session_id"`
		MessageID  *string `json:"message_id"`
		Role       *string `json:"role"`
		DocumentID string  `json:"document_id"`
	}
	if err := event.Read(&data); err != nil {
		return nil, err
	}
	switch {
	case data.SessionID == nil:
		return nil, event.Lacks("session_id")
	case data.MessageID == nil:
		return nil, event.Lacks("message_id")
	case data.Role == nil:
		return nil, event.Lacks("role")
	}
	return ChatMessageCreated{event, *data.SessionID, *data.MessageID, *data.Role, data.DocumentID}, nil
}
