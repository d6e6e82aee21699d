"""Sources that a message or a step names."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from modhost._bindings.imports import types as wit
from modhost._search import Hit

# What may be a citation: `[source0]`, `[source 0, Source2]`.
_CITATION = re.compile(r"\[( *source *[0-9]+ *(?:, *source *[0-9]+ *)*)\]", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A source that a message or a step names, shown as a footnote: ``<sup>1</sup>`` in the text points to number 1."""

    name: str
    """What the user reads."""
    description: str | None = None
    """More about it."""
    url: str | None = None
    """Where it can be opened."""
    sequence_number: int
    """The number it is shown with, from 1."""
    original_index: tuple[int, ...] = ()
    """The places in the list of sources it was made from, from 0, where it was made from one."""
    source_id: str
    """The platform's id of what it points to; for a hit ``<id>_<chunk id>``."""
    source: str
    """The kind of source; for a hit ``node-ingestion-chunks``."""

    @classmethod
    def from_hit(cls, number: int, hit: Hit) -> Self:
        """The reference to a hit, shown with this number (from 1)."""
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
        """The references to hits, numbered from 1 in their order."""
        return [cls.from_hit(number, hit) for number, hit in enumerate(hits, start=1)]


def cite(text: str, references: Sequence[Reference]) -> tuple[str, list[Reference]]:
    """Turns ``[source0]``, ``[source0, source2]`` and the like in a model's text into footnotes, and keeps of the
    references (one for each source, in order) those that are cited; all of them if none is, as the text rests on them
    all the same. A source that doesn't exist is an invention of the model and disappears."""
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
    # Python refuses to read thousands of digits. They name a source that doesn't exist, like any number that large.
    return int(digits) if len(digits) < 10 else 10**9


def from_host(reference: wit.Reference) -> Reference:
    """The reference as the module reads it."""
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
    """The reference as the contract has it."""
    return wit.Reference(
        name=reference.name,
        description=reference.description,
        url=reference.url,
        sequence_number=reference.sequence_number,
        original_index=list(reference.original_index),
        source_id=reference.source_id,
        source=reference.source,
    )
