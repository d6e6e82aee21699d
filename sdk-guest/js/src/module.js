// The seam between an author's functions and the component's export.
import { CallError, Failure } from "./errors.js";
import { eventFromHost } from "./events.js";
import { begin } from "./random.js";
import { closeLeft } from "./steps.js";
import { traceOf } from "./trace.js";

/** @typedef {import("../types/index.js").Handlers} Handlers */
/** @typedef {import("../types/index.js").Event} Event */

const KINDS = {
  moduleChosen: "unique.chat.external-module.chosen",
  userMessageCreated: "unique.chat.user-message.created",
};

/**
 * @param {Handlers} handlers
 * @returns {(event: unknown) => void}
 */
export function defineModule(handlers) {
  const unknown = Object.keys(handlers).find((name) => name !== "other" && !(name in KINDS));
  if (unknown !== undefined) {
    throw new TypeError(`defineModule: there is no event \`${unknown}\`: take moduleChosen, userMessageCreated or other`);
  }
  return (event) => {
    try {
      begin();
      const answered = /** @type {unknown} */ (answer(handlers, eventFromHost(event)));
      if (answered instanceof Promise) {
        throw new Failure("the module's function is `async`, and can't be: calls wait by themselves. Leave `async` out.");
      }
      closeLeft();
    } catch (error) {
      throw failureToHost(error);
    }
  };
}

/**
 * @param {Handlers} handlers
 * @param {Event} event
 */
function answer(handlers, event) {
  const { subject } = event;
  if (subject.kind === "moduleChosen" && handlers.moduleChosen) {
    return handlers.moduleChosen(subject.moduleChosen, event);
  }
  if (subject.kind === "userMessageCreated" && handlers.userMessageCreated) {
    return handlers.userMessageCreated(subject.userMessageCreated, event);
  }
  if (handlers.other) {
    return handlers.other(event);
  }
  const takes = Object.entries(KINDS).flatMap(([kind, name]) => (kind in handlers ? [`\`${name}\``] : []));
  throw new Failure(
    `the event \`${event.name}\` (${event.id}) is of a kind this module doesn't take: it takes ` +
      `${takes.join(" and ") || "none"}. Name only that under \`events\` of the module in modules.toml.`,
  );
}

/**
 * How what was thrown ends the delivery, as the contract has it.
 *
 * @param {unknown} error
 */
export function failureToHost(error) {
  if (error instanceof Failure) {
    return { reason: error.message, userText: error.userText ?? null, retry: retryToHost(error.retry) };
  }
  if (error instanceof CallError) {
    const place = traceOf(error)[0];
    return { reason: place ? `${error.message}\n    at ${place}` : error.message, userText: null, retry: retryToHost(error.retry) };
  }
  return { reason: told(error), userText: null, retry: { tag: "no" } };
}

/**
 * What it was, and the stack trace.
 *
 * @param {unknown} error
 * @returns {string}
 */
function told(error) {
  if (!(error instanceof Error)) {
    return `thrown: ${typeof error === "string" ? error : JSON.stringify(error)}`;
  }
  const frames = traceOf(error).map((frame) => `\n    at ${frame}`);
  const cause = error.cause === undefined ? "" : `\ncaused by ${told(error.cause)}`;
  return `${error.name}: ${error.message}${frames.join("")}${cause}`;
}

/** @param {boolean | number} retry */
function retryToHost(retry) {
  if (typeof retry === "boolean") {
    return { tag: retry ? "yes" : "no" };
  }
  // Rounded up, so that it is never earlier than asked.
  return { tag: "after", val: Math.min(Math.max(Math.ceil(retry), 0), 0xffffffff) };
}
