package modhost

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	witerrors "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_types"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

func hits(count int) []Hit {
	hits := make([]Hit, count)
	for n := range hits {
		hits[n] = Hit{ID: fmt.Sprintf("cont_%d", n), ChunkID: fmt.Sprintf("chunk_%d", n), Title: fmt.Sprintf("Document %d", n)}
	}
	return hits
}

func TestCitationsBecomeFootnotes(t *testing.T) {
	for _, test := range []struct {
		text    string
		sources int
		want    string
		cited   []int
	}{
		{"Book early [source0]. Or late [source2].", 3, "Book early <sup>1</sup>. Or late <sup>3</sup>.", []int{1, 3}},
		{"Twice [source1] [source1]", 2, "Twice <sup>2</sup> <sup>2</sup>", []int{2}},
		{"[source0, source2]", 3, "<sup>1</sup><sup>3</sup>", []int{1, 3}},
		{"[ source 0 , SOURCE2 ]", 3, "<sup>1</sup><sup>3</sup>", []int{1, 3}},
		{"Book early.", 2, "Book early.", []int{1, 2}},
		{"Book early [source7].", 1, "Book early.", []int{1}},
		{"Book [source99999999999999999999999] early", 0, "Book early", nil},
		{"Book early [source7, source0].", 1, "Book early <sup>1</sup>.", []int{1}},
		{"[see [source0]]", 1, "[see <sup>1</sup>]", []int{1}},
		{"a [link](https://x) [sources] [source] [source-1] [] [[] [x, source0]", 1,
			"a [link](https://x) [sources] [source] [source-1] [] [[] [x, source0]", []int{1}},
		{"[", 0, "[", nil},
		{"", 0, "", nil},
	} {
		text, references := cite(test.text, ReferencesTo(hits(test.sources)))
		var cited []int
		for _, reference := range references {
			cited = append(cited, reference.Number)
		}
		if text != test.want || !slices.Equal(cited, test.cited) {
			t.Errorf("%q: got %q, %v; want %q, %v", test.text, text, cited, test.want, test.cited)
		}
	}
}

func TestReferencesToHits(t *testing.T) {
	hit := Hit{ID: "cont_1", ChunkID: "chunk_1", Title: " ", Key: "a.md", URL: "https://x", StartPage: 3, EndPage: 4}
	got := ReferencesTo([]Hit{hit})[0]
	if got.Name != "a.md" || got.Description != "pages 3–4" || got.Number != 1 || got.SourceID != "cont_1_chunk_1" {
		t.Errorf("got %+v", got)
	}
}

func TestErrorKindDeterminesTheRetry(t *testing.T) {
	for _, test := range []struct {
		wit   witerrors.Error
		kind  error
		retry Retry
		text  string
	}{
		{witerrors.MakeErrorInvalid("x"), ErrInvalid, RetryNo, "search.search: invalid: x"},
		{witerrors.MakeErrorDenied("x"), ErrDenied, RetryNo, "search.search: not allowed: x"},
		{witerrors.MakeErrorNotFound("x"), ErrNotFound, RetryNo, "search.search: not found: x"},
		{witerrors.MakeErrorRateLimited(types.None[uint32]()), ErrRateLimited, RetryYes, "search.search: rate limited"},
		{witerrors.MakeErrorRateLimited(types.Some[uint32](7)), ErrRateLimited, RetryAfter(7 * time.Second),
			"search.search: rate limited; retry after 7 s"},
		{witerrors.MakeErrorUnavailable("502"), ErrUnavailable, RetryYes, "search.search: unavailable: 502"},
		{witerrors.MakeErrorTimeout(), ErrTimeout, RetryYes, "search.search: " + ErrTimeout.Error()},
		{witerrors.MakeErrorUnsupported("x"), ErrUnsupported, RetryNo, "search.search: not supported: x"},
	} {
		err := fmt.Errorf("no passages: %w", errorOf("search.search", test.wit))
		call, ok := errors.AsType[*Error](err)
		if !ok || !errors.Is(err, test.kind) || call.Error() != test.text {
			t.Errorf("got %v, want %s", err, test.text)
		}
		if failure := failureOf(err); failure.Retry != test.retry || failure.Reason != err.Error() {
			t.Errorf("%v: got %+v", err, failure)
		}
	}
}

func TestFailureSetsTextsAndRetry(t *testing.T) {
	slow := errorOf("search.search", witerrors.MakeErrorTimeout())
	failure := failureOf(&Failure{Reason: "no passages", UserText: "Closed, sorry.", Err: slow})
	if failure.Reason != "no passages: "+slow.Error() || failure.UserText != "Closed, sorry." || failure.Retry != RetryYes {
		t.Errorf("got %+v", failure)
	}
	if failure := failureOf(&Failure{Retry: RetryNo, Err: slow}); failure.Retry != RetryNo {
		t.Errorf("its own Retry is ignored: %+v", failure)
	}
}

func TestSecondsRoundUp(t *testing.T) {
	for wait, want := range map[time.Duration]uint32{-1: 0, 0: 0, time.Millisecond: 1, 3 * time.Second: 3, 1<<63 - 1: 1<<32 - 1} {
		if got := seconds(wait); got != want {
			t.Errorf("%v: got %d, want %d", wait, got, want)
		}
	}
}

func TestPanicBecomesAnErrorWithItsStack(t *testing.T) {
	err := call(func(Event) error { panic("no") }, Event{})
	if err == nil || !strings.HasPrefix(err.Error(), "panic: no\n\ngoroutine") {
		t.Errorf("got %v", err)
	}
}
