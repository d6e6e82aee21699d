// Text processing: citations, settings, UTF-8, source maps.
import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";

import { linesOf, sourcesOf } from "../bin/source-map.js";
import { restoreNames } from "../bin/wasi-http.js";
import { CallError } from "../src/index.js";
import { call, moduleError } from "../src/calls.js";
import { parse } from "../src/config.js";
import { partsOf } from "../src/http.js";
import { cite, referencesTo } from "../src/references.js";
import { traceOf } from "../src/trace.js";
import { bytesOf, textOf } from "../src/utf8.js";

/** @param {number} count */
const hits = (count) =>
  Array.from({ length: count }, (_, n) => ({ id: `cont_${n}`, chunkId: `chunk_${n}`, text: "…", name: `Document ${n}`, order: 0 }));

test("creates a reference from a hit", () => {
  assert.deepEqual(referencesTo([{ ...hits(1)[0], startPage: 3, endPage: 4, url: "https://x" }].map((hit) => /** @type {any} */ (hit))), [
    {
      name: "Document 0",
      description: "pages 3–4",
      url: "https://x",
      sequenceNumber: 1,
      originalIndex: [0],
      sourceId: "cont_0_chunk_0",
      source: "node-ingestion-chunks",
    },
  ]);
});

test("citations become footnotes and only cited sources are kept", () => {
  /** @type {[string, number, string, number[]][]} */
  const cases = [
    ["Book early [source0]. Or late [source2].", 3, "Book early <sup>1</sup>. Or late <sup>3</sup>.", [1, 3]],
    ["[Source 0,source2]", 3, "<sup>1</sup><sup>3</sup>", [1, 3]],
    ["[ source 0 , SOURCE2 ]", 3, "<sup>1</sup><sup>3</sup>", [1, 3]],
    ["Book early.", 2, "Book early.", [1, 2]],
    ["Book early [source7].", 1, "Book early.", [1]],
    [`Book [source${"9".repeat(400)}] early`, 0, "Book early", []],
    ["Book early [source7, source0].", 1, "Book early <sup>1</sup>.", [1]],
    ["[see [source0]]", 1, "[see <sup>1</sup>]", [1]],
  ];
  for (const [text, sources, written, kept] of cases) {
    const cited = cite(text, referencesTo(hits(sources)));
    assert.equal(cited.text, written);
    assert.deepEqual(cited.references.map(({ sequenceNumber }) => sequenceNumber), kept, text);
  }
  for (const text of ["a [link](https://x)", "[sources]", "[source]", "[source-1]", "[sourceé]", "[", "]", "[x, source0]", ""]) {
    assert.equal(cite(text, referencesTo(hits(1))).text, text);
  }
});

test("each error case has its own class", () => {
  const expected = {
    invalid: ["InvalidError", "x: invalid: it said"],
    denied: ["DeniedError", "x: not allowed: it said"],
    "not-found": ["NotFoundError", "x: not found: it said"],
    unavailable: ["UnavailableError", "x: unavailable: it said"],
    timeout: ["TimeoutError", "x: timed out; the call may still have taken effect"],
    unsupported: ["UnsupportedError", "x: not supported: it said"],
  };
  for (const [tag, [name, message]] of Object.entries(expected)) {
    const fails = () => {
      throw Object.assign(new Error(), { payload: { tag, val: "it said" } });
    };
    assert.throws(() => call("x", fails), { name, message, call: "x" });
  }
  assert.equal(moduleError("x", { tag: "rate-limited", val: 7 }).message, "x: rate limited; retry after 7 s");
  assert.equal(moduleError("x", { tag: "rate-limited", val: null }).message, "x: rate limited");
  assert.ok(moduleError("x", { tag: "rate-limited" }) instanceof CallError);
  // Other exceptions are passed through.
  assert.throws(() => call("x", () => /** @type {any} */ (undefined).y), TypeError);
});

test("splits a URL", () => {
  for (const [url, scheme, authority, path] of [
    ["https://a.test/b?c#d", "HTTPS", "a.test", "/b?c"],
    ["HTTP://a.test:81", "HTTP", "a.test:81", "/"],
    ["https://a.test?c", "HTTPS", "a.test", "/?c"],
  ]) {
    assert.deepEqual(partsOf(String(url)), { scheme, authority, path });
  }
  for (const wrong of ["a.test", "ftp://a.test", "https:///b", ""]) {
    assert.equal(partsOf(wrong), undefined);
  }
});

test("restores names only in the import section", () => {
  // Each section has an id, a length and a content. Section 10 contains the imports.
  const section = (/** @type {number} */ id, /** @type {string} */ text) => Buffer.concat([Buffer.of(id, text.length), Buffer.from(text)]);
  const magic = Buffer.from("\0asm\x0d\0\x01\0", "latin1");
  const component = Buffer.concat([magic, section(0, "held:io/x"), section(10, "held:io/x held:http/y"), section(3, "held:io/x")]);
  const expected = Buffer.concat([magic, section(0, "held:io/x"), section(10, "wasi:io/x wasi:http/y"), section(3, "held:io/x")]);
  assert.deepEqual(Buffer.from(restoreNames(component)), expected);
});

test("settings are converted to the requested type", () => {
  assert.equal(parse("k", "3", 0), 3);
  assert.equal(parse("k", "3", ""), "3");
  assert.equal(parse("k", "true", false), true);
  assert.deepEqual(parse("k", "[1]", []), [1]);
  assert.deepEqual(parse("k", '{"a":1}', {}), { a: 1 });
  assert.throws(() => parse("k", "Hello", 0), /setting `k` should be a number, but is Hello/);
  assert.throws(() => parse("k", "3", false), /should be true or false, but is 3/);
  assert.throws(() => parse("k", "[1]", {}), /should be a table/);
});

test("UTF-8 encoding and decoding are inverse", () => {
  for (const text of ["", "plain", "é€😀", "100 %", "%41", "\0"]) {
    assert.deepEqual(bytesOf(text), new TextEncoder().encode(text));
    assert.equal(textOf(bytesOf(text)), text);
  }
  assert.deepEqual(bytesOf("\ud800"), new TextEncoder().encode("\ud800"));
  assert.throws(() => textOf(new Uint8Array([0xff])), URIError);
});

test("maps stack traces to the author's lines", () => {
  // The second line has segments at columns 0 and 10, from lines 5 and 6 of the second file.
  const map = { sources: ["sdk/a.js", "src/answer.ts"], mappings: "AAAA;ACIE,UACA" };
  assert.deepEqual(linesOf(map.mappings), [[[0, 0, 0, 0]], [[0, 1, 4, 2], [10, 1, 5, 2]]]);
  const global = /** @type {any} */ (globalThis);
  new Function("globalThis", sourcesOf(map, path.resolve("sdk")))(global);
  try {
    const error = Object.assign(new Error(), {
      stack: "    at inner (/module.js:2:12)\n    at <anonymous> (/module.js:2:3)\n    at ours (/module.js:1:1)\n    at call (native)\n",
    });
    assert.deepEqual(traceOf(error), ["inner (src/answer.ts:6:3)", "<anonymous> (src/answer.ts:5:3)"]);
  } finally {
    delete global.__modhostSources;
  }
});
