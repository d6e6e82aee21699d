package modhost

import (
	"encoding/json"
	"fmt"
	"strings"

	search "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_search"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// SearchKind says how the knowledge base is searched.
type SearchKind uint8

// How it is searched.
const (
	// Combined searches by meaning and by words.
	Combined SearchKind = SearchKind(search.KindCombined)
	// Vector searches by meaning.
	Vector SearchKind = SearchKind(search.KindVector)
	// FullText searches by words.
	FullText SearchKind = SearchKind(search.KindFullText)
)

// Query is what is looked for. Everything but the text may be left out.
type Query struct {
	// Text is the question or the words.
	Text string
	// Kind says how. Default: [Combined].
	Kind SearchKind
	// Limit is how many hits there may be, 1 to 1000; the platform's default is 20.
	Limit int
	// Page is which page of hits, from 1.
	Page int
	// Scopes are the only scopes (folders) to look in, by id; none: wherever the user may look.
	Scopes []string
	// Contents are the only contents to look in, by id; none: in all.
	Contents []string
	// ChatOnly looks only in what was uploaded to the chat.
	ChatOnly bool
	// Language is that of the text index, as the platform names it (english).
	Language string
	// ScoreThreshold leaves out hits that score below.
	ScoreThreshold *float32
	// MetadataFilter is a filter on metadata in UniqueQL, an object.
	MetadataFilter any
	// Reranker is the name of the deployment that ranks the hits anew.
	Reranker string
}

// Hit is a passage that was found.
type Hit struct {
	// ID is the platform's id of the content it stands in.
	ID string
	// ChunkID is the platform's id of the passage.
	ChunkID string
	// Text is the passage.
	Text string
	// Title is the content's title.
	Title string
	// Key is the content's key: usually its file name.
	Key string
	// URL is where the content can be opened.
	URL string
	// Order is the passage's place in the content.
	Order int
	// StartPage is the first page it stands on; 0 or negative where the content has no pages.
	StartPage int
	// EndPage is the last page it stands on.
	EndPage int
	// Metadata is what the platform knows about the content besides, an object.
	Metadata json.RawMessage

	// As the platform told it, to be handed back.
	wit search.Hit
}

// Search searches the knowledge base, as far as the event's user may see it; the best hit comes first.
func Search(query Query) ([]Hit, error) {
	wit := search.Query{
		Text:           query.Text,
		Kind:           search.Kind(query.Kind),
		Limit:          optional(uint32(query.Limit)),
		Page:           optional(uint32(query.Page)),
		ScopeIds:       query.Scopes,
		ContentIds:     query.Contents,
		ChatOnly:       query.ChatOnly,
		Language:       optional(query.Language),
		ScoreThreshold: pointed(query.ScoreThreshold),
		MetadataFilter: types.None[string](),
		Reranker:       optional(query.Reranker),
	}
	if query.MetadataFilter != nil {
		filter, err := toJSON("metadata filter", query.MetadataFilter)
		if err != nil {
			return nil, err
		}
		wit.MetadataFilter = types.Some(filter)
	}
	hits, err := answered("search.search", search.Search(wit))
	return mapped(hits, hitOf), err
}

// Name is what a person calls the content: its title, else its key, else its id.
func (h Hit) Name() string {
	for _, name := range []string{h.Title, h.Key} {
		if strings.TrimSpace(name) != "" {
			return name
		}
	}
	return h.ID
}

// Pages says where it stands, for people: page 3 or pages 3–4. Empty where the content has no pages.
func (h Hit) Pages() string {
	switch {
	case h.StartPage <= 0:
		return ""
	case h.EndPage > h.StartPage:
		return fmt.Sprintf("pages %d–%d", h.StartPage, h.EndPage)
	default:
		return fmt.Sprintf("page %d", h.StartPage)
	}
}

func hitOf(hit search.Hit) Hit {
	return Hit{
		ID:        hit.Id,
		ChunkID:   hit.ChunkId,
		Text:      hit.Text,
		Title:     hit.Title.SomeOr(""),
		Key:       hit.Key.SomeOr(""),
		URL:       hit.Url.SomeOr(""),
		Order:     int(hit.Order),
		StartPage: int(hit.StartPage.SomeOr(0)),
		EndPage:   int(hit.EndPage.SomeOr(0)),
		Metadata:  json.RawMessage(hit.Metadata.SomeOr("")),
		wit:       hit,
	}
}
