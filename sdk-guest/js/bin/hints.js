// Adapts the bundler's error messages for module authors: removes advice on esbuild options, which authors can't set, and adds
// advice they can follow.
import { isBuiltin } from "node:module";

/** Matches esbuild's advice on its own options. */
const OPTIONS = /\bYou can (use|mark|also)\b|\bConsider \w|\bAre you trying\b|\bmust be configured\b|\besbuild loader\b|"--|\bplugin\b/;

/**
 * Returns the bundler's errors with advice for module authors.
 *
 * @param {import("esbuild").Message[]} errors
 * @returns {import("esbuild").Message[]}
 */
export function forAuthors(errors) {
  return errors.map((error) => {
    const notes = error.notes.filter(({ text }) => !OPTIONS.test(text));
    const text = advice(error.text, notes.length > 0);
    return { ...error, notes: text === undefined ? notes : [...notes, { text, location: null }] };
  });
}

/**
 * Returns advice on an error, if any.
 *
 * @param {string} text
 * @param {boolean} isInstalled whether the bundler found the package
 */
function advice(text, isInstalled) {
  const [, name] = /^Could not resolve "(.+)"$/.exec(text) ?? [];
  if (name !== undefined) {
    return unresolved(name, isInstalled);
  }
  const [, ending] = /^No loader is configured for "(.+)" files/.exec(text) ?? [];
  if (ending !== undefined) {
    return `A module can import only JavaScript, TypeScript, JSON and .txt files. Convert the ${ending} file to one of these.`;
  }
  return text.startsWith("The JSX syntax") ? "JSX is supported only in .jsx and .tsx files." : undefined;
}

/**
 * @param {string} name
 * @param {boolean} isInstalled
 */
function unresolved(name, isInstalled) {
  if (isBuiltin(name)) {
    return `"${name}" is a Node module, and modules don't run on Node: they have no files, sockets or processes. Use the functions of ` +
      "the package @modhost/sdk.";
  }
  if (/^[./#]/.test(name)) {
    return undefined;
  }
  const parts = name.split("/");
  const packageName = parts.slice(0, name.startsWith("@") ? 2 : 1).join("/");
  return isInstalled
    ? `The package "${packageName}" has no entry point for modules, which run neither on Node nor in a browser. Use another package.`
    : `If it is a package, install it: npm install ${packageName}`;
}
