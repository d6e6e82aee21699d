package modhost

import (
	"encoding/json"
	"fmt"
	"strings"

	search "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_search"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// SearchKind is the search method.
type SearchKind uint8

// The search methods.
const (
	// Combined combines vector search and full-text search.
	Combined SearchKind = SearchKind(search.KindCombined)
	// Vector is vector search, which matches by meaning.
	Vector SearchKind = SearchKind(search.KindVector)
	// FullText is full-text search, which matches by words.
	FullText SearchKind = SearchKind(search.KindFullText)
)

// Query is a search query. All fields except Text are optional.
type Query struct {
	// Text is the question, or the words to find.
	Text string
	// Kind is the search method. Default: [Combined].
	Kind SearchKind
	// Limit is the maximum number of hits, 1 to 1000; the platform's default is 20.
	Limit int
	// Page is the page of hits, from 1.
	Page int
	// Scopes are the scopes (folders) to search, by id; none: every scope the user may read.
	Scopes []string
	// Contents are the contents to search, by id; none: all contents.
	Contents []string
	// ChatOnly searches only files uploaded to the chat.
	ChatOnly bool
	// Language is the language of the text index, as the platform names it (english).
	Language string
	// ScoreThreshold omits hits with a lower score.
	ScoreThreshold *float32
	// MetadataFilter is a metadata filter in UniqueQL, an object.
	MetadataFilter any
	// Reranker is the name of the deployment that reranks the hits.
	Reranker string
}

// Hit is a passage that matches the query.
type Hit struct {
	// ID is the platform's id of the content that contains the passage.
	ID string
	// ChunkID is the platform's id of the passage.
	ChunkID string
	// Text is the text of the passage.
	Text string
	// Title is the content's title.
	Title string
	// Key is the content's key, usually its file name.
	Key string
	// URL is the URL that opens the content.
	URL string
	// Order is the passage's position in the content.
	Order int
	// StartPage is the first page of the passage; 0 or negative if the content has no pages.
	StartPage int
	// EndPage is the last page of the passage.
	EndPage int
	// Metadata is more metadata of the content, an object.
	Metadata json.RawMessage

	// The original hit, to pass back to the host.
	wit search.Hit
}

// Search searches the knowledge base, limited to what the event's user may read. It returns the hits, best first.
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
		ScoreThreshold: optionalPointer(query.ScoreThreshold),
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
	hits, err := unwrap("search.search", search.Search(wit))
	return mapSlice(hits, hitOf), err
}

// Name returns the content's title, or its key if it has no title, or else its id.
func (h Hit) Name() string {
	for _, name := range []string{h.Title, h.Key} {
		if strings.TrimSpace(name) != "" {
			return name
		}
	}
	return h.ID
}

// Pages returns the pages of the passage as readable text: page 3 or pages 3–4. Empty if the content has no pages.
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
