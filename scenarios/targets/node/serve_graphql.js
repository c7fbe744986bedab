// The server of the graphql-ws target: graphql-ws on ws. Arguments: port, keepAlive (ms).
const { WebSocketServer } = require('ws');
const { useServer } = require('graphql-ws/use/ws');
const { buildSchema } = require('graphql');
const [port, keepAlive] = process.argv.slice(2).map(Number);
const wss = new WebSocketServer({ host: '127.0.0.1', port }, () => console.log('listening'));
const schema = buildSchema('type Query { hello: String }');
const name = (ctx) => new URL(ctx.extra.request.url, 'ws://x').searchParams.get('client');
useServer({ schema, onDisconnect: (ctx, code) => console.log(`gone ${name(ctx)} ${code}`) }, wss, keepAlive);
