// What `modhost dev` asks for when a file is saved: the bundle behind a component that evaluates it when it starts. Making one
// component of QuickJS and the bundle takes seconds, and so does compiling that in the host; this takes neither, as the
// component in front of the bundle is always the same one. `modhost build` makes the real thing.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import vm from "node:vm";

/** Where the host puts the sources (host/src/engine/sources.rs), and what it calls the section of the file they are in. */
const VARIABLE = "MODHOST_SOURCES";
const SECTION = "modhost:sources";

/** What the bundle is called inside of itself. */
export const BUNDLE = "__modhostModule";

/** The interface the component reads them by, which it imports besides what the bundle does. */
export const ENVIRONMENT = "wasi:cli/environment@0.2.0";
export const ENVIRONMENT_WIT =
  "package wasi:cli@0.2.0;\ninterface environment {\n  get-environment: func() -> list<tuple<string, string>>;\n}\n";

/** How long a component that evaluates bundles is kept after its last use, in milliseconds. */
const KEPT = 30 * 24 * 60 * 60 * 1000;

/** What node has in every context, and QuickJS hasn't. */
const NOT_IN_QUICKJS = ["console", "Intl", "WebAssembly", "SharedArrayBuffer", "Atomics"];

/**
 * The component with the bundle behind it; nothing where the bundle doesn't load, which is told better by who makes the real
 * component of it.
 *
 * @param {{ text: string, interfaces: string[] }} bundle
 * @param {string} contract the folder with the contract
 * @param {(text: string) => Promise<Uint8Array>} make makes a component of a script, with what the bundle imports
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
  // On the first line of the bundle, so that stack traces count the same lines.
  return `(function (require) {"use strict";${sources}\n})`;
}

/**
 * Whether the bundle can be evaluated, and exports a function. What it calls of the host while it is loaded fails, as it does
 * when a component is made of it.
 *
 * @param {string} sources
 */
function loads(sources) {
  const absent = () => {
    throw new Error("there is no host here");
  };
  /** @type {any} */
  const nobody = new Proxy(absent, { get: (_, name) => (name === "__esModule" ? undefined : nobody) });
  const context = vm.createContext({});
  vm.runInContext(NOT_IN_QUICKJS.map((name) => `delete globalThis.${name};`).join(""), context);
  try {
    const load = vm.runInContext(inFunction(sources), context, { timeout: 5000 });
    return typeof load(() => nobody) === "function";
  } catch {
    return false;
  }
}

/**
 * The component that evaluates bundles which import these interfaces: made once, and kept.
 *
 * @param {string[]} interfaces
 * @param {string} contract
 * @param {(text: string) => Promise<Uint8Array>} make
 */
async function evaluator(interfaces, contract, make) {
  const script = evaluating([...interfaces].sort());
  const folder = path.join(cacheFolder(), "modhost", "evaluators");
  const file = path.join(folder, `quickjs-${await key(script, contract)}.wasm`);
  if (existsSync(file)) {
    const now = new Date();
    await utimes(file, now, now).catch(() => {});
    return readFile(file);
  }
  console.log("preparing QuickJS for `modhost dev`, once");
  const made = await make(script);
  try {
    await mkdir(folder, { recursive: true });
    await removeForgotten(folder);
    // Whoever looks sees it whole, or not at all.
    const aside = await mkdtemp(path.join(folder, ".new-"));
    await writeFile(path.join(aside, "it"), made);
    await rename(path.join(aside, "it"), file);
    await rm(aside, { recursive: true, force: true });
  } catch {
    // Where nothing can be kept, it is made each time.
  }
  return made;
}

/**
 * The script of that component. All of it is on one line, the one of the bundle that has nothing of an author's: stack traces
 * take its frames for frames of the bundle.
 *
 * @param {string[]} interfaces
 */
function evaluating(interfaces) {
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
    'const reason = "while it was loaded, the module said: " + error + "\\n" + (error?.stack ?? "");',
    'throw { reason, userText: null, retry: { tag: "no" } };',
    "}",
    "return answer(event);",
    "}",
  ].join(" ");
}

/**
 * What the component depends on.
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
  const named = process.env.XDG_CACHE_HOME ?? "";
  return path.isAbsolute(named) ? named : path.join(os.homedir(), ".cache");
}

/** @param {string} folder */
async function removeForgotten(folder) {
  for (const name of await readdir(folder)) {
    const file = path.join(folder, name);
    if (Date.now() - (await stat(file)).mtimeMs > KEPT) {
      await rm(file, { recursive: true, force: true });
    }
  }
}

/**
 * A custom section of a component: its number, its length, its name with the length of that, and what it holds.
 *
 * @param {string} sources
 */
function section(sources) {
  const inside = Buffer.concat([Buffer.from([SECTION.length]), Buffer.from(SECTION), Buffer.from(sources)]);
  const length = [];
  for (let rest = inside.length; length.length === 0 || rest > 0; rest >>>= 7) {
    length.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
  }
  return Buffer.concat([Buffer.from([0, ...length]), inside]);
}
