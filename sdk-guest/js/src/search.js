// Search in the knowledge base, limited to what the event's user may read.
import host from "#host/search";
import { call, json, present } from "./calls.js";

/** @typedef {import("../types/index.js").Hit} Hit */

/**
 * @param {string} text
 * @param {import("../types/index.js").SearchOptions} [options]
 * @returns {Hit[]}
 */
export function search(text, options = {}) {
  const query = {
    text,
    kind: options.kind ?? "combined",
    limit: options.limit ?? null,
    page: options.page ?? null,
    scopeIds: [...(options.scopes ?? [])],
    contentIds: [...(options.contents ?? [])],
    chatOnly: options.chatOnly ?? false,
    language: options.language ?? null,
    scoreThreshold: options.scoreThreshold ?? null,
    metadataFilter: json(options.metadataFilter),
    reranker: options.reranker ?? null,
  };
  return call("search.search", () => host.search(query)).map(hitFromHost);
}

/**
 * @param {any} hit
 * @returns {Hit}
 */
function hitFromHost(hit) {
  const name = [hit.title, hit.key].find((name) => name?.trim()) ?? hit.id;
  return {
    ...present(hit),
    name,
    ...(hit.metadata === null ? {} : { metadata: JSON.parse(hit.metadata) }),
  };
}

/** @param {Hit} hit */
export function hitToHost(hit) {
  return {
    id: hit.id,
    chunkId: hit.chunkId,
    text: hit.text,
    title: hit.title ?? null,
    key: hit.key ?? null,
    url: hit.url ?? null,
    order: hit.order,
    startPage: hit.startPage ?? null,
    endPage: hit.endPage ?? null,
    metadata: json(hit.metadata),
  };
}
