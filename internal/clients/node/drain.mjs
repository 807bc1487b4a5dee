// Holds one connection of each kind open, says "ready", and is told by each
// that the port goes away: politely, and without losing a call.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http2 from 'node:http2'
import https from 'node:https'
import grpc from '@grpc/grpc-js'
import loader from '@grpc/proto-loader'
import WebSocket from 'ws'
import { addr, ca, name, proto, step } from './port.mjs'

const socket = new WebSocket(`wss://${name}/ws`, { ca })
await once(socket, 'open')

const session = http2.connect(`https://${name}`, { ca })
await once(session, 'connect')

const agent = new https.Agent({ keepAlive: true })
const request = https.get(`https://${name}/api/hello`, { ca, agent })
const [response] = await once(request, 'response')
response.resume()
await once(response, 'end')

const definition = await loader.load('oneport/echo/v1/echo.proto', { includeDirs: [proto] })
const { Echo } = grpc.loadPackageDefinition(definition).oneport.echo.v1
const echo = new Echo(name, grpc.credentials.createSsl(ca))
const call = echo.Bidi()
const answers = call[Symbol.asyncIterator]()
call.write({ message: 'before' })
await answers.next()

// Listened for before it can happen.
const closed = once(socket, 'close')
const goaway = once(session, 'goaway')
const idle = once(request.socket, 'close')
console.log('ready')

await step('the WebSocket is closed with 1001', async () => assert.equal((await closed)[0], 1001))
await step('an HTTP/2 session gets GOAWAY without an error', async () => assert.equal((await goaway)[0], 0))
await step('an idle HTTP/1.1 connection is closed', () => idle)
await step('a gRPC stream goes on to its own end', async () => {
  const status = once(call, 'status')
  call.write({ message: 'after' })
  assert.equal((await answers.next()).value.message, 'after')
  call.end()
  assert.equal((await answers.next()).done, true)
  assert.equal((await status)[0].code, grpc.status.OK)
})
await step('nobody else is let in', async () => {
  const late = https.get(`https://${addr}/`, { ca, agent: false })
  const [err] = await once(late, 'error')
  assert.equal(err.code, 'ECONNREFUSED')
})

echo.close()
agent.destroy()
