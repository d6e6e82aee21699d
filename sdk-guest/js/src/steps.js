// The progress steps shown under the reply.
import host from "#host/message-log";
import { call, json } from "./calls.js";
import { referenceToHost } from "./references.js";

/** @typedef {import("../types/index.js").StepChange} StepChange */

/**
 * Steps that an exception left. If the exception ends the delivery, the host closes them, because only the host knows whether it will
 * retry. If the module catches the exception and continues, they are closed as failed before the next step, or at the end.
 *
 * @type {Step[]}
 */
const abandoned = [];

/**
 * @template T
 * @param {string} text
 * @param {(step: Step) => T} work
 * @returns {T}
 */
export function step(text, work) {
  const step = startStep(text);
  let result;
  try {
    result = work(step);
  } catch (error) {
    abandoned.push(step);
    throw error;
  }
  if (!step.closed) {
    step.done();
  }
  return result;
}

/**
 * @param {string} text
 * @returns {Step}
 */
export function startStep(text) {
  closeAbandoned();
  return new Step(call("message-log.create", () => host.Entry.create(text, "running")));
}

/** Closes the steps that exceptions left, as failed. */
export function closeAbandoned() {
  for (const step of abandoned.splice(0)) {
    if (!step.closed) {
      step.fail();
    }
  }
}

class Step {
  #entry;
  closed = false;

  /** @param {any} entry */
  constructor(entry) {
    this.#entry = entry;
  }

  get id() {
    return this.#entry.id();
  }

  /**
   * @param {string} [text]
   * @param {StepChange} [change]
   */
  update(text, change) {
    this.#send(text, null, change);
  }

  /**
   * @param {string} [text]
   * @param {StepChange} [change]
   */
  done(text, change) {
    this.#send(text, "completed", change);
    this.closed = true;
  }

  /**
   * @param {string} [text]
   * @param {StepChange} [change]
   */
  fail(text, change) {
    this.#send(text, "failed", change);
    this.closed = true;
  }

  /**
   * @param {string | undefined} text
   * @param {"completed" | "failed" | null} status
   * @param {StepChange} [change]
   */
  #send(text, status, change = {}) {
    const sent = {
      text: text ?? null,
      status,
      details: json(change.details),
      references: (change.references ?? []).map(referenceToHost),
    };
    call("message-log.update", () => this.#entry.update(sent));
  }
}
