// The path from an event to the function, and from an exception to the failure.
import assert from "node:assert/strict";
import { test } from "node:test";

import * as sdk from "../src/index.js";

const { defineModule, Failure } = sdk;

const chosen = {
  id: "evt_1",
  source: "unique",
  name: "unique.chat.external-module.chosen",
  createdAt: 1_700_000_000,
  attempt: 1,
  subject: {
    tag: "module-chosen",
    val: {
      name: "Test",
      description: "",
      configuration: '{"tone":"kind"}',
      chatId: "chat_1",
      assistantId: "assistant_1",
      userMessage: { id: "msg_1", text: "Hi", originalText: null, language: "en", createdAt: "2026-01-31T08:00:00Z" },
      assistantMessageId: "msg_2",
    },
  },
  payload: '{"a":1}',
};
const created = {
  ...chosen,
  name: "unique.chat.user-message.created",
  createdAt: null,
  subject: { tag: "user-message-created", val: { chatId: "chat_1", assistantId: "assistant_1", text: "Hi" } },
};
const other = { ...chosen, name: "x", subject: { tag: "other" } };

/**
 * @param {string} name
 * @param {unknown} payload
 */
const event = (name, payload) => ({ ...other, name, payload: JSON.stringify(payload) });

/**
 * @param {import("../types/index.js").Handlers} handlers
 * @param {object} event
 * @returns {any}
 */
function failure(handlers, event) {
  try {
    defineModule(handlers)(event);
  } catch (failure) {
    return failure;
  }
  return assert.fail("the module didn't fail");
}

test("each function receives its kind of event", () => {
  /** @type {unknown[]} */
  const received = [];
  const handle = defineModule({
    moduleChosen: (event, { payload }) => void received.push(event.userMessage, event.configuration, payload),
    userMessageCreated: (event, { createdAt }) => void received.push(event.text, createdAt),
    other: (event) => void received.push(event.name, event.subject.kind, event.createdAt?.getTime()),
  });
  [chosen, created, other].forEach(handle);
  assert.deepEqual(received, [
    { id: "msg_1", text: "Hi", language: "en", createdAt: "2026-01-31T08:00:00Z" },
    { tone: "kind" },
    { a: 1 },
    "Hi",
    undefined,
    "x",
    "other",
    1_700_000_000_000,
  ]);
});

test("events of other systems have their own functions", () => {
  /** @type {unknown[]} */
  const received = [];
  const handle = defineModule({
    nexus: { messageFinalized: (message, event) => void received.push(message, event.id) },
    archivus: {
      documentProcessed: ({ document }) => void received.push(document),
      documentFailed: (failed) => void received.push(failed),
      documentUploaded: (uploaded) => void received.push(uploaded),
      chatMessageCreated: (created) => void received.push(created),
    },
  });
  const message = { id: "m_1", chatId: "t_1", senderType: "SYSTEM", status: "QUEUED", mood: "sunny", files: null };
  handle(event("MESSAGE_FINALIZED", { ...message, virtualSender: { id: "e_1" }, contentJson: { content: "Hi" } }));
  handle(event("document.processed", { document_id: "d", document: { id: "d", filename: "a.pdf", ai_summary: null } }));
  handle(event("document.failed", { document_id: "d", error: { code: 7 } }));
  handle(event("document.uploaded", { document_id: "d" }));
  handle(event("chat.message.created", { session_id: "s", message_id: "m", role: "robot", document_id: null }));
  assert.deepEqual(received, [
    { id: "m_1", chatId: "t_1", sender: "SYSTEM", status: "QUEUED", virtualSenderId: "e_1", content: "Hi", files: [] },
    "evt_1",
    { id: "d", filename: "a.pdf", aiTags: [] },
    { documentId: "d", error: '{"code":7}' },
    { documentId: "d" },
    { sessionId: "s", messageId: "m", role: "robot" },
  ]);
});

test("malformed payload fails and names the event and the field", () => {
  const handlers = { nexus: { messageFinalized() {} }, archivus: { documentProcessed() {} } };
  /** @type {[string, unknown, string][]} */
  const cases = [
    ["MESSAGE_FINALIZED", { id: "m_1" }, "missing field `chatId`"],
    ["MESSAGE_FINALIZED", { id: 7 }, "`id` should be a string"],
    ["MESSAGE_FINALIZED", [], "it should be an object"],
    ["document.processed", { document_id: "d" }, "missing field `document`"],
    ["document.processed", { document_id: "d", document: { id: "d" } }, "missing field `document.filename`"],
    ["document.processed", { document_id: "d", document: { id: "d", filename: "a", ai_tags: [1] } }, "`document.ai_tags` should be a list of strings"],
  ];
  for (const [name, payload, detail] of cases) {
    const { reason, retry } = failure(handlers, event(name, payload));
    assert.equal(reason.split("\n")[0], `cannot parse the payload of event \`${name}\` (evt_1): ${detail}`);
    assert.deepEqual(retry, { tag: "no" });
  }
  const { reason } = failure(handlers, event("x", {}));
  assert.match(reason, /it handles `MESSAGE_FINALIZED` and `document.processed`\. List only/);
});

test("other receives events without their own function", () => {
  /** @type {string[]} */
  const received = [];
  defineModule({ other: (event) => void received.push(event.subject.kind) })(chosen);
  assert.deepEqual(received, ["moduleChosen"]);
});

test("fails without retry on another kind of event", () => {
  const { reason, retry } = failure({ moduleChosen() {} }, created);
  assert.match(reason, /`unique.chat.user-message.created` \(evt_1\).*handles `unique.chat.external-module.chosen`/);
  assert.match(reason, /modules\.toml/);
  assert.deepEqual(retry, { tag: "no" });
});

test("rejects unknown function names at definition", () => {
  const misspelled = /** @type {any} */ ({ moduleChoosen() {} });
  assert.throws(() => defineModule(misspelled), /unknown event `moduleChoosen`; use one of moduleChosen, /);
  const within = /** @type {any} */ ({ archivus: { documentLost() {} } });
  assert.throws(() => defineModule(within), /unknown event `archivus.documentLost`; use one of archivus.documentProcessed, /);
});

test("all fields of a failure reach the host", () => {
  const moduleChosen = () => {
    throw new Failure("no seats left", { userText: "Sorry, full.", retry: 1.5 });
  };
  // Rounded up, so that no retry is early.
  const expected = { reason: "no seats left", userText: "Sorry, full.", retry: { tag: "after", val: 2 } };
  assert.deepEqual(failure({ moduleChosen }, chosen), expected);
});

test("exception determines the retry", () => {
  const call = "search.search";
  const yes = { tag: "yes" };
  const no = { tag: "no" };
  /** @type {[Error, object][]} */
  const retries = [
    [new sdk.RateLimitedError(call, 7), { tag: "after", val: 7 }],
    [new sdk.RateLimitedError(call), yes],
    [new sdk.UnavailableError(call, "502"), yes],
    [new sdk.TimeoutError(call), yes],
    [new sdk.InvalidError(call), no],
    [new sdk.DeniedError(call), no],
    [new sdk.NotFoundError(call), no],
    [new sdk.UnsupportedError(call), no],
    [new sdk.MisconfiguredError(call), no],
    [new Failure("again", { retry: true }), yes],
    [new Error("mistake"), no],
  ];
  for (const [error, retry] of retries) {
    const moduleChosen = () => {
      throw error;
    };
    assert.deepEqual(failure({ moduleChosen }, chosen).retry, retry, error.name);
  }
});

test("cause is added to the reason and determines the retry", () => {
  for (const [cause, retry, reason, expected] of /** @type {const} */ ([
    [new sdk.RateLimitedError("x.y", 7), undefined, /^no passages: x\.y: rate limited; retry after 7 s/, { tag: "after", val: 7 }],
    [new sdk.RateLimitedError("x.y", 7), false, /^no passages: x\.y: rate limited/, { tag: "no" }],
    [new TypeError("mistake"), undefined, /^no passages: TypeError: mistake\n {4}at /, { tag: "no" }],
  ])) {
    const moduleChosen = () => {
      throw new Failure("no passages", retry === undefined ? { cause } : { cause, retry });
    };
    const failed = failure({ moduleChosen }, chosen);
    assert.match(failed.reason, reason);
    assert.deepEqual(failed.retry, expected);
  }
});

test("reason of other errors has the stack and the cause", () => {
  const moduleChosen = function answer() {
    try {
      /** @type {any} */ (undefined).price;
    } catch (cause) {
      throw new Error("no price", { cause });
    }
  };
  const { reason, userText } = failure({ moduleChosen }, chosen);
  assert.match(reason, /^Error: no price\n {4}at .*answer.*\n[^]*\ncaused by TypeError: /);
  assert.equal(userText, null);
});

test("reason describes thrown values that are not errors", () => {
  const thrown = [
    ["just text", "thrown: just text"],
    [{ code: 7 }, 'thrown: {"code":7}'],
    [undefined, "thrown: undefined"],
  ];
  for (const [value, reason] of thrown) {
    const moduleChosen = () => {
      throw value;
    };
    assert.equal(failure({ moduleChosen }, chosen).reason, reason);
  }
});

test("rejects async functions", () => {
  assert.match(failure({ moduleChosen: async () => {} }, chosen).reason, /Remove `async`/);
});

test("calls throw NoHostError outside of a component", () => {
  const { messages, search, step, complete, config, http, Store } = sdk;
  for (const call of [
    () => messages.reply("x"),
    () => search("x"),
    () => step("x", () => {}),
    () => complete("x"),
    () => config.get("x"),
    () => http.get("https://a.test/"),
    () => new Store(),
  ]) {
    assert.throws(call, sdk.NoHostError);
  }
});
