// Streams a WAV file with Deepgram's own JavaScript SDK, and compares the words.
const fs = require("node:fs");
const { DeepgramClient } = require("@deepgram/sdk");

const [address, audio, truthPath] = process.argv.slice(2);
// What PocketSphinx may get wrong of this recording, in parts of the words.
const WRONG_MAX = 0.15;
const words = (text) => text.toLowerCase().match(/[a-z0-9']+/g) ?? [];
const said = words(JSON.parse(fs.readFileSync(truthPath)).map((turn) => turn.text).join(" "));

function wrong(heard) {
  let row = said.map((_, i) => i).concat(said.length);
  heard.forEach((word, i) => {
    const last = row;
    row = [i + 1];
    said.forEach((other, j) => row.push(Math.min(row[j] + 1, last[j + 1] + 1, last[j] + (word === other ? 0 : 1))));
  });
  return row[said.length] / said.length;
}

async function main() {
  const environment = { base: `http://${address}`, production: `ws://${address}`, agent: `ws://${address}`, agentRest: `http://${address}` };
  const client = new DeepgramClient({ apiKey: "any-on-loopback", environment });
  const connection = await client.listen.v1.connect({ model: "nova-3", encoding: "linear16", sample_rate: 16000, punctuate: "true", interim_results: "true", keyterm: ["Auricle", "Dr. Okonkwo"], reconnectAttempts: 0 });
  const heard = [];
  let metadata;
  const ended = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error("the stream does not end")), 180_000).unref();
    connection.on("message", (message) => {
      if (message.type === "Results" && message.is_final) heard.push(...words(message.channel.alternatives[0].transcript));
      if (message.type === "Metadata") metadata = message;
    });
    connection.on("close", resolve);
    connection.on("error", reject);
  });
  connection.connect();
  await connection.waitForOpen();
  const file = fs.readFileSync(audio);
  // Raw samples, and the header before them, which is recognised.
  for (let at = 0; at < file.length; at += 3200) connection.sendMedia(file.subarray(at, at + 3200));
  connection.sendCloseStream({ type: "CloseStream" });
  await ended;
  const part = wrong(heard);
  console.log(`Deepgram JavaScript SDK: ${heard.length} words, ${(100 * part).toFixed(1)} % of ${said.length} wrong`);
  if (part > WRONG_MAX) throw new Error(`more than ${100 * WRONG_MAX} % of the words are wrong: ${heard.join(" ")}`);
  if (!metadata?.request_id) throw new Error("no Metadata came at the end");
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
