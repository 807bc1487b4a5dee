// connect-node, the other gRPC client of node: it sends application/grpc+proto
// and brings its own HTTP/2.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { Code, createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { ca, cert, descriptors, key, name, plain, step } from './port.mjs'

const files = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)))
const Echo = files.getService('oneport.echo.v1.Echo')

const client = (baseUrl, options) => createClient(Echo, createGrpcTransport({ baseUrl, ...options }))
const echo = client(`https://${name}`, { nodeOptions: { ca } })

async function* each(...messages) {
  for (const message of messages) yield { message }
}

async function collect(stream) {
  const all = []
  for await (const { message } of stream) all.push(message)
  return all
}

await step('unary', async () => {
  assert.equal((await echo.unary({ message: 'grüße' })).message, 'grüße')
})

await step('100 unary calls at once', async () => {
  const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => echo.unary({ message: `${i}` })))
  answers.forEach(({ message }, i) => assert.equal(message, `${i}`))
})

await step('server stream', async () => {
  assert.deepEqual(await collect(echo.serverStream({ message: 'm', count: 3 })), ['m', 'm', 'm'])
})

await step('client stream', async () => {
  const { message, count } = await echo.clientStream(each('a', 'b', 'c'))
  assert.deepEqual({ message, count }, { message: 'a b c', count: 3 })
})

await step('bidi', async () => {
  assert.deepEqual(await collect(echo.bidi(each('a', 'b', 'c'))), ['a', 'b', 'c'])
})

await step('an error has its code', async () => {
  await assert.rejects(collect(echo.serverStream({ count: 5000 })), { code: Code.InvalidArgument })
})

await step('deadline', async () => {
  async function* silence() {
    yield { message: 'first' }
    await new Promise((resolve) => setTimeout(resolve, 2000).unref())
  }
  await assert.rejects(collect(echo.bidi(silence(), { timeoutMs: 300 })), { code: Code.DeadlineExceeded })
})

await step('whoami with a client certificate', async () => {
  const { protocol, httpVersion, tls } = await client(`https://${name}`, { nodeOptions: { ca, cert, key } }).whoami({})
  assert.equal(protocol, 'grpc')
  assert.equal(httpVersion, 'HTTP/2.0')
  assert.equal(tls.clientSubject, 'CN=alice')
})

await step('plaintext', async () => {
  assert.equal((await client(`http://${plain}`).whoami({})).tls, undefined)
})

process.exit() // the transports keep their connections
