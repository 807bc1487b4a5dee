// Two people in examples/chat, each at an instance of their own, in a window of Chromium. Lines of
// stdout are read by chat_test.go: "! kill" and "! start" are done to the second instance, and answered.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { chromium } from 'playwright-core'
import { out, spki, step } from './port.mjs'

const run = promisify(execFile)
const [one, two] = process.env.CHAT_ADDRS.split(',')
const grpcurl = process.env.CHAT_GRPCURL

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
async function ask(what) {
  console.log(`! ${what}`)
  assert.equal((await answers.next()).value, 'done')
}

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  timeout: 30_000,
  args: [
    '--no-sandbox', // root has none
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-proxy-server',
    `--ignore-certificate-errors-spki-list=${spki}`,
  ],
})

// enter opens the chat and says a name, by keys alone. What the page complains of is collected.
async function enter(addr, name) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 800 } })
  const page = await context.newPage()
  page.setDefaultTimeout(20_000)
  const complaints = []
  page.on('pageerror', (err) => complaints.push(`${err}`))
  page.on('console', (m) => ['error', 'warning'].includes(m.type()) && complaints.push(m.text()))
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (e) => console.error(`CSP: ${e.violatedDirective} forbids ${e.blockedURI}`))
  })
  await page.goto(`https://${addr}/`)
  if (name === 'Ann') await page.screenshot({ path: join(out, 'chat-login.png') })
  await page.keyboard.type(name) // the field has the focus
  await page.keyboard.press('Enter')
  await state(page, /^connected$/)
  return { context, page, complaints }
}

const state = (page, wanted) =>
  page.waitForFunction(([source]) => new RegExp(source).test(document.getElementById('state').textContent), [wanted.source])

// say says something: the line has the focus, and keeps it.
async function say(page, text) {
  await page.keyboard.type(text)
  await page.keyboard.press('Enter')
}

const lines = (page) =>
  page.locator('#log li').evaluateAll((items) =>
    items.map((li) => (li.querySelector('.text') ? [...li.querySelectorAll('bdi, .by span, .text')] : [li]).map((e) => e.textContent).join(' ')),
  )

// seen waits until the log ends with these lines.
async function seen(page, ...wanted) {
  for (const end = Date.now() + 10_000; Date.now() < end; ) {
    if (JSON.stringify((await lines(page)).slice(-wanted.length)) === JSON.stringify(wanted)) return
    await page.waitForTimeout(20)
  }
  assert.deepEqual((await lines(page)).slice(-wanted.length), wanted)
}

async function here(page, ...wanted) {
  const names = () => page.locator('#people bdi').allTextContents()
  for (const end = Date.now() + 10_000; Date.now() < end; ) {
    if (JSON.stringify(await names()) === JSON.stringify(wanted)) break
    await page.waitForTimeout(20)
  }
  assert.deepEqual(await names(), wanted)
  assert.equal(await page.locator('#count').textContent(), `${wanted.length}`)
}

async function token(name) {
  const response = await fetch(`https://${one}/api/token`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ name }),
  })
  assert.equal(response.status, 200)
  return response.text()
}
const cleo = await token('Cleo')

async function byREST(text) {
  const response = await fetch(`https://${one}/api/rooms/lobby/messages`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${cleo}` },
    body: JSON.stringify({ text }),
  })
  assert.equal(response.status, 201, await response.text())
}

const byGRPC = (text) =>
  run(grpcurl, ['-cacert', process.env.ONEPORT_CA, '-H', `Authorization: Bearer ${cleo}`, '-d', JSON.stringify({ room: 'lobby', text }), one, 'chat.v1.Feed/Post'])

let ann, bjorn
await step('two people come in, each at an instance of their own, by keys alone', async () => {
  ann = await enter(one, 'Ann')
  bjorn = await enter(two, 'Björn')
  await here(ann.page, 'Ann', 'Björn')
  await here(bjorn.page, 'Ann', 'Björn')
  await seen(ann.page, 'Björn joined')
}, 40)

await step('what one says the other sees, whichever instance and protocol it comes by', async () => {
  await say(ann.page, 'hello <b>there</b>')
  await seen(bjorn.page, 'Ann WebSocket hello <b>there</b>')
  await say(bjorn.page, 'hi')
  await byREST('by REST')
  await byGRPC('by gRPC')
  const all = ['Ann WebSocket hello <b>there</b>', 'Björn WebSocket hi', 'Cleo REST by REST', 'Cleo gRPC by gRPC']
  await seen(ann.page, ...all)
  await seen(bjorn.page, ...all)
  assert.equal(await ann.page.locator('#log .mine').count(), 1)
  assert.equal(await ann.page.locator('#log b').count(), 0, 'markup in a message')
}, 40)

await step('light, dark, narrow', async () => {
  const shot = (name, o = {}) => ann.page.screenshot({ path: join(out, `chat-${name}.png`), ...o })
  await shot('light')
  await ann.page.emulateMedia({ colorScheme: 'dark' })
  await shot('dark')
  await ann.page.setViewportSize({ width: 390, height: 780 })
  await shot('narrow-dark')
  await ann.page.emulateMedia({ colorScheme: 'light' })
  await shot('narrow')
  assert.equal(await ann.page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, 'it is wider than the window')
  await shot('narrow-whole', { fullPage: true })
  await ann.page.setViewportSize({ width: 1000, height: 700 })
  await shot('middle')
  await ann.page.setViewportSize({ width: 1360, height: 800 })
}, 40)

await step('nothing is wrong on the consoles', () => {
  assert.deepEqual([ann.complaints, bjorn.complaints], [[], []])
})

await step('an instance is killed: its window comes back and shows what it has missed', async () => {
  const before = (await lines(bjorn.page)).length
  await ask('kill')
  await state(bjorn.page, /again in/)
  await bjorn.page.screenshot({ path: join(out, 'chat-away.png') })
  await say(ann.page, 'where are you?')
  await byREST('gone')
  await byGRPC('really')
  await ask('start')
  await state(bjorn.page, /^connected$/)
  const missed = ['3 messages while you were away', 'Ann WebSocket where are you?', 'Cleo REST gone', 'Cleo gRPC really']
  await seen(bjorn.page, ...missed)
  assert.equal((await lines(bjorn.page)).length, before + missed.length, 'once each')
  await bjorn.page.screenshot({ path: join(out, 'chat-recovered.png') })
  await bjorn.page.focus('#text')
  await say(bjorn.page, 'back')
  await seen(ann.page, 'Cleo gRPC really', 'Björn WebSocket back')
  await here(ann.page, 'Ann', 'Björn')
}, 60)

await step('a window is opened anew: its name and the history are there', async () => {
  await bjorn.page.reload()
  await state(bjorn.page, /^connected$/)
  await seen(bjorn.page, 'Ann WebSocket where are you?', 'Cleo REST gone', 'Cleo gRPC really', 'Björn WebSocket back')
}, 20)

await step('what is said in a room stays there', async () => {
  const { page } = bjorn
  await page.focus('#other')
  await page.keyboard.type('Attic')
  await page.keyboard.press('Enter')
  await page.waitForURL('**/room/attic')
  await state(page, /^connected$/)
  await here(page, 'Björn')
  await say(page, 'nobody here')
  await seen(page, 'Björn WebSocket nobody here')
  assert.equal((await lines(ann.page)).includes('Björn WebSocket nobody here'), false)
  await page.click('text=lobby')
  await here(page, 'Ann', 'Björn')
}, 40)

await step('who leaves is asked for a name, and the others see it', async () => {
  await ann.page.click('#logout')
  await ann.page.waitForSelector('#login')
  await seen(bjorn.page, 'Ann left')
  await here(bjorn.page, 'Björn')
}, 20)

await step('whose name has ended is asked for one', async () => {
  await bjorn.context.clearCookies() // as the browser does in the end
  await ask('kill')
  await ask('start')
  await bjorn.page.waitForSelector('#login')
}, 40)

await browser.close()
process.stdin.destroy() // it would keep the program
