// grpc-js, the gRPC implementation for node: every kind of call on one channel.
import assert from 'node:assert/strict'
import grpc from '@grpc/grpc-js'
import loader from '@grpc/proto-loader'
import { addr, ca, cert, key, name, plain, proto, step } from './port.mjs'

const definition = await loader.load('oneport/echo/v1/echo.proto', {
  includeDirs: [proto],
  keepCase: true,
  defaults: true,
})
const { Echo } = grpc.loadPackageDefinition(definition).oneport.echo.v1
const echo = new Echo(name, grpc.credentials.createSsl(ca))

// unary calls one method and gives its answer, headers and status.
function unary(client, method, request, { metadata = new grpc.Metadata(), ...options } = {}) {
  return new Promise((resolve, reject) => {
    const answer = {}
    const call = client[method](request, metadata, options, (err, message) => {
      if (err) reject(err)
      else answer.message = message
    })
    call.on('metadata', (headers) => (answer.headers = headers))
    call.on('status', (status) => {
      if (status.code === grpc.status.OK) resolve({ ...answer, status })
    })
  })
}

// ended resolves with the error that a stream ends with, or null.
function ended(stream) {
  return new Promise((resolve) => {
    stream.on('error', resolve)
    stream.on('end', () => resolve(null))
    stream.resume()
  })
}

async function collect(stream) {
  const all = []
  for await (const message of stream) all.push(message)
  return all
}

await step('unary', async () => {
  const { message } = await unary(echo, 'Unary', { message: 'grüße' })
  assert.equal(message.message, 'grüße')
})

await step('unary, 3 MiB', async () => {
  const text = 'x'.repeat(3 << 20)
  const { message } = await unary(echo, 'Unary', { message: text })
  assert.ok(message.message === text)
})

await step('500 unary calls at once', async () => {
  const answers = await Promise.all(Array.from({ length: 500 }, (_, i) => unary(echo, 'Unary', { message: `${i}` })))
  answers.forEach(({ message }, i) => assert.equal(message.message, `${i}`))
})

await step('server stream', async () => {
  const messages = await collect(echo.ServerStream({ message: 'm', count: 1000 }))
  assert.deepEqual(messages.map((m) => m.index), Array.from({ length: 1000 }, (_, i) => i))
})

await step('client stream', async () => {
  const answer = await new Promise((resolve, reject) => {
    const call = echo.ClientStream((err, message) => (err ? reject(err) : resolve(message)))
    for (const message of ['a', 'b', 'c']) call.write({ message })
    call.end()
  })
  assert.deepEqual(answer, { message: 'a b c', count: 3 })
})

await step('bidi, each message answered before the next', async () => {
  const call = echo.Bidi()
  const answers = call[Symbol.asyncIterator]()
  for (let i = 0; i < 100; i++) {
    call.write({ message: `${i}` })
    assert.equal((await answers.next()).value.message, `${i}`)
  }
  call.end()
  assert.equal((await answers.next()).done, true)
})

await step('metadata reaches the call, headers and trailers come back', async () => {
  const metadata = new grpc.Metadata()
  metadata.set('traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')
  metadata.set('some-bin', Buffer.from([0, 1, 254, 255]))
  const { message, headers, status } = await unary(echo, 'Whoami', {}, { metadata })
  assert.equal(message.trace_id, '0af7651916cd43dd8448eb211c80319c')
  assert.deepEqual(headers.get('content-type'), ['application/grpc'])
  assert.equal(status.details, '')
})

await step('an error has its code and its text', async () => {
  const err = await ended(echo.ServerStream({ count: 5000 }))
  assert.equal(err?.code, grpc.status.INVALID_ARGUMENT)
  assert.match(err.details, /^count 5000 is not within 1 to 1000$/)
})

await step('an unknown method is UNIMPLEMENTED', async () => {
  const { path, ...rest } = Echo.service.Unary
  const Other = grpc.makeGenericClientConstructor({ Nothing: { path: `${path}Nothing`, ...rest } })
  const other = new Other(name, grpc.credentials.createSsl(ca))
  await assert.rejects(unary(other, 'Nothing', {}), { code: grpc.status.UNIMPLEMENTED })
  other.close()
})

await step('deadline', async () => {
  const err = await ended(echo.Bidi({ deadline: Date.now() + 300 }))
  assert.equal(err?.code, grpc.status.DEADLINE_EXCEEDED)
})

await step('cancel', async () => {
  const call = echo.Bidi()
  call.write({ message: 'first' })
  call.once('data', () => call.cancel())
  assert.equal((await ended(call))?.code, grpc.status.CANCELLED)
})

await step('one connection for all of it', async () => {
  const ids = new Set()
  for (let i = 0; i < 3; i++) ids.add((await unary(echo, 'Whoami', {})).message.connection_id)
  assert.equal(ids.size, 1)
})

await step('whoami with a client certificate', async () => {
  const alice = new Echo(name, grpc.credentials.createSsl(ca, key, cert))
  const { message } = await unary(alice, 'Whoami', {})
  assert.equal(message.protocol, 'grpc')
  assert.equal(message.http_version, 'HTTP/2.0')
  assert.deepEqual(message.tls, {
    version: 'TLS 1.3',
    alpn: 'h2',
    sni: 'localhost',
    client_subject: 'CN=alice',
  })
  alice.close()
})

await step('an address as server name', async () => {
  process.noDeprecation = true // node warns: RFC 6066 forbids it, grpc-js does it all the same
  const direct = new Echo(addr, grpc.credentials.createSsl(ca))
  const { message } = await unary(direct, 'Whoami', {})
  assert.equal(message.tls.sni, addr.split(':')[0])
  direct.close()
})

await step('plaintext', async () => {
  const clear = new Echo(plain, grpc.credentials.createInsecure())
  const { message } = await unary(clear, 'Whoami', {})
  assert.equal(message.tls, null)
  clear.close()
})

await step('gzip', async () => {
  const zip = new Echo(name, grpc.credentials.createSsl(ca), {
    'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip,
  })
  const { message } = await unary(zip, 'Unary', { message: 'z'.repeat(1000) })
  assert.equal(message.message, 'z'.repeat(1000))
  zip.close()
})

echo.close()
