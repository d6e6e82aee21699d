// Works around a limitation of componentize-qjs, which can't build components that import wasi:http. To load the module, it links its
// own wasi:io, and a stub for wasi:http whose streams have different types. So wasi:http, and the wasi:io that provides its streams,
// get an alias until the component is built.
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";

/** The packages, and the alias of their namespace. It has the same length, so that no offsets change. */
const PACKAGES = ["io", "clocks", "http"];
const NAMESPACE = "wasi:";
const ALIAS = "held:";

/** The id of the import section of a component. */
const IMPORTS = 10;

/** @param {string} name the name of an interface that the bundle imports */
export function toAlias(name) {
  return name.replace(/^wasi:(?=http\/)/, ALIAS);
}

/**
 * Adds the aliased packages to a folder with the contract.
 *
 * @param {string} wit
 */
export async function addAliasedPackages(wit) {
  const names = new RegExp(`\\b${NAMESPACE}(?=(${PACKAGES.join("|")})[/@])`, "g");
  for (const name of PACKAGES) {
    const folder = path.join(wit, "deps", name);
    const own = path.join(wit, "deps", `held-${name}`);
    await mkdir(own);
    for (const file of await readdir(folder)) {
      const text = await readFile(path.join(folder, file), "utf8");
      await writeFile(path.join(own, file), text.replace(names, ALIAS));
    }
  }
}

/**
 * Returns the component with the aliased imports renamed back.
 *
 * @param {Uint8Array} component
 * @returns {Uint8Array}
 */
export function restoreNames(component) {
  const bytes = Buffer.from(component);
  for (const { id, start, end } of sections(bytes)) {
    if (id === IMPORTS) {
      for (let at = bytes.indexOf(ALIAS, start); at >= 0 && at < end; at = bytes.indexOf(ALIAS, at)) {
        bytes.write(NAMESPACE, at);
      }
    }
  }
  return bytes;
}

/**
 * Iterates over the sections of a component. After an 8-byte header, each section has an id, a length (LEB128) and its content.
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
