// One answer's stream: asked for, read, and taken up again where a connection broke.

import { send, stopStream } from "./api.js";
import { Failure } from "./failures.js";
import { EventDecoder } from "./sse.js";

const SILENCE = 40_000; // ms without a byte; the relay sends a heartbeat every 15 s
const QUIET = 1000; // ms without a byte after which a page that comes back into view looks again
const FIRST_WAIT = 300; // ms before the second try to reconnect
const LONGEST_WAIT = 8000;
const PATIENCE = 120_000; // ms of trying; the relay gives a stream up after less
const STOP_WAIT = 1500; // ms for a stream to begin, if it has not, and to say that it was stopped

class Silent extends Error {}

/**
 * Reads an answer and tells `answer` of it:
 *   began(id), resumed(), named(model), text(piece), thought(piece), finished(reason), figures({...}), state(name, detail)
 * where state is "waiting", "streaming", "reconnecting", or one of the ends: "done", "stopped", "failed".
 */
export class AnswerStream {
  #answer;
  #abort = null; // of the connection that is open
  #wake = null; // ends a wait before the next try
  #ended = false;
  #stopping = false;
  #watch = 0;
  #dead = null; // gives up the connection that is being read
  #heard = 0; // by the clock on the wall: others stand still while a device sleeps
  #looking = false;

  constructor(answer, { id = null, last = 0 } = {}) {
    this.#answer = answer;
    this.id = id;
    this.last = last;
  }

  /** Ask, and read to the end. Never throws: the answer learns how it ended. */
  async ask(body) {
    this.#answer.state("waiting");
    await this.#run(() => this.#connect("v1/chat/completions", { method: "POST", body, headers: { "X-Resumable": "1" } }));
  }

  /** Read a stream that has begun, from where it was left. */
  async resume() {
    this.#answer.state("waiting");
    await this.#run(() => this.#connectAgain());
  }

  /** Stop it: the model ends, for every reader. */
  stop() {
    if (this.#ended || this.#stopping) return;
    this.#stopping = true;
    if (this.id) this.#sendStop();
    // Else the relay may have begun and its answer be on the way: a stream that is only left goes
    // on for a while. And a browser opens six connections to a relay: if all are streams, ours has
    // to make place for the call that stops it.
    setTimeout(() => {
      this.#end("stopped");
      this.#abort?.abort();
    }, STOP_WAIT);
  }

  /** Stop reading; the model goes on, unless it was stopped. */
  leave() {
    this.#ended = true;
    if (this.id || !this.#stopping) this.#abort?.abort();
    this.#wake?.();
  }

  async #sendStop() {
    try {
      await stopStream(this.id);
    } catch {
      this.#end("stopped");
    }
  }

  #end(state, detail) {
    if (this.#ended) return;
    this.leave();
    this.#answer.state(state, detail);
  }

  async #connect(path, options) {
    this.#abort = new AbortController();
    const response = await send(path, { ...options, signal: this.#abort.signal });
    const id = response.headers.get("x-stream-id");
    if (id && id !== this.id) {
      this.id = id;
      this.#answer.began(id);
      if (this.#stopping) this.#sendStop();
    }
    return response;
  }

  #connectAgain() {
    const headers = this.last ? { "Last-Event-ID": `${this.id}.${this.last}` } : {};
    return this.#connect(`v1/streams/${encodeURIComponent(this.id)}`, { headers });
  }

  /** The page came back into view: its connection may have died unheard while it was frozen. */
  #look = () => {
    if (document.hidden || this.#ended || !this.id) return;
    this.#wake?.();
    if (!this.#dead || Date.now() - this.#heard < QUIET) return;
    this.#looking = true;
    this.#dead();
  };

  async #run(connect) {
    document.addEventListener("visibilitychange", this.#look);
    addEventListener("pageshow", this.#look);
    try {
      await this.#readAll(connect);
    } finally {
      document.removeEventListener("visibilitychange", this.#look);
      removeEventListener("pageshow", this.#look);
    }
  }

  async #readAll(connect) {
    let next = connect;
    let tries = 0;
    let since = 0;
    while (!this.#ended) {
      const before = this.last;
      try {
        const response = await next();
        if (tries && !this.#ended) this.#answer.resumed();
        if (response.status === 204) this.#end("done"); // it had ended, and we have all of it
        else await this.#read(response);
        if (!this.#ended && !this.id) throw new Failure("cut");
      } catch (error) {
        if (this.#ended) return;
        if (!this.#mayGoOn(error)) {
          this.#end("failed", error instanceof Failure ? error : new Failure("cut"));
          return;
        }
      }
      if (this.#ended) return;
      if (this.#looking) { // nothing is known to be wrong: ask again, and say nothing
        this.#looking = false;
        next = () => this.#connectAgain();
        continue;
      }
      if (this.last > before) tries = 0;
      if (!tries) since = performance.now();
      tries += 1;
      if (performance.now() - since > PATIENCE) {
        this.#end("failed", new Failure("unreachable"));
        return;
      }
      this.#answer.state("reconnecting", tries);
      await this.#pause(tries);
      next = () => this.#connectAgain();
    }
  }

  #mayGoOn(error) {
    if (!this.id) return false;
    if (!(error instanceof Failure)) return true; // the connection broke
    return error.type === "unreachable" || error.status === 429 || error.status >= 502;
  }

  async #read(response) {
    const reader = response.body.getReader();
    if (this.#ended) reader.cancel().catch(() => {});
    const decoder = new EventDecoder();
    try {
      for (;;) {
        const { done, value } = await this.#next(reader);
        if (done || this.#ended) return;
        for (const event of decoder.decode(value)) this.#take(event);
      }
    } finally {
      clearTimeout(this.#watch);
      this.#dead = null;
      reader.cancel().catch(() => {});
    }
  }

  /** The next bytes; a connection that has been silent for too long is taken for dead. */
  #next(reader) {
    clearTimeout(this.#watch);
    this.#heard = Date.now();
    return new Promise((resolve, reject) => {
      this.#dead = () => {
        reject(new Silent());
        this.#abort?.abort();
      };
      this.#watch = setTimeout(this.#dead, SILENCE);
      reader.read().then(resolve, reject);
    });
  }

  #take({ id, data }) {
    if (this.#ended) return;
    const number = Number(id.slice(id.lastIndexOf(".") + 1)) || 0;
    if (number && number <= this.last) return; // seen before the connection broke
    if (data === "[DONE]") {
      this.#end(this.#stopping ? "stopped" : "done");
      return;
    }
    let chunk;
    try {
      chunk = JSON.parse(data);
    } catch {
      this.#end("failed", new Failure("upstream_error"));
      return;
    }
    this.#show(chunk);
    if (number) this.last = number;
  }

  #show(chunk) {
    if (chunk.error) {
      this.#end("failed", Failure.told(chunk.error));
      return;
    }
    if (chunk.relay?.reason) {
      const stopped = chunk.relay.reason === "stopped";
      this.#end(stopped ? "stopped" : "failed", stopped ? undefined : new Failure("shutdown"));
      return;
    }
    if (chunk.relay) this.#answer.figures(chunk.relay);
    if (chunk.model) this.#answer.named(chunk.model);
    const choice = chunk.choices?.[0];
    const delta = choice?.delta ?? {};
    const reasoning = delta.reasoning_content ?? delta.reasoning; // servers differ
    const { content } = delta;
    if (reasoning) this.#answer.thought(reasoning);
    if (content) this.#answer.text(content);
    if (choice?.finish_reason) this.#answer.finished(choice.finish_reason);
  }

  /** Wait before the next try: longer each time, and no longer once the network is back. */
  async #pause(tries) {
    const wait = tries === 1 ? 0 : Math.min(FIRST_WAIT * 2 ** (tries - 2), LONGEST_WAIT);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait * (0.75 + Math.random() / 2));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      addEventListener("online", this.#wake, { once: true });
    });
    removeEventListener("online", this.#wake);
  }
}
