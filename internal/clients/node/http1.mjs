// node's own HTTP/1.1 clients: https, and fetch (undici).
// It needs NODE_EXTRA_CA_CERTS: fetch takes no CA by itself.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import https from 'node:https'
import { ca, cert, key, name, plain, step } from './port.mjs'

async function get(path, options) {
  const request = https.get(`https://${name}${path}`, { ca, ...options })
  const [response] = await once(request, 'response')
  const body = []
  for await (const chunk of response) body.push(chunk)
  return { status: response.statusCode, version: response.httpVersion, body: Buffer.concat(body).toString() }
}

await step('https without ALPN', async () => {
  const { status, version, body } = await get('/api/whoami', { ALPNProtocols: [], agent: false, cert, key })
  assert.equal(status, 200)
  assert.equal(version, '1.1')
  const who = JSON.parse(body)
  assert.deepEqual(who.tls, { version: 'TLS 1.3', alpn: '', sni: 'localhost', client_subject: 'CN=alice' })
})

await step('https with an agent that keeps its connection', async () => {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
  const ids = new Set()
  for (let i = 0; i < 10; i++) ids.add(JSON.parse((await get('/api/whoami', { agent })).body).connection_id)
  agent.destroy()
  assert.equal(ids.size, 1)
})

await step('https, streamed upload of 4 MiB', async () => {
  const request = https.request(`https://${name}/api/echo`, { method: 'POST', ca, agent: false })
  const chunk = Buffer.alloc(64 << 10, 'x')
  for (let i = 0; i < 64; i++) request.write(chunk) // chunked: no length is given
  request.end()
  const [response] = await once(request, 'response')
  let got = 0
  for await (const part of response) got += part.length
  assert.equal(got, 4 << 20)
})

await step('fetch', async () => {
  const response = await fetch(`https://${name}/api/hello`)
  assert.equal(response.status, 200)
  assert.deepEqual(await response.json(), { message: 'Hello from HTTP' })
})

await step('fetch, 100 at once, each with a body', async () => {
  const answers = await Promise.all(
    Array.from({ length: 100 }, async (_, i) => {
      const response = await fetch(`https://${name}/api/echo`, { method: 'POST', body: `body ${i}` })
      return response.text()
    }),
  )
  assert.deepEqual(answers, Array.from({ length: 100 }, (_, i) => `body ${i}`))
})

await step('fetch, plaintext', async () => {
  const response = await fetch(`http://${plain}/api/whoami`)
  assert.equal((await response.json()).tls, undefined)
})
