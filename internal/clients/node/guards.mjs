// ws and grpc-js before guards: what a handshake is refused with, where a token may
// stand, and how sessions and streams end with their tokens.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import grpc from '@grpc/grpc-js'
import loader from '@grpc/proto-loader'
import WebSocket from 'ws'
import { ca, name, proto, step } from './port.mjs'
import { expires, tokenFor, tokens } from './tokens.mjs'

const origin = `https://${name}`

// dial opens a WebSocket; it gives the status and the fields of a refusal.
async function dial(path, { subprotocols = [], ...options } = {}) {
  const socket = new WebSocket(`wss://${name}${path}`, subprotocols, { ca, ...options })
  socket.on('error', () => {})
  const refused = once(socket, 'unexpected-response')
  const opened = once(socket, 'open')
  const answer = await Promise.race([refused, opened])
  if (answer.length === 0) return { status: 101, socket }
  const [request, response] = answer
  response.resume()
  request.destroy()
  return { status: response.statusCode, fields: response.headers }
}

const bearer = (token) => ({ headers: { authorization: `Bearer ${token}` } })

for (const [path, who, status, field, value] of [
  ['/in', undefined, 401, 'www-authenticate', /^Bearer realm="oneport"$/],
  ['/in', 'broken', 401, 'www-authenticate', /error="invalid_token"$/],
  ['/in', 'expired', 401, 'www-authenticate', /error="invalid_token"$/],
  ['/raw', 'expired', 401],
  ['/admin', 'alice', 403],
  ['/few', 'alice', 429, 'retry-after', /^3[56]\d\d$/],
  ['/one', 'alice', 503, 'retry-after', /^1$/],
  ['/wait', 'alice', 503, 'retry-after', /^1$/],
  ['/nowhere', 'alice', 404],
  ['/gone', 'alice', 502],
  ['/in', 'alice', 101],
  ['/raw', 'alice', 101],
  ['/admin', 'admin', 101],
]) {
  await step(`ws ${path}, ${who ?? 'nobody'}: ${status}`, async () => {
    const got = await dial(path, who && bearer(tokens[who]))
    got.socket?.terminate()
    assert.equal(got.status, status)
    if (field) assert.match(got.fields[field], value)
  })
}

// Each place where a token may stand.
const places = (token) => ({
  header: ['/in', bearer(token)],
  'cookie, same origin': ['/in', { headers: { cookie: `session=${token}` }, origin }],
  subprotocol: ['/in', { subprotocols: ['bearer', token] }],
  query: [`/in?token=${token}`],
})

for (const [place, [path, options]] of Object.entries(places(tokens.alice))) {
  await step(`ws, token in ${place}`, async () => {
    const { status, socket } = await dial(path, options)
    assert.equal(status, 101)
    assert.equal(socket.protocol, place === 'subprotocol' ? 'bearer' : '')
    const reply = once(socket, 'message')
    socket.send('hello')
    assert.equal((await reply)[0].toString(), 'hello')
    socket.terminate()
  })
}

for (const [what, path, options] of [
  ['a cookie without an origin', '/in', { headers: { cookie: `session=${tokens.alice}` } }],
  ['a cookie from another origin', '/in', { headers: { cookie: `session=${tokens.alice}` }, origin: 'https://evil.example' }],
  ['a cookie from another scheme', '/in', { headers: { cookie: `session=${tokens.alice}` }, origin: `http://${name}` }],
  ['another cookie', '/in', { headers: { cookie: `token=${tokens.alice}` }, origin }],
  ['another parameter', `/in?session=${tokens.alice}`],
  ['another field', '/in', { headers: { 'x-token': tokens.alice } }],
]) {
  await step(`ws, ${what}: 401`, async () => assert.equal((await dial(path, options)).status, 401))
}

await step('ws: too many messages close an open one with 1013', async () => {
  const { socket } = await dial('/slow', bearer(tokens.alice))
  const closed = once(socket, 'close')
  for (let i = 0; i < 40; i++) socket.send('x')
  assert.equal((await closed)[0], 1013)
})

const definition = await loader.load('oneport/echo/v1/echo.proto', { includeDirs: [proto] })
const { Echo } = grpc.loadPackageDefinition(definition).oneport.echo.v1
const echo = new Echo(name, grpc.credentials.createSsl(ca))

await step('all that is open ends within a second of its token', async () => {
  const token = tokenFor('alice', 6)
  const ends = expires(token)
  const ended = []
  for (const [place, [path, options]] of Object.entries({ ...places(token), raw: ['/raw', bearer(token)] })) {
    const { status, socket } = await dial(path, options)
    assert.equal(status, 101)
    ended.push(once(socket, 'close').then(([code, reason]) => [place, Date.now(), `${code} ${reason}`, /^1008 token-expired$/]))
  }
  const metadata = new grpc.Metadata()
  metadata.set('authorization', `Bearer ${token}`)
  metadata.set('x-row', 'in')
  const call = echo.Bidi(metadata)
  call.on('error', () => {})
  call.write({ message: 'before' })
  assert.equal((await once(call, 'data'))[0].message, 'before')
  const status = new Promise((resolve) => call.on('status', resolve)) // once would take the error for its own
  ended.push(status.then(({ code, details }) => ['gRPC', Date.now(), `${code} ${details}`, /^16 token-expired$/]))
  assert.ok(Date.now() < ends, 'they were not open in time')
  for (const [place, when, how, want] of await Promise.all(ended)) {
    console.log(`      ${place}: ${how}, ${when - ends} ms after the end`)
    assert.match(how, want)
    assert.ok(when >= ends - 1 && when < ends + 1000, `${place} ended ${when - ends} ms after its token`)
  }
})

// In band: what the port says, and what the server behind notices of it.
for (const [what, subprotocols, options, chosen] of [
  ['alone', ['oneport.auth.v1'], bearer, 'oneport.auth.v1'],
  ['beside a token', ['oneport.auth.v1', 'bearer'], undefined, 'oneport.auth.v1'],
]) {
  await step(`ws shows a newer token over the session, ${what}`, async () => {
    const token = tokenFor('alice', 4)
    const offers = options ? subprotocols : [...subprotocols, token]
    const messages = []
    const socket = new WebSocket(`wss://${name}/in`, offers, { ca, ...options?.(token) })
    const closed = once(socket, 'close')
    let wake = () => {}
    socket.on('message', (data) => { messages.push(data.toString()); wake() })
    const next = async () => {
      while (messages.length === 0) await new Promise((resolve) => { wake = resolve })
      return messages.shift()
    }
    await once(socket, 'open')
    assert.equal(socket.protocol, chosen)
    const { oneport, id } = JSON.parse(await next())
    assert.equal(oneport, 'session')
    assert.match(id, /^[0-9a-f]{32}$/)
    assert.match(await next(), /^\{"oneport":"token-expires","in":[12]\}$/)
    const newer = tokenFor('alice', 6)
    socket.send(JSON.stringify({ oneport: 'refresh', token: newer }))
    assert.match(await next(), /^\{"oneport":"refreshed","expires_in":[45]\}$/)
    socket.send('hello')
    assert.equal(await next(), 'hello')
    assert.match(await next(), /^\{"oneport":"token-expires","in":[23]\}$/)
    const [code, reason] = await closed
    assert.equal(`${code} ${reason}`, '1008 token-expired')
    assert.ok(Date.now() >= expires(newer) - 1)
  })
}

echo.close()
