// Events of other systems, as the documentation of their webhooks describes them.
import { present } from "./calls.js";
import { Failure } from "./errors.js";

/** @typedef {import("../types/index.js").Event} Event */

/** As `text.length` counts them. */
export const NEXUS_MESSAGE_LIMIT = 4000;

/**
 * The events of each system: by the name of the function that takes them, what they are called there, and how they are read.
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

/** An object of a payload. A field of another shape than documented ends the delivery with a reason that names it. */
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
      throw this.#unknown(`${path ? `\`${path}\`` : "it"} should be an object`);
    }
  }

  /**
   * A text that has to be there.
   *
   * @param {string} name
   */
  text(name) {
    const text = this.optionalText(name);
    if (text === undefined) {
      throw this.#lacks(name);
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
      throw this.#unknown(`\`${this.#pathOf(name)}\` should be text`);
    }
    return value;
  }

  /**
   * A list; empty where it isn't there.
   *
   * @param {string} name
   * @returns {any[]}
   */
  items(name) {
    const value = this.any(name) ?? [];
    if (!Array.isArray(value)) {
      throw this.#unknown(`\`${this.#pathOf(name)}\` should be a list`);
    }
    return value;
  }

  /**
   * A list of texts; empty where it isn't there.
   *
   * @param {string} name
   * @returns {string[]}
   */
  texts(name) {
    const items = this.items(name);
    if (!items.every((item) => typeof item === "string")) {
      throw this.#unknown(`\`${this.#pathOf(name)}\` should be a list of texts`);
    }
    return items;
  }

  /**
   * An object that has to be there.
   *
   * @param {string} name
   */
  inner(name) {
    const inner = this.optionalInner(name);
    if (inner === undefined) {
      throw this.#lacks(name);
    }
    return inner;
  }

  /** @param {string} name */
  optionalInner(name) {
    const value = this.any(name);
    return value === undefined ? undefined : new Payload(this.#event, value, this.#pathOf(name));
  }

  /**
   * A value of any kind; `undefined` for `null` and where it isn't there.
   *
   * @param {string} name
   * @returns {any}
   */
  any(name) {
    return this.#fields[name] ?? undefined;
  }

  /**
   * A value of any kind that has to be there, `null` among them.
   *
   * @param {string} name
   * @returns {any}
   */
  some(name) {
    if (!(name in this.#fields)) {
      throw this.#lacks(name);
    }
    return this.#fields[name];
  }

  /** @param {string} name */
  #lacks(name) {
    return this.#unknown(`missing field \`${this.#pathOf(name)}\``);
  }

  /** @param {string} name */
  #pathOf(name) {
    return this.#path ? `${this.#path}.${name}` : name;
  }

  /** @param {string} why */
  #unknown(why) {
    const { name, id } = this.#event;
    return new Failure(`the payload of the event \`${name}\` (${id}) has an unknown shape: ${why}`);
  }
}

/** @param {Payload} payload */
function readMessage(payload) {
  const words = payload.any("contentJson")?.content;
  return present({
    id: payload.text("id"),
    chatId: payload.text("chatId"),
    sender: payload.text("senderType"),
    userSenderId: payload.optionalText("userSenderId"),
    virtualSenderId: payload.optionalInner("virtualSender")?.optionalText("id") ?? payload.optionalText("virtualSenderId"),
    // The words may stand in the JSON content alone.
    content: payload.optionalText("content") || (typeof words === "string" ? words : ""),
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
