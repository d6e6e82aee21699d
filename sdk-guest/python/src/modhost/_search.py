"""Search in the knowledge base, limited to what the event's user may read."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from modhost._bindings.imports import search as wit
from modhost._calls import call

Kind: TypeAlias = Literal["combined", "vector", "full-text"]

_KINDS = {"combined": wit.Kind.COMBINED, "vector": wit.Kind.VECTOR, "full-text": wit.Kind.FULL_TEXT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that matches the query."""

    id: str
    """The platform's id of the content that contains the passage."""
    chunk_id: str
    """The platform's id of the passage."""
    text: str
    """The text of the passage."""
    title: str | None = None
    """The content's title."""
    key: str | None = None
    """The content's key, usually its file name."""
    url: str | None = None
    """The URL that opens the content."""
    order: int = 0
    """The passage's position in the content."""
    start_page: int | None = None
    """The first page of the passage; none or negative if the content has no pages."""
    end_page: int | None = None
    """The last page of the passage."""
    metadata: dict[str, Any] | None = None
    """More metadata of the content."""

    @property
    def name(self) -> str:
        """The content's title, or its key if it has no title, or else its id."""
        return next((name for name in (self.title, self.key) if name and name.strip()), self.id)

    @property
    def pages(self) -> str | None:
        """The pages of the passage as readable text: ``page 3``, ``pages 3–4``. ``None`` if the content has no pages."""
        if self.start_page is None or self.start_page <= 0:
            return None
        if self.end_page is not None and self.end_page > self.start_page:
            return f"pages {self.start_page}–{self.end_page}"
        return f"page {self.start_page}"


def search(
    text: str,
    *,
    kind: Kind = "combined",
    limit: int | None = None,
    page: int | None = None,
    scopes: Iterable[str] = (),
    contents: Iterable[str] = (),
    chat_only: bool = False,
    language: str | None = None,
    score_threshold: float | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    reranker: str | None = None,
) -> list[Hit]:
    """Searches the knowledge base and returns the hits, best first.

        hits = search("travel policy", limit=3)

    :param text: the question, or the words to find.
    :param kind: ``vector`` matches by meaning, ``full-text`` by words, ``combined`` by both.
    :param limit: the maximum number of hits, 1 to 1000; the platform's default is 20.
    :param page: the page of hits, from 1.
    :param scopes: search only these scopes (folders), by id.
    :param contents: search only these contents, by id.
    :param chat_only: search only files uploaded to the chat.
    :param language: the language of the text index, as the platform names it (``english``).
    :param score_threshold: omit hits with a lower score.
    :param metadata_filter: a metadata filter in UniqueQL.
    :param reranker: the name of the deployment that reranks the hits.
    """
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of search {kind!r}; use one of {', '.join(_KINDS)}")
    query = wit.Query(
        text=text,
        kind=_KINDS[kind],
        limit=limit,
        page=page,
        scope_ids=list(scopes),
        content_ids=list(contents),
        chat_only=chat_only,
        language=language,
        score_threshold=score_threshold,
        metadata_filter=None if metadata_filter is None else json.dumps(metadata_filter),
        reranker=reranker,
    )
    return [_from_host(hit) for hit in call("search.search", wit.search, query)]


def _from_host(hit: wit.Hit) -> Hit:
    return Hit(
        id=hit.id,
        chunk_id=hit.chunk_id,
        text=hit.text,
        title=hit.title,
        key=hit.key,
        url=hit.url,
        order=hit.order,
        start_page=hit.start_page,
        end_page=hit.end_page,
        metadata=None if hit.metadata is None else json.loads(hit.metadata),
    )


def to_host(hit: Hit) -> wit.Hit:
    """Converts a hit to the bindings."""
    return wit.Hit(
        id=hit.id,
        chunk_id=hit.chunk_id,
        text=hit.text,
        title=hit.title,
        key=hit.key,
        url=hit.url,
        order=hit.order,
        start_page=hit.start_page,
        end_page=hit.end_page,
        metadata=None if hit.metadata is None else json.dumps(hit.metadata),
    )
