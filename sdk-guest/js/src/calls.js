// Calls host functions and converts their errors to exceptions.
import {
  DeniedError,
  InvalidError,
  NotFoundError,
  RateLimitedError,
  TimeoutError,
  UnavailableError,
  UnsupportedError,
} from "./errors.js";

/**
 * Makes a call. `name` is the name of the call in errors.
 *
 * @template T
 * @param {string} name
 * @param {() => T} make
 * @param {(name: string, error: any) => Error} [errorOf] the exception for an error of the interface
 * @returns {T}
 */
export function call(name, make, errorOf = moduleError) {
  try {
    return make();
  } catch (error) {
    throw isWitError(error) ? errorOf(name, error.payload) : error;
  }
}

/**
 * Returns whether it is an error of the contract, not, for example, invalid arguments.
 *
 * @param {unknown} error
 * @returns {error is Error & { payload: any }}
 */
export function isWitError(error) {
  return error instanceof Error && "payload" in error;
}

/**
 * @param {string} name
 * @param {{ tag: string, val?: any }} error an `error` of the interface `types`
 */
export function moduleError(name, { tag, val }) {
  switch (tag) {
    case "invalid":
      return new InvalidError(name, `invalid: ${val}`);
    case "denied":
      return new DeniedError(name, `not allowed: ${val}`);
    case "not-found":
      return new NotFoundError(name, `not found: ${val}`);
    case "rate-limited":
      return new RateLimitedError(name, val ?? undefined);
    case "unavailable":
      return new UnavailableError(name, `unavailable: ${val}`);
    case "timeout":
      return new TimeoutError(name, "timed out; the call may still have taken effect");
    case "unsupported":
      return new UnsupportedError(name, `not supported: ${val}`);
    default:
      return new Error(`${name}: unknown error \`${tag}\``);
  }
}

/**
 * Returns the record without the members that have no value. The host sets those to `null`.
 *
 * @template {object} T
 * @param {T} record
 * @returns {{ [K in keyof T]: Exclude<T[K], null> } & any}
 */
export function present(record) {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== null && value !== undefined));
}

/**
 * Serializes a value for the host, which expects `null` for a missing value.
 *
 * @param {unknown} value
 */
export function json(value) {
  return value === undefined ? null : JSON.stringify(value);
}
