// Holds connections open, says "ready", and when it is told "go" asks over them: the
// port goes away meanwhile.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import https from 'node:https'
import WebSocket from 'ws'
import { ca, name, step } from './port.mjs'

const sockets = await Promise.all(
  ['/open', '/raw'].map(async (path) => {
    const socket = new WebSocket(`wss://${name}${path}`, { ca })
    await once(socket, 'open')
    return [path, once(socket, 'close')]
  }),
)

// keep opens a connection of HTTP/1.1, and gives a function to ask over it.
async function keep() {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
  const ask = async (path, headers = {}) => {
    const request = https.get(`https://${name}${path}`, { ca, agent, headers })
    const [response] = await Promise.race([once(request, 'response'), once(request, 'upgrade')])
    response.resume()
    if (response.statusCode !== 101) await once(response, 'end')
    return [response.statusCode, response.headers.connection, response.headers['retry-after'], request.reusedSocket]
  }
  assert.equal((await ask('/open'))[0], 200)
  return ask
}
const [request, handshake] = [await keep(), await keep()]
console.log('ready')
await once(process.stdin, 'data')

await step('a request over an open connection is served, and is the last', async () => {
  assert.deepEqual(await request('/open'), [200, 'close', undefined, true])
})
await step('a WebSocket handshake over an open connection: 503', async () => {
  const headers = { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' }
  assert.deepEqual(await handshake('/open', headers), [503, 'close', '1', true])
})
for (const [path, closed] of sockets) {
  await step(`an open WebSocket is closed, ${path}: 1001`, async () => assert.equal((await closed)[0], 1001))
}
process.exit(0)
