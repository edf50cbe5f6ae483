// Makes every call that hookseal serves, with one version of the library, and receives what a worker delivers.
// `node calls.mjs LIBRARY`, with HOOKSEAL_URL and HOOKSEAL_TOKEN. It writes every answer as [method, path, status, body].
import assert from "node:assert/strict";
import http from "node:http";

const { HOOKSEAL_TOKEN: token, HOOKSEAL_URL: serverUrl } = process.env;
const { Svix, Webhook } = await import(process.argv[2]);
const answers = [];

async function noted(url, init) {
  const response = await fetch(url, init);
  answers.push([init.method, new URL(url).pathname, response.status, await response.clone().text()]);
  return response;
}

async function refused(status, call) {
  await assert.rejects(call, (error) => (error.code ?? error.status) === status);
}

async function eventually(look) {
  for (let left = 1200; left > 0; left -= 1) {
    const found = await look();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not in time: ${look}`);
}

async function walked(list) {
  const found = [];
  let page = { done: false };
  while (!page.done) {
    page = await list(page.iterator);
    found.push(...page.data);
  }
  return found;
}

const received = [];
const receiver = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    received.push({ url: request.url, headers: request.headers, body: Buffer.concat(parts).toString() });
    response.writeHead(request.url === "/gone" ? 410 : 204).end();
  });
});
await new Promise((resolve) => receiver.listen(0, "127.0.0.1", resolve));
const here = `http://127.0.0.1:${receiver.address().port}`;
const delivered = (url, text) => eventually(() => received.find((each) => each.url === url && each.body.includes(text)));

// Version 2 returns nothing, and throws as version 1 does.
const verified = (secret, { body, headers }) => {
  new Webhook(secret).verify(body, headers);
  return JSON.parse(body);
};

const svix = new Svix(token, { serverUrl, retryScheduleInMs: [], fetch: noted });
const { application, backgroundTask, endpoint, eventType, message, messageAttempt } = svix;
const app = "acme";
const since = new Date(Date.now() - 3_600_000);
// Version 2 has other names for these.
const replaced = (group, ...given) => (group.upsert ?? group.update).apply(group, given);
const ofTypes = (...names) => ({ eventTypes: names, filterTypes: names });
const withHeaders = (...given) => (endpoint.setHeaders ?? endpoint.updateHeaders).apply(endpoint, given);

await svix.health.get();

// Applications
const made = await application.create({ name: "Acme", uid: app, metadata: { plan: "gold" } });
assert.deepEqual([made.id, made.uid, made.name, made.metadata.plan], [app, app, "Acme", "gold"]);
assert.ok(made.createdAt instanceof Date);
await refused(409, application.create({ name: "Acme", uid: app }));
assert.equal((await application.getOrCreate({ name: "Other", uid: app })).name, "Acme");
const once = { idempotencyKey: "once" };
const first = await application.create({ name: "One" }, once);
assert.equal((await application.create({ name: "One" }, once)).id, first.id);
await refused(422, application.create({ name: "Two" }, once));
assert.deepEqual(await application.get(app), made);
assert.equal((await replaced(application, app, { name: "Acme 2", uid: app })).name, "Acme 2");
assert.equal((await replaced(application, "globex", { name: "Globex" })).uid, "globex");
assert.equal((await application.patch(app, { name: "Acme 3" })).name, "Acme 3");
for (const order of ["ascending", "descending", undefined]) {
  const ids = (await walked((iterator) => application.list({ limit: 2, order, iterator }))).map(({ id }) => id);
  assert.deepEqual(ids.sort(), [app, first.id, "globex"].sort());
}

// Event types
const examples = { 1: { type: "object", examples: [{ example: true }] } };
await eventType.create({ name: "invoice.paid", description: "Paid", schemas: examples });
await refused(409, eventType.create({ name: "invoice.paid", description: "Paid" }));
assert.deepEqual((await eventType.get("invoice.paid")).schemas, examples);
await replaced(eventType, "invoice.sent", { description: "Sent" });
assert.ok((await eventType.patch("invoice.sent", { deprecated: true })).deprecated);
await eventType.delete("invoice.sent");
assert.deepEqual((await eventType.list()).data.map(({ name }) => name), ["invoice.paid"]);
assert.equal((await walked((iterator) => eventType.list({ limit: 1, iterator, includeArchived: true }))).length, 2);
await refused(501, eventType.importOpenapi({ specRaw: "{}" }));

// Endpoints
const main = await endpoint.create(app, {
  url: `${here}/main`, uid: "main", description: "first", throttleRate: 50, ...ofTypes("invoice.*"), channels: ["eu"],
  metadata: { team: "billing" }, headers: { "X-Team": "billing" },
});
assert.deepEqual([main.uid, main.throttleRate, main.channels, main.disabled], ["main", 50, ["eu"], false]);
await refused(409, endpoint.create(app, { url: `${here}/main` }));
await refused(422, endpoint.create(app, { url: "ftp://receiver.example" }));
await replaced(endpoint, app, "gone", { url: `${here}/gone`, ...ofTypes("gone") });
assert.equal((await replaced(endpoint, app, "main", { url: `${here}/main`, channels: null })).description, "");
assert.equal((await endpoint.patch(app, "main", { description: "second" })).description, "second");
assert.equal((await endpoint.get(app, main.id)).uid, "main");
for (const order of ["ascending", "descending", undefined]) {
  const page = await endpoint.list(app, { limit: 1, order });
  const next = await endpoint.list(app, { limit: 1, order, iterator: page.iterator });
  const back = await endpoint.list(app, { limit: 1, order, iterator: next.prevIterator });
  assert.deepEqual(back.data, page.data);
  assert.deepEqual([...page.data, ...next.data].map(({ uid }) => uid).sort(), ["gone", "main"]);
}
await withHeaders(app, "main", { headers: { "X-A": "1", "X-B": "2" } });
await endpoint.patchHeaders(app, "main", { headers: { "X-C": "3" }, deleteHeaders: ["X-A"] });
assert.deepEqual((await endpoint.getHeaders(app, "main")).sensitive.sort(), ["x-b", "x-c"]);

// A message, up to a receiver that verifies it
const old = (await endpoint.getSecret(app, "main")).key;
const payload = { id: 1, price: 1.1, text: "é" };
const given = { eventType: "invoice.paid", eventId: "invoice-1", payload, channels: ["eu"] };
const sent = await message.create(app, given);
assert.deepEqual([sent.id, sent.eventType, sent.channels], ["invoice-1", "invoice.paid", ["eu"]]);
assert.equal((await message.create(app, given)).id, sent.id);
await refused(409, message.create(app, { ...given, payload: { id: 2 } }));
assert.deepEqual((await message.get(app, sent.id, { withContent: true })).payload, payload);
assert.deepEqual((await message.list(app, { eventTypes: ["invoice.paid"] })).data.map(({ id }) => id), [sent.id]);
const request = await delivered("/main", "price");
assert.deepEqual(verified(old, request), payload);
assert.equal(request.headers["x-c"], "3");
assert.throws(() => verified(old, { ...request, body: request.body.replace("1.1", "1.2") }));

// Attempts
const attempt = await eventually(async () => (await messageAttempt.listByMsg(app, sent.id, { limit: 5 })).data[0]);
assert.deepEqual(
  [attempt.endpointId, attempt.status, attempt.responseStatusCode, attempt.url], [main.id, 0, 204, `${here}/main`],
);
assert.deepEqual(await messageAttempt.get(app, sent.id, attempt.id), attempt);
for (const options of [{ status: 0 }, { statusCodeClass: 200 }, { eventTypes: ["invoice.paid", "b"] }, { after: since }]) {
  assert.equal((await messageAttempt.listByEndpoint(app, "main", options)).data.length, 1);
}
assert.equal((await messageAttempt.listAttemptedMessages(app, "main")).data[0].id, sent.id);
assert.equal((await messageAttempt.listAttemptedDestinations(app, sent.id)).data[0].id, main.id);
await messageAttempt.resend(app, sent.id, main.id);
await eventually(() => received.filter(({ url }) => url === "/main").length === 2);
await refused(404, messageAttempt.resend(app, "none", main.id));
await eventually(async () => (await endpoint.getStats(app, "main", { since })).success === 1);

// A rotation: while both secrets sign, each verifies
await endpoint.rotateSecret(app, "main", {}, once);
await endpoint.rotateSecret(app, "main", {}, once);
await refused(409, endpoint.rotateSecret(app, "main", {}));
const rotated = (await endpoint.getSecret(app, "main")).key;
assert.notEqual(rotated, old);
assert.equal((await endpoint.sendExample(app, "main", { eventType: "invoice.paid" })).eventType, "invoice.paid");
const example = await delivered("/main", "example");
for (const secret of [old, rotated]) assert.deepEqual(verified(secret, example), { example: true });

// What was lost is sent again
await message.create(app, { eventType: "gone", payload: { lost: 1 } });
await eventually(async () => (await endpoint.get(app, "gone")).disabled);
await endpoint.patch(app, "gone", { url: `${here}/back`, disabled: false });
const task = await endpoint.recover(app, "gone", { since });
await eventually(async () => (await backgroundTask.get(task.id)).status === "finished");
assert.deepEqual((await backgroundTask.list()).data.map(({ id }) => id), [task.id]);
const recovered = await delivered("/back", "lost");
const { key } = await endpoint.getSecret(app, "gone");
assert.deepEqual(verified(key, recovered), { lost: 1 });

// Access for a customer
const { authentication } = svix;
const { token: portal } = await authentication.appPortalAccess(app, {});
const visiting = new Svix(portal, { serverUrl, retryScheduleInMs: [], fetch: noted });
assert.equal((await visiting.endpoint.get(app, "main")).uid, "main");
await refused(404, visiting.endpoint.list("globex"));
await visiting.authentication.logout();
await refused(401, visiting.endpoint.get(app, "main"));
await authentication.expireAll(app, {});

// Endpoints for the events of the server itself
const operational = svix.operationalWebhook?.endpoint ?? svix.operationalWebhookEndpoint;
const own = await operational.create({ url: `${here}/own`, uid: "own", ...ofTypes("endpoint.disabled") });
assert.equal((await replaced(operational, "own", { url: `${here}/own`, uid: "own" })).id, own.id);
assert.equal((await operational.get("own")).id, own.id);
assert.deepEqual((await operational.list()).data.map(({ id }) => id), [own.id]);
await (operational.setHeaders ?? operational.updateHeaders).call(operational, "own", { headers: { "X-A": "1" } });
assert.deepEqual((await operational.getHeaders("own")).sensitive, ["x-a"]);
const { key: operationalKey } = await operational.getSecret("own");
await operational.rotateSecret("own", {});
assert.notEqual((await operational.getSecret("own")).key, operationalKey);
await operational.delete("own");

await endpoint.delete(app, "main");
await refused(404, endpoint.get(app, "main"));
await application.delete(app);
await refused(404, application.get(app));
receiver.close();
process.stdout.write(JSON.stringify(answers));
