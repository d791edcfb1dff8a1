// OpenAI's Node SDK that creates responses: reads orders and prints what it saw (see orders.py).

import OpenAI from "openai";

import { PICTURE, PROMPT, QUESTION, TOOL, WEATHER, callTool } from "./calls.mjs";
import { SECONDS_MAX, seeRequests, serve, tellOpenAIError } from "./orders.mjs";

function see(outcome, answer) {
  outcome.answers.push(answer._request_id);
  seeUsage(outcome, answer.usage);
  outcome.text = answer.output_text;
}

function seeUsage(outcome, usage) {
  const cached = usage.input_tokens_details.cached_tokens;
  const reasoning = usage.output_tokens_details.reasoning_tokens;
  outcome.usages.push([
    usage.input_tokens - cached,
    cached,
    usage.output_tokens - reasoning,
    reasoning,
  ]);
}

async function openStream(client, job, outcome) {
  const { data: stream, request_id } = await client.responses
    .create({ model: job.model, input: PROMPT, stream: true })
    .withResponse();
  outcome.answers.push(request_id);
  return stream;
}

const JOBS = {
  async plain(client, job, outcome) {
    const { max_tokens: max_output_tokens, ...options } = job.options ?? {};
    const asked = { model: job.model, input: PROMPT, max_output_tokens, ...options };
    see(outcome, await client.responses.create(asked));
  },
  async stream(client, job, outcome) {
    for await (const event of await openStream(client, job, outcome)) {
      if (event.type === "response.output_text.delta") outcome.text += event.delta;
      else if (event.type === "response.completed") seeUsage(outcome, event.response.usage);
    }
  },
  async abort(client, job, outcome) {
    const stream = await openStream(client, job, outcome);
    for await (const event of stream) {
      if (event.type !== "response.output_text.delta") continue;
      outcome.text += event.delta;
      stream.controller.abort();
    }
  },
  async tools(client, job, outcome) {
    const tools = [{ type: "function", ...TOOL, strict: false }];
    const input = [{ role: "user", content: PROMPT }];
    for (let turn = 0; turn < job.turns_max; turn++) {
      const answer = await client.responses.create({ model: job.model, input, tools });
      see(outcome, answer);
      const calls = answer.output.filter((item) => item.type === "function_call");
      if (!calls.length) return;
      input.push(...answer.output);
      for (const { name, arguments: asked, call_id } of calls) {
        const output = callTool(name, JSON.parse(asked));
        input.push({ type: "function_call_output", call_id, output });
      }
    }
  },
  async structured(client, job, outcome) {
    const answer = await seeRequests(client, outcome).responses.parse({
      model: job.model,
      input: PROMPT,
      text: { format: { type: "json_schema", name: "weather", strict: true, schema: WEATHER } },
    });
    outcome.data = answer.output_parsed;
    seeUsage(outcome, answer.usage);
  },
  async vision(client, job, outcome) {
    const content = [
      { type: "input_text", text: QUESTION },
      { type: "input_image", image_url: PICTURE, detail: "auto" },
    ];
    const input = [{ role: "user", content }];
    see(outcome, await client.responses.create({ model: job.model, input }));
  },
};

await serve(async (job, outcome) => {
  const options = "retries" in job ? { maxRetries: job.retries } : {};
  const client = new OpenAI({
    apiKey: job.key,
    baseURL: job.base_url,
    timeout: SECONDS_MAX * 1000,
    ...options,
  });
  try {
    await JOBS[job.do](client, job, outcome);
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    outcome.error = tellOpenAIError(error);
  }
});
