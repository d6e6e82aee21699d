"""Sources that a message or a step cites."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from modhost._bindings.imports import types as wit
from modhost._search import Hit

# A citation: `[source0]`, `[source 0, Source2]`.
_CITATION = re.compile(r"\[( *source *[0-9]+ *(?:, *source *[0-9]+ *)*)\]", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A source that a message or a step cites, shown as a footnote: ``<sup>1</sup>`` in the text refers to number 1."""

    name: str
    """The name the user reads."""
    description: str | None = None
    """A description."""
    url: str | None = None
    """The URL that opens the source."""
    sequence_number: int
    """The footnote number, from 1."""
    original_index: tuple[int, ...] = ()
    """The positions, from 0, in the list of sources from which the reference was made, if it was made from one."""
    source_id: str
    """The platform's id of the source; for a search hit, ``<id>_<chunk id>``."""
    source: str
    """The kind of source; for a search hit, ``node-ingestion-chunks``."""

    @classmethod
    def from_hit(cls, number: int, hit: Hit) -> Self:
        """Creates a reference to a hit, with this footnote number (from 1)."""
        return cls(
            name=hit.name,
            description=hit.pages,
            url=hit.url,
            sequence_number=number,
            original_index=(number - 1,),
            source_id=f"{hit.id}_{hit.chunk_id}",
            source="node-ingestion-chunks",
        )

    @classmethod
    def from_hits(cls, hits: Iterable[Hit]) -> list[Self]:
        """Creates references to hits, numbered from 1 in the order of the hits."""
        return [cls.from_hit(number, hit) for number, hit in enumerate(hits, start=1)]


def cite(text: str, references: Sequence[Reference]) -> tuple[str, list[Reference]]:
    """Turns ``[source0]``, ``[source0, source2]`` and the like in a model's text into footnotes, and filters the references
    (one for each source, in order) to those that are cited. If the text cites none, keeps all, because the text is still
    based on them. Citations of sources that don't exist are model hallucinations and are removed."""
    cited: set[int] = set()
    written = ""
    end = 0
    for citation in _CITATION.finditer(text):
        written += text[end : citation.start()]
        end = citation.end()
        numbers = map(_number, re.findall("[0-9]+", citation[1]))
        known = [number for number in numbers if number < len(references)]
        if not known:
            written = written.rstrip(" ")
        cited.update(known)
        written += "".join(f"<sup>{references[number].sequence_number}</sup>" for number in known)
    written += text[end:]
    return written, [reference for number, reference in enumerate(references) if number in cited or not cited]


def _number(digits: str) -> int:
    # Python refuses to parse thousands of digits. No source has a number that large.
    return int(digits) if len(digits) < 10 else 10**9


def from_host(reference: wit.Reference) -> Reference:
    """Converts a reference from the bindings."""
    return Reference(
        name=reference.name,
        description=reference.description,
        url=reference.url,
        sequence_number=reference.sequence_number,
        original_index=tuple(reference.original_index),
        source_id=reference.source_id,
        source=reference.source,
    )


def to_host(reference: Reference) -> wit.Reference:
    """Converts a reference to the bindings."""
    return wit.Reference(
        name=reference.name,
        description=reference.description,
        url=reference.url,
        sequence_number=reference.sequence_number,
        original_index=list(reference.original_index),
        source_id=reference.source_id,
        source=reference.source,
    )
