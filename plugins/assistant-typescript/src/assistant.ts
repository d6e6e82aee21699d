// Answers a question from the knowledge base and cites its sources.
import { complete, defineModule, messages, search, step } from "@modhost/sdk";

import { found, instructions } from "./instructions.ts";

const NOTHING_FOUND = "I found nothing about this in the knowledge base, so this answer is not based on any source.\n\n";

export const handle = defineModule({
  moduleChosen({ userMessage: { text: question } }) {
    const hits = step("Searching knowledge base…", (searching) => {
      const hits = search(question, { limit: 3 });
      searching.done(found(hits.length));
      return hits;
    });

    const { text } = step("Generating response…", () =>
      complete(question, { system: instructions(hits), temperature: 0.3 }),
    );

    messages.reply(hits.length > 0 ? text : NOTHING_FOUND + text, { citing: hits });
  },
});
