"""Raises an exception for every event."""

import modhost
from modhost import ModuleChosen, step


@modhost.module
def answer(event: ModuleChosen) -> None:
    with step("Breaking…"):
        letter(event.user_message.text, 5)


def letter(text: str, at: int) -> str:
    return text[at]
