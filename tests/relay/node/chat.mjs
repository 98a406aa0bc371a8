// Drives the AI SDK's own chat (what useChat is made of) by commands on stdin, one JSON a line, and
// tells on stdout what becomes of it. argv: the module to import, the relay's base URL.
import { createInterface } from 'node:readline';

const [, , library, base] = process.argv;
const {
  AbstractChat,
  DefaultChatTransport,
  lastAssistantMessageIsCompleteWithToolCalls,
  readUIMessageStream,
} = await import(library);
const tell = event => process.stdout.write(JSON.stringify(event) + '\n');

class State {
  #status = 'ready';
  error = undefined;

  constructor(name, messages) {
    this.name = name;
    this.messages = messages;
  }

  get status() {
    return this.#status;
  }

  set status(status) {
    this.#status = status;
    tell({ event: 'status', chat: this.name, status });
  }

  #show(message) {
    const text = message.parts.filter(p => p.type === 'text').map(p => p.text).join('');
    tell({ event: 'message', chat: this.name, id: message.id, role: message.role, text });
  }

  pushMessage(message) {
    this.messages = this.messages.concat(message);
    this.#show(message);
  }

  popMessage() {
    this.messages = this.messages.slice(0, -1);
  }

  replaceMessage(index, message) {
    this.messages = this.messages.map((m, i) => (i === index ? structuredClone(message) : m));
    this.#show(message);
  }

  snapshot(thing) {
    return structuredClone(thing);
  }
}

class Chat extends AbstractChat {
  constructor({ chat, messages = [], headers, tools = false }) {
    super({
      id: chat,
      state: new State(chat, messages),
      transport: new DefaultChatTransport({ api: `${base}/api/chat`, headers }),
      sendAutomaticallyWhen: tools ? lastAssistantMessageIsCompleteWithToolCalls : undefined,
      onToolCall: ({ toolCall }) => tell({ event: 'tool', chat, toolCall }),
      onError: error => tell({ event: 'error', chat, message: error.message }),
      onFinish: finish =>
        tell({
          event: 'finish',
          chat,
          message: finish.message,
          aborted: finish.isAbort,
          failed: finish.isError,
          finishReason: finish.finishReason,
        }),
    });
  }
}

const chats = {};
const commands = {
  new: ({ as, ...options }) => {
    chats[as ?? options.chat] = new Chat(options);
  },
  send: ({ chat, ...message }) => chats[chat].sendMessage(message),
  regenerate: ({ chat }) => chats[chat].regenerate(),
  stop: ({ chat }) => chats[chat].stop(),
  // What a stop button calls, where streams go on without their readers.
  delete: ({ chat }) => fetch(`${base}/api/chat/${chat}/stream`, { method: 'DELETE' }),
  resume: ({ chat }) => chats[chat].resumeStream(),
  tool: ({ chat, ...output }) => (chats[chat].addToolOutput ?? chats[chat].addToolResult).call(chats[chat], output),
  // What a page without useChat does: the transport and the reader of streams alone.
  read: async ({ text }) => {
    const transport = new DefaultChatTransport({ api: `${base}/api/chat` });
    const stream = await transport.sendMessages({
      chatId: 'read',
      trigger: 'submit-message',
      messages: [{ id: 'm', role: 'user', parts: [{ type: 'text', text }] }],
    });
    let message;
    for await (message of readUIMessageStream({ stream, terminateOnError: true }));
    tell({ event: 'read', message });
  },
};

tell({ event: 'up' });
for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...rest } = JSON.parse(line);
  Promise.resolve(commands[op](rest)).then(
    () => tell({ event: 'done', op, chat: rest.chat }),
    error => tell({ event: 'thrown', op, message: String(error?.stack ?? error) }),
  );
}
process.exit(0);
