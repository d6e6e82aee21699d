// HTTP requests to hosts that the operator allows.
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
const WRITE_SIZE = 4096; // bytes per write, the maximum of wasi:io
const READ_SIZE = 64 * 1024; // bytes per read
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
  const future = calling(() => handler.handle(outgoing, requestOptions(options.timeout)));
  // If the host rejects part of the body, its response has the reason.
  return new Sent(future, writing && write(writing, body));
}

class Sent {
  #future;
  #writeError;

  /**
   * @param {any} future
   * @param {CallError | undefined} writeError the error of writing the body
   */
  constructor(future, writeError) {
    this.#future = future;
    this.#writeError = writeError;
  }

  answer() {
    const ready = this.#future.subscribe();
    ready.block();
    ready[Symbol.dispose]();
    const answered = this.#future.get();
    if (answered?.tag !== "ok") {
      throw new UnavailableError(CALL, "unavailable: the host returned no response, or it was already read");
    }
    if (answered.val.tag !== "ok") {
      throw errorOf(answered.val.val);
    }
    if (this.#writeError !== undefined) {
      throw this.#writeError;
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
      throw new InvalidError(CALL, `invalid: the response body is not UTF-8 (status ${this.status})`);
    }
  }

  /** @returns {any} */
  json() {
    try {
      return JSON.parse(this.text());
    } catch (error) {
      throw error instanceof SyntaxError
        ? new InvalidError(CALL, `invalid: cannot parse the response body as JSON (status ${this.status}): ${error.message}`)
        : error;
    }
  }

  orThrow() {
    if (this.ok) {
      return this;
    }
    const text = `status ${this.status}`;
    switch (this.status) {
      case 401:
      case 403:
        throw new DeniedError(CALL, `not allowed: ${text}`);
      case 404:
      case 410:
        throw new NotFoundError(CALL, `not found: ${text}`);
      case 408:
      case 504:
        throw new TimeoutError(CALL, `timed out: ${text}`);
      case 429: {
        const after = this.headers.get("retry-after") ?? "";
        throw new RateLimitedError(CALL, /^\s*[0-9]{1,9}\s*$/.test(after) ? Number(after) : undefined);
      }
      default:
        throw this.status >= 500
          ? new UnavailableError(CALL, `unavailable: ${text}`)
          : new InvalidError(CALL, `invalid: ${text}`);
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
 * Returns the body to send, and the headers including the content type.
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
    throw new TypeError("a request has only one body; omit `body` or `json`");
  }
  const text = JSON.stringify(json);
  if (text === undefined) {
    throw new InvalidError(CALL, "invalid: cannot serialize the value of `json` as JSON");
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
    throw invalidRequest(method, url);
  }
  const pairs = headers.map(([name, value]) => [name, bytesOf(value)]);
  const fields = calling(
    () => host.Fields.fromList(pairs),
    ({ tag }) => new InvalidError(CALL, `invalid: cannot send a header of the request: ${tag}`),
  );
  const outgoing = new host.OutgoingRequest(fields);
  calling(
    () => {
      outgoing.setMethod(METHODS.includes(method) ? { tag: method.toLowerCase() } : { tag: "other", val: method });
      outgoing.setScheme({ tag: parts.scheme });
      outgoing.setAuthority(parts.authority);
      outgoing.setPathWithQuery(parts.path);
    },
    () => invalidRequest(method, url),
  );
  return outgoing;
}

/**
 * @param {string} method
 * @param {string} url
 */
function invalidRequest(method, url) {
  return new InvalidError(CALL, `invalid: \`${method} ${url}\` is not an HTTP request`);
}

/**
 * Splits a URL into scheme, host with port, and path with query. Returns `undefined` if it isn't an HTTP URL. Fragments are dropped.
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
function requestOptions(timeout) {
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
 * Writes a body. Returns an error if the host doesn't accept it.
 *
 * @param {any} body
 * @param {Uint8Array} bytes
 * @returns {CallError | undefined}
 */
function write(body, bytes) {
  try {
    const stream = body.write();
    for (let start = 0; start < bytes.length; start += WRITE_SIZE) {
      stream.blockingWriteAndFlush(bytes.slice(start, start + WRITE_SIZE));
    }
    // The stream belongs to the body and must be dropped before the body is finished.
    stream[Symbol.dispose]();
    host.OutgoingBody.finish(body, null);
    return undefined;
  } catch (error) {
    if (!isWitError(error)) {
      throw error;
    }
    return new UnavailableError(CALL, "unavailable: the host did not accept the request body");
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
  const chunks = [];
  try {
    for (;;) {
      chunks.push(stream.blockingRead(READ_SIZE));
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
  return new Response(status, headers, concat(chunks));
}

/** @param {Uint8Array[]} chunks */
function concat(chunks) {
  const bytes = new Uint8Array(chunks.reduce((length, chunk) => length + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

/**
 * Calls a function of wasi:http, whose errors are codes.
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

const TIMEOUT = ["DNS-timeout", "connection-timeout", "connection-read-timeout", "connection-write-timeout", "HTTP-response-timeout"];
const UNAVAILABLE = [
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
 * Maps an error code of wasi:http to an exception.
 *
 * @param {{ tag: string, val?: unknown }} code
 */
function errorOf({ tag, val }) {
  const text = typeof val === "string" ? `${tag}: ${val}` : tag;
  if (tag === "HTTP-request-denied" || tag === "destination-IP-prohibited") {
    return new DeniedError(CALL, `not allowed: ${text}; the delivery's log shows what to add to \`http\` in modules.toml`);
  }
  if (TIMEOUT.includes(tag)) {
    return new TimeoutError(CALL, `timed out: ${text}`);
  }
  return UNAVAILABLE.includes(tag)
    ? new UnavailableError(CALL, `unavailable: ${text}`)
    : new InvalidError(CALL, `invalid: ${text}`);
}
