package modhost

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	wit "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_types"
)

// Reference is a source that a message or a step names, shown as a footnote: <sup>1</sup> in the text points to number 1.
type Reference struct {
	// Name is what the user reads.
	Name string
	// Description is more about it.
	Description string
	// URL is where it can be opened.
	URL string
	// Number is what it is shown with, from 1.
	Number int
	// OriginalIndex has the places in the list of sources it was made from, from 0, where it was made from one.
	OriginalIndex []uint32
	// SourceID is the platform's id of what it points to; for a hit <id>_<chunk id>.
	SourceID string
	// Source is the kind of source; for a hit node-ingestion-chunks.
	Source string
}

// ReferencesTo makes references to hits, numbered from 1 in their order.
func ReferencesTo(hits []Hit) []Reference {
	references := make([]Reference, 0, len(hits))
	for index, hit := range hits {
		references = append(references, Reference{
			Name:          hit.Name(),
			Description:   hit.Pages(),
			URL:           hit.URL,
			Number:        index + 1,
			OriginalIndex: []uint32{uint32(index)},
			SourceID:      hit.ID + "_" + hit.ChunkID,
			Source:        "node-ingestion-chunks",
		})
	}
	return references
}

// cite turns [source0], [source0, source2] and the like in a model's text into footnotes, and keeps of the references (one
// for each source, in order) those that are cited; all of them if none is, as the text rests on them all the same. A
// source that doesn't exist is an invention of the model and disappears.
func cite(text string, references []Reference) (string, []Reference) {
	// By hand: a regular expression would be a tenth of the component.
	var written strings.Builder
	cited := make([]bool, len(references))
	for {
		before, after, found := strings.Cut(text, "[")
		sources, rest, is := citation(after)
		if !found || !is {
			written.WriteString(before)
			if !found {
				break
			}
			written.WriteByte('[')
			text = after
			continue
		}
		known := slices.DeleteFunc(sources, func(source int) bool { return source >= len(references) })
		if len(known) == 0 {
			before = strings.TrimRight(before, " ")
		}
		written.WriteString(before)
		for _, source := range known {
			cited[source] = true
			fmt.Fprintf(&written, "<sup>%d</sup>", references[source].Number)
		}
		text = rest
	}
	kept := references
	if slices.Contains(cited, true) {
		kept = nil
		for source, is := range cited {
			if is {
				kept = append(kept, references[source])
			}
		}
	}
	return written.String(), kept
}

// citation gives the sources named between a [ and its ], and the text after it.
func citation(text string) (sources []int, after string, is bool) {
	inside, after, is := strings.Cut(text, "]")
	if !is {
		return nil, "", false
	}
	for word := range strings.SplitSeq(inside, ",") {
		source, is := citedSource(word)
		if !is {
			return nil, "", false
		}
		sources = append(sources, source)
	}
	return sources, after, true
}

// citedSource gives the number in source3, as models spell it. One that is too large to read is a source that doesn't
// exist, like any other.
func citedSource(word string) (int, bool) {
	const source = "source"
	word = strings.TrimSpace(word)
	if len(word) < len(source) || !strings.EqualFold(word[:len(source)], source) {
		return 0, false
	}
	digits := strings.TrimSpace(word[len(source):])
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	number, err := strconv.Atoi(digits)
	if err != nil {
		return math.MaxInt, true
	}
	return number, true
}

func witReferences(references []Reference) []wit.Reference {
	return mapped(references, func(reference Reference) wit.Reference {
		return wit.Reference{
			Name:           reference.Name,
			Description:    optional(reference.Description),
			Url:            optional(reference.URL),
			SequenceNumber: uint32(reference.Number),
			OriginalIndex:  reference.OriginalIndex,
			SourceId:       reference.SourceID,
			Source:         reference.Source,
		}
	})
}

func referenceOf(reference wit.Reference) Reference {
	return Reference{
		Name:          reference.Name,
		Description:   reference.Description.SomeOr(""),
		URL:           reference.Url.SomeOr(""),
		Number:        int(reference.SequenceNumber),
		OriginalIndex: reference.OriginalIndex,
		SourceID:      reference.SourceId,
		Source:        reference.Source,
	}
}

func mapped[A, B any](items []A, change func(A) B) []B {
	all := make([]B, 0, len(items))
	for _, item := range items {
		all = append(all, change(item))
	}
	return all
}

// toJSON writes a value; what is named is what it is for.
func toJSON(what string, value any) (string, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("the %s can't be written as JSON: %w", what, err)
	}
	return string(text), nil
}
