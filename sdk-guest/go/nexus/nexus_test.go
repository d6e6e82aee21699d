package nexus

import (
	"encoding/json"
	"strings"
	"testing"

	modhost "github.com/modhost/modhost/sdk-guest/go"
)

func event(name, payload string) modhost.Event {
	return modhost.Event{ID: "evt_1", Name: name, Payload: json.RawMessage(payload)}
}

const complete = `{
	"id": "m_1", "chatId": "thread_1", "senderType": "VIRTUAL_EMPLOYEE",
	"virtualSender": {"id": "employee_1", "name": "Nova"}, "content": "Good morning",
	"contentJson": {"content": "Good morning"}, "type": "TEXT", "status": "PROCESSED",
	"createdAt": "2026-01-02T03:04:05.000Z", "updatedAt": "2026-01-02T03:04:06.000Z",
	"files": [{"name":"a.pdf"}], "executionPlan": {"steps":2}
}`

func TestReadParsesAllFields(t *testing.T) {
	message, err := Read(event("MESSAGE_FINALIZED", complete))
	if err != nil {
		t.Fatal(err)
	}
	if message.ID != "m_1" || message.ChatID != "thread_1" || message.VirtualSenderID != "employee_1" ||
		message.Sender != SenderVirtualEmployee || message.Status != StatusProcessed || message.UserSenderID != "" ||
		message.Content != "Good morning" || message.Kind != "TEXT" || message.UpdatedAt != "2026-01-02T03:04:06.000Z" ||
		string(message.Files[0]) != `{"name":"a.pdf"}` || string(message.ExecutionPlan) != `{"steps":2}` ||
		string(message.Event.Payload) != complete {
		t.Errorf("got %+v", message)
	}
}

func TestReadAcceptsMissingFieldsAndUnknownValues(t *testing.T) {
	message, err := Read(event("MESSAGE_FINALIZED", `{
		"id": "m_1", "chatId": "thread_1", "senderType": "SYSTEM", "status": "QUEUED", "virtualSender": null,
		"virtualSenderId": "employee_2", "content": null, "files": null, "executionPlan": null, "mood": "sunny"
	}`))
	if err != nil || message.Sender != "SYSTEM" || message.Status != "QUEUED" || message.VirtualSenderID != "employee_2" ||
		message.Content != "" || message.Files != nil || message.ExecutionPlan != nil {
		t.Errorf("got %+v, %v", message, err)
	}
}

func TestReadFallsBackToTheJSONContent(t *testing.T) {
	for content, want := range map[string]string{
		`{"content": "Hello", "blocks": []}`: "Hello", `[1]`: "", `null`: "", `{"content": 7}`: "",
	} {
		message, err := Read(event("MESSAGE_FINALIZED",
			`{"id": "m", "chatId": "t", "senderType": "USER", "status": "PROCESSED", "content": "", "contentJson": `+content+`}`))
		if err != nil || message.Content != want {
			t.Errorf("%s: got %q, %v", content, message.Content, err)
		}
	}
}

func TestMalformedPayloadNamesTheEvent(t *testing.T) {
	start := "cannot parse the payload of event `MESSAGE_FINALIZED` (evt_1): "
	for payload, prefix := range map[string]string{
		strings.Replace(complete, "chatId", "chat", 1):    start + "missing field `chatId`",
		strings.Replace(complete, `"status"`, `"how"`, 1): start + "missing field `status`",
		`[]`:   start,
		`null`: start + "missing field `id`",
	} {
		if _, err := Read(event("MESSAGE_FINALIZED", payload)); err == nil || !strings.HasPrefix(err.Error(), prefix) {
			t.Errorf("got %v, want %s", err, prefix)
		}
	}
	_, err := Read(event("document.failed", complete))
	if err == nil || !strings.Contains(err.Error(), "`document.failed`") || !strings.Contains(err.Error(), "it handles `MESSAGE_FINALIZED`") {
		t.Errorf("got %v", err)
	}
}
