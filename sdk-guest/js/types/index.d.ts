/**
 * The JavaScript and TypeScript SDK for modhost modules. A module is a function that handles an event.
 *
 * ```js
 * import { complete, defineModule, messages, search, step } from "@modhost/sdk";
 *
 * export const handle = defineModule({
 *   moduleChosen({ userMessage }) {
 *     const hits = step("Searching knowledge base…", (searching) => {
 *       const hits = search(userMessage.text, { limit: 3 });
 *       searching.done(`Found ${hits.length} passages`);
 *       return hits;
 *     });
 *     const passages = hits.map((hit) => hit.text).join("\n\n");
 *     const answer = complete(userMessage.text, { system: passages, temperature: 0.3 });
 *     messages.reply(answer.text, { citing: hits });
 *   },
 * });
 * ```
 *
 * `modhost-componentize answer.js -o answer.wasm` builds a component, which the host runs once for each event.
 *
 * All calls block until they return, so there is nothing to `await`. A failed call throws a subclass of {@link CallError}. An
 * uncaught exception fails the delivery. Throw a {@link Failure} to choose the texts and whether the host retries. `console` writes
 * to the operators' log.
 *
 * A module never says for whom it acts: every call acts on the event that is being handled.
 */

/** A JSON value. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

// ── Events ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** An event on a platform, verified by the host. */
export interface Event {
  /** The platform's id of the event. */
  readonly id: string;
  /** The name of the source that received the event, as in `modules.toml`. */
  readonly source: string;
  /** The event's name on the platform. */
  readonly name: string;
  /** When the event happened, as the platform reports it. */
  readonly createdAt?: Date;
  /** The attempt number of this delivery, from 1. */
  readonly attempt: number;
  /** The event as the host parsed it. For `other`, read `name` and `payload`. */
  readonly subject:
    | { readonly kind: "moduleChosen"; readonly moduleChosen: ModuleChosen }
    | { readonly kind: "userMessageCreated"; readonly userMessageCreated: UserMessageCreated }
    | { readonly kind: "other" };
  /** The complete payload, parsed from the platform's own JSON, whatever `subject` is. */
  readonly payload: unknown;
}

/** A user's message chose the module to answer it (`unique.chat.external-module.chosen`). */
export interface ModuleChosen {
  /** The module's name on the platform. */
  readonly name: string;
  /** The description the module's owner wrote on the platform. */
  readonly description: string;
  /** The module's settings in this assistant. `config` reads them key by key. */
  readonly configuration: Record<string, unknown>;
  /** The chat, for information only: the host acts on no other chat. */
  readonly chatId: string;
  /** The assistant (space) the chat belongs to. */
  readonly assistantId: string;
  /** The message to answer. */
  readonly userMessage: UserMessage;
  /** The empty message shown below the user's message; `messages.reply` fills it. */
  readonly assistantMessageId: string;
}

/** A message from a user who chose the module. */
export interface UserMessage {
  /** The platform's id of the message. */
  readonly id: string;
  /** The text to answer. */
  readonly text: string;
  /** The text as the user wrote it, if the platform changed it (for example, rewrote it as a search query). */
  readonly originalText?: string;
  /** The language the platform detected in the text, as a BCP 47 tag. */
  readonly language?: string;
  /** When the message was written, in the platform's time format (RFC 3339). */
  readonly createdAt: string;
}

/** A user wrote a message (`unique.chat.user-message.created`). */
export interface UserMessageCreated {
  /** The chat it was written in. */
  readonly chatId: string;
  /** The assistant (space) the chat belongs to. */
  readonly assistantId: string;
  /** The text the user wrote. */
  readonly text: string;
}

/**
 * A message in a NexusGPT thread is finalized (`MESSAGE_FINALIZED`), from a person or a virtual employee. On NexusGPT, a module can
 * only write text messages to the event's thread, with `messages.create`; every other platform call throws an
 * {@link UnsupportedError}. A message may have at most {@link NEXUS_MESSAGE_LIMIT} characters.
 */
export interface NexusMessageFinalized {
  /** The message's id. A message that is changed later arrives again as another event. */
  readonly id: string;
  /** The thread, for information only: the host writes to no other thread. */
  readonly chatId: string;
  /** The kind of sender, in the platform's terms. The platform may add values. */
  readonly sender: "USER" | "VIRTUAL_EMPLOYEE" | (string & {});
  /** The id of the person who wrote the message, if a person wrote it. */
  readonly userSenderId?: string;
  /** The id of the virtual employee that wrote the message or received it. */
  readonly virtualSenderId?: string;
  /** The text; empty if the message has none. */
  readonly content: string;
  /** The platform's `type` of the message. */
  readonly kind?: string;
  /** Whether the message is complete, in the platform's terms. The platform may add values. */
  readonly status: "PROCESSED" | "IN_PROGRESS" | (string & {});
  /** When the message was written, in the platform's time format (RFC 3339). */
  readonly createdAt?: string;
  /** When the message was last changed. */
  readonly updatedAt?: string;
  /** The attached files, each in the platform's own shape. */
  readonly files: readonly unknown[];
  /** The plan of a virtual employee, in the platform's own shape. */
  readonly executionPlan?: unknown;
}

/** The maximum length of a message to a NexusGPT thread, as `text.length` counts. The host doesn't send longer messages. */
export const NEXUS_MESSAGE_LIMIT: 4000;

/** An Archivus document was processed (`document.processed`). */
export interface ArchivusDocumentProcessed {
  /** The document's id. */
  readonly documentId: string;
  /** The document. */
  readonly document: {
    /** The document's id. */
    readonly id: string;
    /** The file name. */
    readonly filename: string;
    /** The status, in the platform's terms. */
    readonly status?: string;
    /** The status of the AI processing, in the platform's terms. */
    readonly aiStatus?: string;
    /** A summary by a language model. */
    readonly aiSummary?: string;
    /** Tags by a language model. */
    readonly aiTags: readonly string[];
  };
}

/** An Archivus document couldn't be processed (`document.failed`). */
export interface ArchivusDocumentFailed {
  /** The document's id. */
  readonly documentId: string;
  /** The error, in the platform's terms. A value that isn't a string is given as JSON. */
  readonly error: string;
}

/** An Archivus document was uploaded and isn't processed yet (`document.uploaded`). */
export interface ArchivusDocumentUploaded {
  /** The document's id. */
  readonly documentId: string;
}

/** A message was written in an Archivus chat (`chat.message.created`). The event doesn't contain the text. */
export interface ArchivusChatMessageCreated {
  /** The chat's id. */
  readonly sessionId: string;
  /** The message's id. */
  readonly messageId: string;
  /** The author's role, in the platform's terms. */
  readonly role: string;
  /** The id of the document that the message is about, if any. */
  readonly documentId?: string;
}

/** One function for each kind of event that the module handles. The second argument is the event itself. */
export interface Handlers {
  /** A user's message chose the module. */
  moduleChosen?(chosen: ModuleChosen, event: Event): void;
  /** A user wrote a message. */
  userMessageCreated?(created: UserMessageCreated, event: Event): void;
  /** NexusGPT events. `event.payload` contains fields that the types don't have. */
  nexus?: {
    /** A person or a virtual employee wrote in a thread. */
    messageFinalized?(message: NexusMessageFinalized, event: Event): void;
  };
  /** Archivus events. Archivus has no API for replies. `event.payload` contains fields that the types don't have. */
  archivus?: {
    /** A document was processed. */
    documentProcessed?(processed: ArchivusDocumentProcessed, event: Event): void;
    /** A document couldn't be processed. */
    documentFailed?(failed: ArchivusDocumentFailed, event: Event): void;
    /** A document was uploaded. */
    documentUploaded?(uploaded: ArchivusDocumentUploaded, event: Event): void;
    /** A message was written in a chat. */
    chatMessageCreated?(created: ArchivusChatMessageCreated, event: Event): void;
  };
  /** All other events, and events whose own function is missing. */
  other?(event: Event): void;
}

/** The export that the host calls. Only {@link defineModule} creates it. */
export type Handle = (event: unknown) => void;

/**
 * Creates the module's export: `export const handle = defineModule({ moduleChosen(…) { … } })`.
 *
 * An event that no function handles fails the delivery with a reason that says so. An exception fails the delivery. A `Failure` sets
 * the texts and the retry. A `CallError` is retried if a retry may succeed. Any other exception isn't retried, and its stack trace is
 * the reason.
 */
export function defineModule(handlers: Handlers): Handle;

// ── Failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Whether a retry may succeed: no, yes at a time the host picks, or after a delay in seconds. */
export type Retry = boolean | number;

/**
 * Throw this error to fail the delivery with your own texts.
 *
 * ```js
 * throw new Failure("the calendar has no such day", { userText: "I know no such day. Did you mean another?" });
 * ```
 */
export class Failure extends Error {
  /**
   * @param reason for operators: written to the log with the delivery, never shown to the user
   * @param options `userText` is for the user, in place of the host's apology. `retry` says whether a retry may succeed. The `cause` is
   *   added to the reason; if it is a failed call and `retry` isn't set, the call decides whether the host retries
   */
  constructor(reason: string, options?: { userText?: string; retry?: Retry; cause?: unknown });
  /** The text for the user, in place of the host's apology. */
  readonly userText?: string;
  /** Whether a retry may succeed, and when, if it was set. */
  readonly retry?: Retry;
}

/** A call to the host failed. The subclass is the kind of error. An uncaught error fails the delivery. */
export class CallError extends Error {
  constructor(call: string, text?: string);
  /** The call that failed, by its name in the contract, such as `messages.reply`. */
  readonly call: string;
  /** Whether a retry may succeed, and when. */
  readonly retry: Retry;
}
/** The platform or the host rejects the request: the same call would fail again. */
export class InvalidError extends CallError {}
/** The user or this module isn't allowed to make the call. */
export class DeniedError extends CallError {}
/** The object the call refers to doesn't exist. */
export class NotFoundError extends CallError {}
/** Too many calls. */
export class RateLimitedError extends CallError {
  constructor(call: string, retryAfter?: number);
  /** The delay before a retry, in seconds, if the platform reports one. */
  readonly retryAfter?: number;
}
/** The platform is down or unreachable: a retry may succeed. */
export class UnavailableError extends CallError {}
/** No answer in time. The call may still have taken effect. */
export class TimeoutError extends CallError {}
/** The event's platform has no such function, or the event lacks something it needs (a chat, a reply). */
export class UnsupportedError extends CallError {}
/** A setting doesn't have the type that the module expects. */
export class MisconfiguredError extends CallError {}
/** A call was made outside of a component, for example in a test, where there is no host. */
export class NoHostError extends Error {}

// ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Optional parts of a change to a step. */
export interface StepChange {
  /** Details in the platform's own shape. */
  details?: Record<string, unknown>;
  /** The sources the step found. */
  references?: readonly Reference[];
}

/** A progress step shown under the reply. */
export interface Step {
  /** The platform's id of the step. */
  readonly id: string;
  /** Changes the step and leaves it open. Without a text, the text stays. */
  update(text?: string, change?: StepChange): void;
  /** Closes the step as done. */
  done(text?: string, change?: StepChange): void;
  /** Closes the step as failed. The delivery may still succeed. */
  fail(text?: string, change?: StepChange): void;
}

/**
 * Creates a step below the earlier ones, runs `work`, and returns its result. When `work` returns, the step is closed as done, unless
 * `done` or `fail` closed it before. If `work` throws, the step has failed.
 */
export function step<T>(text: string, work: (step: Step) => T): T;

/** Creates a step. `done`, `fail` or the end of the delivery closes it. */
export function startStep(text: string): Step;

// ── Search ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Options of a search. */
export interface SearchOptions {
  /** `vector` matches by meaning, `full-text` by words, `combined` (the default) by both. */
  kind?: "combined" | "vector" | "full-text";
  /** The maximum number of hits, 1 to 1000; the platform's default is 20. */
  limit?: number;
  /** The page of hits, from 1. */
  page?: number;
  /** Search only these scopes (folders), by id. */
  scopes?: readonly string[];
  /** Search only these contents, by id. */
  contents?: readonly string[];
  /** Search only files uploaded to the chat. */
  chatOnly?: boolean;
  /** The language of the text index, as the platform names it (`english`). */
  language?: string;
  /** Omit hits with a lower score. */
  scoreThreshold?: number;
  /** A metadata filter in UniqueQL. */
  metadataFilter?: Record<string, unknown>;
  /** The name of the deployment that reranks the hits. */
  reranker?: string;
}

/** A passage that matches the query. */
export interface Hit {
  /** The platform's id of the content that contains the passage. */
  readonly id: string;
  /** The platform's id of the passage. */
  readonly chunkId: string;
  /** The text of the passage. */
  readonly text: string;
  /** The content's title, or its key if it has no title, or else its id. */
  readonly name: string;
  /** The content's title. */
  readonly title?: string;
  /** The content's key, usually its file name. */
  readonly key?: string;
  /** The URL that opens the content. */
  readonly url?: string;
  /** The passage's position in the content. */
  readonly order: number;
  /** The first page of the passage; missing or negative if the content has no pages. */
  readonly startPage?: number;
  /** The last page of the passage. */
  readonly endPage?: number;
  /** More metadata of the content. */
  readonly metadata?: Record<string, unknown>;
}

/** Searches the knowledge base, limited to what the event's user may read. Returns the hits, best first. */
export function search(text: string, options?: SearchOptions): Hit[];

/** A source that a message or a step cites, shown as a footnote: `<sup>1</sup>` in the text refers to number 1. */
export interface Reference {
  /** The name the user reads. */
  readonly name: string;
  /** A description. */
  readonly description?: string;
  /** The URL that opens the source. */
  readonly url?: string;
  /** The footnote number, from 1. */
  readonly sequenceNumber: number;
  /** The positions, from 0, in the list of sources from which the reference was made, if it was made from one. */
  readonly originalIndex?: readonly number[];
  /** The platform's id of the source; for a search hit, `<id>_<chunk id>`. */
  readonly sourceId: string;
  /** The kind of source; for a search hit, `node-ingestion-chunks`. */
  readonly source: string;
}

/** Creates references to hits, numbered from 1 in the order of the hits. */
export function referencesTo(hits: readonly Hit[]): Reference[];

// ── Completion ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** The author: `system` for instructions that aren't part of the chat, `user` for a person, `assistant` for a module or a model. */
export type Role = "system" | "user" | "assistant";

/** The input of the model: a question, or a conversation, oldest message first. Messages without text are skipped. */
export type Prompt = string | Iterable<{ readonly role: Role; readonly text?: string }>;

/** Options of a completion. */
export interface CompletionOptions {
  /** A system message: instructions to the model. */
  system?: string;
  /** The model, by its name on the platform. Default: the default model of the tenant's platform. */
  model?: string;
  /** The sampling temperature, from 0 to 2. */
  temperature?: number;
  /** The maximum length of the answer, in the model's tokens. */
  maxTokens?: number;
  /** More options, passed to the model unchanged (`top_p`, `tools`, …). */
  options?: Record<string, unknown>;
  /** The timeout, in milliseconds. Default: the delivery's own time limit. */
  timeout?: number;
}

/** The model's answer. */
export interface Answer {
  /** The text. */
  readonly text: string;
  /** Why the model stopped, in its own terms: `stop`, `length`, … */
  readonly finishReason?: string;
  /** The cost, in the model's tokens, if the platform reports it. */
  readonly usage?: { readonly promptTokens: number; readonly completionTokens: number };
}

/** Calls a language model and waits for the whole answer. Calls are slow and cost money: one call may take minutes. */
export function complete(prompt: Prompt, options?: CompletionOptions): Answer;

/**
 * Calls a language model, streams the answer into the event's reply, then completes the reply. `[source0]` in the model's text
 * becomes a footnote that refers to the first source, `[source1]` to the second, and so on.
 */
export function completeIntoReply(prompt: Prompt, options?: CompletionOptions & { sources?: readonly Hit[] }): Answer;

/**
 * Calls a language model and returns an iterator over the chunks of the answer. If the loop ends early, the rest is canceled.
 *
 * ```js
 * for (const piece of stream("Tell me a story.")) { … }
 * ```
 */
export function stream(prompt: Prompt, options?: CompletionOptions): IterableIterator<string>;

// ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A message of the chat. */
export interface Message {
  /** The platform's id of the message; empty if the platform doesn't report it. */
  readonly id: string;
  /** The author. */
  readonly role: Role;
  /** The text; missing for a reply that isn't filled yet. */
  readonly text?: string;
  /** The sources it cites. */
  readonly references: readonly Reference[];
  /** When the message was written, in the platform's time format (RFC 3339). */
  readonly createdAt?: string;
}

/** Optional parts of a message. */
export interface MessageOptions {
  /**
   * The hits that the text cites: `[source0]` in the text becomes a footnote that refers to the first hit, `[source1]` to the second,
   * and so on. If the text cites no hit, the message references all of them. Citations of hits that don't exist are removed.
   */
  citing?: readonly Hit[];
  /** More references. `<sup>1</sup>` in the text refers to the one with the sequence number 1. */
  references?: readonly Reference[];
  /** Debugging information that the platform stores with the message. */
  debugInfo?: Record<string, unknown>;
  /** Whether this is the final text (default: true), which clients that wait for the answer receive. */
  completed?: boolean;
}

/** The messages of the chat in which the event happened. */
export declare const messages: {
  /**
   * Writes the event's reply: the assistant message that the platform created for it. Only an event that chose the module has a
   * reply. Options that aren't given leave the current values unchanged.
   */
  reply(text?: string, options?: MessageOptions): Message;
  /** Creates an assistant message in the chat, in addition to the reply. */
  create(text: string, options?: MessageOptions): Message;
  /** Changes an assistant message in the chat, by its id, for example one that `create` returned. */
  modify(id: string, text?: string, options?: MessageOptions): Message;
  /** Shows a text in place of the reply while the module works on the answer. Nothing is stored. */
  show(text: string): void;
  /** Returns the newest messages of the chat, oldest first: at most `limit`, or all. */
  history(limit?: number): Message[];
};

// ── Settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * The module's settings: first those of the assistant that sent the event, then the module's `config` table in `modules.toml`.
 */
export declare const config: {
  /** Returns a setting as text, or `otherwise` if it isn't set. A value that isn't a string is returned as JSON. */
  get(key: string): string | undefined;
  get(key: string, otherwise: string): string;
  /**
   * Returns a setting as a value of the type of `otherwise` (string, number, boolean, list or object), or `otherwise` if it isn't set.
   * Throws a {@link MisconfiguredError} if the setting has another type.
   */
  read<T extends Json>(key: string, otherwise: T): Widened<T>;
  /** Returns all settings, as `get` returns them. */
  all(): Record<string, string>;
};

/** The general type of a literal type: `number` for the literal `3`. */
export type Widened<T> = T extends string ? string : T extends number ? number : T extends boolean ? boolean : T;

// ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Options of a request. */
export interface HttpOptions {
  /**
   * The headers. The host sets the connection headers (`Host`, `Connection`, `Transfer-Encoding` and the like) itself, and rejects a
   * request that contains one of them.
   */
  headers?: Record<string, string>;
  /** The body, as bytes or text. */
  body?: string | Uint8Array;
  /** Instead of `body`, a value to send as JSON, with the matching `Content-Type`. */
  json?: unknown;
  /**
   * The timeout for the start of the response, and for each chunk after it, in milliseconds. The operator's limit
   * (`limits.http.timeout`, 30 s by default) still applies.
   */
  timeout?: number;
}

/** A complete response. */
export interface HttpResponse {
  /** The status code, such as 200. */
  readonly status: number;
  /** Whether the status is 2xx. */
  readonly ok: boolean;
  /** The headers. Iterates over all of them, in the order in which they arrived. */
  readonly headers: Iterable<[name: string, value: string]> & {
    /** Returns the first header with this name, ignoring case. */
    get(name: string): string | undefined;
  };
  /** The body. */
  readonly bytes: Uint8Array;
  /** Returns the body as text. Throws an {@link InvalidError} if it isn't UTF-8. */
  text(): string;
  /** Returns the body, parsed as JSON. Throws an {@link InvalidError} if it isn't JSON. */
  json<T = unknown>(): T;
  /**
   * Returns the response if its status is 2xx, otherwise throws the subclass of {@link CallError} that fits the status. If it isn't
   * caught, a 429 or a 503 makes the host retry the delivery, and a 404 doesn't.
   */
  orThrow(): HttpResponse;
}

/** A request in flight. Dropping it cancels a request that only reads; any other request is carried out to its end. */
export interface HttpSent {
  /** Waits for the response and reads it. Can be called only once. */
  answer(): HttpResponse;
}

/**
 * HTTP requests to hosts that the operator allows: `http = ["rates.example.com"]` in the module's entry in `modules.toml`. The host
 * doesn't load a module that uses `http` without that key. Leave credentials to the host, which adds them to the request.
 *
 * ```js
 * const { value } = http.get("https://rates.example.com/v1/chf-eur").orThrow().json();
 * http.post("https://shop.example.com/orders", { json: { item: "A-17", count: 2 } }).orThrow();
 * ```
 *
 * A response with any status is returned normally; `orThrow` throws if the status isn't 2xx. Redirects aren't followed. If there is
 * no response, a subclass of {@link CallError} is thrown: a {@link DeniedError} if the operator doesn't allow the request, an
 * {@link InvalidError} if the request or its response is malformed, a {@link TimeoutError} or an {@link UnavailableError} if a retry
 * may succeed. The delivery's log has the details.
 *
 * In a retry, completed requests are answered from the call log and not resent. Every request except GET, HEAD and OPTIONS carries an
 * `Idempotency-Key`, so that a server that supports such keys applies a request that was sent twice only once.
 */
export declare const http: {
  /** Sends a GET request and reads the response. */
  get(url: string, options?: Omit<HttpOptions, "body" | "json">): HttpResponse;
  /** Sends a POST request and reads the response. */
  post(url: string, options?: HttpOptions): HttpResponse;
  /** Sends a PUT request and reads the response. */
  put(url: string, options?: HttpOptions): HttpResponse;
  /** Sends a PATCH request and reads the response. */
  patch(url: string, options?: HttpOptions): HttpResponse;
  /** Sends a DELETE request and reads the response. */
  delete(url: string, options?: Omit<HttpOptions, "body" | "json">): HttpResponse;
  /** Sends a request with any method and reads the response. */
  request(method: string, url: string, options?: HttpOptions): HttpResponse;
  /** Sends a request without waiting for the response, so that several requests can be in flight at once. */
  begin(method: string, url: string, options?: HttpOptions): HttpSent;
};

// ── Key-value store ──────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * A bucket of the module's key-value store, for values kept between events. Values are on the host's disk, private to the module and
 * the event's tenant.
 *
 * ```js
 * const store = new Store();
 * const asked = store.increment("questions");
 * ```
 *
 * A write is on disk when the call returns, and it stays, however the delivery ends. Deliveries run concurrently. For a value that two
 * deliveries may change at the same time, use `increment`, `update` or `compareAndSwap`, not `get` followed by `set`.
 *
 * `limits.keyvalue` in the module's entry in `modules.toml` limits the storage. A call that exceeds it throws an {@link InvalidError},
 * which names the limit. A module that doesn't use `Store` doesn't request storage.
 */
export class Store {
  /** @param name a named bucket has its own keys */
  constructor(name?: string);
  /** Returns the value of a key. */
  get(key: string): Uint8Array | undefined;
  /** Returns the value of a key as text. */
  getText(key: string): string | undefined;
  /** Returns the value of a key, parsed as JSON. */
  getJson<T = unknown>(key: string): T | undefined;
  /** Sets a key to bytes, or to text, which is encoded as UTF-8. */
  set(key: string, value: string | Uint8Array): void;
  /** Sets a key to a value, serialized as JSON. */
  setJson(key: string, value: unknown): void;
  /** Deletes a key, if it exists. */
  delete(key: string): void;
  /** Returns whether a key exists. */
  has(key: string): boolean;
  /** Iterates over all keys. Fetches them page by page. */
  keys(): IterableIterator<string>;
  /** Returns the values of several keys in one call, in the order of the keys. */
  getMany(keys: Iterable<string>): (Uint8Array | undefined)[];
  /** Sets several keys atomically. */
  setMany(entries: Iterable<readonly [string, string | Uint8Array]>): void;
  /** Deletes several keys atomically. */
  deleteMany(keys: Iterable<string>): void;
  /** Adds `by` to the number of a key, and returns the new number. A missing key counts as 0. Exact up to 2⁵³. */
  increment(key: string, by?: number): number;
  /**
   * Changes the value of a key atomically, and returns the new value. Calls `change` again if another delivery changed the value in the
   * meantime.
   */
  update(key: string, change: (value: Uint8Array | undefined) => string | Uint8Array): Uint8Array;
  /** Like `update`, for values stored as JSON. */
  updateJson<T = unknown>(key: string, change: (value: T | undefined) => T): T;
  /** Sets a key if its current value is `expected` (`undefined`: the key doesn't exist). Returns whether it was set. */
  compareAndSwap(key: string, expected: string | Uint8Array | undefined, value: string | Uint8Array): boolean;
}
