"""Makes calls that the samples don't make: streams answers and sends HTTP requests."""

import modhost
from modhost import ModuleChosen, http, messages, stream
from modhost.keyvalue import Store

RATE = "https://rates.example.com/v1/chf-eur"
ORDERS = "https://shop.example.com/orders"


@modhost.module
def answer(event: ModuleChosen) -> None:
    match event.user_message.text:
        case "Tell":
            text = ""
            for piece in stream("a story"):
                text += piece
                messages.show(text)
            messages.reply(text)
        case "Tell little":
            with stream("a story") as pieces:
                messages.reply(next(pieces))
        case "Keep":
            store = Store("asked")
            store.update_json("texts", lambda texts: [*(texts or []), "Keep"])
            messages.reply(f"{store.increment('times')} {store.compare_and_swap('times', '1', '5')}")
        case "Order":
            rate = http.begin("GET", RATE, params={"day": "to day"}, headers={"accept": "application/json"}, timeout=5)
            order = http.begin("POST", ORDERS, json={"item": "A-17", "note": "é" * 3000})
            value = rate.answer().raise_for_status().json()["value"]
            placed = order.answer()
            messages.reply(f"{value} {placed.status} {placed.headers['LOCATION']} {placed.text}")
        case "Look":
            found = http.get(RATE)
            try:
                found.raise_for_status()
            except modhost.NotFound as error:
                messages.reply(f"{found.ok} {error}")
        case "Cancel":
            try:
                http.delete(ORDERS)
            except modhost.Denied as error:
                messages.reply(str(error))
        case _:
            http.get(RATE)
