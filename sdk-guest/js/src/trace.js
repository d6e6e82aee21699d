// Maps stack traces to the author's files and lines.

/**
 * The source map of the bundle. `modhost-componentize` writes it to the end of the bundle, as JSON that is parsed only when an error
 * occurs.
 *
 * @typedef {object} Sources
 * @property {string[]} files the author's files
 * @property {[column: number, file: number, line: number, fromColumn: number][][]} lines for each line of the bundle, in order, the
 *   start of each segment and its original position, all counted from 0
 */

/** @returns {Sources | undefined} */
function sources() {
  const { __modhostSources: text } = /** @type {{ __modhostSources?: string }} */ (globalThis);
  return text === undefined ? undefined : JSON.parse(text);
}

/**
 * Returns the frames of an error, innermost first: `answer (src/answer.ts:12:5)`. In a component, omits the frames of this package.
 *
 * @param {Error} error
 * @returns {string[]}
 */
export function traceOf(error) {
  const map = sources();
  const frames = (error.stack ?? "").split("\n").flatMap((line) => /^\s*at (.+)$/.exec(line)?.[1] ?? []);
  if (map === undefined) {
    return frames;
  }
  return frames.flatMap((frame) => {
    const [, name, line, column] = /^(?:(.*) \()?\S*?:(\d+):(\d+)\)?$/.exec(frame) ?? [];
    const parts = map.lines[Number(line) - 1] ?? [];
    const part = parts.findLast(([begin]) => begin < Number(column)) ?? parts[0];
    if (part === undefined) {
      return [];
    }
    const location = `${map.files[part[1]]}:${part[2] + 1}:${part[3] + 1}`;
    return [name ? `${name} (${location})` : location];
  });
}
