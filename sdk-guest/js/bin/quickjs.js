// Loads componentize-qjs, a native library with one package per platform. Its own package selects one, but it also lists platforms
// that have no package in this version, and `npm ci` fails on missing packages. So this file selects the package.
import { createRequire } from "node:module";
import process from "node:process";

/** @typedef {(options: { witPath: string, world: string, jsSource: string, sync: boolean }) => Promise<{ component: Uint8Array }>} Componentize */

const PACKAGE = "@andreiltd/componentize-qjs-binding-";

/** componentize-qjs isn't installed, or isn't available for this platform. */
export class NoQuickJs extends Error {}

/**
 * Returns the function that builds components, for this platform.
 *
 * @returns {Componentize}
 */
export function quickJs() {
  const require = createRequire(import.meta.url);
  const platform = `${process.platform}-${process.arch}`;
  // On Linux, npm installs the package for the C library of the system.
  for (const name of [platform, `${platform}-gnu`, `${platform}-musl`]) {
    try {
      return require(PACKAGE + name).componentize;
    } catch (error) {
      if (!isAbsent(error)) {
        throw error;
      }
    }
  }
  const { optionalDependencies } = require("../package.json");
  throw new NoQuickJs(
    Object.keys(optionalDependencies).some((name) => name.startsWith(PACKAGE + platform))
      ? `the package ${PACKAGE}${platform}… is not installed; run npm ci or npm install without --omit=optional`
      : `componentize-qjs does not support ${platform}, only Linux and macOS on x64 and ARM64`,
  );
}

/** @param {unknown} error */
function isAbsent(error) {
  return error instanceof Error && "code" in error && ["MODULE_NOT_FOUND", "ERR_DLOPEN_FAILED"].includes(String(error.code));
}
