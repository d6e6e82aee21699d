// The build command and its error messages. The host's tests run the components.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), "componentize-"));
mkdirSync(path.join(folder, "node_modules/@modhost"), { recursive: true });
symlinkSync(PACKAGE, path.join(folder, "node_modules/@modhost/sdk"));
after(() => rmSync(folder, { recursive: true }));

const GOOD = 'import { defineModule } from "@modhost/sdk";\nexport const handle = defineModule({ other() {} });\n';

/** @param {string[]} args */
function run(...args) {
  return runWith({}, ...args);
}

/** @param {Record<string, string>} variables @param {string[]} args */
function runWith(variables, ...args) {
  const program = path.join(PACKAGE, "bin/modhost-componentize.js");
  const env = { ...process.env, ...variables };
  return spawnSync(process.execPath, [program, ...args], { cwd: folder, encoding: "utf8", env });
}

test("reports files that are not modules", () => {
  /** @type {[string, string | undefined, RegExp][]} */
  const cases = [
    ["missing.js", undefined, /no such file: missing\.js/],
    ["plain.js", "export const x = 1;\n", /plain\.js doesn't export `handle`; add export const handle = defineModule/],
    ["broken.js", "export const handle = (;\n", /cannot bundle broken\.js\n\n[^]*broken\.js:1:23/],
    ["lacking.js", `import "no-such-package";\n${GOOD}`, /Could not resolve "no-such-package"/],
    ["throws.js", `${GOOD}throw new Error("at the top");\n`, /the module failed to load:\n\nError: at the top\n {4}at <anonymous> \(throws\.js:3:\d+\)/],
    ["misspelled.js", GOOD.replace("other", "otter"), /unknown event `otter`/],
  ];
  for (const [name, text, message] of cases) {
    if (text !== undefined) {
      writeFileSync(path.join(folder, name), text);
    }
    const { status, stderr } = run(name);
    assert.equal(status, 1, name);
    assert.match(stderr, message);
    assert.deepEqual(readdirSync(folder).filter((name) => /\.wasm$|^\.componentize/.test(name)), []);
  }
  assert.match(run().stderr, /expected exactly one module\n\nusage: /);
  assert.match(run("--nonsense").stderr, /Unknown option '--nonsense'/);
});

test("omits advice on options that authors can't set", () => {
  /** @type {[string, RegExp][]} */
  const cases = [
    ['import "fs";', /"fs" is a Node module/],
    ['import "node:crypto";', /"node:crypto" is a Node module/],
    ['import "no-such-package";', /install it: npm install no-such-package$/m],
    ['import "@no/such/file.js";', /install it: npm install @no\/such$/m],
    ['import "./nowhere.js";', /Could not resolve "\.\/nowhere\.js"/],
    ['import "./picture.svg";', /Convert the \.svg file to one of these/],
    ["export const jsx = <b/>;", /JSX is supported only in \.jsx/],
    ["const a = 1; a = 2;", /was declared a constant here/],
  ];
  writeFileSync(path.join(folder, "picture.svg"), "<svg/>");
  for (const [line, message] of cases) {
    writeFileSync(path.join(folder, "hinted.js"), `${line}\n${GOOD}`);
    const { status, stderr } = run("hinted.js");
    assert.equal(status, 1, line);
    assert.match(stderr, message);
    assert.doesNotMatch(stderr, /You can|platform: |external|conditions|loader: |Consider/, line);
  }
});

test("component imports only the interfaces it uses", () => {
  writeFileSync(path.join(folder, "answer.js"), GOOD);
  writeFileSync(
    path.join(folder, "keeps.ts"),
    GOOD.replace("{ defineModule }", "{ defineModule, Store }").replace("other()", "other(): void").replace("{}", "{ new Store(); }"),
  );
  writeFileSync(
    path.join(folder, "asks.js"),
    GOOD.replace("{ defineModule }", "{ defineModule, http }").replace("{}", '{ http.get("https://a.test/"); }'),
  );
  for (const [source, name, keeps, asks] of /** @type {const} */ ([
    ["answer.js", "answer", false, false],
    ["keeps.ts", "keeps", true, false],
    ["asks.js", "asks", false, true],
  ])) {
    const { status, stdout, stderr } = run(source);
    assert.equal(status, 0, stderr);
    assert.match(stdout, new RegExp(`^${name}\\.wasm: [0-9.]+ MiB\n$`));
    const component = readFileSync(path.join(folder, `${name}.wasm`));
    assert.equal(component.subarray(0, 8).toString("hex"), "0061736d0d000100");
    assert.equal(component.includes("wasi:keyvalue/store@0.2.0-draft2"), keeps);
    assert.equal(component.includes("wasi:http/outgoing-handler@0.2.2"), asks);
    assert.equal(component.includes("modhost:module/search@0.1.0"), false);
  }
});

test("dev build appends the bundle to a cached component", () => {
  const dev = { MODHOST_DEV_BUILD: "1", XDG_CACHE_HOME: path.join(folder, "cache") };
  /** @param {string} text */
  const build = (text) => {
    writeFileSync(path.join(folder, "dev.js"), text);
    const { status, stdout, stderr } = runWith(dev, "dev.js");
    assert.equal(status, 0, stderr);
    const component = readFileSync(path.join(folder, "dev.wasm"));
    const at = component.lastIndexOf("modhost:sources");
    return { stdout, base: component.subarray(0, at - 16), sources: at < 0 ? undefined : component.subarray(at).toString() };
  };
  const one = build(`${GOOD}globalThis.one = 1;\n`);
  assert.match(one.stdout, /building QuickJS for `modhost dev` \(only once\)/);
  assert.match(one.sources ?? "", /one = 1/);
  const two = build(`${GOOD}globalThis.two = 2;\n`);
  assert.doesNotMatch(two.stdout, /building/);
  assert.match(two.sources ?? "", /two = 2/);
  assert.ok(one.base.subarray(0, 1_000_000).equals(two.base.subarray(0, 1_000_000)));

  // Errors, including APIs that QuickJS lacks, are reported by the full build.
  for (const [text, message] of /** @type {const} */ ([
    [`${GOOD}throw new Error("at the top");\n`, /the module failed to load:\n\nError: at the top/],
    [`${GOOD}new Intl.NumberFormat();\n`, /Intl/],
    ["export const x = 1;\n", /doesn't export `handle`/],
    ["export const handle = (;\n", /cannot bundle/],
  ])) {
    writeFileSync(path.join(folder, "dev.js"), text);
    const { status, stderr } = runWith(dev, "dev.js");
    assert.equal(status, 1, text);
    assert.match(stderr, message);
  }
});
