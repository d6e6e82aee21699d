// Converts the bundler's source map to the form that src/trace.js uses for stack traces in the component.
import path from "node:path";

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** @typedef {{ sources: string[], mappings: string }} SourceMap */

/**
 * Maps the frames in a QuickJS error message to the author's source lines. Drops frames of files under `except`.
 *
 * @param {string} message
 * @param {SourceMap} map
 * @param {string} except
 */
export function mapFrames(message, { sources, mappings }, except) {
  const lines = linesOf(mappings);
  return message.split("\n").flatMap((text) => {
    const [frame, line, column] = /[^\s(]*:user\.js:(\d+):(\d+)/.exec(text) ?? [];
    const parts = lines[Number(line) - 1] ?? [];
    const [, file = 0, from = 0, fromColumn = 0] = parts.findLast(([begin]) => begin < Number(column)) ?? parts[0] ?? [];
    const source = path.resolve(sources[file] ?? "");
    if (frame === undefined || parts.length === 0) {
      return [text];
    }
    const location = `${path.relative(process.cwd(), source)}:${from + 1}:${fromColumn + 1}`;
    return source.startsWith(except + path.sep) ? [] : [text.replace(frame, location)];
  }).join("\n");
}

/**
 * Returns the statement that makes the source map available to stack traces. Omits files under `except`.
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
 * Parses the mappings of a source map (ECMA-426). Returns, for each line of the bundle in order, the start of each segment and its
 * original position.
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
 * Decodes base64 VLQ numbers. The lowest bit is the sign.
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
