// ws, with a trace of its own: what becomes of that, the test asks a collector.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import WebSocket from 'ws'
import { ca, name, step } from './port.mjs'

await step('ws, within a trace', async () => {
  const socket = new WebSocket(`wss://${name}/ws`, { ca, headers: { traceparent: process.env.ONEPORT_TRACEPARENT } })
  await once(socket, 'open')
  socket.send('hello')
  const [data] = await once(socket, 'message')
  assert.equal(data.toString(), 'hello')
  socket.close(1000)
  assert.equal((await once(socket, 'close'))[0], 1000)
})
