// How a program takes orders, and tells what it saw (see orders.py).

import { createInterface } from "node:readline";

export const SECONDS_MAX = 300;

// The base URL of SDKs that add the version by themselves.
export function rootOf(job) {
  return job.base_url.replace(/\/v1$/, "");
}

// A client that takes down the ids of what was answered, which what runs tools drops.
export function seeRequests(client, outcome) {
  return client.withOptions({
    async fetch(url, init) {
      const answer = await fetch(url, init);
      if (answer.ok) outcome.answers.push(answer.headers.get("x-request-id"));
      return answer;
    },
  });
}

export function tellOpenAIError(error) {
  return {
    class: error.constructor.name,
    status: error.status ?? null,
    code: error.code ?? null,
    type: error.type ?? null,
    param: error.param ?? null,
    request_id: error.requestID ?? null,
  };
}

// What `run` does not catch ends the program: it is a fault of the program, or worth a look.
export async function serve(run) {
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    process.stdout.write(JSON.stringify(await runAll(run, order.jobs, order.parallel)) + "\n");
  }
}

async function runAll(run, jobs, parallel) {
  const outcomes = jobs.map(() => ({
    text: "",
    data: null,
    answers: [],
    usages: [],
    error: null,
  }));
  let next = 0;
  async function work() {
    while (next < jobs.length) {
      const at = next++;
      await run(jobs[at], outcomes[at]);
    }
  }
  await Promise.all(Array.from({ length: parallel }, work));
  return outcomes;
}
