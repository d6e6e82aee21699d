// Events that the host delivers to a module.
import { present } from "./calls.js";

/** @typedef {import("../types/index.js").Event} Event */

/**
 * Converts an event from the host.
 *
 * @param {any} event
 * @returns {Event}
 */
export function eventFromHost(event) {
  /** @type {{ value: any } | undefined} */
  let payload;
  return {
    ...present(event),
    ...(event.createdAt === null ? {} : { createdAt: new Date(event.createdAt * 1000) }),
    subject: subjectFromHost(event.subject),
    // Parsed only when it is read: a payload that is nested too deeply must not make the subject unusable.
    get payload() {
      payload ??= { value: JSON.parse(event.payload) };
      return payload.value;
    },
  };
}

/**
 * @param {{ tag: string, val?: any }} subject
 * @returns {Event["subject"]}
 */
function subjectFromHost({ tag, val }) {
  switch (tag) {
    case "module-chosen":
      return {
        kind: "moduleChosen",
        moduleChosen: {
          ...val,
          configuration: JSON.parse(val.configuration),
          userMessage: present(val.userMessage),
        },
      };
    case "user-message-created":
      return { kind: "userMessageCreated", userMessageCreated: val };
    default:
      return { kind: "other" };
  }
}
