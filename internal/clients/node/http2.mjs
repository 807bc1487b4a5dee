// node's own HTTP/2 client: REST and gRPC side by side on one session, which
// no gRPC library does but browsers and load balancers do.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http2 from 'node:http2'
import { ca, name, plain, step } from './port.mjs'

const session = http2.connect(`https://${name}`, { ca })
await once(session, 'connect')

// call sends one request and gives headers, body and trailers.
async function call(headers, body, on = session) {
  const stream = on.request(headers)
  stream.end(body)
  let trailers = {}
  stream.on('trailers', (fields) => (trailers = fields))
  const [answer] = await once(stream, 'response')
  const chunks = []
  for await (const chunk of stream) chunks.push(chunk)
  return { status: answer[':status'], headers: answer, body: Buffer.concat(chunks), trailers }
}

const get = (path, on) => call({ ':path': path }, undefined, on)

// unary is gRPC by hand: a five-byte prefix before a message of one string.
async function unary(text, contentType = 'application/grpc') {
  const value = Buffer.from(text)
  assert.ok(value.length < 128) // one byte of length
  const message = Buffer.concat([Buffer.from([0x0a, value.length]), value])
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(message.length, 1)
  const answer = await call(
    { ':method': 'POST', ':path': '/oneport.echo.v1.Echo/Unary', 'content-type': contentType, te: 'trailers' },
    Buffer.concat([prefix, message]),
  )
  assert.equal(answer.status, 200)
  assert.equal(answer.trailers['grpc-status'], '0')
  return answer.body.subarray(7).toString()
}

await step('REST', async () => {
  const { status, body } = await get('/api/hello')
  assert.equal(status, 200)
  assert.deepEqual(JSON.parse(body), { message: 'Hello from HTTP' })
})

await step('gRPC by hand, with each content type', async () => {
  for (const type of ['application/grpc', 'application/grpc+proto', 'application/grpc;a=b', 'Application/GRPC']) {
    assert.equal(await unary(type, type), type)
  }
})

await step('300 requests at once, every third gRPC, on one connection', async () => {
  const ids = new Set()
  await Promise.all(
    Array.from({ length: 300 }, async (_, i) => {
      switch (i % 3) {
        case 0:
          assert.equal(await unary(`call ${i}`), `call ${i}`)
          break
        case 1: {
          const { body } = await call({ ':method': 'POST', ':path': '/api/echo' }, `body ${i}`)
          assert.equal(body.toString(), `body ${i}`)
          break
        }
        default:
          ids.add(JSON.parse((await get('/api/whoami')).body).connection_id)
      }
    }),
  )
  assert.equal(ids.size, 1)
})

await step('a cancelled upload ends its stream alone', async () => {
  const stream = session.request({ ':method': 'POST', ':path': '/api/echo' })
  stream.write(Buffer.alloc(1 << 10))
  stream.close(http2.constants.NGHTTP2_CANCEL)
  await once(stream, 'close')
  assert.equal((await get('/api/hello')).status, 200)
  assert.equal(session.closed, false)
})

await step('4 MiB there and back', async () => {
  const big = Buffer.alloc(4 << 20, 'x')
  const { body } = await call({ ':method': 'POST', ':path': '/api/echo' }, big)
  assert.ok(body.equals(big))
})

await step('WebSocket over HTTP/2 is not offered', () => {
  assert.ok(!session.remoteSettings.enableConnectProtocol)
})

session.close()

await step('prior knowledge on the plaintext port', async () => {
  const clear = http2.connect(`http://${plain}`)
  const who = JSON.parse((await get('/api/whoami', clear)).body)
  assert.equal(who.http_version, 'HTTP/2.0')
  assert.equal(who.tls, undefined)
  clear.close()
})
