#!/usr/bin/env node
// Builds the component of a module: bundles it with everything it imports, and adds QuickJS.
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
import { mapFrames, sourcesOf } from "./source-map.js";
import { addAliasedPackages, restoreNames, toAlias } from "./wasi-http.js";

const HERE = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const USAGE = `usage: modhost-componentize MODULE [-o FILE]

Build the component of a module: the JavaScript or TypeScript file that exports \`handle\`, and everything it imports.

  -o, --output FILE   the component (default: MODULE.wasm next to the module)
  -h, --help          show this help`;

/** The build failed. The message is for the module's author. */
class BuildError extends Error {}

async function main() {
  const { values, positionals } = readArguments();
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const [source, ...rest] = positionals;
  if (source === undefined || rest.length > 0) {
    throw new BuildError(`expected exactly one module\n\n${USAGE}`);
  }
  if (!existsSync(source)) {
    throw new BuildError(`no such file: ${source}`);
  }
  const output = values.output ?? `${source.slice(0, source.length - path.extname(source).length)}.wasm`;
  // Written to a temporary file and renamed, so that a host that watches the file never sees a partial one.
  const temporary = await mkdtemp(path.join(path.dirname(output), ".componentize-"));
  try {
    const built = path.join(temporary, "module.wasm");
    const fast = process.env.MODHOST_DEV_BUILD ? await fastBuild(source, temporary) : undefined;
    await writeFile(built, fast ?? (await compile(await bundle(source), temporary)));
    await rename(built, output);
  } finally {
    await rm(temporary, { recursive: true, force: true });
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
    throw new BuildError(`${messageOf(error)}\n\n${USAGE}`);
  }
}

/**
 * Returns the component of the fast build for `modhost dev`, if the module can be built that way.
 *
 * @param {string} source
 * @param {string} temporary a folder for temporary files
 */
async function fastBuild(source, temporary) {
  const bundled = await bundle(source, "iife").catch(() => undefined);
  return bundled && devBuild(bundled, await contract(), (text) => compile({ ...bundled, text }, temporary, ENVIRONMENT));
}

/**
 * Bundles the module and everything it imports into one script. Returns the script, the host interfaces it imports, and its source
 * map.
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
      target: "es2023", // what QuickJS supports, except `using`, which esbuild transpiles
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
      throw new BuildError(bundlerMessage(failure.errors ?? [], source) ?? failure.message);
    });
  const output = (/** @type {string} */ ending) => result.outputFiles.find(({ path }) => path.endsWith(ending))?.text ?? "";
  const imports = Object.values(result.metafile.outputs).flatMap((output) => output.imports);
  const interfaces = imports.flatMap(({ external, path }) => (external ? [path] : []));
  const map = JSON.parse(output(".map"));
  return { text: `${output(".js")}\n${sourcesOf(map, HERE)}`, interfaces: [...new Set(interfaces)], map };
}

/** Makes host interfaces imports of the component. Unused ones are omitted. */
const hostInterfaces = {
  name: "host interfaces",
  /** @param {import("esbuild").PluginBuild} build */
  setup(build) {
    build.onResolve({ filter: /^(modhost|wasi):/ }, ({ path }) => ({ path: toAlias(path), external: true, sideEffects: false }));
  },
};

/**
 * Formats the bundler's errors, with the source lines.
 *
 * @param {import("esbuild").Message[]} errors
 * @param {string} source
 */
function bundlerMessage(errors, source) {
  if (errors.some(({ text }) => /No matching export .* for import "handle"/.test(text))) {
    return `${source} doesn't export \`handle\`; add export const handle = defineModule({ … });`;
  }
  return errors.length === 0
    ? undefined
    : `cannot bundle ${source}\n\n${esbuild.formatMessagesSync(forAuthors(errors), { kind: "error" }).join("\n").trim()}`;
}

/**
 * Builds the component: the bundle with QuickJS, in a world that imports only the interfaces the bundle uses, so that a module
 * doesn't request capabilities it doesn't need.
 *
 * @param {{ text: string, interfaces: string[], map: import("./source-map.js").SourceMap }} bundle
 * @param {string} temporary a folder for temporary files
 * @param {string} [extra] an additional interface to import
 */
async function compile({ text, interfaces, map }, temporary, extra) {
  const wit = path.join(temporary, "wit");
  await rm(wit, { recursive: true, force: true });
  await cp(await contract(), wit, { recursive: true });
  if (extra !== undefined) {
    await mkdir(path.join(wit, "deps/cli"));
    await writeFile(path.join(wit, "deps/cli/environment.wit"), ENVIRONMENT_WIT);
  }
  await cp(path.join(HERE, "bin/random.wit"), path.join(wit, "deps/random/random.wit"));
  await addAliasedPackages(wit);
  const imports = [...interfaces, ...(extra === undefined ? [] : [extra])].map((name) => `  import ${name.replace(/^modhost:module\/(.*)@.*$/, "$1")};\n`);
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
    return restoreNames(component);
  } catch (error) {
    const message = messageOf(error).replace(/^.*module evaluation: /s, "").trim();
    throw new BuildError(`the module failed to load:\n\n${mapFrames(message, map, HERE)}`);
  }
}

/** @param {unknown} error */
function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/** Returns the folder of the contract: in the package if it is published, at the top level in the repository. */
async function contract() {
  for (const folder of [path.join(HERE, "wit"), path.join(HERE, "../../wit")]) {
    if (existsSync(path.join(folder, "world.wit"))) {
      return folder;
    }
  }
  throw new BuildError(`cannot find the contract: ${HERE} has no folder wit; reinstall the package`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof BuildError || error instanceof NoQuickJs)) {
    throw error;
  }
  console.error(`modhost-componentize: ${error.message}`);
  process.exitCode = 1;
}
