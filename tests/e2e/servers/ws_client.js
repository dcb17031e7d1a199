// ws_client.js URL: everything that Node's WebSocket library does, at an echo.
"use strict";

const { once } = require("node:events");
const crypto = require("node:crypto");
const assert = require("node:assert");
const WebSocket = require("ws");

const URL = process.argv[2];
const MESSAGES = ["", "caf\u00e9 \u65e5\u672c", Buffer.alloc(0), crypto.randomBytes(65535),
  crypto.randomBytes(65536), "x".repeat(3 << 20)];

async function talk(options) {
  const socket = new WebSocket(URL, ["v1", "v2"], options);
  await once(socket, "open");
  for (const message of MESSAGES) {
    socket.send(message);
    const [data, binary] = await once(socket, "message");
    assert.equal(binary, typeof message !== "string");
    assert(data.equals(Buffer.from(message)));
  }
  // In pieces.
  socket.send("Hel", { fin: false });
  socket.send("lo", { fin: true });
  assert.equal((await once(socket, "message"))[0].toString(), "Hello");
  socket.ping("are you there");
  assert.equal((await once(socket, "pong"))[0].toString(), "are you there");
  socket.close(4001, "mine");
  const [code, reason] = await once(socket, "close");
  return { protocol: socket.protocol, extensions: socket.extensions, code, reason: reason.toString() };
}

async function main() {
  const plain = await talk({ perMessageDeflate: false });
  const squeezed = await talk({ perMessageDeflate: { threshold: 0 } });
  console.log(JSON.stringify({ plain, squeezed }));
}

main();
