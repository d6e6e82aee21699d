// HTTP requests, to hosts the operator allows.
import host from "#host/http";
import handler from "#host/http-handler";
import { isWitError } from "./calls.js";
import {
  CallError,
  DeniedError,
  InvalidError,
  NotFoundError,
  RateLimitedError,
  TimeoutError,
  UnavailableError,
} from "./errors.js";
import { bytesOf, textOf } from "./utf8.js";

/** @typedef {import("../types/index.js").HttpOptions} HttpOptions */

const CALL = "http.send";
const PIECE = 4096; // bytes that are written at once: the standard takes no more
const READ = 64 * 1024; // bytes that are read at once
const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

/**
 * @param {string} url
 * @param {Omit<HttpOptions, "body" | "json">} [options]
 */
export const get = (url, options) => request("GET", url, options);

/**
 * @param {string} url
 * @param {HttpOptions} [options]
 */
export const post = (url, options) => request("POST", url, options);

/**
 * @param {string} url
 * @param {HttpOptions} [options]
 */
export const put = (url, options) => request("PUT", url, options);

/**
 * @param {string} url
 * @param {HttpOptions} [options]
 */
export const patch = (url, options) => request("PATCH", url, options);

/**
 * @param {string} url
 * @param {Omit<HttpOptions, "body" | "json">} [options]
 */
const remove = (url, options) => request("DELETE", url, options);
export { remove as delete };

/**
 * @param {string} method
 * @param {string} url
 * @param {HttpOptions} [options]
 */
export const request = (method, url, options) => begin(method, url, options).answer();

/**
 * @param {string} method
 * @param {string} url
 * @param {HttpOptions} [options]
 */
export function begin(method, url, options = {}) {
  const { headers, body } = contentOf(options);
  const outgoing = outgoingOf(method, url, headers);
  const writing = body.length > 0 ? outgoing.body() : undefined;
  const future = calling(() => handler.handle(outgoing, waits(options.timeout)));
  // A host that doesn't take the whole body says why in its answer.
  return new Sent(future, writing && write(writing, body));
}

class Sent {
  #future;
  #unwritten;

  /**
   * @param {any} future
   * @param {CallError | undefined} unwritten why the body couldn't be written
   */
  constructor(future, unwritten) {
    this.#future = future;
    this.#unwritten = unwritten;
  }

  answer() {
    const ready = this.#future.subscribe();
    ready.block();
    ready[Symbol.dispose]();
    const answered = this.#future.get();
    if (answered?.tag !== "ok") {
      throw new UnavailableError(CALL, "unavailable: the host has no answer, or it was read before");
    }
    if (answered.val.tag !== "ok") {
      throw errorOf(answered.val.val);
    }
    if (this.#unwritten !== undefined) {
      throw this.#unwritten;
    }
    return read(answered.val.val);
  }
}

class Response {
  /**
   * @param {number} status
   * @param {Headers} headers
   * @param {Uint8Array} bytes
   */
  constructor(status, headers, bytes) {
    this.status = status;
    this.headers = headers;
    this.bytes = bytes;
  }

  get ok() {
    return this.status >= 200 && this.status < 300;
  }

  /** @returns {string} */
  text() {
    try {
      return textOf(this.bytes);
    } catch {
      throw new InvalidError(CALL, `refused as invalid: the answer is no text (status ${this.status})`);
    }
  }

  /** @returns {any} */
  json() {
    try {
      return JSON.parse(this.text());
    } catch (error) {
      throw error instanceof SyntaxError
        ? new InvalidError(CALL, `refused as invalid: the answer isn't JSON (status ${this.status}): ${error.message}`)
        : error;
    }
  }

  orThrow() {
    if (this.ok) {
      return this;
    }
    const told = `status ${this.status}`;
    switch (this.status) {
      case 401:
      case 403:
        throw new DeniedError(CALL, `not allowed: ${told}`);
      case 404:
      case 410:
        throw new NotFoundError(CALL, `not found: ${told}`);
      case 408:
      case 504:
        throw new TimeoutError(CALL, `no answer in time: ${told}`);
      case 429: {
        const after = this.headers.get("retry-after") ?? "";
        throw new RateLimitedError(CALL, /^\s*[0-9]{1,9}\s*$/.test(after) ? Number(after) : undefined);
      }
      default:
        throw this.status >= 500
          ? new UnavailableError(CALL, `unavailable: ${told}`)
          : new InvalidError(CALL, `refused as invalid: ${told}`);
    }
  }
}

class Headers {
  #pairs;

  /** @param {[string, string][]} pairs */
  constructor(pairs) {
    this.#pairs = pairs;
  }

  /** @param {string} name */
  get(name) {
    return this.#pairs.find(([known]) => known.toLowerCase() === name.toLowerCase())?.[1];
  }

  [Symbol.iterator]() {
    return this.#pairs[Symbol.iterator]();
  }
}

/**
 * The body to send, and the headers with what says what it is.
 *
 * @param {HttpOptions} options
 * @returns {{ headers: [string, string][], body: Uint8Array }}
 */
function contentOf({ headers: given = {}, body, json }) {
  const headers = Object.entries(given);
  if (json === undefined) {
    return { headers, body: bytesOf(body ?? "") };
  }
  if (body !== undefined) {
    throw new TypeError("a request has one body: leave out `body` or `json`");
  }
  const text = JSON.stringify(json);
  if (text === undefined) {
    throw new InvalidError(CALL, "refused as invalid: the value of `json` makes no JSON");
  }
  if (!headers.some(([name]) => name.toLowerCase() === "content-type")) {
    headers.push(["content-type", "application/json"]);
  }
  return { headers, body: bytesOf(text) };
}

/**
 * @param {string} method
 * @param {string} url
 * @param {[string, string][]} headers
 */
function outgoingOf(method, url, headers) {
  const parts = partsOf(url);
  if (parts === undefined) {
    throw noRequest(method, url);
  }
  const pairs = headers.map(([name, value]) => [name, bytesOf(value)]);
  const fields = calling(
    () => host.Fields.fromList(pairs),
    ({ tag }) => new InvalidError(CALL, `refused as invalid: a header of the request can't be sent: ${tag}`),
  );
  const outgoing = new host.OutgoingRequest(fields);
  calling(
    () => {
      outgoing.setMethod(METHODS.includes(method) ? { tag: method.toLowerCase() } : { tag: "other", val: method });
      outgoing.setScheme({ tag: parts.scheme });
      outgoing.setAuthority(parts.authority);
      outgoing.setPathWithQuery(parts.path);
    },
    () => noRequest(method, url),
  );
  return outgoing;
}

/**
 * @param {string} method
 * @param {string} url
 */
function noRequest(method, url) {
  return new InvalidError(CALL, `refused as invalid: \`${method} ${url}\` is no request over HTTP`);
}

/**
 * Scheme, host with port, and path with query; nothing of an address that isn't one of HTTP. A fragment is never sent.
 *
 * @param {string} url
 */
export function partsOf(url) {
  const [, scheme = "", authority = "", path = ""] = /^(https?):\/\/([^/?#]+)([^#]*)/i.exec(url) ?? [];
  if (authority === "") {
    return undefined;
  }
  return { scheme: scheme.toUpperCase(), authority, path: path.startsWith("/") ? path : `/${path}` };
}

/** @param {number | undefined} timeout in milliseconds */
function waits(timeout) {
  if (timeout === undefined) {
    return null;
  }
  const nanoseconds = Math.min(Math.max(Math.round(timeout * 1e6), 0), Number.MAX_SAFE_INTEGER);
  const options = new host.RequestOptions();
  options.setFirstByteTimeout(nanoseconds);
  options.setBetweenBytesTimeout(nanoseconds);
  return options;
}

/**
 * Writes a body; says why it couldn't.
 *
 * @param {any} body
 * @param {Uint8Array} bytes
 * @returns {CallError | undefined}
 */
function write(body, bytes) {
  try {
    const stream = body.write();
    for (let start = 0; start < bytes.length; start += PIECE) {
      stream.blockingWriteAndFlush(bytes.slice(start, start + PIECE));
    }
    // It belongs to the body, and has to be gone before that is finished.
    stream[Symbol.dispose]();
    host.OutgoingBody.finish(body, null);
    return undefined;
  } catch (error) {
    if (!isWitError(error)) {
      throw error;
    }
    return new UnavailableError(CALL, "unavailable: the host takes no body");
  }
}

/** @param {any} answer */
function read(answer) {
  const status = answer.status();
  const fields = answer.headers();
  /** @type {[string, Uint8Array][]} */
  const entries = fields.entries();
  const headers = new Headers(entries.map(([name, value]) => [name, Array.from(value, (byte) => String.fromCharCode(byte)).join("")]));
  const incoming = answer.consume();
  const stream = incoming.stream();
  const pieces = [];
  try {
    for (;;) {
      pieces.push(stream.blockingRead(READ));
    }
  } catch (error) {
    if (!isWitError(error)) {
      throw error;
    }
    if (error.payload.tag !== "closed") {
      throw new UnavailableError(CALL, `unavailable: ${error.payload.val.toDebugString()}`);
    }
  } finally {
    for (const resource of [stream, incoming, fields, answer]) {
      resource[Symbol.dispose]();
    }
  }
  return new Response(status, headers, joined(pieces));
}

/** @param {Uint8Array[]} pieces */
function joined(pieces) {
  const bytes = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/**
 * Makes a call of the standard, whose errors are codes.
 *
 * @template T
 * @param {() => T} make
 * @param {(payload: any) => Error} [error]
 * @returns {T}
 */
function calling(make, error = errorOf) {
  try {
    return make();
  } catch (thrown) {
    throw isWitError(thrown) ? error(thrown.payload) : thrown;
  }
}

const LATE = ["DNS-timeout", "connection-timeout", "connection-read-timeout", "connection-write-timeout", "HTTP-response-timeout"];
const PASSING = [
  "DNS-error",
  "destination-not-found",
  "destination-unavailable",
  "destination-IP-unroutable",
  "connection-refused",
  "connection-terminated",
  "connection-limit-reached",
  "TLS-protocol-error",
  "TLS-certificate-error",
  "TLS-alert-received",
  "HTTP-response-incomplete",
  "HTTP-protocol-error",
  "internal-error",
];

/**
 * What a code of the standard means for a module: what can be done about it.
 *
 * @param {{ tag: string, val?: unknown }} code
 */
function errorOf({ tag, val }) {
  const words = typeof val === "string" ? `${tag}: ${val}` : tag;
  if (tag === "HTTP-request-denied" || tag === "destination-IP-prohibited") {
    return new DeniedError(CALL, `not allowed: ${words}; the delivery's log says what to add to \`http\` in modules.toml`);
  }
  if (LATE.includes(tag)) {
    return new TimeoutError(CALL, `no answer in time: ${words}`);
  }
  return PASSING.includes(tag)
    ? new UnavailableError(CALL, `unavailable: ${words}`)
    : new InvalidError(CALL, `refused as invalid: ${words}`);
}
