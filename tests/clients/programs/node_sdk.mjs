// The official Node SDK: reads orders, one JSON line each, and prints what it saw (see orders.py).

import OpenAI from "openai";

import { MESSAGES, PICTURE, PROMPT, QUESTION, TOOL, WEATHER, callTool } from "./calls.mjs";
import { SECONDS_MAX, seeRequests, serve, tellOpenAIError } from "./orders.mjs";

function see(outcome, answer) {
  outcome.answers.push(answer._request_id);
  seeUsage(outcome, answer.usage);
}

function seeUsage(outcome, usage) {
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  const reasoning = usage.completion_tokens_details?.reasoning_tokens ?? 0;
  const output = (usage.completion_tokens ?? 0) - reasoning;
  outcome.usages.push([usage.prompt_tokens - cached, cached, output, reasoning]);
}

const JOBS = {
  async plain(client, job, outcome) {
    const answer = await client.chat.completions.create({
      model: job.model,
      messages: MESSAGES,
      ...job.options,
    });
    outcome.text = answer.choices[0].message.content;
    see(outcome, answer);
  },
  async stream(client, job, outcome) {
    const { data: stream, request_id } = await client.chat.completions
      .create({
        model: job.model,
        messages: MESSAGES,
        stream: true,
        stream_options: { include_usage: true },
      })
      .withResponse();
    outcome.answers.push(request_id);
    for await (const chunk of stream) {
      for (const choice of chunk.choices) outcome.text += choice.delta.content ?? "";
      if (chunk.usage) seeUsage(outcome, chunk.usage);
    }
  },
  async abort(client, job, outcome) {
    const { data: stream, request_id } = await client.chat.completions
      .create({ model: job.model, messages: MESSAGES, stream: true })
      .withResponse();
    outcome.answers.push(request_id);
    for await (const chunk of stream) {
      outcome.text += chunk.choices[0].delta.content ?? "";
      if (outcome.text) stream.controller.abort();
    }
  },
  async tools(client, job, outcome) {
    const seeing = seeRequests(client, outcome);
    const runner = seeing.chat.completions.runTools(
      {
        model: job.model,
        messages: MESSAGES,
        tools: [
          {
            type: "function",
            function: {
              ...TOOL,
              parse: JSON.parse,
              function: (asked) => callTool(TOOL.name, asked),
            },
          },
        ],
      },
      { maxChatCompletions: job.turns_max },
    );
    outcome.text = await runner.finalContent();
    for (const { usage } of runner.allChatCompletions()) seeUsage(outcome, usage);
  },
  async structured(client, job, outcome) {
    const answer = await seeRequests(client, outcome).chat.completions.parse({
      model: job.model,
      messages: MESSAGES,
      response_format: {
        type: "json_schema",
        json_schema: { name: "weather", strict: true, schema: WEATHER },
      },
    });
    outcome.data = answer.choices[0].message.parsed;
    seeUsage(outcome, answer.usage);
  },
  async vision(client, job, outcome) {
    const answer = await client.chat.completions.create({
      model: job.model,
      messages: [
        {
          role: "user",
          content: [
            { type: "text", text: QUESTION },
            { type: "image_url", image_url: { url: PICTURE } },
          ],
        },
      ],
    });
    outcome.text = answer.choices[0].message.content;
    see(outcome, answer);
  },
  async completion(client, job, outcome) {
    const answer = await client.completions.create({ model: job.model, prompt: PROMPT });
    outcome.text = answer.choices[0].text;
    see(outcome, answer);
  },
  async embeddings(client, job, outcome) {
    const answer = await client.embeddings.create({
      model: job.model,
      input: ["one", "two"],
      dimensions: 8,
    });
    outcome.data = answer.data.map((item) => item.embedding.length);
    see(outcome, answer);
  },
  async moderations(client, job, outcome) {
    const answer = await client.moderations.create({
      model: job.model,
      input: ["a harmless text", "flag this"],
    });
    outcome.data = answer.results.map((result) => result.flagged);
  },
  async models(client, job, outcome) {
    outcome.data = [];
    for await (const model of client.models.list()) outcome.data.push(model.id);
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
    // What a broken connection in a stream raises is Node's own.
    if (!(error instanceof OpenAI.APIError) && error?.message !== "terminated") throw error;
    outcome.error = tellOpenAIError(error);
  }
});
