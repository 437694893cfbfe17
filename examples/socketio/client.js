'use strict';
// Connects to the cluster and tells on which node it is: node client.js [URL]. With --once it leaves after the upgrade
// to WebSocket, with exit code 0, or with 1 when it did not get through within ten seconds.

const { io } = require('socket.io-client');

const args = process.argv.slice(2);
const once = args.includes('--once');
const url = args.find((arg) => !arg.startsWith('-')) || 'http://127.0.0.1:8080';

const socket = io(url, { reconnection: !once });

function leave(code, message) {
  (code ? console.error : console.log)(message);
  socket.disconnect();
  process.exit(code);
}

socket.on('hello', (seen) => {
  console.log(`connected to node ${seen.node} over ${socket.io.engine.transport.name}, session ${socket.io.engine.id}`);
  if (socket.io.engine.transport.name === 'websocket') upgraded();
  else socket.io.engine.once('upgrade', upgraded);
});
socket.on('said', (message) => console.log(`${message.node}: ${message.text}`));
socket.on('disconnect', (reason) => console.log(`disconnected: ${reason}`));
socket.on('connect_error', (err) => {
  if (once) leave(1, `cannot connect to ${url}: ${err.message}`);
  console.log(`cannot connect to ${url}: ${err.message}`);
});

function upgraded() {
  socket.timeout(5000).emit('whoami', (err, seen) => {
    if (err) return once && leave(1, `no answer from the node: ${err.message}`);
    const message = `node ${seen.node} answers over ${seen.transport}`;
    if (once) leave(0, message);
    else console.log(message);
  });
}

if (once) setTimeout(() => leave(1, `not connected to ${url} within 10 s`), 10000);
else process.on('SIGINT', () => leave(0, 'bye'));
