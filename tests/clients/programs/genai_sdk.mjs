// Google's Node SDK: reads orders and prints what it saw (see orders.py).

import { ApiError, GoogleGenAI } from "@google/genai";

import { PICTURE_BASE64, PROMPT, QUESTION, TOOL, WEATHER, callTool } from "./calls.mjs";
import { SECONDS_MAX, rootOf, serve } from "./orders.mjs";

// As often as the other SDKs do it unasked: this one repeats nothing by itself.
const RETRIES = 2;
// A tool that the SDK calls by itself.
const FIND_WEATHER = {
  async tool() {
    return {
      functionDeclarations: [
        {
          name: TOOL.name,
          description: TOOL.description,
          parametersJsonSchema: TOOL.parameters,
        },
      ],
    };
  },
  async callTool(calls) {
    return calls.map(({ id, name, args }) => ({
      functionResponse: { id, name, response: { result: callTool(name, args) } },
    }));
  },
};

function ask(job, config = {}) {
  const { max_tokens: maxOutputTokens, ...options } = job.options ?? {};
  return {
    model: job.model,
    contents: PROMPT,
    config: { ...options, ...(maxOutputTokens && { maxOutputTokens }), ...config },
  };
}

function idOf(answer) {
  return answer.sdkHttpResponse.headers["x-request-id"];
}

function see(outcome, answer) {
  outcome.answers.push(idOf(answer));
  seeUsage(outcome, answer.usageMetadata);
  outcome.text = answer.text ?? "";
}

function seeUsage(outcome, usage) {
  const cached = usage.cachedContentTokenCount ?? 0;
  outcome.usages.push([
    usage.promptTokenCount - cached,
    cached,
    usage.candidatesTokenCount ?? 0,
    usage.thoughtsTokenCount ?? 0,
  ]);
}

const JOBS = {
  async plain(client, job, outcome) {
    see(outcome, await client.models.generateContent(ask(job)));
  },
  async stream(client, job, outcome) {
    let usage = null;
    for await (const chunk of await client.models.generateContentStream(ask(job))) {
      if (!outcome.answers.length) outcome.answers.push(idOf(chunk));
      outcome.text += chunk.text ?? "";
      // It tells with every piece what it has come to.
      usage = chunk.usageMetadata ?? usage;
    }
    seeUsage(outcome, usage);
  },
  async abort(client, job, outcome) {
    const leaving = new AbortController();
    const asked = ask(job, { abortSignal: leaving.signal });
    for await (const chunk of await client.models.generateContentStream(asked)) {
      if (!outcome.answers.length) outcome.answers.push(idOf(chunk));
      outcome.text += chunk.text ?? "";
      if (outcome.text) break;
    }
    leaving.abort();
  },
  // Of whole answers the SDK shows only the last: so in a stream.
  async tools(client, job, outcome) {
    const asked = ask(job, {
      tools: [FIND_WEATHER],
      automaticFunctionCalling: { maximumRemoteCalls: job.turns_max },
    });
    const usages = new Map();
    for await (const chunk of await client.models.generateContentStream(asked)) {
      // What the function said, which the SDK adds.
      if (!chunk.sdkHttpResponse) continue;
      outcome.text += chunk.text ?? "";
      usages.set(idOf(chunk), chunk.usageMetadata ?? usages.get(idOf(chunk)));
    }
    for (const [name, usage] of usages) {
      outcome.answers.push(name);
      seeUsage(outcome, usage);
    }
  },
  async structured(client, job, outcome) {
    const config = { responseMimeType: "application/json", responseJsonSchema: WEATHER };
    const answer = await client.models.generateContent(ask(job, config));
    outcome.data = JSON.parse(answer.text);
    see(outcome, answer);
  },
  async vision(client, job, outcome) {
    const picture = { inlineData: { mimeType: "image/png", data: PICTURE_BASE64 } };
    const asked = { ...ask(job), contents: [QUESTION, picture] };
    see(outcome, await client.models.generateContent(asked));
  },
};

function tell(error) {
  // The message is what the gateway said, in a stream after `got status: `.
  const told = JSON.parse(error.message.slice(error.message.indexOf("{"))).error;
  const details = told.details ?? [];
  return {
    class: error.constructor.name,
    status: error.status ?? null,
    code: null,
    type: told.status ?? null,
    param: null,
    request_id: details.find((detail) => "requestId" in detail)?.requestId ?? null,
  };
}

await serve(async (job, outcome) => {
  const client = new GoogleGenAI({
    apiKey: job.key,
    httpOptions: {
      baseUrl: rootOf(job),
      timeout: SECONDS_MAX * 1000,
      retryOptions: { attempts: 1 + (job.retries ?? RETRIES) },
    },
  });
  try {
    await JOBS[job.do](client, job, outcome);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    outcome.error = tell(error);
  }
});
