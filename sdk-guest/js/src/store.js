// A key-value store for values that the module keeps between events, on the host's disk.
import host from "#host/store";
import atomics from "#host/atomics";
import batch from "#host/batch";
import { call, isWitError } from "./calls.js";
import { DeniedError, InvalidError, NotFoundError, UnavailableError } from "./errors.js";
import { bytesOf, textOf } from "./utf8.js";

/** @typedef {string | Uint8Array} Value */

export class Store {
  #bucket;

  /** @param {string} [name] */
  constructor(name = "") {
    this.#bucket = calling("keyvalue.open", () => host.open(name));
  }

  /**
   * @param {string} key
   * @returns {Uint8Array | undefined}
   */
  get(key) {
    return calling("keyvalue.get", () => this.#bucket.get(key)) ?? undefined;
  }

  /**
   * @param {string} key
   * @returns {string | undefined}
   */
  getText(key) {
    const value = this.get(key);
    return value && decode(key, value);
  }

  /**
   * @param {string} key
   * @returns {any}
   */
  getJson(key) {
    const value = this.get(key);
    return value && parse(key, value);
  }

  /**
   * @param {string} key
   * @param {Value} value
   */
  set(key, value) {
    calling("keyvalue.set", () => this.#bucket.set(key, bytesOf(value)));
  }

  /**
   * @param {string} key
   * @param {unknown} value
   */
  setJson(key, value) {
    this.set(key, stringify(key, value));
  }

  /** @param {string} key */
  delete(key) {
    calling("keyvalue.delete", () => this.#bucket.delete(key));
  }

  /**
   * @param {string} key
   * @returns {boolean}
   */
  has(key) {
    return calling("keyvalue.exists", () => this.#bucket.exists(key));
  }

  /** @returns {Generator<string, void>} */
  *keys() {
    /** @type {string | null} */
    let cursor = null;
    do {
      /** @type {{ keys: string[], cursor: string | null }} */
      const page = calling("keyvalue.list-keys", () => this.#bucket.listKeys(cursor));
      yield* page.keys;
      cursor = page.cursor;
    } while (cursor !== null);
  }

  /**
   * @param {Iterable<string>} keys
   * @returns {(Uint8Array | undefined)[]}
   */
  getMany(keys) {
    /** @type {([string, Uint8Array] | null)[]} */
    const found = calling("keyvalue.get-many", () => batch.getMany(this.#bucket, [...keys]));
    return found.map((entry) => entry?.[1]);
  }

  /** @param {Iterable<readonly [string, Value]>} entries */
  setMany(entries) {
    const pairs = Array.from(entries, ([key, value]) => [key, bytesOf(value)]);
    calling("keyvalue.set-many", () => batch.setMany(this.#bucket, pairs));
  }

  /** @param {Iterable<string>} keys */
  deleteMany(keys) {
    calling("keyvalue.delete-many", () => batch.deleteMany(this.#bucket, [...keys]));
  }

  /**
   * @param {string} key
   * @param {number} [by]
   * @returns {number}
   */
  increment(key, by = 1) {
    return calling("keyvalue.increment", () => atomics.increment(this.#bucket, key, by));
  }

  /**
   * @param {string} key
   * @param {(value: Uint8Array | undefined) => Value} change
   * @returns {Uint8Array}
   */
  update(key, change) {
    let cas = this.#cas(key);
    for (;;) {
      const value = bytesOf(change(current(cas)));
      const later = swap(cas, value);
      if (later === undefined) {
        return value;
      }
      cas = later;
    }
  }

  /**
   * @param {string} key
   * @param {(value: any) => any} change
   * @returns {any}
   */
  updateJson(key, change) {
    const written = this.update(key, (value) => stringify(key, change(value && parse(key, value))));
    return parse(key, written);
  }

  /**
   * @param {string} key
   * @param {Value | undefined} expected
   * @param {Value} value
   * @returns {boolean}
   */
  compareAndSwap(key, expected, value) {
    const wanted = expected === undefined ? undefined : bytesOf(expected);
    let cas = this.#cas(key);
    while (isEqual(current(cas), wanted)) {
      const later = swap(cas, bytesOf(value));
      if (later === undefined) {
        return true;
      }
      // Set by another delivery in the meantime, maybe to the same value.
      cas = later;
    }
    return false;
  }

  /** @param {string} key */
  #cas(key) {
    return calling("keyvalue.cas.new", () => atomics.Cas.new(this.#bucket, key));
  }
}

/**
 * @param {any} cas
 * @returns {Uint8Array | undefined}
 */
function current(cas) {
  return calling("keyvalue.cas.current", () => cas.current()) ?? undefined;
}

/**
 * Swaps the value. Returns a new handle if another delivery changed the value in the meantime.
 *
 * @param {any} cas
 * @param {Uint8Array} value
 */
function swap(cas, value) {
  try {
    atomics.swap(cas, value);
    return undefined;
  } catch (error) {
    if (!isWitError(error)) {
      throw error;
    }
    if (error.payload.tag === "cas-failed") {
      return error.payload.val;
    }
    throw storeError("keyvalue.swap", error.payload.val);
  }
}

/**
 * @param {string} name
 * @param {() => any} make
 */
function calling(name, make) {
  return call(name, make, storeError);
}

/**
 * @param {string} name
 * @param {{ tag: string, val?: string }} error
 */
function storeError(name, { tag, val = "" }) {
  switch (tag) {
    case "no-such-store":
      return new NotFoundError(name, "not found: no such store");
    case "access-denied":
      return new DeniedError(name, "not allowed: the module may not use this store");
    default:
      return val.startsWith("unavailable: ")
        ? new UnavailableError(name, val)
        : new InvalidError(name, `invalid: ${val}`);
  }
}

/**
 * @param {Uint8Array | undefined} a
 * @param {Uint8Array | undefined} b
 */
function isEqual(a, b) {
  return a?.length === b?.length && (a === undefined || a.every((byte, at) => byte === b?.[at]));
}

/**
 * @param {string} key
 * @param {Uint8Array} value
 */
function decode(key, value) {
  try {
    return textOf(value);
  } catch {
    throw new InvalidError("keyvalue.get", `invalid: cannot read the value of \`${key}\` as text: it is not UTF-8`);
  }
}

/**
 * @param {string} key
 * @param {Uint8Array} value
 */
function parse(key, value) {
  try {
    return JSON.parse(decode(key, value));
  } catch (error) {
    throw error instanceof SyntaxError
      ? new InvalidError("keyvalue.get", `invalid: cannot read the value of \`${key}\` as JSON: ${error.message}`)
      : error;
  }
}

/**
 * @param {string} key
 * @param {unknown} value
 */
function stringify(key, value) {
  const text = JSON.stringify(value);
  if (text === undefined) {
    throw new InvalidError("keyvalue.set", `invalid: cannot serialize the value of \`${key}\` as JSON`);
  }
  return text;
}
