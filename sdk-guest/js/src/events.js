// What a module is called with.
import { present } from "./calls.js";

/** @typedef {import("../types/index.js").Event} Event */

/**
 * The event as the module reads it.
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
    // Read when it is asked for: one that is too deep for the parser keeps nobody from the subject.
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
