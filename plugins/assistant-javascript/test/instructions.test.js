import assert from "node:assert/strict";
import { test } from "node:test";

import { found, instructions } from "../src/instructions.js";

test("prompt contains numbered sources", () => {
  const text = instructions([
    { name: "Travel", text: "Book early.\n" },
    { name: "Leave", text: "Take it." },
  ]);
  assert.ok(text.includes("<source0>\nTravel\nBook early.\n</source0>"), text);
  assert.ok(text.includes("<source1>\nLeave\nTake it.\n</source1>"), text);
});

test("prompt says that nothing was found", () => {
  assert.match(instructions([]), /contains nothing about the user's question/);
});

test("counts documents", () => {
  assert.deepEqual([0, 1, 2].map(found), [
    "Found no relevant documents",
    "Found 1 relevant document",
    "Found 2 relevant documents",
  ]);
});
