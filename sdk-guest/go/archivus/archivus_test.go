package archivus

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	modhost "github.com/modhost/modhost/sdk-guest/go"
)

func event(name, payload string) modhost.Event {
	return modhost.Event{ID: "evt_1", Name: name, Payload: json.RawMessage(payload)}
}

func TestReadParsesEveryKind(t *testing.T) {
	for _, test := range []struct {
		event modhost.Event
		want  func(modhost.Event) Event
	}{
		{
			event("document.processed", `{"document_id": "doc_1", "document": {"id": "doc_1", "filename": "contract.pdf",
				"status": "processed", "ai_status": "completed", "ai_summary": "A lease.", "ai_tags": ["lease"], "pages": 12}}`),
			func(event modhost.Event) Event {
				return DocumentProcessed{event, "doc_1",
					Document{"doc_1", "contract.pdf", "processed", "completed", "A lease.", []string{"lease"}}}
			},
		},
		{
			event("document.processed", `{"document_id": "doc_1", "document": {"id": "doc_1", "filename": "a.pdf",
				"status": "archived", "ai_summary": null, "ai_tags": null}}`),
			func(event modhost.Event) Event {
				return DocumentProcessed{event, "doc_1", Document{ID: "doc_1", Filename: "a.pdf", Status: "archived"}}
			},
		},
		{
			event("document.failed", `{"document_id": "doc_1", "error": "it is encrypted"}`),
			func(event modhost.Event) Event { return DocumentFailed{event, "doc_1", "it is encrypted"} },
		},
		{
			event("document.failed", `{"document_id": "doc_1", "error": {"code":7}}`),
			func(event modhost.Event) Event { return DocumentFailed{event, "doc_1", `{"code":7}`} },
		},
		{
			event("document.uploaded", `{"document_id": "doc_1"}`),
			func(event modhost.Event) Event { return DocumentUploaded{event, "doc_1"} },
		},
		{
			event("chat.message.created", `{"session_id": "s_1", "message_id": "m_1", "role": "robot", "document_id": null}`),
			func(event modhost.Event) Event { return ChatMessageCreated{event, "s_1", "m_1", "robot", ""} },
		},
		{
			event("dag.task.created", `{"x": 1}`),
			func(event modhost.Event) Event { return Other{event} },
		},
	} {
		if got, err := Read(test.event); err != nil || !reflect.DeepEqual(got, test.want(test.event)) {
			t.Errorf("%s: got %+v, %v", test.event.Name, got, err)
		}
	}
}

func TestMalformedPayloadNamesTheEvent(t *testing.T) {
	for _, test := range [][3]string{
		{"document.processed", `{"document_id": "doc_1"}`, "missing field `document`"},
		{"document.processed", `{"document_id": "doc_1", "document": {"id": "doc_1"}}`, "missing field `document.filename`"},
		{"document.failed", `{"document_id": "doc_1"}`, "missing field `error`"},
		{"document.failed", `{"document_id": 7, "error": "x"}`, "number"},
		{"document.uploaded", `null`, "missing field `document_id`"},
		{"chat.message.created", `{}`, "missing field `session_id`"},
	} {
		start := "cannot parse the payload of event `" + test[0] + "` (evt_1): "
		_, err := Read(event(test[0], test[1]))
		if err == nil || !strings.HasPrefix(err.Error(), start) || !strings.Contains(err.Error(), test[2]) {
			t.Errorf("got %v, want %s", err, test[2])
		}
	}
}
