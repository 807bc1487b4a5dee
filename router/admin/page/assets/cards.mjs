// A card for each protocol: how many calls, how they go, how long they take.
import { chart } from './charts.mjs'
import { attr, h, say } from './dom.mjs'
import * as fmt from './format.mjs'
import { percentile, sum, Track } from './rates.mjs'
import { order, titles } from './stats.mjs'

const span = 300 // seconds that charts show
const quantiles = [['p50', 0.5], ['p95', 0.95], ['p99', 0.99]]

class Card {
  constructor(protocol) {
    const ws = protocol === 'websocket'
    this.protocol = protocol
    const stat = (label, title) => {
      const value = h('b', {}, '–')
      return { value, el: h('div', { class: 'stat', title }, h('span', {}, label), value) }
    }
    this.big = h('b', {}, '–')
    this.flight = h('span', { class: 'flight' })
    this.errors = h('span', { class: 'errors', 'data-tone': 'none' }, '')
    this.second = h('span', { class: 'second' })
    this.when = h('span', { class: 'when' })
    this.stats = quantiles.map(([name, q]) => stat(name, `${q * 100} % ${ws ? 'of pings' : 'of calls'} took at most so long, in the last seconds`))
    this.rates = h('div', { class: 'plot' })
    this.times = h('div', { class: 'plot' })
    this.hint = h('div', { class: 'hint', hidden: true })
    this.el = h(
      'article',
      { class: 'card', 'data-protocol': protocol, 'aria-label': titles[protocol] },
      h('header', {}, h('h2', {}, titles[protocol]), this.flight),
      h('p', { class: 'lead' }, h('span', { class: 'big' }, this.big, h('span', {}, ws ? ' messages/s' : ' calls/s')), this.errors),
      h('p', { class: 'sub' }, this.second, this.when),
      this.rates,
      h('div', { class: 'stats', 'aria-label': ws ? 'Round trip of pings' : 'Latency' }, h('span', { class: 'what' }, ws ? 'ping RTT' : 'latency'), this.stats.map((s) => s.el)),
      this.times,
      this.hint,
    )
    this.rateTrack = new Track(2, span * 2)
    this.timeTrack = new Track(3, span * 2)
    this.hover = null
  }

  // draw makes the charts, once the card has a width.
  draw() {
    const own = `--${this.protocol}`
    const ws = this.protocol === 'websocket'
    this.ratePlot = chart(this.rates, {
      span,
      format: fmt.perSecond,
      label: (at) => this.point(at, null),
      lines: ws
        ? [{ label: 'in', color: own, fill: `${own}-fill` }, { label: 'out', color: own, dash: [4, 3] }]
        : [{ label: 'calls', color: own, fill: `${own}-fill` }, { label: 'errors', color: '--bad' }],
    })
    this.timePlot = chart(this.times, {
      span,
      format: fmt.seconds,
      log: true,
      label: (at) => this.point(null, at),
      lines: [{ label: 'p50', color: own }, { label: 'p95', color: own, dash: [6, 3] }, { label: 'p99', color: own, dash: [2, 3] }],
    })
  }

  // point shows what is under the cursor in place of the newest.
  point(rates, times) {
    if (rates === null && times === null) this.hover = null
    else this.hover = { ...this.hover, ...(rates && { rates }), ...(times && { times }) }
    this.show()
  }

  add(samples) {
    const { last } = samples
    const of = (field) => (s) => s.protocols[this.protocol]?.[field]
    const now = last.protocols[this.protocol]
    if (!now) return
    const ws = this.protocol === 'websocket'
    const rate = (field, seconds) => samples.rate(seconds, of(field))
    const took = samples.histogram(10, of('took'))
    const times = quantiles.map(([, q]) => percentile(took, q))
    const chartTook = samples.histogram(10, of('took'), 1)
    const fresh = chartTook && chartTook.seconds <= 12 && sum(chartTook.counts) > 0
    const lines = ws ? [rate('messagesIn', 3), rate('messagesOut', 3)] : [rate('calls', 3), rate('errors', 3) || null]
    this.rateTrack.add(last.at, ...lines)
    this.timeTrack.add(last.at, ...(fresh ? quantiles.map(([, q]) => percentile(chartTook, q)) : [null, null, null]))
    const calls = rate('calls', 5)
    const errors = rate('errors', 5)
    this.now = { ...now, calls, errors, total: now.calls, lines, times }
    this.ratePlot.setData(this.rateTrack.data)
    this.timePlot.setData(this.timeTrack.data)
    this.show()
  }

  // broken is a share of calls that went wrong, if there are enough to say so.
  get broken() {
    const n = this.now
    return n && n.calls > 0.5 ? n.errors / n.calls : 0
  }

  show() {
    const n = this.now
    if (!n) return
    const ws = this.protocol === 'websocket'
    const at = this.hover?.rates
    const lines = at ? at.values : n.lines
    const total = ws ? (lines[0] === null ? null : lines[0] + lines[1]) : at ? lines[0] : n.calls
    say(this.big, fmt.perSecond(total))
    say(this.flight, ws ? fmt.plural(n.inFlight, 'open session') : `${fmt.count(n.inFlight)} in flight`)
    say(this.second, ws ? `${fmt.perSecond(lines[0])} in, ${fmt.perSecond(lines[1])} out, ${fmt.perSecond(n.calls)} sessions ended/s` : `${fmt.count(n.total)} since the start`)
    say(this.when, at ? `at ${fmt.clock(new Date(at.at * 1000))}` : '')
    const wrong = at && !ws ? (lines[1] ?? 0) : n.errors
    const share = at && !ws ? (lines[0] ? (lines[1] ?? 0) / lines[0] : 0) : n.calls ? n.errors / n.calls : 0
    say(this.errors, wrong > 0 ? `${fmt.percent(share)} errors` : wrong === null ? '' : 'no errors')
    attr(this.errors, 'data-tone', wrong > 0 ? (share >= 0.05 ? 'bad' : 'warn') : 'none')
    const times = this.hover?.times?.values ?? n.times
    this.stats.forEach((s, i) => say(s.value, fmt.seconds(times[i])))
  }

  // help is for who has no call yet: what to try, or why there can be none.
  help(children) {
    const none = this.now && this.now.total === 0 && this.now.inFlight === 0
    this.el.classList.toggle('unused', Boolean(none && children))
    this.hint.hidden = !(none && children)
    if (!this.hint.hidden && this.hint.childElementCount === 0) this.hint.append(...children)
  }
}

export function cards(el) {
  const list = order.map((p) => new Card(p))
  el.append(...list.map((c) => c.el))
  list.forEach((c) => c.draw())
  return list
}

// tries says what to type for each protocol. addr is where the port listens, if that is known; routes
// are those of the API, null if nobody has said.
export function tries(protocol, addr, routes) {
  const kind = { http: 'path', grpc: 'grpc', websocket: 'websocket' }[protocol]
  const mine = (routes ?? []).filter((r) => r[kind])
  const route = mine.find((r) => !r.auth?.length) ?? mine[0]
  const auth = (option) => (route?.auth?.length ? ` ${option} "authorization: Bearer $TOKEN"` : '')
  if (routes?.length && !route) return [h('p', {}, `No route takes ${titles[protocol]}.`), h('p', { class: 'muted' }, 'Such calls are refused: 404, or UNIMPLEMENTED.')]
  const port = addr?.split(':').at(-1) ?? 'PORT'
  const host = `localhost:${port}`
  const path = route?.[kind] ?? { http: '/api/hello', websocket: '/ws' }[protocol]
  const what = {
    http: `curl --cacert certs/dev/ca.crt${auth('-H')} https://${host}${path}`,
    grpc: `grpcurl -cacert certs/dev/ca.crt${auth('-H')} ${host} list`,
    websocket: `npx wscat --ca certs/dev/ca.crt${auth('-H')} -c wss://${host}${path}`,
  }[protocol]
  return [h('p', {}, `No ${titles[protocol]} yet. Try`), h('code', { tabindex: 0 }, what)]
}
