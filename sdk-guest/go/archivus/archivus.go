// Package archivus has the events of Archivus, as its documentation of webhooks describes them.
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
// There is no platform to answer on: the tenant has platform = { kind = "none" } in modules.toml, and calls that want one
// are [modhost.ErrUnsupported].
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

// Event is what Archivus tells: a [DocumentProcessed], a [DocumentFailed], a [DocumentUploaded], a [ChatMessageCreated], or
// an [Other].
type Event interface{ isEvent() }

// DocumentProcessed says that a document was read and understood (document.processed).
type DocumentProcessed struct {
	// Event is the event this was read from; its Payload has what this type doesn't know.
	Event modhost.Event
	// DocumentID is the document's id.
	DocumentID string
	// Document is the document.
	Document Document
}

// Document is a document as the platform knows it.
type Document struct {
	// ID is its id.
	ID string
	// Filename is the name of its file.
	Filename string
	// Status is how far it is, in the platform's word.
	Status string
	// AIStatus is how far it is understood, in the platform's word.
	AIStatus string
	// AISummary is what it is about, as a language model put it.
	AISummary string
	// AITags are the words a language model filed it under.
	AITags []string
}

// DocumentFailed says that a document could not be read or understood (document.failed).
type DocumentFailed struct {
	// Event is the event this was read from; its Payload has what this type doesn't know.
	Event modhost.Event
	// DocumentID is the document's id.
	DocumentID string
	// Error says why, in the platform's words; what isn't text is given as JSON.
	Error string
}

// DocumentUploaded says that a document came in, and is still to be read (document.uploaded).
type DocumentUploaded struct {
	// Event is the event this was read from; its Payload has what this type doesn't know.
	Event modhost.Event
	// DocumentID is the document's id.
	DocumentID string
}

// ChatMessageCreated says that somebody wrote in a chat about documents (chat.message.created). What was written is not part
// of it.
type ChatMessageCreated struct {
	// Event is the event this was read from; its Payload has what this type doesn't know.
	Event modhost.Event
	// SessionID is the chat.
	SessionID string
	// MessageID is the message's id.
	MessageID string
	// Role is who wrote it, in the platform's word.
	Role string
	// DocumentID is the document it is about; empty if it is about none.
	DocumentID string
}

// Other is any other event.
type Other struct {
	// Event is the event, whole.
	Event modhost.Event
}

func (DocumentProcessed) isEvent()  {}
func (DocumentFailed) isEvent()     {}
func (DocumentUploaded) isEvent()   {}
func (ChatMessageCreated) isEvent() {}
func (Other) isEvent()              {}

// Handle makes a function the module: it answers every event that modules.toml lets through to it. Call it once, in an init
// function, in the place of [modhost.Handle].
func Handle(handle func(Event) error) {
	modhost.Handle(func(event modhost.Event) error {
		read, err := Read(event)
		if err != nil {
			return err
		}
		return handle(read)
	})
}

// Read reads an event, for a module that takes those of other systems besides. One of Archivus's kinds in another shape is
// an error that says so.
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
