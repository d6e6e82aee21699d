import assert from "node:assert/strict";
import { test } from "node:test";

import { found, instructions } from "../src/instructions.js";

test("the model reads the sources by their numbers", () => {
  const text = instructions([
    { name: "Travel", text: "Book early.\n" },
    { name: "Leave", text: "Take it." },
  ]);
  assert.ok(text.includes("<source0>\nTravel\nBook early.\n</source0>"), text);
  assert.ok(text.includes("<source1>\nLeave\nTake it.\n</source1>"), text);
});

test("the model is told that there are none", () => {
  assert.match(instructions([]), /holds nothing about the user's question/);
});

test("documents are counted", () => {
  assert.deepEqual([0, 1, 2].map(found), [
    "Found no relevant documents",
    "Found 1 relevant document",
    "Found 2 relevant documents",
  ]);
});
