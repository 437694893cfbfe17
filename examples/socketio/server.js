'use strict';
// One node of the cluster. Socket.IO on /socket.io/, plain WebSocket on /ws, and over HTTP:
//   GET /         a page that shows which node serves it
//   GET /whoami   the node's id and what it saw of the request, as JSON; POST answers the same
//   GET /health   200, or 503 from one SIGUSR2 to the next, to try what failing checks do
// Each answer has the node's id in X-Node-Id, so that a check can tell it from another process at its address.
// Environment: PORT (or SOCKET, the path of a unix socket), HOST (127.0.0.1), NODE_ID (n1).

const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { Server } = require('socket.io');
const { WebSocketServer } = require('ws');

const id = process.env.NODE_ID || 'n1';
const page = fs.readFileSync(path.join(__dirname, 'index.html'));

let healthy = true;
process.on('SIGUSR2', () => {
  healthy = !healthy;
});

const server = http.createServer((req, res) => {
  res.setHeader('X-Node-Id', id);
  const { pathname } = new URL(req.url, 'http://node');
  if (pathname === '/whoami') {
    // The body is read to its end, or the connection could not be used again.
    req.resume().on('end', () => {
      res.setHeader('Content-Type', 'application/json');
      res.end(JSON.stringify({ node: id, remote: req.socket.remoteAddress, headers: req.headers }) + '\n');
    });
  } else if (pathname === '/health') {
    res.writeHead(healthy ? 200 : 503).end();
  } else if (pathname === '/') {
    res.setHeader('Content-Type', 'text/html; charset=utf-8');
    res.end(page);
  } else {
    res.writeHead(404).end();
  }
});

const io = new Server(server);
// With the node's id in front, a session proves whose it is.
io.engine.generateId = () => `${id}.${crypto.randomUUID()}`;
io.on('connection', (socket) => {
  const seen = { node: id, address: socket.handshake.headers['x-forwarded-for'] || socket.handshake.address };
  socket.emit('hello', seen);
  socket.on('whoami', (answer) => {
    if (typeof answer === 'function') answer({ ...seen, transport: socket.conn.transport.name });
  });
  socket.on('say', (text) => io.emit('said', { node: id, text: String(text).slice(0, 500) }));
});

// A plain WebSocket gets the node's id first, and then every message back.
const plain = new WebSocketServer({ noServer: true });
server.on('upgrade', (req, socket, head) => {
  if (new URL(req.url, 'http://node').pathname !== '/ws') return; // Socket.IO's
  plain.handleUpgrade(req, socket, head, (ws) => {
    ws.on('error', () => {}); // a peer that is gone: 'close' follows
    ws.on('message', (data, binary) => ws.send(data, { binary }));
    ws.send(id);
  });
});

const where = process.env.SOCKET || { host: process.env.HOST || '127.0.0.1', port: Number(process.env.PORT) || 6001 };
server.on('error', (err) => {
  console.error(`node ${id}: ${err.message}`);
  process.exit(1);
});
server.listen(where, () => console.log(`node ${id} listens on ${where.port ? `${where.host}:${where.port}` : where}`));

// The node has left the rotation when SIGTERM comes (sluice register sees to that), so what is still open is told to
// go: Socket.IO clients connect again by themselves, to another node.
let stopping = false;
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    if (stopping) return;
    stopping = true;
    for (const ws of plain.clients) ws.close(1001, 'node stops');
    io.close(() => process.exit(0));
    // A client that does not answer the closing does not hold us for ever.
    setTimeout(() => process.exit(0), 5000).unref();
  });
}
