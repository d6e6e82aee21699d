// Events of other systems, as their webhook documentation describes them.
import { present } from "./calls.js";
import { Failure } from "./errors.js";

/** @typedef {import("../types/index.js").Event} Event */

/** In UTF-16 code units, like `text.length`. */
export const NEXUS_MESSAGE_LIMIT = 4000;

/**
 * The events of each system, by the name of the function that handles them, with their names on the system and their parsers.
 *
 * @type {Record<string, Record<string, { name: string, read: (payload: Payload) => object }>>}
 */
export const SYSTEMS = {
  nexus: {
    messageFinalized: { name: "MESSAGE_FINALIZED", read: readMessage },
  },
  archivus: {
    documentProcessed: { name: "document.processed", read: readProcessed },
    documentFailed: { name: "document.failed", read: readFailed },
    documentUploaded: {
      name: "document.uploaded",
      read: (payload) => ({ documentId: payload.text("document_id") }),
    },
    chatMessageCreated: { name: "chat.message.created", read: readCreated },
  },
};

/** An object in a payload. A field that doesn't have the documented type fails the delivery with a reason that names it. */
export class Payload {
  #event;
  #path;
  #fields;

  /**
   * @param {Event} event
   * @param {any} [fields]
   * @param {string} [path]
   */
  constructor(event, fields = event.payload, path = "") {
    this.#event = event;
    this.#path = path;
    this.#fields = fields;
    if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
      throw this.#malformed(`${path ? `\`${path}\`` : "it"} should be an object`);
    }
  }

  /**
   * Returns a required string.
   *
   * @param {string} name
   */
  text(name) {
    const text = this.optionalText(name);
    if (text === undefined) {
      throw this.#missing(name);
    }
    return text;
  }

  /**
   * @param {string} name
   * @returns {string | undefined}
   */
  optionalText(name) {
    const value = this.any(name);
    if (value !== undefined && typeof value !== "string") {
      throw this.#malformed(`\`${this.#pathOf(name)}\` should be a string`);
    }
    return value;
  }

  /**
   * Returns a list; empty if the field is missing.
   *
   * @param {string} name
   * @returns {any[]}
   */
  items(name) {
    const value = this.any(name) ?? [];
    if (!Array.isArray(value)) {
      throw this.#malformed(`\`${this.#pathOf(name)}\` should be a list`);
    }
    return value;
  }

  /**
   * Returns a list of strings; empty if the field is missing.
   *
   * @param {string} name
   * @returns {string[]}
   */
  texts(name) {
    const items = this.items(name);
    if (!items.every((item) => typeof item === "string")) {
      throw this.#malformed(`\`${this.#pathOf(name)}\` should be a list of strings`);
    }
    return items;
  }

  /**
   * Returns a required object.
   *
   * @param {string} name
   */
  inner(name) {
    const inner = this.optionalInner(name);
    if (inner === undefined) {
      throw this.#missing(name);
    }
    return inner;
  }

  /** @param {string} name */
  optionalInner(name) {
    const value = this.any(name);
    return value === undefined ? undefined : new Payload(this.#event, value, this.#pathOf(name));
  }

  /**
   * Returns a value of any type; `undefined` for `null` or a missing field.
   *
   * @param {string} name
   * @returns {any}
   */
  any(name) {
    return this.#fields[name] ?? undefined;
  }

  /**
   * Returns a required value of any type, which may be `null`.
   *
   * @param {string} name
   * @returns {any}
   */
  some(name) {
    if (!(name in this.#fields)) {
      throw this.#missing(name);
    }
    return this.#fields[name];
  }

  /** @param {string} name */
  #missing(name) {
    return this.#malformed(`missing field \`${this.#pathOf(name)}\``);
  }

  /** @param {string} name */
  #pathOf(name) {
    return this.#path ? `${this.#path}.${name}` : name;
  }

  /** @param {string} why */
  #malformed(why) {
    const { name, id } = this.#event;
    return new Failure(`cannot parse the payload of event \`${name}\` (${id}): ${why}`);
  }
}

/** @param {Payload} payload */
function readMessage(payload) {
  const text = payload.any("contentJson")?.content;
  return present({
    id: payload.text("id"),
    chatId: payload.text("chatId"),
    sender: payload.text("senderType"),
    userSenderId: payload.optionalText("userSenderId"),
    virtualSenderId: payload.optionalInner("virtualSender")?.optionalText("id") ?? payload.optionalText("virtualSenderId"),
    // The JSON content may be the only place that has the text.
    content: payload.optionalText("content") || (typeof text === "string" ? text : ""),
    kind: payload.optionalText("type"),
    status: payload.text("status"),
    createdAt: payload.optionalText("createdAt"),
    updatedAt: payload.optionalText("updatedAt"),
    files: payload.items("files"),
    executionPlan: payload.any("executionPlan"),
  });
}

/** @param {Payload} payload */
function readProcessed(payload) {
  const document = payload.inner("document");
  return {
    documentId: payload.text("document_id"),
    document: present({
      id: document.text("id"),
      filename: document.text("filename"),
      status: document.optionalText("status"),
      aiStatus: document.optionalText("ai_status"),
      aiSummary: document.optionalText("ai_summary"),
      aiTags: document.texts("ai_tags"),
    }),
  };
}

/** @param {Payload} payload */
function readFailed(payload) {
  const error = payload.some("error");
  return { documentId: payload.text("document_id"), error: typeof error === "string" ? error : JSON.stringify(error) };
}

/** @param {Payload} payload */
function readCreated(payload) {
  return present({
    sessionId: payload.text("session_id"),
    messageId: payload.text("message_id"),
    role: payload.text("role"),
    documentId: payload.optionalText("document_id"),
  });
}
