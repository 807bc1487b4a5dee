// What stands beside the charts: connections by state, upstreams, refusals, certificates, readiness,
// the configuration, the process. Each function gets what the API says, or null if it cannot say that.
import { $, h, replace, say, tag } from './dom.mjs'
import * as fmt from './format.mjs'
import { rate } from './rates.mjs'
import { reasonsBetween, time, wears } from './stats.mjs'

const none = (...text) => h('p', { class: 'none' }, ...text)

const meanings = {
  opening: 'its first bytes are awaited',
  handshake: 'TLS is being agreed on',
  idle: 'no call is open on it',
  active: 'a call is open on it',
  upgraded: 'a WebSocket',
  tunnel: 'passed through untouched',
}

// connections shows how many are in each state, as a bar and in numbers; pick filters the table by one.
export function connections(sample, limits, pick) {
  const states = Object.keys(meanings).map((state) => ({ state, n: sample.states[state] ?? 0 }))
  const total = states.reduce((a, s) => a + s.n, 0)
  const bound = Number(limits?.connections_bound ?? 0)
  say($('conns-sum'), bound ? `${fmt.count(total)} of ${fmt.count(bound)}` : fmt.count(total))
  const segments = states.filter((s) => s.n > 0).map((s) => h('span', { class: 'seg', 'data-state': s.state, title: `${s.state}: ${s.n}` }))
  replace(
    $('conns'),
    h('div', { class: 'stack', 'aria-hidden': 'true' }, segments),
    h(
      'ul',
      { class: 'legend' },
      states.map((s) =>
        h('li', {}, h('button', { type: 'button', 'data-pick': s.state, title: `${meanings[s.state]}; show these`, class: s.n ? '' : 'zero' }, h('i', { 'data-state': s.state }), s.state, h('b', {}, fmt.count(s.n)))),
      ),
    ),
  )
  // Widths are set as properties: the policy allows no style attributes in markup.
  for (const seg of $('conns').querySelectorAll('.seg')) seg.style.flexGrow = sample.states[seg.dataset.state]
  $('conns').onclick = (e) => {
    const state = e.target.closest('[data-pick]')?.dataset.pick
    if (state) pick('state', state)
  }
}

// upstreams gives the rates too, by their names: { calls, faults } a second.
export function upstreams(list, older, newer, act) {
  const rates = new Map()
  if (list === null) {
    replace($('upstreams'), none('This port does not say.'))
    return rates
  }
  let sick = 0
  const rows = list.map((up) => {
    const servers = (up.servers ?? []).map((s) => {
      const of = (field) => (snap) => snap.servers.get(`${up.name} ${s.name}`)?.[field]
      const calls = rate(older, newer, of('calls'))
      const faults = rate(older, newer, of('faults'))
      const tone = s.sick ? 'bad' : s.ejected || faults > 0 ? 'warn' : 'ok'
      return { ...s, calls, faults, tone, word: s.sick ? 'unhealthy' : s.ejected ? 'ejected' : faults > 0 ? 'failing' : 'ok' }
    })
    const total = (field) => servers.reduce((a, s) => a + (s[field] ?? 0), 0)
    const now = { calls: total('calls'), faults: total('faults') }
    rates.set(up.name, now)
    const failing = now.calls > 0 && now.faults / now.calls > 0.5
    const tone = up.down || failing ? 'bad' : servers.some((s) => s.tone !== 'ok') ? 'warn' : 'ok'
    if (tone !== 'ok') sick++
    return h(
      'li',
      { class: 'up', 'data-tone': tone },
      h(
        'div',
        { class: 'line' },
        h('b', { title: up.name }, up.name),
        tag(tone, up.down ? 'down' : failing ? 'failing' : tone === 'ok' ? 'ok' : 'degraded'),
        h('span', { class: 'grow' }),
        h('button', { type: 'button', class: 'quiet', 'data-show': up.name, title: 'Show its connections' }, 'show'),
        h('button', { type: 'button', class: 'quiet', 'data-kill': up.name, title: 'End its calls' }, 'end calls'),
      ),
      h(
        'ul',
        { class: 'servers' },
        servers.map((s) =>
          h(
            'li',
            { 'data-tone': s.tone },
            h('i', { class: 'dot', 'data-tone': s.tone }),
            h('span', { class: 'name', title: s.name }, s.name),
            h('span', { class: 'num' }, `${fmt.perSecond(s.calls)}/s`),
            h('span', { class: 'num', title: 'calls in flight' }, `${fmt.count(Number(s.active))} open`),
            s.tone === 'ok' ? null : h('span', { class: 'why' }, s.word, s.faults > 0 ? ` ${fmt.perSecond(s.faults)}/s` : ''),
          ),
        ),
      ),
      Number(up.waiting) > 0 && h('p', { class: 'why' }, `${fmt.plural(Number(up.waiting), 'call')} waiting for a connection`),
    )
  })
  say($('upstreams-sum'), list.length ? (sick ? `${sick} of ${list.length} not well` : `${list.length} well`) : '')
  replace($('upstreams'), list.length ? h('ul', { class: 'ups' }, rows) : none('None: this process answers by itself.'))
  $('upstreams').onclick = (e) => {
    const { show, kill } = e.target.closest('button')?.dataset ?? {}
    if (show) act.show('upstream', show)
    if (kill) act.kill(kill)
  }
  return rates
}

// snapshot of upstreams is a sample for the rates of their servers.
export function snapshot(list, at) {
  const servers = new Map()
  for (const up of list ?? []) {
    for (const s of up.servers ?? []) servers.set(`${up.name} ${s.name}`, { calls: Number(s.calls), faults: Number(s.faults) })
  }
  return { at, servers }
}

// fine are ends of connections that are no refusals, and no failures.
const fine = new Set(['done', 'silent', 'challenge', 'killed', 'drained'])

// own is whether a row counts by itself: calls that were refused, and connections. Others say it more
// precisely of the same calls.
const own = (r) => r.what === 'calls' || r.what === 'connections'

export function refusals(samples) {
  const rows = reasonsBetween(samples.back(10), samples.last, (s) => [...s.refusals, ...s.outcomes.filter((r) => !fine.has(r.reason))])
  const all = rows.filter(own).reduce((a, r) => a + (r.rate ?? 0), 0)
  say($('refusals-sum'), rows.length ? `${fmt.perSecond(all)}/s` : '')
  const table = (list) =>
    h(
      'table',
      { class: 'mini' },
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'by'), h('th', { scope: 'col' }, 'reason'), h('th', { scope: 'col', class: 'num' }, 'per s'), h('th', { scope: 'col', class: 'num' }, 'so far'))),
      h(
        'tbody',
        {},
        list.map((r) =>
          r.head ? h('tr', { class: 'head' }, h('td', { colSpan: 4 }, r.head)) :
          h('tr', { class: own(r) ? (r.rate > 0 ? 'hot' : '') : 'of' }, h('td', {}, r.what), h('td', {}, r.reason), h('td', { class: 'num' }, fmt.perSecond(r.rate)), h('td', { class: 'num' }, fmt.count(r.count))),
        ),
      ),
    )
  const most = 6
  const calls = rows.filter(own).slice(0, most)
  const others = rows.filter((r) => !own(r)).slice(0, most)
  const list = [...calls, ...(calls.length && others.length ? [{ head: 'more precisely' }] : []), ...others]
  replace(
    $('refusals'),
    rows.length ? table(list) : none('Nothing has been refused.'),
    rows.length > calls.length + others.length && h('p', { class: 'muted' }, `and ${rows.length - calls.length - others.length} reasons more`),
  )
}

export function certificates(list, now = Date.now() / 1000) {
  if (list === null || list.length === 0) {
    say($('certs-sum'), '')
    replace($('certs'), none(list === null ? 'This port does not say.' : 'None: there is no TLS here.'))
    return []
  }
  const certs = list
    .map((c) => {
      const end = time(c.not_after)
      return { ...c, end, left: end - now, tone: wears(time(c.not_before), end, now) }
    })
    .sort((a, b) => a.left - b.left)
  say($('certs-sum'), certs[0].left > 0 ? `first ends in ${days(certs[0].left)}` : 'expired')
  replace(
    $('certs'),
    h(
      'ul',
      { class: 'rows' },
      certs.slice(0, 12).map((c) =>
        h(
          'li',
          { title: `${c.subject}\nissued by ${c.issuer}\nends ${new Date(c.end * 1000).toLocaleString('en-GB')}\nSHA-256 ${c.fingerprint}` },
          h('span', { class: 'name' }, (c.names?.length ? c.names : [c.subject]).join(', ')),
          tag(c.tone, c.left > 0 ? days(c.left) : 'expired'),
        ),
      ),
    ),
    certs.length > 12 && h('p', { class: 'muted' }, `and ${certs.length - 12} more, which last longer`),
  )
  return certs
}

export const days = (s) => (s >= 2 * 86_400 ? `${Math.floor(s / 86_400)} days` : fmt.age(s))

export function readiness(health) {
  const checks = health.checks ?? []
  say($('ready-sum'), health.ready ? 'ready' : 'not ready')
  $('ready-sum').dataset.tone = health.ready ? 'ok' : 'bad'
  replace(
    $('ready'),
    h(
      'ul',
      { class: 'rows checks' },
      checks.map((c) => {
        const tone = c.red ? 'bad' : c.ok ? 'ok' : 'warn'
        return h('li', {}, h('i', { class: 'dot', 'data-tone': tone }), h('span', { class: 'name' }, c.name, c.text ? h('span', { class: 'why', 'data-tone': tone }, ` ${c.text}`) : null), tag(tone, c.ok ? 'ok' : c.red ? 'red' : 'not ok'))
      }),
    ),
  )
}

// reload shows the last load of the file. config is null for a port without one.
export function reload(config, sample) {
  if (config === null) {
    say($('reload-sum'), '')
    replace($('reload'), none('This port has no file: there is nothing to load again.'))
    return
  }
  const at = config.last ? new Date(config.last) : null
  const first = Number(config.loaded) + Number(config.failed) <= 1
  say($('reload-sum'), at ? `${first ? 'loaded' : 'last reload'} ${fmt.clock(at)}` : '')
  const problem = config.last_error || (sample?.reload && !sample.reload.ok ? sample.reload.text : '')
  replace(
    $('reload'),
    h('p', { class: 'rowline' }, h('span', { class: 'name path', title: config.file }, h('bdi', {}, config.file)), tag(problem ? 'bad' : 'ok', problem ? 'failed' : 'in effect')),
    problem && h('pre', { class: 'problem' }, problem),
    problem && h('p', { class: 'muted' }, 'What was in effect before still is.'),
    h('p', { class: 'muted' }, `loaded ${fmt.count(Number(config.loaded))}×, failed ${fmt.count(Number(config.failed))}×`),
  )
}

export function process(samples, limits) {
  const { last } = samples
  const cpu = samples.rate(10, (s) => s.cpu)
  const flow = (of) => samples.rate(5, of)
  say($('process-sum'), '')
  const item = (name, ...value) => h('div', {}, h('dt', {}, name), h('dd', {}, ...value))
  replace(
    $('process'),
    h(
      'dl',
      { class: 'facts' },
      item('CPU', cpu === null ? '–' : `${(cpu * 100).toFixed(cpu < 0.1 ? 1 : 0)} %`),
      item('memory', fmt.bytes(last.memory)),
      item('goroutines', fmt.count(last.goroutines)),
      item('from clients', flow((s) => s.bytesRead) === null ? '–' : `${fmt.bytes(flow((s) => s.bytesRead))}/s`),
      item('to clients', flow((s) => s.bytesWritten) === null ? '–' : `${fmt.bytes(flow((s) => s.bytesWritten))}/s`),
      limits && item('accepted', `${fmt.count(Number(limits.accepted))} so far`),
    ),
  )
}
