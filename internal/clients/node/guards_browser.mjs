// Chromium before guards: what a page learns of its calls, and where its tokens may stand.
import assert from 'node:assert/strict'
import { browser, context, dial, foreign, open } from './chromium.mjs'
import { name, step } from './port.mjs'
import { expires, tokenFor, tokens } from './tokens.mjs'

const { page, complaints } = await open(`https://${name}/page`)

await step('fetch has the status and the fields of each refusal', async () => {
  for (const [path, who, status, retry] of [
    ['/in', undefined, 401],
    ['/in', 'broken', 401],
    ['/in', 'expired', 401],
    ['/admin', 'alice', 403],
    ['/few', 'alice', 429, /^3[56]\d\d$/],
    ['/one/', 'alice', 503, /^1$/],
    ['/wait/', 'alice', 503, /^1$/],
    ['/nowhere', 'alice', 404],
    ['/in', 'alice', 200],
    ['/admin', 'admin', 200],
  ]) {
    const got = await page.evaluate(
      async ({ path, token }) => {
        const answer = await fetch(path, { headers: token ? { authorization: `Bearer ${token}` } : {} })
        return { status: answer.status, retry: answer.headers.get('retry-after'), challenge: answer.headers.get('www-authenticate') }
      },
      { path, token: tokens[who] },
    )
    assert.equal(got.status, status, path)
    if (retry) assert.match(got.retry, retry)
    assert.equal(got.challenge !== null, status === 401)
  }
})

await step('a WebSocket that is refused fails, and its page does not learn why', async () => {
  for (const [path, who, status] of [
    ['/in', undefined, 401],
    ['/in', 'broken', 401],
    ['/in', 'expired', 401],
    ['/admin', 'alice', 403],
    ['/few', 'alice', 429],
    ['/one', 'alice', 503],
    ['/nowhere', 'alice', 404],
  ]) {
    complaints.length = 0
    const { opened, code } = await dial(page, path, { subprotocols: who ? ['bearer', tokens[who]] : [] })
    assert.deepEqual({ opened, code }, { opened: false, code: 1006 })
    assert.match(complaints.join('\n'), status === 401 ? /401|Authentication/ : new RegExp(`Unexpected response code: ${status}`))
  }
})

await step('the subprotocol opens it, and is selected', async () => {
  for (const path of ['/in', '/raw']) {
    const { opened, protocol, code } = await dial(page, path, { subprotocols: ['bearer', tokens.alice] })
    assert.deepEqual({ opened, protocol, code }, { opened: true, protocol: 'bearer', code: 1000 })
  }
})

await step('so does the parameter', async () => {
  const { opened, protocol } = await dial(page, `/in?token=${tokens.alice}`)
  assert.deepEqual({ opened, protocol }, { opened: true, protocol: '' })
})

await step('so does a cookie, of a page of the same origin alone', async () => {
  await page.evaluate((token) => (document.cookie = `session=${token}; Secure; SameSite=Strict; Path=/`), tokens.alice)
  const { opened, code } = await dial(page, '/in')
  assert.deepEqual({ opened, code }, { opened: true, code: 1000 })
  const post = (page) => page.evaluate(async (url) => (await fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include' })).status, `https://${name}/in`)
  assert.equal(await post(page), 200)

  const other = await foreign()
  const refused = await dial(other.page, '/in')
  assert.deepEqual({ opened: refused.opened, code: refused.code }, { opened: false, code: 1006 })
  assert.match(other.complaints.join('\n'), /401|Authentication/)
  const answer = other.page.waitForResponse((response) => response.url() === `https://${name}/in`)
  assert.equal(await post(other.page), 0) // opaque to the page
  assert.equal((await answer).status(), 401)
  await context.clearCookies()
  assert.equal((await dial(page, '/in')).opened, false)
  other.origin.close()
})

await step('too many messages close it with 1013', async () => {
  const { opened, code, reason } = await dial(page, '/slow', { subprotocols: ['bearer', tokens.alice], send: 40 })
  assert.deepEqual({ opened, code, reason }, { opened: true, code: 1013, reason: 'too many messages' })
})

await step('the end of its token closes it with 1008, token-expired, within a second', async () => {
  const token = tokenFor('alice', 5)
  const { opened, code, reason, wasClean, when } = await dial(page, '/in', { subprotocols: ['bearer', token], stay: true })
  assert.deepEqual({ opened, code, reason, wasClean }, { opened: true, code: 1008, reason: 'token-expired', wasClean: true })
  const late = when - expires(token)
  console.log(`      ${late} ms after the end`)
  assert.ok(late >= -1 && late < 1000, `closed ${late} ms after its token has ended`)
})

await step('the browser closes', () => browser.close())
