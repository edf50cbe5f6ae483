// A page of a product: it shows what each hook of svix-react has, and has a button for each of their functions.
import { useState } from "react";
import { createRoot } from "react-dom/client";
import {
  SvixProvider,
  useAttemptedMessages,
  useAttemptFunctions,
  useEndpoint,
  useEndpointFunctions,
  useEndpointHeaders,
  useEndpointMessageAttempts,
  useEndpoints,
  useEndpointSecret,
  useEndpointStats,
  useEventTypes,
  useMessage,
  useMessageAttempts,
  useMessageEndpoints,
  useMessages,
  useNewEndpoint,
} from "svix-react";

const given = new URLSearchParams(location.hash.slice(1));
const text = (error) => error && JSON.stringify(error.body ?? String(error));

function Shown({ name, of, children }) {
  const { data, error, loading, hasNextPage, hasPrevPage, nextPage, prevPage, reload } = of;
  const state = { data, error: text(error), loading, hasNextPage, hasPrevPage };
  return (
    <section id={name}>
      <pre>{JSON.stringify(state)}</pre>
      <button onClick={reload}>Reload</button>
      {hasNextPage && <button onClick={nextPage}>Next</button>}
      {hasPrevPage && <button onClick={prevPage}>Previous</button>}
      {children}
    </section>
  );
}

// A button whose function may fail: its name says how it has ended.
function Does({ name, act }) {
  const [ended, setEnded] = useState("");
  const run = () => {
    setEnded("");
    act().then((found) => setEnded(text(found?.error) ?? "done"), (error) => setEnded(text(error)));
  };
  return (
    <p>
      <button onClick={run}>{name}</button> <output aria-label={name}>{ended}</output>
    </p>
  );
}

function NewEndpoint() {
  const { url, description, eventTypes, createEndpoint } = useNewEndpoint();
  return (
    <section id="new">
      <input aria-label="URL" value={url.value} onChange={(event) => url.setValue(event.target.value)} />
      <input
        aria-label="Description"
        value={description.value}
        onChange={(event) => description.setValue(event.target.value)}
      />
      <button onClick={() => eventTypes.setValue(["invoice.paid"])}>Only invoice.paid</button>
      <Does name="Create" act={createEndpoint} />
    </section>
  );
}

function Endpoint({ id }) {
  const endpoint = useEndpoint(id);
  const secret = useEndpointSecret(id);
  const headers = useEndpointHeaders(id);
  const { updateEndpoint, deleteEndpoint, recoverEndpointMessages } = useEndpointFunctions(id);
  const attempts = useEndpointMessageAttempts(id, { limit: 5, withContent: true });
  const since = new Date(Date.now() - 3_600_000);
  return (
    <>
      <Shown name="endpoint" of={endpoint}>
        <Does name="Update" act={() => updateEndpoint({ ...endpoint.data, description: "changed" })} />
        <Does name="Recover" act={() => recoverEndpointMessages({ since })} />
        <Does name="Delete" act={deleteEndpoint} />
      </Shown>
      <Shown name="secret" of={secret}>
        <Does name="Rotate" act={() => secret.rotateSecret({})} />
      </Shown>
      <Shown name="headers" of={headers}>
        <Does name="Set headers" act={() => headers.updateEndpointHeaders({ headers: { "x-a": "1" } })} />
        <Does name="Patch headers" act={() => headers.patchEndpointHeaders({ headers: { "x-b": "2" } })} />
      </Shown>
      <Shown name="stats" of={useEndpointStats(id)} />
      <Shown name="endpoint-attempts" of={attempts}>
        {attempts.data?.slice(0, 1).map((attempt) => <Attempt key={attempt.id} attempt={attempt} />)}
      </Shown>
      <Shown name="attempted-messages" of={useAttemptedMessages(id, { limit: 5 })} />
    </>
  );
}

function Attempt({ attempt }) {
  const { resendAttempt } = useAttemptFunctions(attempt);
  return <Does name="Resend" act={resendAttempt} />;
}

function Message({ id }) {
  return (
    <>
      <Shown name="message" of={useMessage(id)} />
      <Shown name="message-endpoints" of={useMessageEndpoints(id)} />
      <Shown name="message-attempts" of={useMessageAttempts(id)} />
    </>
  );
}

function Product() {
  const endpoints = useEndpoints({ limit: 1 });
  const messages = useMessages({ limit: 5, withContent: true });
  const [endpoint, setEndpoint] = useState();
  const [message, setMessage] = useState();
  return (
    <main>
      <NewEndpoint />
      <Shown name="event-types" of={useEventTypes()} />
      <Shown name="endpoints" of={endpoints}>
        {endpoints.data?.map(({ id, url }) => (
          <button key={id} onClick={() => setEndpoint(id)}>{`Open ${url}`}</button>
        ))}
      </Shown>
      <Shown name="messages" of={messages}>
        {messages.data?.slice(0, 1).map(({ id }) => (
          <button key={id} onClick={() => setMessage(id)}>Open the newest</button>
        ))}
      </Shown>
      {endpoint && <Endpoint id={endpoint} />}
      {message && <Message id={message} />}
    </main>
  );
}

const options = { serverUrl: given.get("server") };
createRoot(document.getElementById("root")).render(
  <SvixProvider token={given.get("token")} appId={given.get("app")} options={options}>
    <Product />
  </SvixProvider>,
);
