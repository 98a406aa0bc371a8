// The relay's endpoints, and the token that it may ask for.

import { Failure } from "./failures.js";
import { takeRelay } from "./relay.js";

const TOKEN = "konko.token";
const PATIENCE = 15_000; // ms, for calls that are not streams

export const address = (path) => new URL(path, document.baseURI).href;

/** Take the token out of the address bar: it is not to be copied with a link, or kept in the history. */
export function takeToken() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const token = fields.get("token");
  if (token === null) return;
  keepToken(token);
  fields.delete("token");
  history.replaceState(null, "", `${location.pathname}${location.search}${fields.size ? `#${fields}` : ""}`);
}

export const token = () => sessionStorage.getItem(TOKEN);

export function keepToken(value) {
  sessionStorage.setItem(TOKEN, value.trim());
}

/** Give the token to another tab of this page that asks, and ask for it where there is none. */
export function shareToken(found) {
  if (!("BroadcastChannel" in window)) return;
  const channel = new BroadcastChannel(TOKEN);
  channel.addEventListener("message", ({ data }) => {
    if (data?.ask && token()) channel.postMessage({ token: token() });
    else if (typeof data?.token === "string" && !token()) {
      keepToken(data.token);
      found();
    }
  });
  if (!token()) channel.postMessage({ ask: true });
}

/** A request with the token; a Failure if it cannot be made or is refused. */
export async function send(path, { method = "GET", headers = {}, body, signal } = {}) {
  const every = { ...headers };
  if (token()) every.Authorization = `Bearer ${token()}`;
  if (body !== undefined) every["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(address(path), {
      method,
      headers: every,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure("unreachable");
  }
  if (!response.ok) throw await Failure.of(response);
  return response;
}

export async function listModels() {
  const response = await send("v1/models", { signal: AbortSignal.timeout(PATIENCE) });
  const { data, relay } = await response.json();
  takeRelay(relay);
  return data.map((model) => model.id);
}

export async function stopStream(id) {
  const path = `v1/streams/${encodeURIComponent(id)}/stop`;
  await send(path, { method: "POST", signal: AbortSignal.timeout(PATIENCE) });
}
