/**
 * Write modhost modules in JavaScript and TypeScript: an ordinary function that takes an event and answers it.
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
 * `modhost-componentize answer.js -o answer.wasm` makes it a component, which the host runs once for each event.
 *
 * All calls wait for their answer by themselves: there is nothing to `await`. A call that fails throws a kind of
 * {@link CallError}. What a module throws ends the delivery; throw a {@link Failure} to choose the words and whether
 * another try may help. `console` writes to the operators' log.
 *
 * Who is acted for is not a module's to say: every call acts on the event that is being answered.
 */

/** What JSON can say. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

// ── Events ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Something that happened on a platform, verified by the host. */
export interface Event {
  /** The platform's id of the event. */
  readonly id: string;
  /** The name of the source it came through, as in `modules.toml`. */
  readonly source: string;
  /** What happened, in the platform's words. */
  readonly name: string;
  /** When the platform says it happened. */
  readonly createdAt?: Date;
  /** Which attempt at this delivery this is, from 1. */
  readonly attempt: number;
  /** What the host understood of it. For `other`, read `name` and `payload`. */
  readonly subject:
    | { readonly kind: "moduleChosen"; readonly moduleChosen: ModuleChosen }
    | { readonly kind: "userMessageCreated"; readonly userMessageCreated: UserMessageCreated }
    | { readonly kind: "other" };
  /** The payload in the platform's own JSON, read, whatever `subject` is. */
  readonly payload: unknown;
}

/** A user's message chose the module to answer it (`unique.chat.external-module.chosen`). */
export interface ModuleChosen {
  /** The module's name on the platform. */
  readonly name: string;
  /** What the module's owner wrote about it there. */
  readonly description: string;
  /** The module's settings in this assistant. `config` reads them key by key. */
  readonly configuration: Record<string, unknown>;
  /** The chat, for information: the host acts on no other. */
  readonly chatId: string;
  /** The assistant (space) the chat belongs to. */
  readonly assistantId: string;
  /** The message to answer. */
  readonly userMessage: UserMessage;
  /** The empty message shown under it, which `messages.reply` fills. */
  readonly assistantMessageId: string;
}

/** The message of a user that chose the module. */
export interface UserMessage {
  /** The platform's id of the message. */
  readonly id: string;
  /** The text to answer. */
  readonly text: string;
  /** What the user wrote, where the platform changed it (say, put it into the words of a search). */
  readonly originalText?: string;
  /** The language the platform believes the text to be in, as a BCP 47 tag. */
  readonly language?: string;
  /** When it was written, as the platform writes times (RFC 3339). */
  readonly createdAt: string;
}

/** A user wrote a message (`unique.chat.user-message.created`). */
export interface UserMessageCreated {
  /** The chat it was written in. */
  readonly chatId: string;
  /** The assistant (space) the chat belongs to. */
  readonly assistantId: string;
  /** What the user wrote. */
  readonly text: string;
}

/**
 * A message of a thread of NexusGPT is there (`MESSAGE_FINALIZED`): a person's, or a virtual employee's. All a module can do
 * there is to write messages into the event's thread, of text, with `messages.create`; every other call throws an
 * {@link UnsupportedError}. A message may have {@link NEXUS_MESSAGE_LIMIT} characters.
 */
export interface NexusMessageFinalized {
  /** The message's id. One that is changed later comes again as another event. */
  readonly id: string;
  /** The thread, for information: the host writes into no other. */
  readonly chatId: string;
  /** What kind of sender wrote it, in the platform's word; it may add others. */
  readonly sender: "USER" | "VIRTUAL_EMPLOYEE" | (string & {});
  /** The person who wrote it, if a person did. */
  readonly userSenderId?: string;
  /** The virtual employee that wrote it, or that it was written to. */
  readonly virtualSenderId?: string;
  /** What it says; empty if it says nothing in words. */
  readonly content: string;
  /** The platform's `type` of the message. */
  readonly kind?: string;
  /** Whether it is whole, in the platform's word; it may add others. */
  readonly status: "PROCESSED" | "IN_PROGRESS" | (string & {});
  /** When it was written, as the platform writes times (RFC 3339). */
  readonly createdAt?: string;
  /** When it was last changed. */
  readonly updatedAt?: string;
  /** The files that came with it, each in the platform's own shape. */
  readonly files: readonly unknown[];
  /** What a virtual employee means to do, in the platform's own shape. */
  readonly executionPlan?: unknown;
}

/** The most characters a message into a thread of NexusGPT may have, as `text.length` counts them. The host sends no longer one. */
export const NEXUS_MESSAGE_LIMIT: 4000;

/** A document of Archivus was read and understood (`document.processed`). */
export interface ArchivusDocumentProcessed {
  /** The document's id. */
  readonly documentId: string;
  /** The document. */
  readonly document: {
    /** Its id. */
    readonly id: string;
    /** The name of its file. */
    readonly filename: string;
    /** How far it is, in the platform's word. */
    readonly status?: string;
    /** How far it is understood, in the platform's word. */
    readonly aiStatus?: string;
    /** What it is about, as a language model put it. */
    readonly aiSummary?: string;
    /** The words a language model filed it under. */
    readonly aiTags: readonly string[];
  };
}

/** A document of Archivus could not be read or understood (`document.failed`). */
export interface ArchivusDocumentFailed {
  /** The document's id. */
  readonly documentId: string;
  /** Why, in the platform's words; what isn't text is given as JSON. */
  readonly error: string;
}

/** A document of Archivus came in, and is still to be read (`document.uploaded`). */
export interface ArchivusDocumentUploaded {
  /** The document's id. */
  readonly documentId: string;
}

/** Somebody wrote in a chat of Archivus (`chat.message.created`). What was written is not part of it. */
export interface ArchivusChatMessageCreated {
  /** The chat. */
  readonly sessionId: string;
  /** The message's id. */
  readonly messageId: string;
  /** Who wrote it, in the platform's word. */
  readonly role: string;
  /** The document it is about, if it is about one. */
  readonly documentId?: string;
}

/** What a module answers: a function for each kind of event it takes. The event itself is the second argument. */
export interface Handlers {
  /** A user's message chose the module. */
  moduleChosen?(chosen: ModuleChosen, event: Event): void;
  /** A user wrote a message. */
  userMessageCreated?(created: UserMessageCreated, event: Event): void;
  /** Events of NexusGPT. What a type doesn't know of them is in `event.payload`. */
  nexus?: {
    /** A person or a virtual employee wrote into a thread. */
    messageFinalized?(message: NexusMessageFinalized, event: Event): void;
  };
  /** Events of Archivus, on which there is no platform to answer. What a type doesn't know of them is in `event.payload`. */
  archivus?: {
    /** A document was read and understood. */
    documentProcessed?(processed: ArchivusDocumentProcessed, event: Event): void;
    /** A document could not be read or understood. */
    documentFailed?(failed: ArchivusDocumentFailed, event: Event): void;
    /** A document came in. */
    documentUploaded?(uploaded: ArchivusDocumentUploaded, event: Event): void;
    /** Somebody wrote in a chat. */
    chatMessageCreated?(created: ArchivusChatMessageCreated, event: Event): void;
  };
  /** Any other event, and those whose own function is missing. */
  other?(event: Event): void;
}

/** The export that the host calls. Only {@link defineModule} makes it. */
export type Handle = (event: unknown) => void;

/**
 * Makes the module's export of its functions: `export const handle = defineModule({ moduleChosen(…) { … } })`.
 *
 * An event that none of them takes ends the delivery with a reason that says so. What a function throws ends the
 * delivery: a `Failure` as it says, a `CallError` with another try where that may help, and anything else with its stack
 * trace as the reason.
 */
export function defineModule(handlers: Handlers): Handle;

// ── Failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Whether another try may help: no, yes whenever the host finds it best, or not before so many seconds. */
export type Retry = boolean | number;

/**
 * Throw it to end the delivery in words of your own.
 *
 * ```js
 * throw new Failure("the calendar has no such day", { userText: "I know no such day. Did you mean another?" });
 * ```
 */
export class Failure extends Error {
  /**
   * @param reason for the operators: goes to the log with the delivery, never to the user
   * @param options `userText` is for the user, in place of the host's apology; `retry` says whether another try may help. What
   *   the failure was caused by is told after the reason; a failed call also says whether another try may help, where `retry`
   *   doesn't
   */
  constructor(reason: string, options?: { userText?: string; retry?: Retry; cause?: unknown });
  /** For the user, in place of the host's apology. */
  readonly userText?: string;
  /** Whether another try may help, and when, where that was said. */
  readonly retry?: Retry;
}

/** A call to the host failed; the subclasses say how. What a module doesn't catch ends the delivery. */
export class CallError extends Error {
  constructor(call: string, text?: string);
  /** The call that failed, by its name in the contract: `messages.reply`. */
  readonly call: string;
  /** Whether another try may help, and when. */
  readonly retry: Retry;
}
/** The platform can't make sense of the request, or the host refuses it: the same call fails again. */
export class InvalidError extends CallError {}
/** Not allowed for the user, or for this module. */
export class DeniedError extends CallError {}
/** What the call names isn't there. */
export class NotFoundError extends CallError {}
/** Too many calls. */
export class RateLimitedError extends CallError {
  constructor(call: string, retryAfter?: number);
  /** After how many seconds another try is worth it, where the platform says so. */
  readonly retryAfter?: number;
}
/** The platform is out of order or out of reach: worth another try. */
export class UnavailableError extends CallError {}
/** No answer in time. What was asked for may have happened all the same. */
export class TimeoutError extends CallError {}
/** The platform of this event has no such function, or the event lacks what it needs (a chat, a reply). */
export class UnsupportedError extends CallError {}
/** A setting isn't what the module expects. */
export class MisconfiguredError extends CallError {}
/** A call was made where there is no host: outside a component, say in a test. */
export class NoHostError extends Error {}

// ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What changes of a step. */
export interface StepChange {
  /** Details in the platform's own shape. */
  details?: Record<string, unknown>;
  /** Sources the step found. */
  references?: readonly Reference[];
}

/** A step shown under the reply while it is being made. */
export interface Step {
  /** The platform's id of the step. */
  readonly id: string;
  /** Shows another text; the step goes on. Without a text, the text stays. */
  update(text?: string, change?: StepChange): void;
  /** Closes the step as done. */
  done(text?: string, change?: StepChange): void;
  /** Closes the step as failed. The delivery needn't fail with it. */
  fail(text?: string, change?: StepChange): void;
}

/**
 * Shows a new step below the earlier ones while `work` runs, and returns what `work` does. At its end the step is done,
 * unless `done` or `fail` said otherwise before; where an exception leaves it, it has failed.
 */
export function step<T>(text: string, work: (step: Step) => T): T;

/** Shows a new step, to be closed by `done`, `fail`, or the end of the delivery. */
export function startStep(text: string): Step;

// ── Search ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** How and where to search. */
export interface SearchOptions {
  /** `combined` (if not said) by meaning and by words, `vector` by meaning, `full-text` by words. */
  kind?: "combined" | "vector" | "full-text";
  /** How many hits at most, 1 to 1000; the platform's default is 20. */
  limit?: number;
  /** Which page of hits, from 1. */
  page?: number;
  /** Only in these scopes (folders), by id. */
  scopes?: readonly string[];
  /** Only in these contents, by id. */
  contents?: readonly string[];
  /** Only in what was uploaded to the chat. */
  chatOnly?: boolean;
  /** The language of the text index, as the platform names it (`english`). */
  language?: string;
  /** Leave out hits that score below. */
  scoreThreshold?: number;
  /** A filter on metadata in UniqueQL. */
  metadataFilter?: Record<string, unknown>;
  /** The name of the deployment that ranks the hits anew. */
  reranker?: string;
}

/** A passage that was found. */
export interface Hit {
  /** The platform's id of the content it stands in. */
  readonly id: string;
  /** The platform's id of the passage. */
  readonly chunkId: string;
  /** The passage. */
  readonly text: string;
  /** What to call it: the content's title, else its key, else its id. */
  readonly name: string;
  /** The content's title. */
  readonly title?: string;
  /** The content's key: usually its file name. */
  readonly key?: string;
  /** Where the content can be opened. */
  readonly url?: string;
  /** The passage's place in the content. */
  readonly order: number;
  /** The first page it stands on; none or negative where the content has no pages. */
  readonly startPage?: number;
  /** The last page it stands on. */
  readonly endPage?: number;
  /** What the platform knows about the content besides. */
  readonly metadata?: Record<string, unknown>;
}

/** Searches the knowledge base, as far as the event's user may see it; the best hit comes first. */
export function search(text: string, options?: SearchOptions): Hit[];

/** A source that a message or a step names, shown as a footnote: `<sup>1</sup>` in the text points to number 1. */
export interface Reference {
  /** What the user reads. */
  readonly name: string;
  /** More about it. */
  readonly description?: string;
  /** Where it can be opened. */
  readonly url?: string;
  /** The number it is shown with, from 1. */
  readonly sequenceNumber: number;
  /** The places in the list of sources it was made from, from 0, where it was made from one. */
  readonly originalIndex?: readonly number[];
  /** The platform's id of what it points to; for a hit `<id>_<chunk id>`. */
  readonly sourceId: string;
  /** The kind of source; for a hit `node-ingestion-chunks`. */
  readonly source: string;
}

/** The references to hits, numbered from 1 in their order. */
export function referencesTo(hits: readonly Hit[]): Reference[];

// ── Completion ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** Who says something: instructions nobody wrote in the chat, a person, a module or a language model. */
export type Role = "system" | "user" | "assistant";

/** What the model is asked: a question, or a conversation, oldest first. Messages of the chat without text are left out. */
export type Prompt = string | Iterable<{ readonly role: Role; readonly text?: string }>;

/** How a language model is asked. */
export interface CompletionOptions {
  /** Instructions before the prompt. */
  system?: string;
  /** The model, by the platform's name; else the default of the tenant's platform. */
  model?: string;
  /** How freely it words its answer: 0 not at all, 2 at most. */
  temperature?: number;
  /** How long the answer may be, in the model's tokens. */
  maxTokens?: number;
  /** Further options the platform hands to the model as they are (`top_p`, `tools`, …). */
  options?: Record<string, unknown>;
  /** How long to wait, in milliseconds; else as long as the delivery may take. */
  timeout?: number;
}

/** What the model answered. */
export interface Answer {
  /** The answer. */
  readonly text: string;
  /** Why it stopped, in the model's words: `stop`, `length`, … */
  readonly finishReason?: string;
  /** What it cost, in the model's tokens, where the platform tells. */
  readonly usage?: { readonly promptTokens: number; readonly completionTokens: number };
}

/** Asks a language model, and waits for the whole answer. It is slow and costs money: a call may take minutes. */
export function complete(prompt: Prompt, options?: CompletionOptions): Answer;

/**
 * Asks a language model, and writes the answer into the event's reply while it is being made; completes the reply.
 * `[source0]` in the model's text becomes a footnote that refers to the first of `sources`, and so on.
 */
export function completeIntoReply(prompt: Prompt, options?: CompletionOptions & { sources?: readonly Hit[] }): Answer;

/**
 * Asks a language model, and hands over the answer piece by piece. Leaving the loop early gives the rest up.
 *
 * ```js
 * for (const piece of stream("Tell me a story.")) { … }
 * ```
 */
export function stream(prompt: Prompt, options?: CompletionOptions): IterableIterator<string>;

// ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A message of the chat. */
export interface Message {
  /** The platform's id; empty where it doesn't tell. */
  readonly id: string;
  /** Who wrote it. */
  readonly role: Role;
  /** What it says; missing for a reply nobody filled yet. */
  readonly text?: string;
  /** The sources it names. */
  readonly references: readonly Reference[];
  /** When it was written, as the platform writes times (RFC 3339). */
  readonly createdAt?: string;
}

/** What else there is to a message besides its text. */
export interface MessageOptions {
  /**
   * The hits that the text cites: `[source0]` in it becomes a footnote that refers to the first of them, and so on. All
   * of them are named where the text cites none; what it cites beyond them is taken out.
   */
  citing?: readonly Hit[];
  /** Further sources. `<sup>1</sup>` in the text points to the one with the sequence number 1. */
  references?: readonly Reference[];
  /** For people who look for mistakes: kept by the platform with the message. */
  debugInfo?: Record<string, unknown>;
  /** Whether this is the final text (it is, if not said): whoever waits for the answer has it then. */
  completed?: boolean;
}

/** The messages of the chat the event happened in. */
export declare const messages: {
  /**
   * Writes the event's reply: the assistant message the platform made for it. Only an event that chose the module has
   * one. What isn't said stays as it is.
   */
  reply(text?: string, options?: MessageOptions): Message;
  /** Writes a new assistant message into the chat, besides the reply. */
  create(text: string, options?: MessageOptions): Message;
  /** Changes an assistant message of the chat, by its id: say one that `create` made. */
  modify(id: string, text?: string, options?: MessageOptions): Message;
  /** Shows a text in the reply's place while the answer is being made. Nothing is stored. */
  show(text: string): void;
  /** The chat's messages, oldest first: the newest that many, or all. */
  history(limit?: number): Message[];
};

// ── Settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * The module's settings: first those of the assistant the event comes from, then the `config` table of the module in
 * `modules.toml`.
 */
export declare const config: {
  /** The setting as text, or what stands in for it. What isn't text in `modules.toml` is given as JSON. */
  get(key: string): string | undefined;
  get(key: string, otherwise: string): string;
  /**
   * The setting as a value of the kind of `otherwise`, which stands in where nobody set it: text, a number, a truth value, a
   * list or an object. A setting of another kind throws a {@link MisconfiguredError}.
   */
  read<T extends Json>(key: string, otherwise: T): Widened<T>;
  /** All settings, as `get` gives them. */
  all(): Record<string, string>;
};

/** The kind a value is of, for the literal `3` a number. */
export type Widened<T> = T extends string ? string : T extends number ? number : T extends boolean ? boolean : T;

// ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What is sent besides method and address. */
export interface HttpOptions {
  /**
   * Headers. Those of the connection (`Host`, `Connection`, `Transfer-Encoding` and the like) are the host's to write: with
   * one of them the request is refused.
   */
  headers?: Record<string, string>;
  /** The bytes, or the text, to send. */
  body?: string | Uint8Array;
  /** In place of `body`: a value to send as JSON, with a `Content-Type` that says so. */
  json?: unknown;
  /**
   * How long to wait for the beginning of the answer, and then for each piece of it, in milliseconds. The operator's limit
   * (`limits.http.timeout`, 30 s where it isn't set) holds all the same.
   */
  timeout?: number;
}

/** An answer, read whole. */
export interface HttpResponse {
  /** The status, 200 for example. */
  readonly status: number;
  /** Whether the status is 2xx. */
  readonly ok: boolean;
  /** The headers; iterating gives all of them, in the order they came. */
  readonly headers: Iterable<[name: string, value: string]> & {
    /** The first header of this name, in whatever case. */
    get(name: string): string | undefined;
  };
  /** The body. */
  readonly bytes: Uint8Array;
  /** The body as text; something else than UTF-8 throws an {@link InvalidError}. */
  text(): string;
  /** The body, read as JSON; something else throws an {@link InvalidError}. */
  json<T = unknown>(): T;
  /**
   * The answer itself if its status is 2xx; else throws a {@link CallError}, told apart by what can be done about it: left
   * uncaught, a 429 or a 503 has the delivery tried again, a 404 hasn't.
   */
  orThrow(): HttpResponse;
}

/** A request that is under way. Given up, it is cut off if it only reads, and carried to its end otherwise. */
export interface HttpSent {
  /** Waits for the answer and reads it. There is one answer, to be asked for once. */
  answer(): HttpResponse;
}

/**
 * HTTP requests, to hosts the operator allows: `http = ["rates.example.com"]` in the module's entry in `modules.toml`. A module
 * that uses this and has no such line isn't loaded. A credential is best left to the host, which adds it to the request.
 *
 * ```js
 * const { value } = http.get("https://rates.example.com/v1/chf-eur").orThrow().json();
 * http.post("https://shop.example.com/orders", { json: { item: "A-17", count: 2 } }).orThrow();
 * ```
 *
 * Any answer is a success, whatever its status; `orThrow` makes an error of those that aren't 2xx. Redirects aren't followed.
 * Where there is no answer, a kind of {@link CallError} is thrown: a {@link DeniedError} if the operator doesn't allow the
 * request, an {@link InvalidError} if it, or its answer, can't be; {@link TimeoutError} and {@link UnavailableError} may pass.
 * The delivery's log says more.
 *
 * When a delivery starts again, requests that were answered are answered as they were then, without being sent. Every request
 * but GET, HEAD and OPTIONS carries an `Idempotency-Key`, so that a server that knows such keys does once what was sent twice.
 */
export declare const http: {
  /** Sends a GET request, and reads the answer. */
  get(url: string, options?: Omit<HttpOptions, "body" | "json">): HttpResponse;
  /** Sends a POST request, and reads the answer. */
  post(url: string, options?: HttpOptions): HttpResponse;
  /** Sends a PUT request, and reads the answer. */
  put(url: string, options?: HttpOptions): HttpResponse;
  /** Sends a PATCH request, and reads the answer. */
  patch(url: string, options?: HttpOptions): HttpResponse;
  /** Sends a DELETE request, and reads the answer. */
  delete(url: string, options?: Omit<HttpOptions, "body" | "json">): HttpResponse;
  /** Sends a request of any method, and reads the answer. */
  request(method: string, url: string, options?: HttpOptions): HttpResponse;
  /** Sends a request, and waits for the answer later: several can be under way at once. */
  begin(method: string, url: string, options?: HttpOptions): HttpSent;
};

// ── What is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * What the module keeps from one event to the next: values under keys, on the host's disk, private to the module and the
 * tenant of the event.
 *
 * ```js
 * const store = new Store();
 * const asked = store.increment("questions");
 * ```
 *
 * A write is on disk when the call returns, and stays, however the event ends. Deliveries run side by side: what two of
 * them may change at the same time wants `increment`, `update` or `compareAndSwap`, not a `get` and then a `set`.
 *
 * What there is room for is `limits.keyvalue` of the module in `modules.toml`. A call beyond it throws an
 * {@link InvalidError}, and says what is full. A module that doesn't use `Store` doesn't ask for any.
 */
export class Store {
  /** @param name a store with a name has keys of its own */
  constructor(name?: string);
  /** What stands under the key. */
  get(key: string): Uint8Array | undefined;
  /** What stands under the key, as text. */
  getText(key: string): string | undefined;
  /** What stands under the key, read as JSON. */
  getJson<T = unknown>(key: string): T | undefined;
  /** Sets the key to bytes, or to text, which is kept in UTF-8. */
  set(key: string, value: string | Uint8Array): void;
  /** Sets the key to a value as JSON. */
  setJson(key: string, value: unknown): void;
  /** Removes the key, if it is there. */
  delete(key: string): void;
  /** Whether something stands under the key. */
  has(key: string): boolean;
  /** All keys, however many there are: more are asked for as the loop goes on. */
  keys(): IterableIterator<string>;
  /** What stands under the keys, in their order, in one call. */
  getMany(keys: Iterable<string>): (Uint8Array | undefined)[];
  /** Sets all of them, or none if that fails. */
  setMany(entries: Iterable<readonly [string, string | Uint8Array]>): void;
  /** Removes all of them, or none if that fails. */
  deleteMany(keys: Iterable<string>): void;
  /** Adds to the number under the key, which begins at 0, and returns what it is then. Exact up to 2⁵³. */
  increment(key: string, by?: number): number;
  /**
   * Sets the key to what `change` makes of its value, and returns that. If another delivery sets the key in between,
   * `change` is called again with what that has set.
   */
  update(key: string, change: (value: Uint8Array | undefined) => string | Uint8Array): Uint8Array;
  /** Like `update`, with values as JSON. */
  updateJson<T = unknown>(key: string, change: (value: T | undefined) => T): T;
  /** Sets the key if what stands under it is what is expected (`undefined`: nothing), and says whether it did. */
  compareAndSwap(key: string, expected: string | Uint8Array | undefined, value: string | Uint8Array): boolean;
}
