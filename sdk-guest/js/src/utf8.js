// UTF-8 encoding and decoding, because QuickJS has no TextEncoder.

/**
 * @param {string | Uint8Array} value
 * @returns {Uint8Array}
 */
export function bytesOf(value) {
  if (typeof value !== "string") {
    return value;
  }
  // Like TextEncoder, replaces lone surrogates with U+FFFD.
  const text = encodeURIComponent(value.toWellFormed());
  const bytes = new Uint8Array(text.length);
  let length = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === "%") {
      bytes[length++] = Number.parseInt(text.slice(at + 1, at + 3), 16);
      at += 2;
    } else {
      bytes[length++] = text.charCodeAt(at);
    }
  }
  return bytes.slice(0, length);
}

/**
 * @param {Uint8Array} bytes
 * @returns {string} throws a `URIError` if the bytes aren't UTF-8
 */
export function textOf(bytes) {
  let escaped = "";
  for (const byte of bytes) {
    escaped += `%${byte.toString(16).padStart(2, "0")}`;
  }
  return decodeURIComponent(escaped);
}
