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

// Reference is a source that a message or a step cites, shown as a footnote: <sup>1</sup> in the text refers to number 1.
type Reference struct {
	// Name is the name the user reads.
	Name string
	// Description is a description.
	Description string
	// URL is the URL that opens the source.
	URL string
	// Number is the footnote number, from 1.
	Number int
	// OriginalIndex has the positions, from 0, in the list of sources from which the reference was made, if it was made from one.
	OriginalIndex []uint32
	// SourceID is the platform's id of the source; for a search hit, <id>_<chunk id>.
	SourceID string
	// Source is the kind of source; for a search hit, node-ingestion-chunks.
	Source string
}

// ReferencesTo creates references to hits, numbered from 1 in the order of the hits.
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

// cite turns [source0], [source0, source2] and the like in a model's text into footnotes, and filters the references (one for each
// source, in order) to those that are cited. If the text cites none, it keeps all, because the text is still based on them. Citations
// of sources that don't exist are model hallucinations and are removed.
func cite(text string, references []Reference) (string, []Reference) {
	// Parsed by hand, because a regular expression would take a tenth of the component's size.
	var written strings.Builder
	cited := make([]bool, len(references))
	for {
		before, after, found := strings.Cut(text, "[")
		sources, rest, ok := citation(after)
		if !found || !ok {
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
		for source, isCited := range cited {
			if isCited {
				kept = append(kept, references[source])
			}
		}
	}
	return written.String(), kept
}

// citation parses the sources between a [ and its ]. It returns them and the text after the ].
func citation(text string) (sources []int, after string, ok bool) {
	inside, after, ok := strings.Cut(text, "]")
	if !ok {
		return nil, "", false
	}
	for word := range strings.SplitSeq(inside, ",") {
		source, ok := citedSource(word)
		if !ok {
			return nil, "", false
		}
		sources = append(sources, source)
	}
	return sources, after, true
}

// citedSource parses the number in source3, in the spellings that models use. A number too large to parse is treated like any other
// source that doesn't exist.
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
	return mapSlice(references, func(reference Reference) wit.Reference {
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

func mapSlice[A, B any](items []A, convert func(A) B) []B {
	all := make([]B, 0, len(items))
	for _, item := range items {
		all = append(all, convert(item))
	}
	return all
}

// toJSON marshals a value. name is its name in errors.
func toJSON(name string, value any) (string, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("cannot marshal the %s as JSON: %w", name, err)
	}
	return string(text), nil
}
