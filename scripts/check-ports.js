'use strict';
// Tries to listen on ports, given as NAME=PORT, and says of each that is taken which variable chooses another.

const net = require('node:net');

function problem(arg) {
  const [name, port] = arg.split('=');
  if (!/^[1-9][0-9]{0,4}$/.test(port) || Number(port) > 65535) return `${name}=${port} is not a port: 1 to 65535`;
  return new Promise((done) => {
    const server = net.createServer();
    server.on('error', (err) => done(`port ${port} cannot be used (${err.code}): choose another with ${name}=… make run`));
    server.listen(Number(port), '0.0.0.0', () => server.close(() => done('')));
  });
}

Promise.all(process.argv.slice(2).map(problem)).then((problems) => {
  for (const line of problems.filter(Boolean)) {
    console.error(`run: ${line}`);
    process.exitCode = 1;
  }
});
