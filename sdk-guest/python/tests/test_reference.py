"""Citations in a model's text."""

import pytest

from modhost import Hit, Reference
from modhost._reference import cite


def references(count: int) -> list[Reference]:
    return Reference.from_hits(
        Hit(id=f"cont_{n}", chunk_id=f"chunk_{n}", text="…", title=f"Document {n}", url=f"https://example.com/{n}")
        for n in range(count)
    )


def cited(text: str, sources: int) -> tuple[str, list[int]]:
    text, kept = cite(text, references(sources))
    return text, [reference.sequence_number for reference in kept]


def test_creates_a_reference_from_a_hit() -> None:
    hit = Hit(id="cont_0", chunk_id="chunk_0", text="…", title=" ", key="a.md", start_page=3, end_page=4)
    assert Reference.from_hit(2, hit) == Reference(
        name="a.md",
        description="pages 3–4",
        url=None,
        sequence_number=2,
        original_index=(1,),
        source_id="cont_0_chunk_0",
        source="node-ingestion-chunks",
    )


@pytest.mark.parametrize(
    ("start", "end", "pages"),
    [(None, None, None), (-1, -1, None), (3, None, "page 3"), (3, 3, "page 3"), (3, 4, "pages 3–4")],
)
def test_formats_the_pages_of_a_hit(start: int | None, end: int | None, pages: str | None) -> None:
    assert Hit(id="c", chunk_id="k", text="…", start_page=start, end_page=end).pages == pages


@pytest.mark.parametrize(
    ("text", "sources", "written", "kept"),
    [
        ("Book early [source0]. Or late [source2].", 3, "Book early <sup>1</sup>. Or late <sup>3</sup>.", [1, 3]),
        ("Twice [source1] [source1]", 2, "Twice <sup>2</sup> <sup>2</sup>", [2]),
        ("[Source 0,source2]", 3, "<sup>1</sup><sup>3</sup>", [1, 3]),
        ("[ source 0 , SOURCE2 ]", 3, "<sup>1</sup><sup>3</sup>", [1, 3]),
        ("Book early.", 2, "Book early.", [1, 2]),
        ("Book early [source7].", 1, "Book early.", [1]),
        ("Book [source" + "9" * 5000 + "] early", 0, "Book early", []),
        ("Book early [source7, source0].", 1, "Book early <sup>1</sup>.", [1]),
        ("[see [source0]]", 1, "[see <sup>1</sup>]", [1]),
    ],
)
def test_citations_become_footnotes(text: str, sources: int, written: str, kept: list[int]) -> None:
    assert cited(text, sources) == (written, kept)


@pytest.mark.parametrize(
    "text", ["a [link](https://x)", "[sources]", "[source]", "[source-1]", "[sourceé]", "[source²]", "[", "]", "[x, source0]", ""]
)
def test_leaves_other_brackets_unchanged(text: str) -> None:
    assert cited(text, 1)[0] == text
