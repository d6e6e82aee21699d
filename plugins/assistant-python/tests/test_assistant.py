from assistant import found, instructions

from modhost import Hit


def hit(title: str, text: str) -> Hit:
    return Hit(id="cont_1", chunk_id="chunk_1", text=text, title=title)


def test_prompt_contains_numbered_sources() -> None:
    text = instructions([hit("Travel", "Book early.\n"), hit("Leave", "Take it.")])
    assert "<source0>\nTravel\nBook early.\n</source0>" in text
    assert "<source1>\nLeave\nTake it.\n</source1>" in text


def test_prompt_says_that_nothing_was_found() -> None:
    assert "contains nothing about the user's question" in instructions([])


def test_counts_documents() -> None:
    assert [found(count) for count in range(3)] == [
        "Found no relevant documents",
        "Found 1 relevant document",
        "Found 2 relevant documents",
    ]
