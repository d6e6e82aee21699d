// QuickJS for components: componentize-qjs, which is a native library in a package for each platform. Its own package picks one,
// but also names platforms that have none in this version, and `npm ci` refuses such gaps; so it is picked here.
import { createRequire } from "node:module";
import process from "node:process";

/** @typedef {(options: { witPath: string, world: string, jsSource: string, sync: boolean }) => Promise<{ component: Uint8Array }>} Componentize */

const PACKAGE = "@andreiltd/componentize-qjs-binding-";

/** Where it is not to be had, or not installed. */
export class NoQuickJs extends Error {}

/**
 * What makes components, for this platform.
 *
 * @returns {Componentize}
 */
export function quickJs() {
  const require = createRequire(import.meta.url);
  const platform = `${process.platform}-${process.arch}`;
  // Of Linux's two C libraries npm installs the one that is there.
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
      ? `the package ${PACKAGE}${platform}… isn't installed: run npm ci, or npm install, without --omit=optional`
      : `there is no QuickJS to make components with for ${platform}, only for Linux and macOS, on x64 and ARM64`,
  );
}

/** @param {unknown} error */
function isAbsent(error) {
  return error instanceof Error && "code" in error && ["MODULE_NOT_FOUND", "ERR_DLOPEN_FAILED"].includes(String(error.code));
}
