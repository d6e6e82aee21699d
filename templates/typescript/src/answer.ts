// Answers a question from the passages that a search finds.
import { type Hit, complete, defineModule, messages, search, step } from "@modhost/sdk";

export const handle = defineModule({
  moduleChosen({ userMessage: { text: question } }) {
    const hits = step("Searching…", (searching) => {
      const hits = search(question, { limit: 3 });
      searching.done(`Passages found: ${hits.length}`);
      return hits;
    });
    if (hits.length === 0) {
      messages.reply("I found nothing about that.");
      return;
    }

    const { text } = step("Writing the answer…", () => complete(question, { system: instructions(hits) }));

    messages.reply(text, { citing: hits });
  },
});

/** Returns the prompt: the task and the passages, numbered for citations. */
function instructions(hits: readonly Hit[]): string {
  const task = "Answer from these passages and from nothing else. Cite them as [source0], [source1] and so on.\n";
  return task + hits.map(({ name, text }, n) => `\n<source${n}>\n${name}\n${text}\n</source${n}>\n`).join("");
}
