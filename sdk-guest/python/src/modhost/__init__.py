"""Write modhost modules in Python: an ordinary function that takes an event and answers it.

    import modhost
    from modhost import ModuleChosen, complete, messages, search, step


    @modhost.module
    def answer(event: ModuleChosen) -> None:
        question = event.user_message.text

        with step("Searching knowledge base…") as searching:
            hits = search(question, limit=3)
            searching.done(f"Found {len(hits)} passages")

        passages = "\\n\\n".join(hit.text for hit in hits)
        completed = complete(question, system=passages, temperature=0.3)
        messages.reply(completed.text, citing=hits)

``modhost-componentize answer.py -o answer.wasm`` makes it a component, which the host runs once for each event.

- ``@modhost.module`` names the function. Its argument says which events it takes.
- ``step`` shows the user what is being done, ``search`` asks the knowledge base, ``complete`` a language model, and
  ``messages`` writes the reply.
- ``modhost.keyvalue.Store`` keeps values from one event to the next, ``modhost.http`` sends requests where the operator
  allows it, and ``modhost.nexus`` and ``modhost.archivus`` have the events of those systems.
- ``config`` reads the module's settings; ``logging`` and ``print`` write to the operators' log.
- A call that fails raises a kind of ``modhost.Error``. What a module raises ends the delivery; raise ``Failure`` to choose
  the words and whether another try may help.

Who is acted for is not a module's to say: every call acts on the event that is being answered.

All of it can be imported on the machine you work on, too, so that what your module does besides calling the host can be
tested. There, a call raises ``modhost.NoHost``.
"""

from modhost import config, messages
from modhost._completion import Answer, Prompt, Tokens, Turn, Usage, complete, complete_into_reply, stream
from modhost._errors import (
    Denied,
    Error,
    Failure,
    Invalid,
    Misconfigured,
    NoHost,
    NotFound,
    RateLimited,
    Timeout,
    Unavailable,
    Unsupported,
)
from modhost._events import Event, FromEvent, ModuleChosen, UserMessage, UserMessageCreated
from modhost._module import module
from modhost._reference import Reference
from modhost._search import Hit, search
from modhost._steps import Step, step

__all__ = [
    "Answer",
    "Denied",
    "Error",
    "Event",
    "Failure",
    "FromEvent",
    "Hit",
    "Invalid",
    "Misconfigured",
    "ModuleChosen",
    "NoHost",
    "NotFound",
    "Prompt",
    "RateLimited",
    "Reference",
    "Step",
    "Timeout",
    "Tokens",
    "Turn",
    "Unavailable",
    "Unsupported",
    "Usage",
    "UserMessage",
    "UserMessageCreated",
    "complete",
    "complete_into_reply",
    "config",
    "messages",
    "module",
    "search",
    "step",
    "stream",
]
