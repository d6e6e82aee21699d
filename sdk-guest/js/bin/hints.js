// What the bundler says to whoever writes a module: without advice on options of its own, which nobody can set here, and with
// what can be done instead.
import { isBuiltin } from "node:module";

/** How esbuild begins advice on its options. */
const OPTIONS = /\bYou can (use|mark|also)\b|\bConsider \w|\bAre you trying\b|\bmust be configured\b|\besbuild loader\b|"--|\bplugin\b/;

/**
 * Errors of the bundler, with advice that can be followed.
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
 * What to do about an error, if there is something to say.
 *
 * @param {string} text
 * @param {boolean} isInstalled whether the bundler has found the package, and something about it
 */
function advice(text, isInstalled) {
  const [, name] = /^Could not resolve "(.+)"$/.exec(text) ?? [];
  if (name !== undefined) {
    return unresolved(name, isInstalled);
  }
  const [, ending] = /^No loader is configured for "(.+)" files/.exec(text) ?? [];
  if (ending !== undefined) {
    return `A module is made of JavaScript, TypeScript, JSON and .txt files: put what is in the ${ending} file into one of these.`;
  }
  return text.startsWith("The JSX syntax") ? "JSX is read in files that are called .jsx or .tsx." : undefined;
}

/**
 * @param {string} name
 * @param {boolean} isInstalled
 */
function unresolved(name, isInstalled) {
  if (isBuiltin(name)) {
    return `"${name}" is a part of Node, and a module doesn't run on Node: it has no files, sockets or processes. What it has is ` +
      "in the package @modhost/sdk.";
  }
  if (/^[./#]/.test(name)) {
    return undefined;
  }
  const words = name.split("/");
  const wanted = words.slice(0, name.startsWith("@") ? 2 : 1).join("/");
  return isInstalled
    ? `The package "${wanted}" has nothing for where a module runs, which is neither Node nor a browser: it takes another one.`
    : `If it is a package, install it: npm install ${wanted}`;
}
