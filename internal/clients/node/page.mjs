// The page of the admin address in Chromium: under load, a filter, an end by user, a server that is
// gone, and a process that is. Lines of stdout that begin with "! " are done by page_test.go, and answered.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { browser } from './chromium.mjs'
import { out, step } from './port.mjs'

const url = process.env.PAGE_URL
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
async function ask(what) {
  console.log(`! ${what}`)
  return (await answers.next()).value
}

const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: 'light' })
const page = await context.newPage()
page.setDefaultTimeout(10_000)
const complaints = []
const away = []
let down = false // what the console says of refused connections is right then
page.on('pageerror', (err) => complaints.push(`${err}`))
page.on('console', (m) => {
  if (!down && ['error', 'warning'].includes(m.type())) complaints.push(m.text())
})
page.on('request', (r) => {
  if (new URL(r.url()).origin !== url) away.push(r.url())
})
await page.addInitScript(() => {
  document.addEventListener('securitypolicyviolation', (e) => console.error(`CSP: ${e.violatedDirective} forbids ${e.blockedURI}`))
})

const text = (selector) => page.locator(selector).first().innerText()
const shot = (name, o = {}) => page.screenshot({ path: join(out, `page-${name}.png`), animations: 'disabled', ...o })
// until waits for a text to fit.
const until = (selector, pattern, timeout = 10_000) =>
  page.waitForFunction(([s, source]) => new RegExp(source).test(document.querySelector(s)?.innerText ?? ''), [selector, pattern.source], { timeout })
const rows = () => page.locator('#rows tr').count()
// contrast gives texts that are hard to read: below 4.5 to 1 (WCAG 2.2, 1.4.3).
const contrast = () =>
  page.evaluate(() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1)
      canvas.fillStyle = color
      canvas.fillRect(0, 0, 1, 1)
      return [...canvas.getImageData(0, 0, 1, 1).data]
    }
    const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0)
    const faint = new Set()
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (texts.nextNode()) {
      const el = texts.currentNode.parentElement
      if (!texts.currentNode.data.trim() || !el.checkVisibility({ visibilityProperty: true }) || el.closest('.sr, option, noscript')) continue
      let on = el
      while (on.parentElement && rgba(getComputedStyle(on).backgroundColor)[3] < 255) on = on.parentElement
      const [a, b] = [light(rgba(getComputedStyle(el).color)), light(rgba(getComputedStyle(on).backgroundColor))].sort((x, y) => y - x)
      const ratio = (a + 0.05) / (b + 0.05)
      if (ratio < 4.5) faint.add(`${el.className || el.tagName} ${texts.currentNode.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`)
    }
    return [...faint]
  })

async function shots(name) {
  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme })
    await page.setViewportSize({ width: 1440, height: 900 })
    await page.waitForTimeout(300) // for charts to take their new width
    await shot(`${name}-${scheme}`)
    assert.deepEqual(await contrast(), [], `${name}, ${scheme}`)
    await page.setViewportSize({ width: 400, height: 860 })
    await page.waitForTimeout(300)
    await shot(`${name}-narrow-${scheme}`)
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, 'it is wider than the window')
    await shot(`${name}-narrow-${scheme}-whole`, { fullPage: true })
  }
  await page.emulateMedia({ colorScheme: 'light' })
  await page.setViewportSize({ width: 1440, height: 900 })
}

await step('it is there for browsers, and a list for others', async () => {
  const response = await page.goto(url)
  const policy = response.headers()['content-security-policy']
  assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'$/)
  assert.match(await (await fetch(url)).text(), /^oneport admin\n/)
})

await step('nothing has come yet, and it says what to try', async () => {
  await until('#state', /^serving$/)
  await until('[data-protocol=websocket] .hint', /wscat .*\/ws/)
  await until('[data-protocol=grpc] .hint', /grpcurl/)
  await until('#about', /^v0\.9\.0 · up /)
  await shot('empty')
}, 20)

await step('under load it shows numbers of all three protocols, and rows', async () => {
  await ask('traffic')
  for (const [protocol, lead] of [['http', /[1-9][\d.]* calls\/s/], ['grpc', /[1-9][\d.]* calls\/s/], ['websocket', /[1-9][\d.]* messages\/s/]]) {
    await until(`[data-protocol=${protocol}] .lead`, lead)
    await until(`[data-protocol=${protocol}] .stats`, /p50\s+[\d.]+ (µs|ms)[^]*p95\s+[\d.]+ (µs|ms)[^]*p99\s+[\d.]+ (µs|ms)/, 20_000)
  }
  await until('#rows', /alice/)
  await until('#conns', /upgraded\s+6/)
  await until('#upstreams', /app[^]*ok[^]*greeter[^]*ok/)
  await until('#refusals', /connections\s+unknown_bytes[^]*limit few\s+rate/)
  await until('#certs', /localhost[^]*days/)
  await until('#reload', /oneport\.yaml[^]*in effect/)
  await until('#ready', /listening[^]*ok/)
  assert.ok((await rows()) >= 8)
}, 60)

await step('screenshots under load', async () => {
  await page.waitForTimeout(Number(process.env.PAGE_WAIT ?? 3) * 1000) // for charts to have something to show
  await shots('load')
}, 180)

await step('a chart under the mouse shows that time, in all cards', async () => {
  const box = await page.locator('[data-protocol=http] .plot').first().boundingBox()
  await page.mouse.move(box.x + box.width - 40, box.y + 40)
  await until('[data-protocol=grpc] .when', /^at \d\d:\d\d:\d\d$/)
  await page.mouse.move(5, 5)
  await until('[data-protocol=grpc] .when', /^$/)
})

await step('keys: filter, move, details, help', async () => {
  await page.keyboard.press('/')
  await page.keyboard.type('alice websocket')
  await until('#filter-says', /with WebSocket calls, of user alice/)
  await page.waitForFunction(() => document.querySelectorAll('#rows tr').length === 1)
  assert.match(await text('#rows tr'), /alice/)
  await page.keyboard.press('Escape')
  await page.keyboard.press('j')
  assert.equal(await page.evaluate(() => document.activeElement.closest('#rows tr') !== null), true)
  await page.keyboard.press('Enter')
  await until('#details', /by jwt, test[^]*live → app/)
  await shot('details')
  await page.keyboard.press('Escape')
  await page.keyboard.press('?')
  await until('#help', /its details/)
  await page.keyboard.press('Escape')
  assert.equal(await page.locator('dialog[open]').count(), 0)
  await page.keyboard.press('/')
  await page.keyboard.type(' nonsense:x')
  await until('#filter-says', /there is no field nonsense/)
  await page.fill('#filter', 'user:alice protocol:ws')
}, 20)

await step('an end by user closes her WebSocket, asks for the token once, and keeps it nowhere', async () => {
  await page.keyboard.press('Escape')
  await page.keyboard.press('j')
  await page.keyboard.press('x')
  await page.locator('#kill label', { hasText: 'All calls of alice' }).click()
  await page.fill('#kill-token input', 'not the token at all')
  await page.click('#kill .danger')
  await until('#kill-problem', /token is not the one/)
  await page.fill('#kill-token input', process.env.PAGE_TOKEN)
  await shot('kill')
  await page.click('#kill .danger')
  await until('#toasts', /Ended: 2 calls/) // a WebSocket and a stream
  assert.match(await ask('how alice ended'), /1008.*ended by an operator/)
  await until('#empty', /No connection with WebSocket calls, of user alice/)
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, document.body.innerHTML]))
  assert.equal(kept.includes(process.env.PAGE_TOKEN), false)
  await page.fill('#filter', 'bob websocket')
  await page.waitForFunction(() => document.querySelectorAll('#rows tr').length === 2)
  await page.locator('#rows .kill').first().click()
  assert.equal(await page.isVisible('#kill-token'), false, 'it asks again')
  await page.click('#kill .danger')
  await until('#toasts', /Ended: 1 connection/)
  await page.waitForFunction(() => document.querySelectorAll('#rows tr').length === 1)
  await page.fill('#filter', '')
}, 30)
complaints.splice(0, complaints.length, ...complaints.filter((c) => !/401/.test(c))) // the wrong token's

await step('with many connections it says how many there are, and does not freeze', async () => {
  await ask('crowd')
  await until('#table-count', /^100 of 1,2\d\d shown$/)
  assert.equal(await rows(), 100)
  await page.click('#more')
  await page.waitForFunction(() => document.querySelectorAll('#rows tr').length === 400)
  await page.click('#more')
  await page.waitForFunction(() => document.querySelectorAll('#rows tr').length === 1000)
  const longest = await page.evaluate(
    () =>
      new Promise((resolve) => {
        let last = performance.now()
        let longest = 0
        const end = last + 5000
        requestAnimationFrame(function next(now) {
          longest = Math.max(longest, now - last)
          last = now
          if (now < end) requestAnimationFrame(next)
          else resolve(longest)
        })
      }),
  )
  console.log(`      the longest time between two frames, with 1000 rows: ${Math.round(longest)} ms`)
  assert.ok(longest < 2000, `${longest} ms between two frames`)
  await page.click('[data-sort=bytes_out]')
  await page.waitForFunction(() => /h2|REST|gRPC/.test(document.querySelector('#rows tr').innerText))
  await page.click('#conns [data-pick=upgraded]')
  await page.waitForFunction(() => document.querySelectorAll('#rows tr').length === 4)
  await page.fill('#filter', '')
  await page.click('[data-sort=accepted]')
}, 60)

await step('a server that is gone is seen within seconds', async () => {
  await ask('kill app')
  const since = Date.now()
  await until('#attention', /Upstream app is down/)
  console.log(`      ${Date.now() - since} ms after its end`)
  await until('#attention', /REST calls fail/)
  await until('#state', /serving, with problems/)
  await page.waitForTimeout(3000) // for charts to show it
  await shots('outage')
  await ask('start app')
  await page.waitForFunction(() => !/Upstream app is down/.test(document.querySelector('#attention').innerText))
}, 120)

await step('nothing was wrong on the console, and nothing left the origin', () => {
  assert.deepEqual(complaints, [])
  assert.deepEqual(away, [])
})

await step('a process that is gone is seen within seconds, and it comes back by itself', async () => {
  down = true
  await ask('kill edge')
  const since = Date.now()
  await until('#lost', /No contact with the admin API: nobody answers/)
  console.log(`      ${Date.now() - since} ms after its end`)
  await until('#state', /no contact/)
  await page.waitForTimeout(2000)
  await shot('lost')
  await ask('start edge')
  await page.waitForFunction(() => document.querySelector('#lost').hidden)
  await until('#toasts', /The process has started anew/)
  await until('#state', /^serving/)
  await until('[data-protocol=http] .lead', /[1-9][\d.]* calls\/s/)
}, 60)

await step('the theme is switched, and stays', async () => {
  const background = () => page.evaluate(() => getComputedStyle(document.querySelector('.card')).backgroundColor)
  const light = await background()
  await page.click('#theme')
  const dark = await background()
  assert.notEqual(dark, light)
  await page.reload()
  assert.equal(await background(), dark)
  await page.keyboard.press('t')
  assert.equal(await background(), light)
}, 20)

await step('where looking needs the token, it asks for it', async () => {
  await ask('open edge')
  await page.reload()
  await until('#token[open]', /looking needs the token/)
  await page.fill('#token input', 'not the token at all')
  await page.click('#token .main')
  await until('#token-problem', /That is not the token/)
  await page.fill('#token input', process.env.PAGE_TOKEN)
  await page.click('#token .main')
  await until('#state', /^serving/)
  await until('[data-protocol=http] .lead', /[1-9][\d.]* calls\/s/)
}, 40)

await browser.close()
process.stdin.destroy() // it would keep the program
