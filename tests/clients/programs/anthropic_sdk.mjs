// Anthropic's Node SDK: reads orders and prints what it saw (see orders.py).

import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { jsonSchemaOutputFormat } from "@anthropic-ai/sdk/helpers/json-schema";

import {
  MESSAGES,
  OUTPUT_MAX,
  PICTURE_BASE64,
  QUESTION,
  TOOL,
  WEATHER,
  callTool,
} from "./calls.mjs";
import { SECONDS_MAX, rootOf, seeRequests, serve } from "./orders.mjs";

const FIND_WEATHER = betaTool({
  name: TOOL.name,
  description: TOOL.description,
  inputSchema: TOOL.parameters,
  run: (asked) => callTool(TOOL.name, asked),
});

function ask(job, values = {}) {
  return {
    model: job.model,
    max_tokens: OUTPUT_MAX,
    messages: MESSAGES,
    ...job.options,
    ...values,
  };
}

function see(outcome, message) {
  outcome.answers.push(message._request_id);
  seeMessage(outcome, message);
}

function seeMessage(outcome, message) {
  seeUsage(outcome, message.usage);
  const texts = message.content.filter((block) => block.type === "text");
  outcome.text = texts.map((block) => block.text).join("");
}

function seeUsage(outcome, usage) {
  // What a cache took is input at its usual price here.
  const read = usage.input_tokens + (usage.cache_creation_input_tokens ?? 0);
  const thinking = usage.output_tokens_details?.thinking_tokens ?? 0;
  const cached = usage.cache_read_input_tokens ?? 0;
  outcome.usages.push([read, cached, usage.output_tokens - thinking, thinking]);
}

async function openStream(client, job, outcome) {
  const stream = client.messages.stream(ask(job));
  const { request_id } = await stream.withResponse();
  outcome.answers.push(request_id);
  return stream;
}

const JOBS = {
  async plain(client, job, outcome) {
    see(outcome, await client.messages.create(ask(job)));
  },
  async stream(client, job, outcome) {
    const stream = await openStream(client, job, outcome);
    stream.on("text", (text) => {
      outcome.text += text;
    });
    seeUsage(outcome, (await stream.finalMessage()).usage);
  },
  async abort(client, job, outcome) {
    const stream = await openStream(client, job, outcome);
    for await (const event of stream) {
      if (event.type !== "content_block_delta") continue;
      outcome.text += event.delta.text ?? "";
      break;
    }
  },
  async tools(client, job, outcome) {
    const seeing = seeRequests(client, outcome);
    const runner = seeing.beta.messages.toolRunner({
      ...ask(job),
      tools: [FIND_WEATHER],
      max_iterations: job.turns_max,
    });
    for await (const message of runner) seeMessage(outcome, message);
  },
  async structured(client, job, outcome) {
    const message = await seeRequests(client, outcome).messages.parse({
      ...ask(job),
      output_config: { format: jsonSchemaOutputFormat(WEATHER) },
    });
    outcome.data = message.parsed_output;
    seeUsage(outcome, message.usage);
  },
  async vision(client, job, outcome) {
    const source = { type: "base64", media_type: "image/png", data: PICTURE_BASE64 };
    const content = [
      { type: "text", text: QUESTION },
      { type: "image", source },
    ];
    see(outcome, await client.messages.create(ask(job, { messages: [{ role: "user", content }] })));
  },
};

await serve(async (job, outcome) => {
  const options = "retries" in job ? { maxRetries: job.retries } : {};
  const client = new Anthropic({
    apiKey: job.key,
    baseURL: rootOf(job),
    timeout: SECONDS_MAX * 1000,
    ...options,
  });
  try {
    await JOBS[job.do](client, job, outcome);
  } catch (error) {
    if (!(error instanceof Anthropic.APIError)) throw error;
    outcome.error = {
      class: error.constructor.name,
      status: error.status ?? null,
      code: null,
      type: error.type ?? null,
      param: null,
      request_id: error.requestID ?? null,
    };
  }
});
