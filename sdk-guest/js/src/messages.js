// The messages of the chat in which the event happened.
import host from "#host/messages";
import { call, json, present } from "./calls.js";
import { cite, referencesTo, referenceToHost } from "./references.js";

/** @typedef {import("../types/index.js").Message} Message */
/** @typedef {import("../types/index.js").MessageOptions} MessageOptions */

/**
 * @param {string} [text]
 * @param {MessageOptions} [options]
 * @returns {Message}
 */
export function reply(text, options) {
  return messageFromHost(call("messages.reply", () => host.reply(change(text, options))));
}

/**
 * @param {string} text
 * @param {MessageOptions} [options]
 * @returns {Message}
 */
export function create(text, options) {
  return messageFromHost(call("messages.create", () => host.create(change(text, options))));
}

/**
 * @param {string} id
 * @param {string} [text]
 * @param {MessageOptions} [options]
 * @returns {Message}
 */
export function modify(id, text, options) {
  return messageFromHost(call("messages.modify", () => host.modify(id, change(text, options))));
}

/** @param {string} text */
export function show(text) {
  call("messages.show", () => host.show(text));
}

/**
 * @param {number} [limit]
 * @returns {Message[]}
 */
export function history(limit) {
  return call("messages.history", () => host.history(limit ?? null)).map(messageFromHost);
}

/**
 * @param {string | undefined} text
 * @param {MessageOptions} [options]
 */
function change(text, options = {}) {
  let cited = referencesTo(options.citing ?? []);
  // An empty list of hits also removes the citations from the text.
  if (text !== undefined && options.citing !== undefined) {
    ({ text, references: cited } = cite(text, cited));
  }
  return {
    text: text ?? null,
    references: [...(options.references ?? []), ...cited].map(referenceToHost),
    debugInfo: json(options.debugInfo),
    completed: options.completed ?? true,
  };
}

/**
 * @param {any} message
 * @returns {Message}
 */
function messageFromHost(message) {
  return { ...present(message), references: message.references.map(present) };
}
