// The seam to the host: every call goes through here, and its errors become exceptions.
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
 * Makes a call; `name` is what its errors call it.
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
 * Whether it is an error of the contract, and not, say, a mistake in the arguments.
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
      return new InvalidError(name, `refused as invalid: ${val}`);
    case "denied":
      return new DeniedError(name, `not allowed: ${val}`);
    case "not-found":
      return new NotFoundError(name, `not found: ${val}`);
    case "rate-limited":
      return new RateLimitedError(name, val ?? undefined);
    case "unavailable":
      return new UnavailableError(name, `unavailable: ${val}`);
    case "timeout":
      return new TimeoutError(name, "no answer in time; what was asked for may have happened all the same");
    case "unsupported":
      return new UnsupportedError(name, `not supported here: ${val}`);
    default:
      return new Error(`${name}: the contract has no error \`${tag}\``);
  }
}

/**
 * Without the members that have no value, of which the host says `null`.
 *
 * @template {object} T
 * @param {T} record
 * @returns {{ [K in keyof T]: Exclude<T[K], null> } & any}
 */
export function present(record) {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== null && value !== undefined));
}

/**
 * JSON for the host, which takes `null` for what isn't said.
 *
 * @param {unknown} value
 */
export function json(value) {
  return value === undefined ? null : JSON.stringify(value);
}
