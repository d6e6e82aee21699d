package main

import (
	"strings"
	"testing"

	modhost "github.com/modhost/modhost/sdk-guest/go"
)

func TestPromptContainsNumberedSources(t *testing.T) {
	text := instructions([]modhost.Hit{{Title: "Travel", Text: "Book early.\n"}, {Title: "Leave", Text: "Take it."}})
	for _, source := range []string{
		"<source0>\nTravel\nBook early.\n</source0>",
		"<source1>\nLeave\nTake it.\n</source1>",
	} {
		if !strings.Contains(text, source) {
			t.Errorf("%q isn't in %q", source, text)
		}
	}
}

func TestPromptSaysThatNothingWasFound(t *testing.T) {
	if text := instructions(nil); !strings.Contains(text, "contains nothing about the user's question") {
		t.Error(text)
	}
}
