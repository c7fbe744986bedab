// The server of the ws target: the heartbeat of the README of ws, word for word, and who has gone.
// Arguments: port, interval in milliseconds.
const { WebSocketServer } = require('ws');
const [port, interval] = process.argv.slice(2).map(Number);
const wss = new WebSocketServer({ host: '127.0.0.1', port }, () => console.log('listening'));

function heartbeat() {
  this.isAlive = true;
}

wss.on('connection', function connection(ws, request) {
  const client = new URL(request.url, 'ws://x').searchParams.get('client');
  ws.isAlive = true;
  ws.on('error', () => {});
  ws.on('pong', heartbeat);
  ws.on('close', (code) => console.log(`gone ${client} ${code}`));
});

setInterval(function ping() {
  wss.clients.forEach(function each(ws) {
    if (ws.isAlive === false) return ws.terminate();
    ws.isAlive = false;
    ws.ping();
  });
}, interval);
