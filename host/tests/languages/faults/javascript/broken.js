// Throws for every event. Uses the SDK of this repository directly.
import { defineModule, step } from "../../../../../sdk-guest/js/src/index.js";

export const handle = defineModule({
  moduleChosen: ({ userMessage }) => step("Breaking…", () => letter(userMessage.text, 5)),
});

function letter(text, at) {
  if (at >= text.length) {
    throw new RangeError(`there is no letter ${at} in ${text.length}`);
  }
  return text[at];
}
