// Reads a JSON array of requests, and writes for each what the public libraries say of it: "taken", or the error's name.
import { readFileSync } from "node:fs";
import * as standard from "standardwebhooks";
import * as svix from "svix";

const said = (library, { secret, body, headers }) => {
  try {
    new library.Webhook(secret).verify(Buffer.from(body, "base64").toString("utf8"), headers);
    return "taken";
  } catch (error) {
    return error instanceof library.WebhookVerificationError ? "refused" : `${error.name}: ${error.message}`;
  }
};
const requests = JSON.parse(readFileSync(0, "utf8"));
const answers = requests.map((request) => ({
  standardwebhooks: said(standard, request),
  svix: said(svix, request),
}));
process.stdout.write(JSON.stringify(answers));
