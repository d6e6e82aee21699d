// Sources that a message or a step cites.
import { present } from "./calls.js";

/** @typedef {import("../types/index.js").Hit} Hit */
/** @typedef {import("../types/index.js").Reference} Reference */

// A citation: `[source0]`, `[source 0, Source2]`.
const CITATION = /\[(\s*source\s*[0-9]+\s*(?:,\s*source\s*[0-9]+\s*)*)\]/gi;

/**
 * @param {readonly Hit[]} hits
 * @returns {Reference[]}
 */
export function referencesTo(hits) {
  return hits.map((hit, index) => ({
    name: hit.name,
    ...present({ description: pages(hit), url: hit.url }),
    sequenceNumber: index + 1,
    originalIndex: [index],
    sourceId: `${hit.id}_${hit.chunkId}`,
    source: "node-ingestion-chunks",
  }));
}

/**
 * Turns `[source0]`, `[source0, source2]` and the like in a model's text into footnotes, and filters the references (one for each
 * source, in order) to those that are cited. If the text cites none, keeps all, because the text is still based on them. Citations
 * of sources that don't exist are model hallucinations and are removed.
 *
 * @param {string} text
 * @param {readonly Reference[]} references
 * @returns {{ text: string, references: Reference[] }}
 */
export function cite(text, references) {
  /** @type {Set<Reference>} */
  const cited = new Set();
  let written = "";
  let end = 0;
  for (const citation of text.matchAll(CITATION)) {
    written += text.slice(end, citation.index);
    end = citation.index + citation[0].length;
    const numbers = (citation[1] ?? "").match(/[0-9]+/g) ?? [];
    const known = numbers.flatMap((number) => references[Number(number)] ?? []);
    if (known.length === 0) {
      written = written.replace(/ +$/, "");
    }
    for (const reference of known) {
      cited.add(reference);
      written += `<sup>${reference.sequenceNumber}</sup>`;
    }
  }
  written += text.slice(end);
  return { text: written, references: references.filter((reference) => cited.size === 0 || cited.has(reference)) };
}

/** @param {Reference} reference */
export function referenceToHost(reference) {
  return {
    ...reference,
    description: reference.description ?? null,
    url: reference.url ?? null,
    originalIndex: [...(reference.originalIndex ?? [])],
  };
}

/** @param {Hit} hit */
function pages({ startPage, endPage }) {
  if (startPage === undefined || startPage <= 0) {
    return undefined;
  }
  return endPage !== undefined && endPage > startPage ? `pages ${startPage}–${endPage}` : `page ${startPage}`;
}
