// ws on both sides of oneport: before it as the client, behind it as the server.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import WebSocket, { WebSocketServer } from 'ws'
import { ca, name, step } from './port.mjs'

const [host, port] = process.env.ONEPORT_UPSTREAM.split(':')
const server = new WebSocketServer({ host, port: Number(port), perMessageDeflate: { threshold: 0 } })
await once(server, 'listening')

// What a message makes the server do; any other comes back.
const orders = {
  leave: (socket) => socket.terminate(),
  large: (socket) => socket.send(Buffer.alloc(1 << 20)),
  bomb: (socket) => socket.send('x'.repeat(1 << 20), { compress: true }),
  ping: (socket) => socket.ping('from the server'),
}
let last // the server's side of the newest session
server.on('connection', (socket) => {
  last = socket
  socket.on('error', () => {})
  socket.on('message', (data, binary) => (orders[data.toString()] ?? (() => socket.send(data, { binary })))(socket))
})

async function open(path, options) {
  const socket = new WebSocket(`wss://${name}${path}`, { ca, ...options })
  socket.on('error', () => {})
  await once(socket, 'open')
  return socket
}

async function closed(socket) {
  const [code, reason] = await once(socket, 'close')
  return `${code} ${reason}`.trim()
}

const aware = ['/aware', '/deflate']

for (const path of ['/raw', ...aware]) {
  await step(`${path}: permessage-deflate, unless it is off`, async () => {
    const socket = await open(path)
    assert.equal(socket.extensions, path === '/aware' ? '' : 'permessage-deflate')
    for (let i = 0; i < 50; i++) { // each refers to those before
      const text = `${i} `.repeat(1000)
      const reply = once(socket, 'message')
      socket.send(text)
      assert.equal((await reply)[0].toString(), text)
    }
    socket.close(4001)
    assert.equal(await closed(socket), '4001')
  })

  await step(`${path}: fragments, with a ping between them, and one from the server`, async () => {
    const socket = await open(path)
    const [reply, pong] = [once(socket, 'message'), once(socket, 'pong')]
    socket.send('one ', { fin: false })
    socket.ping('between')
    assert.equal((await pong)[0].toString(), 'between')
    socket.send('two', { fin: true })
    assert.equal((await reply)[0].toString(), 'one two')
    const [ping, answered] = [once(socket, 'ping'), once(last, 'pong')]
    socket.send('ping')
    assert.equal((await ping)[0].toString(), 'from the server')
    assert.equal((await answered)[0].toString(), 'from the server')
    socket.close()
    assert.equal(await closed(socket), '1005')
  })

  await step(`${path}: the server's end of the connection`, async () => {
    const socket = await open(path)
    socket.send('leave')
    assert.equal(await closed(socket), path === '/raw' ? '1006' : '1011 the server is gone')
  })
}

await step('raw: 1 MiB passes', async () => {
  const socket = await open('/raw')
  const reply = once(socket, 'message')
  socket.send(Buffer.alloc(1 << 20))
  assert.equal((await reply)[0].length, 1 << 20)
  socket.terminate()
})

for (const path of aware) {
  await step(`${path}: 1 MiB is refused in both directions`, async () => {
    const socket = await open(path)
    const there = once(last, 'close')
    socket.send(Buffer.alloc(1 << 20), { compress: false })
    assert.equal(await closed(socket), '1009 message is larger than 65536 bytes')
    assert.equal((await there)[0], 1009)
    const another = await open(path)
    another.send('large')
    assert.equal(await closed(another), '1009 the other side: message is larger than 65536 bytes')
  })
}

await step('1 MiB that is a few hundred bytes compressed, too', async () => {
  const socket = await open('/deflate')
  socket.send('x'.repeat(1 << 20))
  assert.equal(await closed(socket), '1009 message is larger than 65536 bytes')
  const another = await open('/deflate')
  another.send('bomb')
  assert.equal(await closed(another), '1009 the other side: message is larger than 65536 bytes')
})

await step('more messages than the route allows', async () => {
  const socket = await open('/slow')
  for (let i = 0; i < 30; i++) socket.send('x')
  assert.equal(await closed(socket), '1013 too many messages')
})

await step('a client that answers no ping is found, one that does is not', async () => {
  const alive = await open('/pings')
  const dead = await open('/pings', { autoPong: false })
  assert.equal(await closed(dead), '1001 no answer to a ping')
  const reply = once(alive, 'message')
  alive.send('here')
  assert.equal((await reply)[0].toString(), 'here')
  alive.terminate()
})

await step('a server that answers no ping, too', async () => {
  const socket = await open('/pings')
  last._autoPong = false
  assert.equal(await closed(socket), '1011 no answer to a ping')
})

await step('the drain says 1001 in both modes', async () => {
  const sockets = await Promise.all(['/raw', ...aware].map((path) => open(path)))
  const codes = Promise.all(sockets.map(closed))
  process.kill(Number(process.env.ONEPORT_PID), 'SIGTERM')
  for (const code of await codes) assert.ok(code.startsWith('1001'), code)
})

server.close()
