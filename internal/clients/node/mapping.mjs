// ws before what no guard refuses: handshakes that are too big or find no server, messages
// that are too big, servers that crash, and what certificates and tickets open.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import WebSocket from 'ws'
import { ca, cert, key, name, step } from './port.mjs'
import { tokens } from './tokens.mjs'

// dial opens a WebSocket; it gives the status of a refusal.
async function dial(path, options = {}) {
  const socket = new WebSocket(`wss://${name}${path}`, [], { ca, ...options })
  socket.on('error', () => {})
  const answer = await Promise.race([once(socket, 'unexpected-response'), once(socket, 'open')])
  if (answer.length === 0) return { status: 101, socket }
  const [request, response] = answer
  response.resume()
  request.destroy()
  return { status: response.statusCode }
}

const many = Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`x-${i}`, '1']))
const certificate = { cert, key }

for (const [what, path, status, options] of [
  ['nothing wrong', '/open', 101],
  ['a long head', '/open', 431, { headers: { 'x-long': 'a'.repeat(20 << 10) } }],
  ['many fields', '/open', 431, { headers: many }],
  ['a server that is gone', '/gone', 502],
  ['no certificate', '/mtls', 401],
  ['a certificate', '/mtls', 101, certificate],
  ['no ticket', '/ticketed', 401],
  ['a ticket that is none', '/ticketed?ticket=abc', 401],
  ['a token for a ticket', `/ticketed?ticket=${tokens.alice}`, 401],
  ['a certificate for a ticket', '/ticketed', 401, certificate],
]) {
  await step(`ws, ${what}: ${status}`, async () => {
    const got = await dial(path, options)
    got.socket?.terminate()
    assert.equal(got.status, status)
  })
}

await step('ws, a server that does not answer: 504', async () => assert.equal((await dial('/hold')).status, 504), 15)

await step('ws, a ticket opens one WebSocket', async () => {
  const res = await fetch(`https://${name}/ticket`, { method: 'POST', headers: { authorization: `Bearer ${tokens.alice}` } })
  const { ticket } = await res.json()
  const { status, socket } = await dial(`/ticketed?ticket=${ticket}`)
  assert.equal(status, 101)
  const reply = once(socket, 'message')
  socket.send('hello')
  assert.equal((await reply)[0].toString(), 'hello')
  socket.terminate()
  assert.equal((await dial(`/ticketed?ticket=${ticket}`)).status, 401)
})

for (const [what, message, code] of [
  ['a message over 64 KiB', 'x'.repeat((64 << 10) + 1), 1009],
  ['a server that leaves without a word', 'leave', 1011],
]) {
  await step(`ws, ${what}: ${code}`, async () => {
    const { socket } = await dial('/open')
    const closed = once(socket, 'close')
    socket.send(message)
    assert.equal((await closed)[0], code)
  })
}

await step('ws, a message of 64 KiB passes', async () => {
  const { socket } = await dial('/open')
  const reply = once(socket, 'message')
  socket.send('x'.repeat(64 << 10))
  assert.equal((await reply)[0].length, 64 << 10)
  socket.terminate()
})
