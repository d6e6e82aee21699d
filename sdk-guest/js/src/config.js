// The module's settings.
import host from "#host/config";
import { call } from "./calls.js";
import { MisconfiguredError, UnavailableError } from "./errors.js";

/** @typedef {import("../types/index.js").Json} Json */

/**
 * @param {string} key
 * @param {string} [otherwise]
 * @returns {any}
 */
export function get(key, otherwise) {
  return call("config.get", () => host.get(key), errorOf) ?? otherwise;
}

/**
 * @param {string} key
 * @param {Json} otherwise
 * @returns {any}
 */
export function read(key, otherwise) {
  const text = get(key);
  return text === undefined ? otherwise : parse(key, text, otherwise);
}

/** @returns {Record<string, string>} */
export function all() {
  return Object.fromEntries(call("config.get-all", () => host.getAll(), errorOf));
}

/**
 * Converts a setting's text to a value of the same type as `like`.
 *
 * @param {string} key
 * @param {string} text
 * @param {Json} like
 * @returns {Json}
 */
export function parse(key, text, like) {
  const kind = kindOf(like);
  if (kind === "text") {
    return text;
  }
  try {
    const value = JSON.parse(text);
    if (kindOf(value) === kind) {
      return value;
    }
  } catch {
    // Plain text isn't JSON, and not of the requested type.
  }
  throw new MisconfiguredError("config.get", `setting \`${key}\` should be ${kind}, but is ${text}`);
}

/** @param {Json} value */
function kindOf(value) {
  switch (typeof value) {
    case "string":
      return "text";
    case "number":
      return "a number";
    case "boolean":
      return "true or false";
    default:
      return Array.isArray(value) ? "a list" : "a table";
  }
}

/**
 * @param {string} name
 * @param {{ val: string }} error
 */
function errorOf(name, { val }) {
  return new UnavailableError(name, `unavailable: ${val}`);
}
