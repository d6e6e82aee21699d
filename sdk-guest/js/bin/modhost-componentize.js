#!/usr/bin/env node
// Makes a component of a module: bundles it with all it imports, and puts QuickJS around it.
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import esbuild from "esbuild";

import { BUNDLE, devBuild, ENVIRONMENT, ENVIRONMENT_WIT } from "./dev-build.js";
import { forAuthors } from "./hints.js";
import { NoQuickJs, quickJs } from "./quickjs.js";
import { inOwnLines, sourcesOf } from "./source-map.js";
import { held, heldContract, released } from "./wasi-http.js";

const HERE = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const USAGE = `usage: modhost-componentize MODULE [-o FILE]

Makes a component of a module: the file that exports \`handle\`, in JavaScript or TypeScript, and all it imports.

  -o, --output FILE   the component; MODULE.wasm beside it if not said
  -h, --help          this`;

/** Why no component was made, in words for the author. */
class Refused extends Error {}

async function main() {
  const { values, positionals } = readArguments();
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const [source, ...rest] = positionals;
  if (source === undefined || rest.length > 0) {
    throw new Refused(`name one module\n\n${USAGE}`);
  }
  if (!existsSync(source)) {
    throw new Refused(`there is no file ${source}`);
  }
  const output = values.output ?? `${source.slice(0, source.length - path.extname(source).length)}.wasm`;
  // Beside the component, so that a host that watches the file sees it whole, or not at all.
  const aside = await mkdtemp(path.join(path.dirname(output), ".componentize-"));
  try {
    const made = path.join(aside, "module.wasm");
    const quick = process.env.MODHOST_DEV_BUILD ? await quickly(source, aside) : undefined;
    await writeFile(made, quick ?? (await compile(await bundle(source), aside)));
    await rename(made, output);
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
  console.log(`${output}: ${((await stat(output)).size / 2 ** 20).toFixed(1)} MiB`);
}

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { output: { type: "string", short: "o" }, help: { type: "boolean", short: "h" } },
    });
  } catch (error) {
    throw new Refused(`${wordsOf(error)}\n\n${USAGE}`);
  }
}

/**
 * The component as `modhost dev` wants it, if the module can be had that way.
 *
 * @param {string} source
 * @param {string} aside a folder to work in
 */
async function quickly(source, aside) {
  const made = await bundle(source, "iife").catch(() => undefined);
  return made && devBuild(made, await contract(), (text) => compile({ ...made, text }, aside, ENVIRONMENT));
}

/**
 * One script of the module and all it imports, the interfaces of the host it imports, and from where each place of it came.
 *
 * @param {string} source
 * @param {"esm" | "iife"} [format]
 */
async function bundle(source, format = "esm") {
  const entry = [
    `import ${JSON.stringify(path.join(HERE, "src/globals.js"))};`,
    `export { handle } from ${JSON.stringify(path.resolve(source))};`,
  ];
  const result = await esbuild
    .build({
      stdin: { contents: entry.join("\n"), resolveDir: process.cwd(), sourcefile: "modhost-entry.js" },
      bundle: true,
      write: false,
      outfile: "module.js",
      format,
      ...(format === "iife" ? { globalName: BUNDLE } : {}),
      target: "es2023", // what QuickJS understands, but for `using`, which esbuild makes of that
      platform: "neutral",
      mainFields: ["module", "main"],
      conditions: ["modhost"],
      keepNames: false,
      sourcemap: "external",
      sourcesContent: false,
      metafile: true,
      logLevel: "silent",
      plugins: [hostInterfaces],
    })
    .catch((failure) => {
      throw new Refused(mistakes(failure.errors ?? [], source) ?? failure.message);
    });
  const made = (/** @type {string} */ ending) => result.outputFiles.find(({ path }) => path.endsWith(ending))?.text ?? "";
  const imports = Object.values(result.metafile.outputs).flatMap((output) => output.imports);
  const interfaces = imports.flatMap(({ external, path }) => (external ? [path] : []));
  const map = JSON.parse(made(".map"));
  return { text: `${made(".js")}\n${sourcesOf(map, HERE)}`, interfaces: [...new Set(interfaces)], map };
}

/** The host's interfaces are imports of the component; one that nothing uses is left out. */
const hostInterfaces = {
  name: "host interfaces",
  /** @param {import("esbuild").PluginBuild} build */
  setup(build) {
    build.onResolve({ filter: /^(modhost|wasi):/ }, ({ path }) => ({ path: held(path), external: true, sideEffects: false }));
  },
};

/**
 * What the bundler found wrong, with the lines it is about.
 *
 * @param {import("esbuild").Message[]} errors
 * @param {string} source
 */
function mistakes(errors, source) {
  if (errors.some(({ text }) => /No matching export .* for import "handle"/.test(text))) {
    return `${source} exports no \`handle\`: write export const handle = defineModule({ … });`;
  }
  return errors.length === 0
    ? undefined
    : `${source} can't be bundled\n\n${esbuild.formatMessagesSync(forAuthors(errors), { kind: "error" }).join("\n").trim()}`;
}

/**
 * The component: the bundle with QuickJS, in a world that imports only what the bundle uses, so that a module asks for
 * nothing it doesn't need.
 *
 * @param {{ text: string, interfaces: string[], map: import("./source-map.js").SourceMap }} bundle
 * @param {string} aside a folder to work in
 * @param {string} [further] another interface it imports
 */
async function compile({ text, interfaces, map }, aside, further) {
  const wit = path.join(aside, "wit");
  await rm(wit, { recursive: true, force: true });
  await cp(await contract(), wit, { recursive: true });
  if (further !== undefined) {
    await mkdir(path.join(wit, "deps/cli"));
    await writeFile(path.join(wit, "deps/cli/environment.wit"), ENVIRONMENT_WIT);
  }
  await cp(path.join(HERE, "bin/random.wit"), path.join(wit, "deps/random/random.wit"));
  await heldContract(wit);
  const imports = [...interfaces, ...(further === undefined ? [] : [further])].map((name) => `  import ${name.replace(/^modhost:module\/(.*)@.*$/, "$1")};\n`);
  const world = await readFile(path.join(wit, "world.wit"), "utf8");
  const named = /^package .*;$/m.exec(world)?.[0];
  await writeFile(
    path.join(wit, "used.wit"),
    `${named}\nworld used {\n  use events.{event, failure};\n${imports.join("")}` +
      "  export handle: func(event: event) -> result<_, failure>;\n}\n",
  );
  const componentize = quickJs();
  try {
    const { component } = await componentize({ witPath: wit, world: "used", jsSource: text, sync: true });
    return released(component);
  } catch (error) {
    const said = wordsOf(error).replace(/^.*module evaluation: /s, "").trim();
    throw new Refused(`no component was made; while it was loaded, the module said:\n\n${inOwnLines(said, map, HERE)}`);
  }
}

/** @param {unknown} error */
function wordsOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/** The contract: in the published package beside this program, in the repository at its top. */
async function contract() {
  for (const folder of [path.join(HERE, "wit"), path.join(HERE, "../../wit")]) {
    if (existsSync(path.join(folder, "world.wit"))) {
      return folder;
    }
  }
  throw new Refused(`the contract is missing: ${HERE} has no folder wit; install the package anew`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof Refused || error instanceof NoQuickJs)) {
    throw error;
  }
  console.error(`modhost-componentize: ${error.message}`);
  process.exitCode = 1;
}
