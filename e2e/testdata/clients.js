'use strict';
// Many Socket.IO clients in one process, told what to do by JSON lines. On stdin: {"id":1,"op":"open","client":"c1",...};
// on stdout the answer, {"id":1,...}, with "error" when it did not work, and, at any time, the end of a session:
// {"ended":"c1","reason":"..."}. NODE_PATH names the packages.

const http = require('node:http');
const readline = require('node:readline');
const { io } = require('socket.io-client');

// How long anything may take, on a machine that is busy.
const limit = 15_000;
const clients = new Map();
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// Opens a client and answers when it has its session and, where both transports are allowed, its upgrade.
function open({ client, url, transports, localAddress, reconnection }, answer) {
  const socket = io(url, {
    transports,
    reconnection: Boolean(reconnection),
    forceNew: true,
    timeout: limit,
    localAddress, // of the WebSocket
    agent: new http.Agent({ keepAlive: true, localAddress }), // of long-polling
  });
  clients.set(client, socket);
  // The upgrade may have failed before there was anybody to hear of it.
  const timer = setTimeout(() => once({ error: `no ${transports.at(-1)} within ${limit} ms` }), limit);
  let answered = false;
  const once = (line) => {
    if (answered) return;
    answered = true;
    clearTimeout(timer);
    answer(line);
  };
  const wantsUpgrade = transports.length > 1;
  socket.on('connect_error', (err) => once({ error: `connect: ${err.message}${err.description ? ` (${err.description})` : ''}` }));
  socket.on('disconnect', (reason) => {
    once({ error: `disconnected: ${reason}` });
    say({ ended: client, reason });
  });
  socket.on('connect', () => {
    const { engine } = socket.io;
    const ready = () => whoami(socket, once);
    if (!wantsUpgrade || engine.transport.name === 'websocket') return ready();
    engine.once('upgrade', ready);
    engine.once('upgradeError', (err) => once({ error: `upgrade: ${err.message}` }));
  });
}

// Asks the node through the session which one it is.
function whoami(socket, answer) {
  if (!socket.connected) return answer({ error: 'not connected' });
  socket.timeout(limit).emit('whoami', (err, seen) => {
    if (err) answer({ error: `no answer: ${err.message}` });
    else answer({ ...seen, sid: socket.io.engine.id });
  });
}

const ops = {
  open,
  ask: ({ client }, answer) => whoami(clients.get(client), answer),
  close({ client }, answer) {
    clients.get(client).disconnect();
    clients.delete(client);
    answer({});
  },
};

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const order = JSON.parse(line);
  ops[order.op](order, (result) => say({ id: order.id, ...result }));
}).on('close', () => process.exit(0));
