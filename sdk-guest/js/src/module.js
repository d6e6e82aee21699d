// Connects the author's functions to the component's export.
import { CallError, Failure } from "./errors.js";
import { eventFromHost } from "./events.js";
import { Payload, SYSTEMS } from "./other-systems.js";
import { useHostRandom } from "./random.js";
import { closeAbandoned } from "./steps.js";
import { traceOf } from "./trace.js";

/** @typedef {import("../types/index.js").Handlers} Handlers */
/** @typedef {import("../types/index.js").Event} Event */

/** The kinds of events that the host parses itself, with their names. */
const KINDS = {
  moduleChosen: "unique.chat.external-module.chosen",
  userMessageCreated: "unique.chat.user-message.created",
};

/**
 * @param {Handlers} handlers
 * @returns {(event: unknown) => void}
 */
export function defineModule(handlers) {
  check("", Object.keys(handlers), [...Object.keys(KINDS), ...Object.keys(SYSTEMS), "other"]);
  for (const [system, kinds] of Object.entries(SYSTEMS)) {
    check(`${system}.`, Object.keys(functionsOf(handlers, system)), Object.keys(kinds));
  }
  return (event) => {
    try {
      useHostRandom();
      const result = /** @type {unknown} */ (dispatch(handlers, eventFromHost(event)));
      if (result instanceof Promise) {
        throw new Failure("the module's function is `async`, which it can't be: calls block until they return. Remove `async`.");
      }
      closeAbandoned();
    } catch (error) {
      throw failureToHost(error);
    }
  };
}

/**
 * Rejects unknown function names, because a misspelled function would never be called.
 *
 * @param {string} prefix
 * @param {string[]} names
 * @param {string[]} known
 */
function check(prefix, names, known) {
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    const all = known.map((name) => `${prefix}${name}`);
    throw new TypeError(`defineModule: unknown event \`${prefix}${unknown}\`; use one of ${all.join(", ")}`);
  }
}

/**
 * @param {Handlers} handlers
 * @param {string} system
 * @returns {Record<string, (read: any, event: Event) => void>}
 */
function functionsOf(handlers, system) {
  return /** @type {any} */ (handlers)[system] ?? {};
}

/**
 * @param {Handlers} handlers
 * @param {Event} event
 */
function dispatch(handlers, event) {
  const { subject } = event;
  if (subject.kind === "moduleChosen" && handlers.moduleChosen) {
    return handlers.moduleChosen(subject.moduleChosen, event);
  }
  if (subject.kind === "userMessageCreated" && handlers.userMessageCreated) {
    return handlers.userMessageCreated(subject.userMessageCreated, event);
  }
  for (const { handler, name, read } of otherSystemHandlers(handlers)) {
    if (name === event.name) {
      return handler(read(new Payload(event)), event);
    }
  }
  if (handlers.other) {
    return handlers.other(event);
  }
  if (Object.entries(KINDS).some(([kind, name]) => kind in handlers && name === event.name)) {
    throw new Failure(
      `the host couldn't parse the payload of event \`${event.name}\` (${event.id}); its log names the field. ` +
        "A function `other` can read the payload itself.",
    );
  }
  const own = Object.entries(KINDS).flatMap(([kind, name]) => (kind in handlers ? [name] : []));
  const handled = [...own, ...otherSystemHandlers(handlers).map(({ name }) => name)].map((name) => `\`${name}\``);
  throw new Failure(
    `this module doesn't handle event \`${event.name}\` (${event.id}); it handles ` +
      `${handled.join(" and ") || "none"}. List only those events under \`events\` of the module in modules.toml.`,
  );
}

/**
 * Returns the functions for events of other systems, with the names and parsers of the events.
 *
 * @param {Handlers} handlers
 */
function otherSystemHandlers(handlers) {
  return Object.entries(SYSTEMS).flatMap(([system, kinds]) => {
    const functions = functionsOf(handlers, system);
    return Object.entries(kinds).flatMap(([kind, { name, read }]) => {
      const handler = functions[kind];
      return handler === undefined ? [] : [{ handler, name, read }];
    });
  });
}

/**
 * Converts an exception to the failure of the delivery.
 *
 * @param {unknown} error
 */
export function failureToHost(error) {
  if (error instanceof Failure) {
    const { cause } = error;
    const reason = cause === undefined ? error.message : `${error.message}: ${format(cause)}`;
    const retry = error.retry ?? (cause instanceof CallError ? cause.retry : false);
    return { reason, userText: error.userText ?? null, retry: retryToHost(retry) };
  }
  if (error instanceof CallError) {
    return { reason: format(error), userText: null, retry: retryToHost(error.retry) };
  }
  return { reason: format(error), userText: null, retry: { tag: "no" } };
}

/**
 * Formats an exception with its stack trace. For a failed call, includes only the frame of the call.
 *
 * @param {unknown} error
 * @returns {string}
 */
function format(error) {
  if (!(error instanceof Error)) {
    return `thrown: ${typeof error === "string" ? error : JSON.stringify(error)}`;
  }
  const frames = traceOf(error).map((frame) => `\n    at ${frame}`);
  if (error instanceof CallError) {
    return error.message + (frames[0] ?? "");
  }
  const cause = error.cause === undefined ? "" : `\ncaused by ${format(error.cause)}`;
  return `${error.name}: ${error.message}${frames.join("")}${cause}`;
}

/** @param {boolean | number} retry */
function retryToHost(retry) {
  if (typeof retry === "boolean") {
    return { tag: retry ? "yes" : "no" };
  }
  // Rounded up, so that no retry is early.
  return { tag: "after", val: Math.min(Math.max(Math.ceil(retry), 0), 0xffffffff) };
}
