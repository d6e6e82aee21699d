"""The Python SDK for modhost modules. A module is a function that handles an event.

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

``modhost-componentize answer.py -o answer.wasm`` builds a component, which the host runs once for each event.

- ``@modhost.module`` exports the function. The type of its argument selects the events it handles.
- ``step`` shows progress to the user, ``search`` searches the knowledge base, ``complete`` calls a language model, and
  ``messages`` writes the reply.
- ``modhost.keyvalue.Store`` keeps values between events, ``modhost.http`` sends requests to hosts that the operator
  allows, and ``modhost.nexus`` and ``modhost.archivus`` have the events of those systems.
- ``config`` reads the module's settings; ``logging`` and ``print`` write to the operators' log.
- A failed call raises a subclass of ``modhost.Error``. An uncaught exception fails the delivery. Raise ``Failure`` to choose
  the texts and whether the host retries.

A module never says for whom it acts: every call acts on the event that is being handled.

The package can also be imported on your own machine, to test all code that doesn't call the host. Calls raise
``modhost.NoHost`` there.
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
