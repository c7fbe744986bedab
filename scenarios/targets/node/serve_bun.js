// The server of the bun target: Bun's own WebSockets, which are uWebSockets. Arguments: port, idleTimeout (s).
const [port, idleTimeout] = process.argv.slice(2).map(Number);
Bun.serve({
  hostname: '127.0.0.1',
  port,
  fetch(request, server) {
    const client = new URL(request.url).searchParams.get('client');
    if (server.upgrade(request, { data: { client } })) return;
    return new Response('a WebSocket is wanted', { status: 426 });
  },
  websocket: {
    idleTimeout,
    message() {},
    close(socket, code, reason) { console.log(`gone ${socket.data.client} ${reason || code}`); },
  },
});
console.log('listening');
