// Makes calls that the samples don't make: streams answers and sends HTTP requests. Uses the SDK of this repository directly.
import { DeniedError, defineModule, http, messages, NotFoundError, Store, stream } from "../../../../../sdk-guest/js/src/index.js";

const RATE = "https://rates.example.com/v1/chf-eur";
const ORDERS = "https://shop.example.com/orders";

export const handle = defineModule({
  moduleChosen({ userMessage }) {
    switch (userMessage.text) {
      case "Tell": {
        let text = "";
        for (const piece of stream("a story")) {
          text += piece;
          messages.show(text);
        }
        messages.reply(text);
        break;
      }
      case "Tell little":
        for (const piece of stream("a story")) {
          messages.reply(piece);
          break;
        }
        break;
      case "Keep": {
        const store = new Store("asked");
        store.updateJson("texts", (texts) => [...(texts ?? []), "Keep"]);
        messages.reply(`${store.increment("times")} ${store.compareAndSwap("times", "1", "5")}`);
        break;
      }
      case "Order": {
        const rate = http.begin("GET", `${RATE}?day=to+day`, { headers: { accept: "application/json" }, timeout: 5000 });
        const order = http.begin("POST", ORDERS, { json: { item: "A-17", note: "é".repeat(3000) } });
        const { value } = rate.answer().orThrow().json();
        const placed = order.answer();
        messages.reply(`${value} ${placed.status} ${placed.headers.get("LOCATION")} ${placed.text()}`);
        break;
      }
      case "Look": {
        const found = http.get(RATE);
        expecting(NotFoundError, () => found.orThrow(), (error) => `${found.ok} ${error.message}`);
        break;
      }
      case "Cancel":
        expecting(DeniedError, () => http.delete(ORDERS), (error) => error.message);
        break;
      default:
        http.get(RATE);
    }
  },
});

function expecting(kind, work, told) {
  try {
    work();
  } catch (error) {
    if (!(error instanceof kind)) {
      throw error;
    }
    messages.reply(told(error));
  }
}
