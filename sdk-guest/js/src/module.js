// The seam between an author's functions and the component's export.
import { CallError, Failure } from "./errors.js";
import { eventFromHost } from "./events.js";
import { Payload, SYSTEMS } from "./other-systems.js";
import { begin } from "./random.js";
import { closeLeft } from "./steps.js";
import { traceOf } from "./trace.js";

/** @typedef {import("../types/index.js").Handlers} Handlers */
/** @typedef {import("../types/index.js").Event} Event */

/** What the host itself understands of events, and what those are called. */
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
 * A misspelt function would never be called, and nobody would know.
 *
 * @param {string} of
 * @param {string[]} names
 * @param {string[]} known
 */
function check(of, names, known) {
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    const all = known.map((name) => `${of}${name}`);
    throw new TypeError(`defineModule: there is no event \`${of}${unknown}\`: take one of ${all.join(", ")}`);
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
function answer(handlers, event) {
  const { subject } = event;
  if (subject.kind === "moduleChosen" && handlers.moduleChosen) {
    return handlers.moduleChosen(subject.moduleChosen, event);
  }
  if (subject.kind === "userMessageCreated" && handlers.userMessageCreated) {
    return handlers.userMessageCreated(subject.userMessageCreated, event);
  }
  for (const { take, name, read } of ofOtherSystems(handlers)) {
    if (name === event.name) {
      return take(read(new Payload(event)), event);
    }
  }
  if (handlers.other) {
    return handlers.other(event);
  }
  if (Object.entries(KINDS).some(([kind, name]) => kind in handlers && name === event.name)) {
    throw new Failure(
      `the event \`${event.name}\` (${event.id}) is of a kind this module takes, but its payload has an unknown shape: the ` +
        "host's log says which field. A function `other` can read it from the payload.",
    );
  }
  const ours = Object.entries(KINDS).flatMap(([kind, name]) => (kind in handlers ? [name] : []));
  const takes = [...ours, ...ofOtherSystems(handlers).map(({ name }) => name)].map((name) => `\`${name}\``);
  throw new Failure(
    `the event \`${event.name}\` (${event.id}) is of a kind this module doesn't take: it takes ` +
      `${takes.join(" and ") || "none"}. Name only that under \`events\` of the module in modules.toml.`,
  );
}

/**
 * The functions for events of other systems, with what those are called and how they are read.
 *
 * @param {Handlers} handlers
 */
function ofOtherSystems(handlers) {
  return Object.entries(SYSTEMS).flatMap(([system, kinds]) => {
    const functions = functionsOf(handlers, system);
    return Object.entries(kinds).flatMap(([kind, { name, read }]) => {
      const take = functions[kind];
      return take === undefined ? [] : [{ take, name, read }];
    });
  });
}

/**
 * How what was thrown ends the delivery, as the contract has it.
 *
 * @param {unknown} error
 */
export function failureToHost(error) {
  if (error instanceof Failure) {
    const { cause } = error;
    const reason = cause === undefined ? error.message : `${error.message}: ${told(cause)}`;
    const retry = error.retry ?? (cause instanceof CallError ? cause.retry : false);
    return { reason, userText: error.userText ?? null, retry: retryToHost(retry) };
  }
  if (error instanceof CallError) {
    return { reason: told(error), userText: null, retry: retryToHost(error.retry) };
  }
  return { reason: told(error), userText: null, retry: { tag: "no" } };
}

/**
 * What it was, and the stack trace; of a failed call, which says what it was by itself, where it was made.
 *
 * @param {unknown} error
 * @returns {string}
 */
function told(error) {
  if (!(error instanceof Error)) {
    return `thrown: ${typeof error === "string" ? error : JSON.stringify(error)}`;
  }
  const frames = traceOf(error).map((frame) => `\n    at ${frame}`);
  if (error instanceof CallError) {
    return error.message + (frames[0] ?? "");
  }
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
