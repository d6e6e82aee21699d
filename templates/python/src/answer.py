"""Answers a question from the passages that a search finds."""

from collections.abc import Sequence

import modhost
from modhost import Hit, ModuleChosen, complete, messages, search, step


@modhost.module
def answer(event: ModuleChosen) -> None:
    question = event.user_message.text

    with step("Searching…") as searching:
        hits = search(question, limit=3)
        searching.done(f"Passages found: {len(hits)}")
    if not hits:
        messages.reply("I found nothing about that.")
        return

    with step("Writing the answer…"):
        written = complete(question, system=instructions(hits))

    messages.reply(written.text, citing=hits)


def instructions(hits: Sequence[Hit]) -> str:
    """Returns the prompt: the task and the passages, numbered for citations."""
    text = "Answer from these passages and from nothing else. Cite them as [source0], [source1] and so on.\n"
    for number, hit in enumerate(hits):
        text += f"\n<source{number}>\n{hit.name}\n{hit.text}\n</source{number}>\n"
    return text
