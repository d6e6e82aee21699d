// Globals that QuickJS lacks: `console`, TextEncoder, TextDecoder, and a usable Math.random. Bundled into every component before the
// module's own code.
import host from "#host/logging";
import { mathRandom } from "./random.js";
import { traceOf } from "./trace.js";
import { bytesOf, textOf } from "./utf8.js";

/**
 * @param {string} level
 * @returns {(...values: unknown[]) => void}
 */
const log =
  (level) =>
  (...values) =>
    host.log(level, "console", values.map(format).join(" "));

/**
 * @param {unknown} value
 * @returns {string}
 */
function format(value) {
  if (typeof value === "string") {
    return value;
  }
  if (value instanceof Error) {
    return [`${value.name}: ${value.message}`, ...traceOf(value).map((frame) => `    at ${frame}`)].join("\n");
  }
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    // It is circular, or contains a BigInt.
    return String(value);
  }
}

class Utf8Encoder {
  encoding = "utf-8";

  encode(text = "") {
    return bytesOf(String(text));
  }
}

class Utf8Decoder {
  encoding = "utf-8";

  constructor(encoding = "utf-8") {
    if (!/^utf-?8$/i.test(encoding)) {
      throw new RangeError(`unsupported encoding ${encoding}; only UTF-8 is supported`);
    }
  }

  /** @param {ArrayBuffer | ArrayBufferView} [bytes] */
  decode(bytes = new ArrayBuffer(0)) {
    const view = ArrayBuffer.isView(bytes)
      ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      : new Uint8Array(bytes);
    return textOf(view);
  }
}

/** @type {any} */
const global = globalThis;
global.console ??= {
  trace: log("trace"),
  debug: log("debug"),
  log: log("info"),
  info: log("info"),
  warn: log("warn"),
  error: log("error"),
  /** @param {unknown} condition @param {unknown[]} values */
  assert: (condition, ...values) => condition || log("error")("Assertion failed:", ...values),
};
Math.random = mathRandom;
global.TextEncoder ??= Utf8Encoder;
global.TextDecoder ??= Utf8Decoder;
