"""The knowledge base, as far as the event's user may see it."""

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
    """A passage that was found."""

    id: str
    """The platform's id of the content it stands in."""
    chunk_id: str
    """The platform's id of the passage."""
    text: str
    """The passage."""
    title: str | None = None
    """The content's title."""
    key: str | None = None
    """The content's key: usually its file name."""
    url: str | None = None
    """Where the content can be opened."""
    order: int = 0
    """The passage's place in the content."""
    start_page: int | None = None
    """The first page it stands on; none or negative where the content has no pages."""
    end_page: int | None = None
    """The last page it stands on."""
    metadata: dict[str, Any] | None = None
    """What the platform knows about the content besides."""

    @property
    def name(self) -> str:
        """What to call it: the content's title, else its key, else its id."""
        return next((name for name in (self.title, self.key) if name and name.strip()), self.id)

    @property
    def pages(self) -> str | None:
        """The pages it stands on, where the content has pages: ``page 3``, ``pages 3–4``."""
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
    """Searches the knowledge base; the best hit comes first.

        hits = search("travel policy", limit=3)

    :param text: the question, or the words.
    :param kind: ``combined`` by meaning and by words, ``vector`` by meaning, ``full-text`` by words.
    :param limit: how many hits at most, 1 to 1000; the platform's default is 20.
    :param page: which page of hits, from 1.
    :param scopes: only in these scopes (folders), by id.
    :param contents: only in these contents, by id.
    :param chat_only: only in what was uploaded to the chat.
    :param language: the language of the text index, as the platform names it (``english``).
    :param score_threshold: leave out hits that score below.
    :param metadata_filter: a filter on metadata in UniqueQL.
    :param reranker: the name of the deployment that ranks the hits anew.
    """
    if kind not in _KINDS:
        raise ValueError(f"there is no kind of search {kind!r}: take one of {', '.join(_KINDS)}")
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
    """The hit as the contract has it."""
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
