// Calls by fetch.
import assert from 'node:assert/strict'
import test from 'node:test'
import { Client, TimeoutError } from '../dist/index.js'
import { json, rig } from './fake.mjs'

const bearer = (request) => request.init.headers.get('authorization')

test('calls have the token, and a newer one after 401, which several share', async () => {
  let n = 0
  const answers = [json({}, 401), json({}, 401), json({ ok: true })]
  const { client, server } = rig({ token: async () => `t${++n}`, answers })
  const all = await Promise.all([client.fetch('/a'), client.fetch('/b', { method: 'POST', body: 'x' })])
  assert.deepEqual(all.map((res) => res.status), [200, 200])
  assert.deepEqual(server.requests.map(bearer), ['Bearer t1', 'Bearer t1', 'Bearer t2', 'Bearer t2'])
  assert.equal(server.requests[3].init.body, 'x')
  assert.equal(n, 2)
})

test('a second 401 is the answer, and a body that cannot be sent twice is not', async () => {
  let n = 0
  const { client, server } = rig({ token: () => `t${++n}`, answers: [json({}, 401)] })
  assert.equal((await client.fetch('/a')).status, 401)
  assert.equal(server.requests.length, 2)
  assert.equal((await client.fetch('/a', { method: 'POST', body: new ReadableStream(), duplex: 'half' })).status, 401)
  assert.equal(server.requests.length, 3)
})

test('another address never gets the token', async () => {
  const { client, server } = rig({ token: () => 't' })
  for (const path of ['https://evil.test/', '//evil.test/', 'http://api.test/', 'https://api.test:444/']) {
    await assert.rejects(client.fetch(path), TypeError)
    assert.throws(() => client.socket(path), TypeError)
    assert.throws(() => client.socket('/ws', { ticket: path }), TypeError)
  }
  assert.equal(server.requests.length, 0)
})

test('an authorization of the caller’s own stays', async () => {
  const { client, server } = rig({ token: () => 't', answers: [json({}, 401)] })
  await client.fetch('/a', { headers: { Authorization: 'Basic x' } })
  assert.deepEqual(server.requests.map(bearer), ['Basic x'])
})

test('an answer has 30 s, and the caller’s signal ends the call', async () => {
  const { client, clock } = rig({ answers: ['hang'] })
  const late = assert.rejects(client.fetch('/a'), TimeoutError)
  await clock.advance(30_000)
  await late
  const abort = new AbortController()
  const ended = assert.rejects(client.fetch('/a', { signal: abort.signal }), /enough/)
  await clock.advance(0)
  abort.abort(new Error('enough'))
  await ended
  assert.equal(clock.timers.size, 0)
})

test('url is given, and http', () => {
  assert.throws(() => new Client(), TypeError)
  assert.throws(() => new Client({ url: 'wss://x' }), TypeError)
})
