// What every client sends: the same message, tool, schema and picture (see calls.py).

export const PROMPT = "Say something.";
export const MESSAGES = [{ role: "user", content: PROMPT }];
export const QUESTION = "What is this?";
// Where a dialect wants to be told how much may be written.
export const OUTPUT_MAX = 1_000;
export const PICTURE_BASE64 =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk" +
  "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
export const PICTURE = `data:image/png;base64,${PICTURE_BASE64}`;
export const WEATHER = {
  type: "object",
  properties: { city: { type: "string" }, degrees: { type: "integer" } },
  required: ["city", "degrees"],
  additionalProperties: false,
};
export const TOOL = {
  name: "find_weather",
  description: "Tell the weather of a city.",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
  },
};

// Do what the model asked for.
export function callTool(name, { city }) {
  if (name !== TOOL.name) throw new Error(`no tool: ${name}`);
  return `21 degrees in ${city}`;
}
