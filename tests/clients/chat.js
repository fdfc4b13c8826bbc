// Asks a server with OpenAI's SDK for Node, and prints a line of JSON for each answer.
//
// Usage: node chat.js <base URL> <key> <model> <number> <"whole" or "stream"> <bytes of padding>

const { OpenAI } = require("openai");

async function main([baseURL, apiKey, model, number, way, padding]) {
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const question = {
    model,
    max_tokens: 1,
    metadata: { note: "a".repeat(Number(padding)) },
    messages: [{ role: "user", content: "Tell me about the river." }],
  };
  for (let call = 0; call < Number(number); call += 1) {
    let told;
    try {
      if (way === "stream") {
        const options = { stream: true, stream_options: { include_usage: true } };
        const stream = await client.chat.completions.create({ ...question, ...options });
        for await (const chunk of stream) told = { status: 200, model: chunk.model, usage: chunk.usage };
      } else {
        const answer = await client.chat.completions.create(question);
        told = { status: 200, model: answer.model, usage: answer.usage };
      }
    } catch (error) {
      if (!(error instanceof OpenAI.APIError)) throw error;
      const isLimit = error instanceof OpenAI.RateLimitError;
      told = { status: error.status, isLimit, message: error.message };
    }
    console.log(JSON.stringify(told));
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
