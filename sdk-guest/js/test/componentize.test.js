// The command that makes a component: what it refuses, and in which words. Components themselves are run by the host's
// tests.
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

test("what can be no module is refused in words", () => {
  /** @type {[string, string | undefined, RegExp][]} */
  const cases = [
    ["missing.js", undefined, /there is no file missing\.js/],
    ["plain.js", "export const x = 1;\n", /plain\.js exports no `handle`: write export const handle = defineModule/],
    ["broken.js", "export const handle = (;\n", /broken\.js can't be bundled\n\n[^]*broken\.js:1:23/],
    ["lacking.js", `import "no-such-package";\n${GOOD}`, /Could not resolve "no-such-package"/],
    ["throws.js", `${GOOD}throw new Error("at the top");\n`, /the module said:\n\nError: at the top\n {4}at <anonymous> \(throws\.js:3:\d+\)/],
    ["misspelt.js", GOOD.replace("other", "otter"), /there is no event `otter`/],
  ];
  for (const [name, text, told] of cases) {
    if (text !== undefined) {
      writeFileSync(path.join(folder, name), text);
    }
    const { status, stderr } = run(name);
    assert.equal(status, 1, name);
    assert.match(stderr, told);
    assert.deepEqual(readdirSync(folder).filter((left) => /\.wasm$|^\.componentize/.test(left)), []);
  }
  assert.match(run().stderr, /name one module\n\nusage: /);
  assert.match(run("--nonsense").stderr, /Unknown option '--nonsense'/);
});

test("no advice is given on what can't be set", () => {
  /** @type {[string, RegExp][]} */
  const cases = [
    ['import "fs";', /"fs" is a part of Node/],
    ['import "node:crypto";', /"node:crypto" is a part of Node/],
    ['import "no-such-package";', /install it: npm install no-such-package$/m],
    ['import "@no/such/file.js";', /install it: npm install @no\/such$/m],
    ['import "./nowhere.js";', /Could not resolve "\.\/nowhere\.js"/],
    ['import "./picture.svg";', /put what is in the \.svg file into one of these/],
    ["export const jsx = <b/>;", /JSX is read in files that are called \.jsx/],
    ["const a = 1; a = 2;", /was declared a constant here/],
  ];
  writeFileSync(path.join(folder, "picture.svg"), "<svg/>");
  for (const [line, told] of cases) {
    writeFileSync(path.join(folder, "hinted.js"), `${line}\n${GOOD}`);
    const { status, stderr } = run("hinted.js");
    assert.equal(status, 1, line);
    assert.match(stderr, told);
    assert.doesNotMatch(stderr, /You can|platform: |external|conditions|loader: |Consider/, line);
  }
});

test("a component is made and asks only for what it uses", () => {
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

test("`modhost dev` gets the bundle behind a component that is made once", () => {
  const dev = { MODHOST_DEV_BUILD: "1", XDG_CACHE_HOME: path.join(folder, "cache") };
  /** @param {string} text */
  const made = (text) => {
    writeFileSync(path.join(folder, "dev.js"), text);
    const { status, stdout, stderr } = runWith(dev, "dev.js");
    assert.equal(status, 0, stderr);
    const component = readFileSync(path.join(folder, "dev.wasm"));
    const at = component.lastIndexOf("modhost:sources");
    return { stdout, base: component.subarray(0, at - 16), sources: at < 0 ? undefined : component.subarray(at).toString() };
  };
  const one = made(`${GOOD}globalThis.one = 1;\n`);
  assert.match(one.stdout, /preparing QuickJS for `modhost dev`, once/);
  assert.match(one.sources ?? "", /one = 1/);
  const two = made(`${GOOD}globalThis.two = 2;\n`);
  assert.doesNotMatch(two.stdout, /preparing/);
  assert.match(two.sources ?? "", /two = 2/);
  assert.ok(one.base.subarray(0, 1_000_000).equals(two.base.subarray(0, 1_000_000)));

  // What QuickJS lacks fails when the real component is made, which says so.
  for (const [text, told] of /** @type {const} */ ([
    [`${GOOD}throw new Error("at the top");\n`, /the module said:\n\nError: at the top/],
    [`${GOOD}new Intl.NumberFormat();\n`, /Intl/],
    ["export const x = 1;\n", /exports no `handle`/],
    ["export const handle = (;\n", /can't be bundled/],
  ])) {
    writeFileSync(path.join(folder, "dev.js"), text);
    const { status, stderr } = runWith(dev, "dev.js");
    assert.equal(status, 1, text);
    assert.match(stderr, told);
  }
});
