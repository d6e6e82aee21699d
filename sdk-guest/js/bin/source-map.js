// From the bundler's source map to what stack traces in the component are told by (src/trace.js).
import path from "node:path";

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** @typedef {{ sources: string[], mappings: string }} SourceMap */

/**
 * What QuickJS said while it loaded the bundle, in the author's lines. Frames under `except` are left out.
 *
 * @param {string} said
 * @param {SourceMap} map
 * @param {string} except
 */
export function inOwnLines(said, { sources, mappings }, except) {
  const lines = linesOf(mappings);
  return said.split("\n").flatMap((text) => {
    const [frame, line, column] = /[^\s(]*:user\.js:(\d+):(\d+)/.exec(text) ?? [];
    const parts = lines[Number(line) - 1] ?? [];
    const [, file = 0, from = 0, fromColumn = 0] = parts.findLast(([begin]) => begin < Number(column)) ?? parts[0] ?? [];
    const source = path.resolve(sources[file] ?? "");
    if (frame === undefined || parts.length === 0) {
      return [text];
    }
    const place = `${path.relative(process.cwd(), source)}:${from + 1}:${fromColumn + 1}`;
    return source.startsWith(except + path.sep) ? [] : [text.replace(frame, place)];
  }).join("\n");
}

/**
 * The statement that tells stack traces where each place of the bundle came from. Files under `except` are left out.
 *
 * @param {SourceMap} map
 * @param {string} except
 */
export function sourcesOf({ sources, mappings }, except) {
  const files = sources.map((source) => path.relative(process.cwd(), path.resolve(source)));
  const isOwn = sources.map((source) => !path.resolve(source).startsWith(except + path.sep));
  const lines = linesOf(mappings).map((parts) => parts.filter(([, file]) => isOwn[file]));
  return `globalThis.__modhostSources = ${JSON.stringify(JSON.stringify({ files, lines }))};\n`;
}

/**
 * Reads the mappings of a source map (ECMA-426): for each line of the bundle, in order, where its parts begin and where
 * they came from.
 *
 * @param {string} mappings
 * @returns {[column: number, file: number, line: number, fromColumn: number][][]}
 */
export function linesOf(mappings) {
  let [file, line, fromColumn] = [0, 0, 0];
  return mappings.split(";").map((group) => {
    let column = 0;
    return group.split(",").flatMap((segment) => {
      const [columns = 0, files, lines = 0, fromColumns = 0] = numbersOf(segment);
      column += columns;
      if (files === undefined) {
        return [];
      }
      [file, line, fromColumn] = [file + files, line + lines, fromColumn + fromColumns];
      return [[column, file, line, fromColumn]];
    });
  });
}

/**
 * Numbers in base 64 of variable length, the sign in the lowest bit.
 *
 * @param {string} segment
 */
function numbersOf(segment) {
  const numbers = [];
  let [value, shift] = [0, 0];
  for (const digit of segment) {
    const bits = BASE64.indexOf(digit);
    value |= (bits & 31) << shift;
    shift += 5;
    if (bits < 32) {
      numbers.push(value & 1 ? -(value >> 1) : value >> 1);
      [value, shift] = [0, 0];
    }
  }
  return numbers;
}
