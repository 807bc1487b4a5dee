// The table of connections. The API filters, sorts and cuts; at most `most` rows are ever here.
import { $, attr, h, replace, say } from './dom.mjs'
import { parse, set } from './filter.mjs'
import * as fmt from './format.mjs'
import { time, titles } from './stats.mjs'

const first = 100
const most = 1000 // of one answer

export class Table {
  constructor({ onopen, onkill }) {
    Object.assign(this, { onkill, onopen })
    this.known = { routes: new Set(), upstreams: new Set() }
    this.rows = new Map() // by the connection's id
    this.list = []
    this.sort = 'accepted'
    this.limit = first
    this.selected = null
    this.paused = false
    this.changed = () => {}
    $('filter').addEventListener('input', () => this.edited())
    for (const field of ['protocol', 'state']) $(`pick-${field}`).addEventListener('change', (e) => this.pick(field, e.target.value))
    $('scroll').addEventListener('scroll', () => this.scrolled(), { passive: true })
    $('pause').addEventListener('click', () => this.pause())
    $('more').addEventListener('click', () => {
      this.limit = Math.min(most, this.limit * 4)
      this.changed()
    })
    $('table').tHead.addEventListener('click', (e) => {
      const by = e.target.closest('[data-sort]')?.dataset.sort
      if (!by) return
      this.sort = by === 'accepted' && this.sort === 'accepted' ? 'newest' : by
      this.arrows()
      this.changed()
    })
    $('rows').addEventListener('click', (e) => {
      const row = e.target.closest('tr')
      if (!row) return
      this.select(row.dataset.id)
      if (e.target.closest('.kill')) this.onkill(this.current)
      else if (!String(getSelection())) this.onopen(this.current)
    })
    $('rows').addEventListener('focusin', (e) => this.select(e.target.closest('tr')?.dataset.id))
    this.arrows()
    $('filter').value = new URLSearchParams(location.hash.slice(1)).get('q') ?? ''
    this.edited(false)
  }

  get current() {
    return this.list.find((c) => c.id === this.selected)
  }

  // query is what to ask the API for; null if the filter makes no sense.
  get query() {
    if (this.filter.wrong.length) return null
    return { ...this.filter.query, sort: this.sort, limit: this.limit }
  }

  edited(ask = true) {
    this.filter = parse($('filter').value, this.known)
    const { wrong, says, query } = this.filter
    say($('filter-says'), wrong.length ? wrong.join('; ') : says ? `Connections ${says}` : '')
    $('filter-says').dataset.tone = wrong.length ? 'bad' : 'none'
    attr($('filter'), 'aria-invalid', String(wrong.length > 0))
    $('pick-protocol').value = query.protocol ?? ''
    $('pick-state').value = query.state ?? ''
    if (!ask) return
    const text = $('filter').value.trim()
    history.replaceState(null, '', text ? `#${new URLSearchParams({ q: text })}` : location.pathname)
    this.limit = first
    this.changed()
  }

  // pick puts a field into the filter, in place of what it had.
  pick(field, value) {
    $('filter').value = set($('filter').value, field, value, this.known)
    this.edited()
  }

  // names are those of routes and upstreams: for the filter to know them, and to suggest them.
  names(routes, upstreams) {
    const key = JSON.stringify([routes, upstreams])
    if (key === this.namesKey) return
    this.namesKey = key
    this.known = { routes: new Set(routes), upstreams: new Set(upstreams) }
    $('filter-words').replaceChildren(...[...upstreams.map((u) => `upstream:${u}`), ...routes.map((r) => `route:${r}`)].slice(0, 200).map((value) => h('option', { value })))
    const before = JSON.stringify(this.filter)
    this.edited(false)
    if (JSON.stringify(this.filter) !== before) this.changed()
  }

  pause(on = !this.paused) {
    this.paused = on
    attr($('pause'), 'aria-pressed', String(on))
    say($('pause'), on ? 'Go on' : 'Pause')
    if (!on) this.changed()
  }

  arrows() {
    for (const b of $('table').querySelectorAll('[data-sort]')) {
      const on = b.dataset.sort === this.sort || (b.dataset.sort === 'accepted' && this.sort === 'newest')
      const up = this.sort === 'newest' || this.sort === 'remote'
      if (on) attr(b.parentElement, 'aria-sort', up ? 'ascending' : 'descending')
      else b.parentElement.removeAttribute('aria-sort')
    }
  }

  // show is given an answer of the API.
  show(answer, now = Date.now() / 1000) {
    this.list = answer.connections ?? []
    this.at = now
    const total = Number(answer.total)
    const n = this.list.length
    say($('table-count'), total > n ? `${fmt.count(n)} of ${fmt.count(total)} shown` : fmt.count(total))
    const more = total > n && n < most
    $('more').hidden = !more
    if (more) say($('more'), `Show ${fmt.count(Math.min(most, this.limit * 4, total))}`)
    attr($('table'), 'aria-rowcount', String(total + 1))
    this.reconcile(now)
    $('empty').hidden = n > 0
    if (n === 0) this.empty()
  }

  // reconcile makes the rows those of the list: a row stays its connection's, and what has not
  // changed is not touched.
  reconcile(now) {
    const body = $('rows')
    const focused = body.contains(document.activeElement) ? document.activeElement.closest('tr').dataset.id : null
    const wanted = new Set(this.list.map((c) => c.id))
    let at = [...this.rows.keys()].indexOf(this.selected)
    for (const [id, row] of this.rows) {
      if (wanted.has(id)) continue
      row.tr.remove()
      this.rows.delete(id)
    }
    const [from, to] = this.visible()
    let place = body.firstElementChild
    for (const [i, c] of this.list.entries()) {
      let row = this.rows.get(c.id)
      const made = !row
      if (made) {
        row = makeRow(c.id)
        this.rows.set(c.id, row)
      }
      if (row.tr === place) place = place.nextElementSibling
      else body.insertBefore(row.tr, place)
      if (made || (i >= from && i < to)) fill(row, c, now)
    }
    if (this.selected && !wanted.has(this.selected)) this.select(this.list[Math.min(Math.max(at, 0), this.list.length - 1)]?.id ?? null, focused !== null)
    else if (focused && document.activeElement === document.body) this.rows.get(focused)?.tr.focus({ preventScroll: true })
  }

  // visible is from where to where rows can be seen, and some before and after: to keep what nobody
  // sees up to date costs the most of it all.
  visible() {
    const { scrollTop, clientHeight, scrollHeight } = $('scroll')
    if (scrollHeight <= clientHeight + 1) return [0, Infinity]
    const height = $('rows').firstElementChild?.offsetHeight || 30
    return [Math.floor(scrollTop / height) - 20, Math.ceil((scrollTop + clientHeight) / height) + 20]
  }

  // scrolled brings those up to date that have come into sight.
  scrolled() {
    if (this.scrolling) return
    this.scrolling = requestAnimationFrame(() => {
      this.scrolling = 0
      const [from, to] = this.visible()
      for (const c of this.list.slice(Math.max(from, 0), to)) fill(this.rows.get(c.id), c, this.at)
    })
  }

  empty() {
    const filtered = this.filter.says !== ''
    replace(
      $('empty'),
      h('p', {}, filtered ? `No connection ${this.filter.says}.` : 'No connection is open.'),
      filtered && h('button', { type: 'button', onclick: () => { $('filter').value = ''; this.edited(); $('filter').focus() } }, 'Show all'),
    )
  }

  select(id, focus = false) {
    if (id === undefined) return
    if (this.selected !== id) {
      this.rows.get(this.selected)?.tr.classList.remove('selected')
      const old = this.rows.get(this.selected)?.tr
      if (old) old.tabIndex = -1
    }
    this.selected = id
    const tr = this.rows.get(id)?.tr
    if (!tr) return
    tr.classList.add('selected')
    tr.tabIndex = 0
    if (focus) {
      tr.focus({ preventScroll: true })
      tr.scrollIntoView({ block: 'nearest' })
    }
  }

  // move selects the next row, or the one before.
  move(by) {
    const i = this.list.findIndex((c) => c.id === this.selected)
    const next = i < 0 ? (by > 0 ? 0 : this.list.length - 1) : Math.min(Math.max(i + by, 0), this.list.length - 1)
    if (this.list[next]) this.select(this.list[next].id, true)
  }
}

function makeRow(id) {
  const cell = (cls, label) => h('td', { class: cls, 'data-label': label })
  const cells = {
    remote: cell('mono', 'Client'),
    state: cell('', 'State'),
    protocol: cell('', 'Protocol'),
    user: cell('clip', 'User'),
    calls: cell('clip wide', 'Open calls'),
    where: cell('clip', 'Route'),
    in: cell('num', 'In'),
    out: cell('num', 'Out'),
    age: cell('num', 'Age'),
  }
  const state = h('span', { class: 'state' }, h('i', {}), h('span', {}))
  cells.state.append(state)
  const kill = h('button', { type: 'button', class: 'kill', tabIndex: -1, title: 'End it (x)', 'aria-label': 'End this connection' }, '×')
  const tr = h('tr', { tabindex: -1, 'data-id': id }, Object.values(cells), h('td', { class: 'end' }, kill))
  return { tr, cells, dot: state.firstChild, word: state.lastChild }
}

const unique = (list) => [...new Set(list.filter(Boolean))]

// whose are the users of a connection's open calls.
export const whose = (c) => unique((c.calls ?? []).map((call) => call.identity?.subject))

function fill(row, c, now) {
  const { cells } = row
  const calls = c.calls ?? []
  const put = (cell, text, title = text) => {
    say(cell, text)
    if (cell.title !== title) cell.title = title
  }
  put(cells.remote, c.remote, c.peer ? `${c.remote} by way of ${c.peer}` : '')
  say(row.word, c.state)
  attr(row.dot, 'data-state', c.state)
  const kinds = unique(calls.map((call) => titles[call.protocol]))
  const kind = kinds.join(', ') || (c.kind === 'unknown' ? '' : c.kind)
  put(cells.protocol, kind, `${c.kind}${c.tls?.version ? `, ${c.tls.version}` : ''}`)
  cells.protocol.dataset.protocol = kinds.length === 1 ? calls[0].protocol : ''
  cells.protocol.classList.toggle('muted', kinds.length === 0)
  put(cells.user, whose(c).join(', '))
  const more = c.open_calls > 1 ? ` +${c.open_calls - 1}` : ''
  put(cells.calls, calls.length ? `${calls[0].protocol === 'http' ? `${calls[0].method} ` : ''}${calls[0].path}${more}` : '')
  const where = unique(calls.map((call) => [call.route, call.upstream].filter(Boolean).join(' → ')))
  put(cells.where, where.join(', '))
  put(cells.in, fmt.bytes(Number(c.bytes_in)), `${Number(c.bytes_in).toLocaleString('en')} bytes`)
  put(cells.out, fmt.bytes(Number(c.bytes_out)), `${Number(c.bytes_out).toLocaleString('en')} bytes`)
  put(cells.age, fmt.age(now - time(c.accepted)), `since ${new Date(c.accepted).toLocaleString('en-GB')}`)
}
