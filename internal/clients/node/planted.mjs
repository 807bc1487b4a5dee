// ws with a token in each place, good and bad, and with servers behind that leave and that
// are not there: what the port's log and its servers then have of it, the test looks at.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import WebSocket from 'ws'
import { ca, name, step } from './port.mjs'
import { tokens } from './tokens.mjs'

const origin = `https://${name}`

// dial gives the status of a handshake, and of an open session the close code once its
// server has left.
async function dial(path, { subprotocols = [], ...options } = {}) {
  const socket = new WebSocket(`wss://${name}${path}`, subprotocols, { ca, ...options })
  socket.on('error', () => {})
  const closed = once(socket, 'close')
  const answer = await Promise.race([once(socket, 'unexpected-response'), once(socket, 'open')])
  if (answer.length > 0) {
    answer[1].resume()
    answer[0].destroy()
    return answer[1].statusCode
  }
  socket.send('leave')
  return (await closed)[0]
}

for (const [kind, token] of Object.entries(tokens)) {
  const good = { authorization: `Bearer ${tokens.good}` }
  for (const [place, query, options] of [
    ['header', '', { headers: { authorization: `Bearer ${token}` } }],
    ['cookie', '', { headers: { cookie: `a=b; session=${token}` }, origin }],
    ['cookie of another origin', '', { headers: { cookie: `session=${token}` }, origin: 'https://evil.example' }],
    ['subprotocol', '', { subprotocols: ['v1', 'bearer', token] }],
    ['query', `?a=b&token=${token}`],
    ['query, with a good header', `?token=${token}`, { headers: { ...good, referer: `${origin}/page?token=${token}` } }],
    ['subprotocol, with a good header', '', { headers: good, subprotocols: ['bearer', token] }],
  ]) {
    await step(`ws, ${kind} token in ${place}`, async () => {
      const refused = !place.includes('good') && (kind !== 'good' || place.includes('another'))
      // ws takes no answer that names none of its subprotocols: oneport's is bearer.
      for (const [path, want] of [['/in', 1011], ['/raw', 1006], ['/gone', 502], ['/admin', 403]]) {
        assert.equal(await dial(path + query, options), refused ? 401 : want, path)
      }
      assert.equal(await dial('/nowhere' + query, options), 404)
    })
  }
}
