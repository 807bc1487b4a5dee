// What needs somebody's attention, the worst first. It is why the page is opened.
import { $, h, replace, say } from './dom.mjs'
import * as fmt from './format.mjs'
import { days } from './panels.mjs'
import { titles } from './stats.mjs'

// collect makes a list of { tone, text, more } out of what is known; what is not is left out.
export function collect({ sample, health, upstreams, rates, certs, config, limits, cards }) {
  const list = []
  const bad = (text, more) => list.push({ tone: 'bad', text, more })
  const warn = (text, more) => list.push({ tone: 'warn', text, more })
  for (const c of health?.checks ?? []) {
    if (c.ok || c.name.startsWith('upstream ')) continue
    ;(c.red ? bad : warn)(`${c.red ? 'Not ready: ' : ''}${c.name}`, c.text)
  }
  if (sample?.draining && !list.some((p) => p.text.includes('draining'))) warn('The process is draining')
  for (const up of upstreams ?? []) {
    const servers = up.servers ?? []
    const ill = servers.filter((s) => s.sick)
    const out = servers.filter((s) => !s.sick && s.ejected)
    const now = rates?.get(up.name)
    const failing = now?.faults > 0 ? `${fmt.perSecond(now.faults)} of ${fmt.perSecond(now.calls)} calls/s fail` : ''
    if (up.down) bad(`Upstream ${up.name} is down`, [`no server of ${servers.length} is well`, failing].filter(Boolean).join('; '))
    else if (now?.faults > 0 && now.faults / now.calls > 0.5) bad(`Upstream ${up.name} is failing`, failing)
    else if (ill.length || out.length) {
      const words = [ill.length && `${ill.length} unhealthy`, out.length && `${out.length} ejected`, failing]
      warn(`Upstream ${up.name} is degraded`, `${words.filter(Boolean).join(', ')}, of ${servers.length}`)
    } else if (failing) warn(`Upstream ${up.name} has faults`, failing)
    if (Number(up.waiting) > 0) warn(`Upstream ${up.name} is short of connections`, `${fmt.plural(Number(up.waiting), 'call')} waiting`)
  }
  for (const card of cards ?? []) {
    if (card.broken >= 0.05) (card.broken >= 0.25 ? bad : warn)(`${titles[card.protocol]} calls fail`, `${fmt.percent(card.broken)}, ${fmt.perSecond(card.now.errors)} errors/s`)
  }
  for (const c of certs ?? []) {
    if (c.tone === 'ok') continue
    const name = (c.names?.length ? c.names : [c.subject])[0]
    ;(c.tone === 'bad' ? bad : warn)(c.left > 0 ? `Certificate of ${name} ends in ${days(c.left)}` : `Certificate of ${name} has expired`)
  }
  if (config?.last_error) bad('The last reload failed', `${config.last_error.split('\n')[0].slice(0, 160)}; what was in effect before still is`)
  const bound = Number(limits?.connections_bound ?? 0)
  const open = Number(limits?.connections ?? 0)
  if (bound && open >= 0.8 * bound) (open >= 0.95 * bound ? bad : warn)('Near the bound of connections', `${fmt.count(open)} of ${fmt.count(bound)} are open; at the bound new ones are closed`)
  return list.sort((a, b) => (a.tone === b.tone ? 0 : a.tone === 'bad' ? -1 : 1))
}

const most = 6

export function show(list) {
  const rows = list.slice(0, most).map((p) => h('li', { 'data-tone': p.tone }, h('b', {}, p.text), p.more && h('span', {}, p.more)))
  if (list.length > most) rows.push(h('li', { 'data-tone': 'warn' }, `and ${list.length - most} more`))
  replace($('attention'), rows.length ? rows : h('li', { 'data-tone': 'ok' }, 'Nothing needs attention.'))
  // Numbers change each second: what is said aloud has none.
  say($('attention-said'), list.length ? list.map((p) => p.text).join('; ') : 'Nothing needs attention.')
  const worst = list.filter((p) => p.tone === 'bad').length
  document.title = worst ? `(${worst}) oneport` : 'oneport'
}
