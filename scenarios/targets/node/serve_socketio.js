// The server of the socketio target: it prints who has gone and why, and tells how many there are.
// Arguments: port, pingInterval, pingTimeout (ms).
const { Server } = require('socket.io');
const http = require('http');
const [port, pingInterval, pingTimeout] = process.argv.slice(2).map(Number);
const server = http.createServer((request, response) => response.end(JSON.stringify({ clients: io.engine.clientsCount })));
const io = new Server(server, { pingInterval, pingTimeout });
io.on('connection', (socket) => {
  const client = socket.handshake.query.client;
  socket.on('disconnect', (reason) => console.log(`gone ${client} ${reason}`));
});
server.listen(port, '127.0.0.1', () => console.log('listening'));
