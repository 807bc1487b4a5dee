// ws, the WebSocket client that most of node uses.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import WebSocket from 'ws'
import { addr, ca, cert, key, name, plain, step } from './port.mjs'

const echo = `wss://${name}/ws`

async function open(url, options) {
  const socket = new WebSocket(url, { ca, ...options })
  await once(socket, 'open') // rejects on 'error'
  return socket
}

// answer sends, and gives the message that comes back.
async function answer(socket, message, options) {
  const reply = once(socket, 'message')
  socket.send(message, options)
  const [data, binary] = await reply
  return { data, binary }
}

// closed gives the close code that a session ends with.
async function closed(socket) {
  const [code] = await once(socket, 'close')
  return code
}

// refusal gives the HTTP answer of a handshake that is refused.
async function refusal(url, options) {
  const socket = new WebSocket(url, { ca, ...options })
  const [request, response] = await once(socket, 'unexpected-response')
  request.destroy() // ws leaves that to us, and the connection would stay open
  return response.statusCode
}

const socket = await open(echo)

await step('no subprotocol and no extension are agreed on', () => {
  assert.equal(socket.protocol, '')
  assert.equal(socket.extensions, '') // ws offers permessage-deflate
})

await step('text', async () => {
  const { data, binary } = await answer(socket, 'grüße')
  assert.equal(binary, false)
  assert.equal(data.toString(), 'grüße')
})

await step('binary', async () => {
  const { data, binary } = await answer(socket, Buffer.from([0, 1, 254, 255]))
  assert.equal(binary, true)
  assert.deepEqual(data, Buffer.from([0, 1, 254, 255]))
})

await step('empty message', async () => {
  assert.equal((await answer(socket, '')).data.length, 0)
})

await step('a message in fragments, with a ping between them', async () => {
  const reply = once(socket, 'message')
  const pong = once(socket, 'pong')
  socket.send('one ', { fin: false })
  socket.ping('between')
  assert.equal((await pong)[0].toString(), 'between')
  socket.send('two ', { fin: false })
  socket.send('three', { fin: true })
  assert.equal((await reply)[0].toString(), 'one two three')
})

await step('60 KiB', async () => {
  const big = Buffer.alloc(60 << 10, 'x')
  assert.ok((await answer(socket, big)).data.equals(big))
})

await step('64 KiB, the largest message', async () => {
  const big = Buffer.alloc(64 << 10, 'x')
  assert.ok((await answer(socket, big)).data.equals(big))
})

await step('1000 messages in a row come back in order', async () => {
  let next = 0
  const all = new Promise((resolve, reject) => {
    socket.on('message', function check(data) {
      if (data.toString() !== `${next}`) reject(new Error(`got ${data}, want ${next}`))
      if (++next === 1000) {
        socket.off('message', check)
        resolve()
      }
    })
  })
  for (let i = 0; i < 1000; i++) socket.send(`${i}`)
  await all
})

await step('a close is answered with its own code', async () => {
  socket.close(3001, 'bye')
  assert.equal(await closed(socket), 3001)
})

await step('a byte over 64 KiB closes with 1009', async () => {
  const socket = await open(echo)
  socket.send(Buffer.alloc((64 << 10) + 1))
  assert.equal(await closed(socket), 1009)
})

await step('fragments over 64 KiB in all close with 1009', async () => {
  const socket = await open(echo)
  for (let i = 0; i < 3; i++) socket.send(Buffer.alloc(30 << 10), { fin: i === 2 })
  assert.equal(await closed(socket), 1009)
})

await step('whoami with a client certificate', async () => {
  const socket = new WebSocket(`wss://${name}/ws/whoami`, { ca, cert, key })
  const end = closed(socket)
  const [data] = await once(socket, 'message')
  const who = JSON.parse(data)
  assert.equal(who.protocol, 'websocket')
  assert.equal(who.http_version, 'HTTP/1.1')
  assert.deepEqual(who.tls, { version: 'TLS 1.3', alpn: '', sni: 'localhost', client_subject: 'CN=alice' })
  assert.equal(await end, 1000)
})

await step('a foreign origin is refused with 403', async () => {
  for (const origin of ['https://example.com', `https://${name}.example.com`, `https://localhost`, 'null']) {
    assert.equal(await refusal(echo, { origin }), 403, origin)
  }
})

await step('the own origin is taken', async () => {
  const socket = await open(echo, { origin: `https://${name}` })
  socket.close()
  assert.equal(await closed(socket), 1005) // closed without a code
})

await step('an unknown path is 404', async () => {
  assert.equal(await refusal(`wss://${name}/ws/nothing`), 404)
})

await step('an address instead of a name', async () => {
  const socket = await open(`wss://${addr}/ws`)
  assert.equal((await answer(socket, 'direct')).data.toString(), 'direct')
  socket.terminate()
})

await step('plaintext', async () => {
  const socket = await open(`ws://${plain}/ws`)
  assert.equal((await answer(socket, 'clear')).data.toString(), 'clear')
  socket.close(1000)
  assert.equal(await closed(socket), 1000)
})

await step('200 sockets at once', async () => {
  const sockets = await Promise.all(Array.from({ length: 200 }, () => open(echo)))
  const answers = await Promise.all(sockets.map((socket, i) => answer(socket, `${i}`)))
  answers.forEach(({ data }, i) => assert.equal(data.toString(), `${i}`))
  const ends = sockets.map(closed)
  for (const socket of sockets) socket.close(1000)
  for (const code of await Promise.all(ends)) assert.equal(code, 1000)
})
