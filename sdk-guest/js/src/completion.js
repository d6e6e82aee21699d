// Language model completions. Calls are slow and cost money: one call may take minutes.
import host from "#host/completion";
import { call, json, present } from "./calls.js";
import { hitToHost } from "./search.js";

/** @typedef {import("../types/index.js").Prompt} Prompt */
/** @typedef {import("../types/index.js").CompletionOptions} CompletionOptions */
/** @typedef {import("../types/index.js").Answer} Answer */
/** @typedef {import("../types/index.js").Hit} Hit */

/**
 * @param {Prompt} prompt
 * @param {CompletionOptions} [options]
 * @returns {Answer}
 */
export function complete(prompt, options) {
  const request = requestOf(prompt, options);
  return answerFromHost(call("completion.complete", () => host.complete(request)));
}

/**
 * @param {Prompt} prompt
 * @param {CompletionOptions & { sources?: readonly Hit[] }} [options]
 * @returns {Answer}
 */
export function completeIntoReply(prompt, options) {
  const request = requestOf(prompt, options);
  const sources = (options?.sources ?? []).map(hitToHost);
  return answerFromHost(call("completion.complete-into-reply", () => host.completeIntoReply(request, sources)));
}

/**
 * @param {Prompt} prompt
 * @param {CompletionOptions} [options]
 * @returns {IterableIterator<string>}
 */
export function stream(prompt, options) {
  const request = requestOf(prompt, options);
  const tokens = call("completion.stream", () => host.stream(request));
  return chunks(tokens);
}

/**
 * @param {any} tokens
 * @returns {Generator<string, void>}
 */
function* chunks(tokens) {
  try {
    for (;;) {
      const chunk = call("completion.tokens.next", () => tokens.next());
      if (chunk === null) {
        return;
      }
      yield chunk;
    }
  } finally {
    // Cancels the rest of the answer, if any.
    tokens[Symbol.dispose]();
  }
}

/**
 * @param {Prompt} prompt
 * @param {CompletionOptions} [options]
 */
function requestOf(prompt, options = {}) {
  const system = options.system === undefined ? [] : [{ role: "system", text: options.system }];
  const turns = typeof prompt === "string" ? [{ role: "user", text: prompt }] : prompt;
  const messages = [...system, ...turns].flatMap(({ role, text }) => (text ? [{ role, content: text }] : []));
  return {
    model: options.model ?? null,
    messages,
    temperature: options.temperature ?? null,
    maxTokens: options.maxTokens ?? null,
    options: json(options.options),
    timeoutMs: options.timeout === undefined ? null : Math.min(Math.max(Math.round(options.timeout), 0), 0xffffffff),
  };
}

/**
 * @param {any} answer
 * @returns {Answer}
 */
function answerFromHost(answer) {
  return present(answer);
}
