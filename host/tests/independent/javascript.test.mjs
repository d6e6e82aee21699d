// Tests with JavaScript implementations of the signature schemes; see README.md.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import "@shopify/shopify-api/adapters/node";
import { LinearWebhookClient } from "@linear/sdk/webhooks";
import { sign, verify } from "@octokit/webhooks-methods";
import { ApiVersion, shopifyApi } from "@shopify/shopify-api";
import { verifyKey } from "discord-interactions";

const vectors = JSON.parse(readFileSync(process.env.MODHOST_VECTORS, "utf8"));
const signed = JSON.parse(readFileSync(process.env.MODHOST_SIGNED, "utf8"));

const libraries = {
  github: ({ body, header }, secret) => verify(secret, body, header("x-hub-signature-256")),
  linear: ({ body, header }, secret) => new LinearWebhookClient(secret).verify(Buffer.from(body), header("linear-signature")),
  discord: ({ body, header }, secret) =>
    // The vectors' private keys end with the public key.
    verifyKey(body, header("x-signature-ed25519"), header("x-signature-timestamp"), secret.slice(-64)),
  shopify: async ({ body, headers }, secret) => {
    const shopify = shopifyApi({
      apiKey: "key",
      apiSecretKey: secret,
      apiVersion: ApiVersion.January26 ?? Object.values(ApiVersion).at(-1),
      hostName: "example.com",
      isEmbeddedApp: false,
      logger: { level: -1, log: () => {} },
    });
    const rawRequest = { method: "POST", url: "/", headers };
    return (await shopify.webhooks.validate({ rawBody: body, rawRequest, rawResponse: {} })).valid;
  },
};

async function accepts(library, request) {
  const byName = new Map(Object.entries(request.headers).map(([name, value]) => [name.toLowerCase(), value]));
  const given = { ...request, header: (name) => byName.get(name), headers: Object.fromEntries(byName) };
  for (const secret of request.secrets) {
    try {
      if (await library(given, secret)) return true;
    } catch {
      // Every library has its own errors.
    }
  }
  return false;
}

// Runs a function while the libraries see this time, in seconds since 1970.
async function at(seconds, run) {
  const { now } = Date;
  Date.now = () => seconds * 1000;
  try {
    return await run();
  } finally {
    Date.now = now;
  }
}

for (const [scheme, library] of Object.entries(libraries)) {
  test(`vectors of ${scheme}`, async () => {
    const requests = vectors.filter((request) => request.scheme === scheme);
    assert.ok(requests.length > 10);
    const differing = [];
    for (const request of requests) {
      const accepted = await at(request.now, () => accepts(library, request));
      if (accepted !== request.right) differing.push(`${request.name} should be ${request.right ? "accepted" : "refused"}`);
    }
    assert.deepEqual(differing, []);
  });

  test(`${scheme} accepts requests signed by modhost`, async () => {
    const requests = signed.filter((request) => request.scheme === scheme);
    assert.ok(requests.length > 0);
    for (const request of requests) {
      assert.ok(await accepts(library, request), JSON.stringify(request));
      assert.ok(!(await accepts(library, { ...request, body: `${request.body} ` })), "the library accepts a changed body");
    }
  });
}

test("modhost accepts requests signed by Octokit", async () => {
  const body = '{"action":"opened","title":"Zoë"}';
  const [secret] = vectors.find((request) => request.scheme === "github").secrets;
  const headers = {
    "x-hub-signature-256": await sign(secret, body),
    "x-github-event": "issues",
    "x-github-delivery": randomUUID(),
  };
  const post = (body) => fetch(`${process.env.MODHOST_URL}/github`, { method: "POST", headers, body });
  assert.equal((await post(body)).status, 200);
  assert.equal((await post(`${body} `)).status, 401);
});
