// Runs AG-UI's own HttpAgent against a relay and prints, as JSON, what it made of the answers.
// argv: the folder of node modules, the relay's URL, the questions.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [, , modules, url, ...questions] = process.argv;
const require = createRequire(pathToFileURL(`${modules}/`));
const { HttpAgent } = require('@ag-ui/client');
const tools = [
  {
    name: 'add',
    description: 'Add two numbers.',
    parameters: {
      type: 'object',
      properties: { a: { type: 'integer' }, b: { type: 'integer' } },
      required: ['a', 'b'],
    },
  },
];
const agent = new HttpAgent({ url, threadId: 'thread-1' });
const runs = [];
for (const question of questions) {
  const kinds = [];
  // An empty one continues after the results of the browser's tools.
  if (question) agent.addMessage({ id: `q${runs.length}`, role: 'user', content: question });
  let error = null;
  try {
    await agent.runAgent(
      { runId: `run-${runs.length}`, tools, forwardedProps: { temperature: 0 } },
      { onEvent: ({ event }) => void kinds.push(event.type) },
    );
  } catch (thrown) {
    error = String(thrown);
  }
  // Its own tools are run by the browser, which then says what came of it.
  const last = agent.messages.at(-1);
  for (const call of last?.toolCalls ?? []) {
    const { a, b } = JSON.parse(call.function.arguments);
    agent.addMessage({ id: `r-${call.id}`, role: 'tool', toolCallId: call.id, content: `${a + b}` });
  }
  runs.push({ kinds, error });
}
process.stdout.write(JSON.stringify({ runs, messages: agent.messages }));
