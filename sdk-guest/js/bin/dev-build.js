// The fast build of `modhost dev`: appends the bundle to a component that evaluates it at startup. Building a component from QuickJS
// and the bundle takes seconds, and so does compiling it in the host. This build skips both, because the component before the bundle
// is always the same. `modhost build` makes the full build.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import vm from "node:vm";

/** The environment variable with the sources, and the name of their custom section. The host defines the same names. */
const VARIABLE = "MODHOST_SOURCES";
const SECTION = "modhost:sources";

/** The global name of the bundle. */
export const BUNDLE = "__modhostModule";

/** The interface from which the component reads the sources. It imports it in addition to the interfaces of the bundle. */
export const ENVIRONMENT = "wasi:cli/environment@0.2.0";
export const ENVIRONMENT_WIT =
  "package wasi:cli@0.2.0;\ninterface environment {\n  get-environment: func() -> list<tuple<string, string>>;\n}\n";

/** How long a cached evaluator component is kept after its last use, in milliseconds. */
const MAX_AGE = 30 * 24 * 60 * 60 * 1000;

/** Globals that Node has in every context and QuickJS lacks. */
const NOT_IN_QUICKJS = ["console", "Intl", "WebAssembly", "SharedArrayBuffer", "Atomics"];

/**
 * Returns the component with the bundle appended, or `undefined` if the bundle doesn't load. The full build then reports the error.
 *
 * @param {{ text: string, interfaces: string[] }} bundle
 * @param {string} contract the folder with the contract
 * @param {(text: string) => Promise<Uint8Array>} make builds a component from a script, with the imports of the bundle
 * @returns {Promise<Uint8Array | undefined>}
 */
export async function devBuild({ text, interfaces }, contract, make) {
  const sources = `${text}\nreturn ${BUNDLE}.handle;`;
  if (!loads(sources)) {
    return undefined;
  }
  return Buffer.concat([await evaluator(interfaces, contract, make), section(sources)]);
}

/** @param {string} sources */
function inFunction(sources) {
  // Prefixed on the first line of the bundle, so that line numbers in stack traces stay the same.
  return `(function (require) {"use strict";${sources}\n})`;
}

/**
 * Returns whether the bundle can be evaluated and exports a function. Calls to the host during loading fail, as they do in a full
 * build.
 *
 * @param {string} sources
 */
function loads(sources) {
  const absent = () => {
    throw new Error("no host");
  };
  /** @type {any} */
  const noHost = new Proxy(absent, { get: (_, name) => (name === "__esModule" ? undefined : noHost) });
  const context = vm.createContext({});
  vm.runInContext(NOT_IN_QUICKJS.map((name) => `delete globalThis.${name};`).join(""), context);
  try {
    const load = vm.runInContext(inFunction(sources), context, { timeout: 5000 });
    return typeof load(() => noHost) === "function";
  } catch {
    return false;
  }
}

/**
 * Returns the component that evaluates bundles with these imports. It is built once and cached.
 *
 * @param {string[]} interfaces
 * @param {string} contract
 * @param {(text: string) => Promise<Uint8Array>} make
 */
async function evaluator(interfaces, contract, make) {
  const script = evaluatorScript([...interfaces].sort());
  const folder = path.join(cacheFolder(), "modhost", "evaluators");
  const file = path.join(folder, `quickjs-${await key(script, contract)}.wasm`);
  if (existsSync(file)) {
    const now = new Date();
    await utimes(file, now, now).catch(() => {});
    return readFile(file);
  }
  console.log("building QuickJS for `modhost dev` (only once)");
  const component = await make(script);
  try {
    await mkdir(folder, { recursive: true });
    await removeExpired(folder);
    // Written to a temporary file and renamed, so that readers never see a partial file.
    const temporary = await mkdtemp(path.join(folder, ".new-"));
    await writeFile(path.join(temporary, "component"), component);
    await rename(path.join(temporary, "component"), file);
    await rm(temporary, { recursive: true, force: true });
  } catch {
    // Without a cache, it is built each time.
  }
  return component;
}

/**
 * Returns the script of that component. It is a single line, the line of the bundle that contains no code of the author, because
 * stack traces map its frames to the bundle.
 *
 * @param {string[]} interfaces
 */
function evaluatorScript(interfaces) {
  return [
    `import environment from ${JSON.stringify(ENVIRONMENT)};`,
    ...interfaces.map((name, number) => `import i${number} from ${JSON.stringify(name)};`),
    `const host = {${interfaces.map((name, number) => `${JSON.stringify(name)}: i${number}`)}};`,
    "const load = () => {",
    `const sources = environment.getEnvironment().find(([name]) => name === ${JSON.stringify(VARIABLE)})[1];`,
    `return (0, eval)(${JSON.stringify(inFunction("@")).replace("@", '" + sources + "')})((name) => host[name]);`,
    "};",
    "export function handle(event) {",
    "let answer;",
    "try { answer = load(); } catch (error) {",
    'const reason = "the module failed to load: " + error + "\\n" + (error?.stack ?? "");',
    'throw { reason, userText: null, retry: { tag: "no" } };',
    "}",
    "return answer(event);",
    "}",
  ].join(" ");
}

/**
 * Returns a hash of everything the component depends on.
 *
 * @param {string} script
 * @param {string} contract
 */
async function key(script, contract) {
  const own = await readFile(new URL("../package.json", import.meta.url));
  const hash = createHash("sha256").update(script).update(own).update(`${process.platform} ${process.arch}`);
  const files = await readdir(contract, { recursive: true });
  for (const file of files.filter((name) => name.endsWith(".wit")).sort()) {
    hash.update(file).update(await readFile(path.join(contract, file)));
  }
  return hash.digest("hex").slice(0, 32);
}

function cacheFolder() {
  const cache = process.env.XDG_CACHE_HOME ?? "";
  return path.isAbsolute(cache) ? cache : path.join(os.homedir(), ".cache");
}

/** @param {string} folder */
async function removeExpired(folder) {
  for (const name of await readdir(folder)) {
    const file = path.join(folder, name);
    if (Date.now() - (await stat(file)).mtimeMs > MAX_AGE) {
      await rm(file, { recursive: true, force: true });
    }
  }
}

/**
 * Encodes a custom section of a component: its id, its length, the length of its name, its name, and its content.
 *
 * @param {string} sources
 */
function section(sources) {
  const body = Buffer.concat([Buffer.from([SECTION.length]), Buffer.from(SECTION), Buffer.from(sources)]);
  const length = [];
  for (let rest = body.length; length.length === 0 || rest > 0; rest >>>= 7) {
    length.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
  }
  return Buffer.concat([Buffer.from([0, ...length]), body]);
}
