// From the event the host hands over to the function, and from what that throws to the failure the host gets.
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
  return assert.fail("it didn't fail");
}

test("each function gets its kind of event", () => {
  /** @type {unknown[]} */
  const heard = [];
  const handle = defineModule({
    moduleChosen: (event, { payload }) => void heard.push(event.userMessage, event.configuration, payload),
    userMessageCreated: (event, { createdAt }) => void heard.push(event.text, createdAt),
    other: (event) => void heard.push(event.name, event.subject.kind, event.createdAt?.getTime()),
  });
  [chosen, created, other].forEach(handle);
  assert.deepEqual(heard, [
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

test("events of other systems have types and functions of their own", () => {
  /** @type {unknown[]} */
  const heard = [];
  const handle = defineModule({
    nexus: { messageFinalized: (message, event) => void heard.push(message, event.id) },
    archivus: {
      documentProcessed: ({ document }) => void heard.push(document),
      documentFailed: (failed) => void heard.push(failed),
      documentUploaded: (uploaded) => void heard.push(uploaded),
      chatMessageCreated: (created) => void heard.push(created),
    },
  });
  const message = { id: "m_1", chatId: "t_1", senderType: "SYSTEM", status: "QUEUED", mood: "sunny", files: null };
  handle(event("MESSAGE_FINALIZED", { ...message, virtualSender: { id: "e_1" }, contentJson: { content: "Hi" } }));
  handle(event("document.processed", { document_id: "d", document: { id: "d", filename: "a.pdf", ai_summary: null } }));
  handle(event("document.failed", { document_id: "d", error: { code: 7 } }));
  handle(event("document.uploaded", { document_id: "d" }));
  handle(event("chat.message.created", { session_id: "s", message_id: "m", role: "robot", document_id: null }));
  assert.deepEqual(heard, [
    { id: "m_1", chatId: "t_1", sender: "SYSTEM", status: "QUEUED", virtualSenderId: "e_1", content: "Hi", files: [] },
    "evt_1",
    { id: "d", filename: "a.pdf", aiTags: [] },
    { documentId: "d", error: '{"code":7}' },
    { documentId: "d" },
    { sessionId: "s", messageId: "m", role: "robot" },
  ]);
});

test("a payload of another shape is a failure that names the event and the field", () => {
  const handlers = { nexus: { messageFinalized() {} }, archivus: { documentProcessed() {} } };
  /** @type {[string, unknown, string][]} */
  const cases = [
    ["MESSAGE_FINALIZED", { id: "m_1" }, "missing field `chatId`"],
    ["MESSAGE_FINALIZED", { id: 7 }, "`id` should be text"],
    ["MESSAGE_FINALIZED", [], "it should be an object"],
    ["document.processed", { document_id: "d" }, "missing field `document`"],
    ["document.processed", { document_id: "d", document: { id: "d" } }, "missing field `document.filename`"],
    ["document.processed", { document_id: "d", document: { id: "d", filename: "a", ai_tags: [1] } }, "`document.ai_tags` should be a list of texts"],
  ];
  for (const [name, payload, told] of cases) {
    const { reason, retry } = failure(handlers, event(name, payload));
    assert.equal(reason.split("\n")[0], `the payload of the event \`${name}\` (evt_1) has an unknown shape: ${told}`);
    assert.deepEqual(retry, { tag: "no" });
  }
  const { reason } = failure(handlers, event("x", {}));
  assert.match(reason, /it takes `MESSAGE_FINALIZED` and `document.processed`\. Name only/);
});

test("other takes what has no function of its own", () => {
  /** @type {string[]} */
  const heard = [];
  defineModule({ other: (event) => void heard.push(event.subject.kind) })(chosen);
  assert.deepEqual(heard, ["moduleChosen"]);
});

test("another kind of event is a failure for good", () => {
  const { reason, retry } = failure({ moduleChosen() {} }, created);
  assert.match(reason, /`unique.chat.user-message.created` \(evt_1\).*takes `unique.chat.external-module.chosen`/);
  assert.match(reason, /modules\.toml/);
  assert.deepEqual(retry, { tag: "no" });
});

test("a misspelt function is told when the module is defined", () => {
  const misspelt = /** @type {any} */ ({ moduleChoosen() {} });
  assert.throws(() => defineModule(misspelt), /there is no event `moduleChoosen`: take one of moduleChosen, /);
  const within = /** @type {any} */ ({ archivus: { documentLost() {} } });
  assert.throws(() => defineModule(within), /no event `archivus.documentLost`: take one of archivus.documentProcessed, /);
});

test("a failure reaches the host whole", () => {
  const moduleChosen = () => {
    throw new Failure("no seats left", { userText: "Sorry, full.", retry: 1.5 });
  };
  // Rounded up, so that it is never earlier than asked.
  const expected = { reason: "no seats left", userText: "Sorry, full.", retry: { tag: "after", val: 2 } };
  assert.deepEqual(failure({ moduleChosen }, chosen), expected);
});

test("what may pass is tried again, and what stays isn't", () => {
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

test("a failure tells its cause, and is tried again if that may help", () => {
  for (const [cause, retry, told, tried] of /** @type {const} */ ([
    [new sdk.RateLimitedError("x.y", 7), undefined, /^no passages: x\.y: too many calls; free again in 7 s/, { tag: "after", val: 7 }],
    [new sdk.RateLimitedError("x.y", 7), false, /^no passages: x\.y: too many/, { tag: "no" }],
    [new TypeError("mistake"), undefined, /^no passages: TypeError: mistake\n {4}at /, { tag: "no" }],
  ])) {
    const moduleChosen = () => {
      throw new Failure("no passages", retry === undefined ? { cause } : { cause, retry });
    };
    const failed = failure({ moduleChosen }, chosen);
    assert.match(failed.reason, told);
    assert.deepEqual(failed.retry, tried);
  }
});

test("any other error is a reason with its stack and its cause", () => {
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

test("whatever is thrown is told", () => {
  const thrown = [
    ["just text", "thrown: just text"],
    [{ code: 7 }, 'thrown: {"code":7}'],
    [undefined, "thrown: undefined"],
  ];
  for (const [what, reason] of thrown) {
    const moduleChosen = () => {
      throw what;
    };
    assert.equal(failure({ moduleChosen }, chosen).reason, reason);
  }
});

test("a function can't be async", () => {
  assert.match(failure({ moduleChosen: async () => {} }, chosen).reason, /Leave `async` out/);
});

test("without a host a call says so", () => {
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
