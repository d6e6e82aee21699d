from assistant import found, instructions

from modhost import Hit


def hit(title: str, text: str) -> Hit:
    return Hit(id="cont_1", chunk_id="chunk_1", text=text, title=title)


def test_the_model_reads_the_sources_by_their_numbers() -> None:
    text = instructions([hit("Travel", "Book early.\n"), hit("Leave", "Take it.")])
    assert "<source0>\nTravel\nBook early.\n</source0>" in text
    assert "<source1>\nLeave\nTake it.\n</source1>" in text


def test_the_model_is_told_that_there_are_none() -> None:
    assert "holds nothing about the user's question" in instructions([])


def test_documents_are_counted() -> None:
    assert [found(count) for count in range(3)] == [
        "Found no relevant documents",
        "Found 1 relevant document",
        "Found 2 relevant documents",
    ]
