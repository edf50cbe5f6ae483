// Calls each method that a client of Svix has, and writes the answers as [name, method, path, status, body].
// `node methods.mjs LIBRARY`, with HOOKSEAL_URL and HOOKSEAL_TOKEN.
const { HOOKSEAL_TOKEN: token, HOOKSEAL_URL: serverUrl } = process.env;
const { Svix } = await import(process.argv[2]);
const answers = [];
let name;

async function noted(url, init) {
  const response = await fetch(url, init);
  answers.push([name, init.method, new URL(url).pathname, response.status, await response.clone().text()]);
  return response;
}

async function called(group, prefix) {
  const members = Object.getOwnPropertyDescriptors(Object.getPrototypeOf(group));
  for (const [member, { get, value }] of Object.entries(members)) {
    if (get) await called(group[member], `${prefix}${member}.`);
    else if (member !== "constructor") {
      name = `${prefix}${member}`;
      const names = String(value).match(/\(([^)]*)\)/)[1].split(", ").slice(0, value.length);
      await group[member](...names.map((each) => (/(id|name)$/i.test(each) ? "x" : { events: [] }))).catch(() => {});
    }
  }
}

await called(new Svix(token, { serverUrl, retryScheduleInMs: [], fetch: noted }), "");
process.stdout.write(JSON.stringify(answers));
