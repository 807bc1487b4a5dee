// Dialogs: the details of a connection, what to end, the token, the keys.
import { ask, forget, hasToken, lookWith } from './api.mjs'
import { $, attr, h, replace, say } from './dom.mjs'
import * as fmt from './format.mjs'
import { time, titles } from './stats.mjs'

for (const dialog of document.querySelectorAll('dialog')) {
  dialog.addEventListener('click', (e) => {
    if (e.target.closest('.close, .cancel') || (e.target === dialog && dialog.id !== 'token')) dialog.close()
  })
}

export const isOpen = () => document.querySelector('dialog[open]') !== null

// toast says something for a while, and to screen readers.
export function toast(text, tone = 'ok') {
  const el = h('p', { class: 'toast', 'data-tone': tone }, text)
  $('toasts').append(el)
  setTimeout(() => el.remove(), 6000)
}

export const help = () => $('help').showModal()

// Details

let shown = null

export function details(c, act) {
  if (!c) return
  shown = c.id
  fillDetails(c, act)
  $('details').showModal()
}

// refresh keeps open details true: list is what the table has now.
export function refresh(list, act) {
  if (!$('details').open) return
  const c = list.find((c) => c.id === shown)
  if (c) fillDetails(c, act)
  attr($('details'), 'data-gone', String(!c))
}

function fillDetails(c, act) {
  say($('details-title'), c.remote)
  attr($('details'), 'data-gone', 'false')
  const now = Date.now() / 1000
  const item = (name, value) => value && h('div', {}, h('dt', {}, name), h('dd', {}, value))
  const since = (text) => `${fmt.age(now - time(text))} (${fmt.clock(new Date(text))})`
  const calls = c.calls ?? []
  const user = (id) => id && h('span', {}, h('button', { type: 'button', class: 'link', 'data-field': 'user', 'data-value': id.subject, title: 'Filter by this user' }, id.subject), ` by ${[id.by, id.issuer].filter(Boolean).join(', ')}`)
  replace(
    $('details-body'),
    h('p', { class: 'gone' }, 'It is no longer in the list: it has ended, or does not fit the filter.'),
    h(
      'dl',
      { class: 'facts' },
      item('State', `${c.state} for ${fmt.age(now - time(c.since))}`),
      item('Open for', since(c.accepted)),
      item('Kind', c.kind),
      item('Peer', c.peer),
      item('Reached', c.local),
      item('Server name', c.sni),
      item('TLS', c.tls ? [c.tls.version, c.tls.cipher].filter(Boolean).join(', ') : 'none'),
      item('ALPN', c.tls && `${c.tls.alpn || 'none'}${c.tls.offered_alpn?.length ? ` of ${c.tls.offered_alpn.join(', ')}` : ''}`),
      item('Client certificate', c.tls?.client_subject),
      item('Bytes', `${fmt.bytes(Number(c.bytes_in))} in, ${fmt.bytes(Number(c.bytes_out))} out`),
      item('Id', h('code', {}, c.id)),
    ),
    h('h3', {}, c.open_calls > calls.length ? `Open calls: ${calls.length} of ${c.open_calls}` : `Open calls: ${calls.length}`),
    calls.map((call) =>
      h(
        'dl',
        { class: 'facts call', 'data-protocol': call.protocol },
        item(titles[call.protocol], `${call.protocol === 'http' ? `${call.method} ` : ''}${call.host}${call.path}`),
        item('User', user(call.identity)),
        item('Credential ends', call.identity?.expires && fmt.clock(new Date(call.identity.expires))),
        item('Goes to', [call.route, call.upstream].filter(Boolean).join(' → ')),
        item('Since', since(call.started)),
        item('Request', h('code', {}, call.id)),
      ),
    ),
    h('div', { class: 'actions' }, h('button', { type: 'button', class: 'danger', 'data-kill': 'true' }, 'End…')),
  )
  $('details-body').onclick = (e) => {
    const { field, value, kill } = e.target.closest('button')?.dataset ?? {}
    if (!field && !kill) return
    $('details').close()
    if (field) act.pick(field, value)
    else act.kill(c)
  }
}

// Ending

let choices = []

// choose asks what to end: a connection's choices are itself, its users' calls and its upstreams'.
export function kill(c) {
  if (!c) return
  choices = [{ text: 'This connection', more: `${c.remote}, with ${fmt.plural(c.open_calls, 'open call')}`, body: { connection: c.id } }]
  const seen = new Set()
  for (const { identity: id, upstream } of c.calls ?? []) {
    if (id && !seen.has(`u ${id.subject} ${id.issuer}`)) {
      seen.add(`u ${id.subject} ${id.issuer}`)
      choices.push({ text: `All calls of ${id.subject}`, more: `on all connections, over all protocols; known by ${[id.by, id.issuer].filter(Boolean).join(', ')}`, user: true, body: { identity: { subject: id.subject, issuer: id.issuer || id.by } } })
    }
    if (upstream && !seen.has(`s ${upstream}`)) {
      seen.add(`s ${upstream}`)
      choices.push(ofUpstream(upstream))
    }
  }
  choose()
}

export function killUpstream(name) {
  choices = [ofUpstream(name)]
  choose()
}

const ofUpstream = (name) => ({ text: `All calls at upstream ${name}`, more: 'of all users; clients come back', body: { upstream: name } })

function choose() {
  const what = $('kill-what')
  what.replaceChildren(
    what.firstElementChild,
    ...choices.map((choice, i) => h('label', { class: 'choice' }, h('input', { type: 'radio', name: 'what', value: String(i), checked: i === 0 }), h('span', {}, h('b', {}, choice.text), h('span', { class: 'muted' }, choice.more)))),
  )
  $('kill-problem').hidden = true
  $('kill-revoke').querySelector('select').value = ''
  $('kill-token').hidden = hasToken()
  chosen()
  $('kill').showModal()
  ;(hasToken() ? what.querySelector('input') : $('kill-token').querySelector('input')).focus()
}

function chosen() {
  const i = Number($('kill-what').querySelector('input:checked')?.value ?? 0)
  $('kill-revoke').hidden = !choices[i]?.user
  return choices[i]
}
$('kill-what').addEventListener('change', chosen)
$('kill').addEventListener('input', () => ($('kill-problem').hidden = true))

$('kill').querySelector('form').addEventListener('submit', async (e) => {
  e.preventDefault()
  const choice = chosen()
  const field = $('kill-token').querySelector('input')
  const go = $('kill').querySelector('.danger')
  const problem = (text) => {
    say($('kill-problem'), text)
    $('kill-problem').hidden = false
  }
  if (!$('kill-token').hidden) {
    if (field.value.trim() === '') return problem('The token is missing.'), field.focus()
  }
  const tried = $('kill-token').hidden ? undefined : field.value
  const body = { ...choice.body }
  const revoke = $('kill-revoke').querySelector('select').value
  if (choice.user && revoke) body.revoke = revoke
  go.disabled = true
  try {
    const done = await ask('kill', { body, tried })
    field.value = ''
    $('kill').close()
    const n = [done.connections > 0 && fmt.plural(done.connections, 'connection'), done.calls > 0 && fmt.plural(done.calls, 'call')].filter(Boolean)
    toast(n.length ? `Ended: ${n.join(', ')}.` : 'There was nothing to end any more.')
    document.dispatchEvent(new Event('oneport:changed'))
  } catch (err) {
    if (err.status === 401) {
      forget()
      $('kill-token').hidden = false
      field.select()
    }
    problem(err.status === 0 ? `The admin API: ${err.message}.` : err.message)
  } finally {
    go.disabled = false
  }
})

// The token, where looking needs it too

let waiting = null

// askToken resolves once somebody has typed one.
export function askToken(wrong) {
  if (waiting) return waiting.promise
  say($('token-problem'), wrong ? 'That is not the token.' : '')
  $('token-problem').hidden = !wrong
  waiting = {}
  waiting.promise = new Promise((resolve) => (waiting.resolve = resolve))
  $('token').showModal()
  return waiting.promise
}
$('token').addEventListener('cancel', (e) => e.preventDefault())
$('token').querySelector('form').addEventListener('submit', (e) => {
  e.preventDefault()
  const field = $('token').querySelector('input')
  if (field.value.trim() === '') return
  lookWith(field.value)
  field.value = ''
  $('token').close()
  waiting?.resolve()
  waiting = null
})
