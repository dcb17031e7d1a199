// socketio_server.js PORT: rooms whose sessions are in this process's memory.
"use strict";

const http = require("node:http");
const { Server } = require("socket.io");

const server = http.createServer((request, response) => response.end(`${process.pid}\n`));
const io = new Server(server, { pingInterval: 1000, pingTimeout: 5000 });
io.on("connection", socket => {
  socket.on("echo", (data, done) => done(data));
  socket.on("to all", data => io.emit("for all", data));
  socket.emit("welcome", { pid: process.pid, transport: socket.conn.transport.name });
});
server.listen(Number(process.argv[2]), "127.0.0.1");
