// The page: it asks the API again and again, and shows what it says.
import { ask, looksWithToken } from './api.mjs'
import * as attention from './attention.mjs'
import { cards as makeCards, tries } from './cards.mjs'
import { repaint } from './charts.mjs'
import * as dialogs from './dialogs.mjs'
import { $, say } from './dom.mjs'
import * as fmt from './format.mjs'
import * as panels from './panels.mjs'
import { Samples } from './rates.mjs'
import { sample as read, time } from './stats.mjs'
import { Table } from './table.mjs'

const samples = new Samples(60)
const pools = new Samples(60)
const cards = makeCards($('protocols'))
const now = { sample: null, health: null, upstreams: undefined, rates: null, certs: null, config: undefined, limits: null, routes: null, cards }
const act = { pick: (...a) => table.pick(...a), show: (...a) => (table.pick(...a), $('table-title').scrollIntoView({ behavior: 'smooth' })), kill: dialogs.kill }
const table = new Table({ onopen: (c) => dialogs.details(c, act), onkill: dialogs.kill })

// Contact

let lostSince = 0
let lastHeard = 0

function heard() {
  lastHeard = Date.now()
  if (!lostSince) return
  lostSince = 0
  $('lost').hidden = true
  document.body.classList.remove('stale')
  dialogs.toast('The admin API answers again.')
}

function lost(why) {
  lostSince ||= Date.now()
  const seen = lastHeard ? `What you see is from ${fmt.clock(new Date(lastHeard))}, ${fmt.age((Date.now() - lastHeard) / 1000)} ago.` : ''
  // The alert is said once; the seconds beside it go on silently.
  if ($('lost').hidden) $('lost').replaceChildren(Object.assign(document.createElement('b'), { textContent: `No contact with the admin API: ${why}. ` }), document.createElement('span'), ' Trying again each second.')
  say($('lost').querySelector('span'), seen)
  $('lost').querySelector('span').setAttribute('aria-hidden', 'true')
  $('lost').hidden = false
  document.body.classList.add('stale')
  say($('state'), 'no contact')
  $('state').dataset.tone = 'bad'
  document.title = '(!) oneport'
}

// every asks again and again: work is done, then there is a pause. A port that does not have something
// says so with 404 or 501, and is asked for it no more. kick asks at once.
function every(seconds, work, { leads = false } = {}) {
  let timer
  let running = false
  let again = false
  async function run() {
    clearTimeout(timer)
    if (running) return void (again = true)
    running = true
    again = false
    let wait = seconds
    try {
      if (leads || !lostSince) await work()
      if (leads) heard()
    } catch (err) {
      if (err.status === 401) {
        await dialogs.askToken(looksWithToken())
        again = true
      } else if (err.status === undefined) console.error(err)
      else if (leads) lost(err.message)
    }
    running = false
    if (document.hidden) wait = Math.max(wait, 5)
    timer = setTimeout(run, again ? 0 : wait * 1000)
  }
  void run()
  return run
}

// without gives null for what this port does not have.
const without = async (promise) => {
  try {
    return await promise
  } catch (err) {
    if (err.status === 404 || err.status === 501) return null
    throw err
  }
}

// What is asked for

let version = null
let started = null

const stats = every(1, async () => {
  const s = read((await ask('stats')).stats)
  if (started !== null && started !== s.started) dialogs.toast(`The process has started anew, ${fmt.clock(new Date(s.started))}.`, 'warn')
  started = s.started
  samples.add(s)
  if (version !== null && version !== s.version) {
    say($('notice'), `This page is of ${version}, and the process is ${s.version} now. Load the page again.`)
    $('notice').hidden = false
  }
  version ??= s.version
  now.sample = s
  say($('about'), [s.version, `up ${fmt.age(s.at - time(s.started))}`].filter(Boolean).join(' · '))
  for (const card of cards) card.add(samples)
  panels.connections(s, now.limits, act.pick)
  panels.refusals(samples)
  panels.process(samples, now.limits)
  hints()
  render()
}, { leads: true })

const connections = every(2, async () => {
  if (table.paused || !table.query) return
  const asked = table.query
  const answer = await ask('connections', { query: asked })
  if (JSON.stringify(asked) !== JSON.stringify(table.query)) return // another filter by now
  table.show(answer)
  dialogs.refresh(table.list, act)
  now.listener ??= table.list.find((c) => c.listener)?.listener
})
let typing
table.changed = () => {
  clearTimeout(typing)
  typing = setTimeout(connections, 150)
}

every(2, async () => {
  const [health, ups] = await Promise.all([ask('health'), now.upstreams === null ? null : without(ask('upstreams'))])
  now.health = health
  now.upstreams = ups && (ups.upstreams ?? [])
  pools.add({ started, ...panels.snapshot(now.upstreams, performance.now() / 1000) })
  now.rates = panels.upstreams(now.upstreams, pools.back(6), pools.last, { show: act.show, kill: dialogs.killUpstream })
  panels.readiness(health)
  names()
  render()
})

every(5, async () => {
  const [limits, config] = await Promise.all([without(ask('limits')), now.config === null ? null : without(ask('config'))])
  Object.assign(now, { limits, config })
  panels.reload(config, now.sample)
  render()
})

every(15, async () => {
  const [certs, routes] = await Promise.all([without(ask('certificates')), without(ask('routes'))])
  now.certs = panels.certificates(certs && (certs.certificates ?? []))
  now.routes = routes && (routes.routes ?? [])
  names()
  render()
})

function names() {
  table.names((now.routes ?? []).map((r) => r.name).filter(Boolean), (now.upstreams ?? []).map((u) => u.name))
}

function hints() {
  if (now.routes === null || !samples.last) return
  for (const card of cards) card.help(card.now?.total === 0 ? tries(card.protocol, now.listener ?? now.config?.config?.listen?.[0]?.address, now.routes) : null)
}

function render() {
  if (lostSince) return
  const list = attention.collect(now)
  attention.show(list)
  if (!now.health) return
  const state = now.sample?.draining ? ['draining', 'warn'] : !now.health.ready ? ['not ready', 'bad'] : list.some((p) => p.tone === 'bad') ? ['serving, with problems', 'warn'] : ['serving', 'ok']
  say($('state'), state[0])
  $('state').dataset.tone = state[1]
}

document.addEventListener('oneport:changed', () => {
  connections()
  stats()
})
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return
  stats()
  connections()
})

// Light and dark

const dark = matchMedia('(prefers-color-scheme: dark)')
const isDark = () => (document.documentElement.dataset.theme ? document.documentElement.dataset.theme === 'dark' : dark.matches)
function theme() {
  const next = isDark() ? 'light' : 'dark'
  // The system's own choice is followed again, not pinned.
  if ((next === 'dark') === dark.matches) delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = next
  try {
    localStorage.setItem('oneport-theme', document.documentElement.dataset.theme ?? '')
  } catch {
    // no storage here: it holds until the page is left
  }
  repaint()
}
$('theme').addEventListener('click', theme)
$('help-open').addEventListener('click', dialogs.help)

// Keys

const keys = {
  '/': () => $('filter').focus(),
  j: () => table.move(1),
  k: () => table.move(-1),
  x: () => dialogs.kill(table.current),
  p: () => table.pause(),
  t: theme,
  '?': dialogs.help,
}

document.addEventListener('keydown', (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || dialogs.isOpen()) return
  const typed = e.target.closest('input, select, textarea')
  if (typed) {
    if (e.key === 'Escape') {
      e.preventDefault() // a search field would lose its text
      typed.blur()
    }
    if (e.key === 'Enter' && typed.id === 'filter') table.move(1)
    return
  }
  const row = e.target.closest('#rows tr')
  let run = keys[e.key]
  if (row && e.key === 'ArrowDown') run = keys.j
  if (row && e.key === 'ArrowUp') run = keys.k
  if (e.key === 'Enter' && (row || e.target === document.body)) run = () => dialogs.details(table.current, act)
  if (!run) return
  e.preventDefault()
  run()
})
