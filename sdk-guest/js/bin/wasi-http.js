// Makes components that import wasi:http, which componentize-qjs can't by itself: to load the module it links a wasi:io of its
// own, and for wasi:http, which it doesn't know, a stand-in whose streams are of other types. So wasi:http is held back
// under another name, together with the wasi:io it takes its streams from, until the component is made.
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";

/** The packages, and what they are called meanwhile: as long as their own name, so that nothing moves. */
const PACKAGES = ["io", "clocks", "http"];
const NAME = "wasi:";
const MEANWHILE = "held:";

/** The section of a component that has its imports. */
const IMPORTS = 10;

/** @param {string} name of an interface the bundle imports */
export function held(name) {
  return name.replace(/^wasi:(?=http\/)/, MEANWHILE);
}

/**
 * Adds those packages to a folder with the contract, under the other name.
 *
 * @param {string} wit
 */
export async function heldContract(wit) {
  const names = new RegExp(`\\b${NAME}(?=(${PACKAGES.join("|")})[/@])`, "g");
  for (const name of PACKAGES) {
    const folder = path.join(wit, "deps", name);
    const own = path.join(wit, "deps", `held-${name}`);
    await mkdir(own);
    for (const file of await readdir(folder)) {
      const text = await readFile(path.join(folder, file), "utf8");
      await writeFile(path.join(own, file), text.replace(names, MEANWHILE));
    }
  }
}

/**
 * The component, with the imports it held back under their own name.
 *
 * @param {Uint8Array} component
 * @returns {Uint8Array}
 */
export function released(component) {
  const bytes = Buffer.from(component);
  for (const { id, start, end } of sections(bytes)) {
    if (id === IMPORTS) {
      for (let at = bytes.indexOf(MEANWHILE, start); at >= 0 && at < end; at = bytes.indexOf(MEANWHILE, at)) {
        bytes.write(NAME, at);
      }
    }
  }
  return bytes;
}

/**
 * The sections of a component: after 8 bytes each has its number, its length (LEB128), and that many bytes.
 *
 * @param {Buffer} bytes
 */
function* sections(bytes) {
  let at = 8;
  while (at < bytes.length) {
    const id = bytes[at++];
    let [length, shift, byte] = [0, 0, 0x80];
    while (byte & 0x80) {
      byte = bytes[at++] ?? 0;
      length += (byte & 0x7f) * 2 ** shift;
      shift += 7;
    }
    yield { id, start: at, end: at + length };
    at += length;
  }
}
