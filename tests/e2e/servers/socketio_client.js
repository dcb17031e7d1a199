// socketio_client.js URL COUNT: so many guests, each by polling first, then by WebSocket.
"use strict";

const assert = require("node:assert");
const { once } = require("node:events");
const { io } = require("socket.io-client");

const [URL, COUNT] = process.argv.slice(2);
const PATIENCE_MS = 20_000;
const PICTURE = Buffer.from(Array.from({ length: 70_000 }, (_, i) => i % 251));

function connected(socket) {
  return new Promise((resolve, reject) => {
    socket.once("welcome", resolve);
    socket.once("connect_error", reject);
  });
}

async function guest() {
  const socket = io(URL, { forceNew: true, reconnection: false, withCredentials: true });
  const { pid, transport } = await connected(socket);
  assert.equal(await socket.timeout(PATIENCE_MS).emitWithAck("echo", "first"), "first");
  const { engine } = socket.io;
  if (engine.transport.name !== "websocket")
    await once(engine, "upgrade");
  assert(PICTURE.equals(await socket.timeout(PATIENCE_MS).emitWithAck("echo", PICTURE)));
  socket.emit("to all", "mine");
  assert.equal((await once(socket, "for all"))[0], "mine");
  const found = { pid, first: transport, last: engine.transport.name };
  socket.disconnect();
  return found;
}

async function main() {
  const guests = await Promise.all(Array.from({ length: Number(COUNT) }, guest));
  console.log(JSON.stringify({ guests }));
}

main();
