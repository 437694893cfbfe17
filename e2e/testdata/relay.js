// Answers on a unix socket for a server of the network namespace in which it runs: node relay.js SOCKET PORT
const net = require('net')

const [socket, port] = process.argv.slice(2)
net.createServer((client) => {
  const server = net.connect(Number(port), '127.0.0.1')
  client.pipe(server).pipe(client)
  for (const end of [client, server]) {
    end.on('error', () => {
      client.destroy()
      server.destroy()
    })
  }
}).listen(socket, () => console.log('relays'))
