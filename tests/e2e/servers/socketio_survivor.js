// socketio_survivor.js URL: a guest whose container dies, and who comes back to another one.
// It says {"pid": …} when it is there, and again when it is back.
"use strict";

const assert = require("node:assert");
const { once } = require("node:events");
const { io } = require("socket.io-client");

const PATIENCE_MS = 20_000;

async function main() {
  const socket = io(process.argv[2], {
    withCredentials: true, reconnectionDelay: 100, reconnectionDelayMax: 200,
  });
  const [first] = await once(socket, "welcome");
  if (socket.io.engine.transport.name !== "websocket")
    await once(socket.io.engine, "upgrade");
  const gone = once(socket, "disconnect");
  console.log(JSON.stringify({ pid: first.pid }));
  await gone;
  const [second] = await once(socket, "welcome");
  assert.equal(await socket.timeout(PATIENCE_MS).emitWithAck("echo", "back"), "back");
  console.log(JSON.stringify({ pid: second.pid }));
  socket.disconnect();
}

main();
