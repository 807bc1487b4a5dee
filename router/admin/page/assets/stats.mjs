// What the API counts, as a sample for rates.mjs: numbers are numbers, times are in seconds.
import { perBucket } from './rates.mjs'

export const order = ['http', 'grpc', 'websocket']
export const titles = { http: 'REST', grpc: 'gRPC', websocket: 'WebSocket' }

export const time = (text) => (text ? Date.parse(text) / 1000 : null)

// sample reads an answer of /api/v1/stats. 64-bit numbers are texts in it.
export function sample(stats) {
  const protocols = {}
  for (const p of stats.protocols ?? []) {
    protocols[p.protocol] = {
      calls: Number(p.calls),
      errors: Number(p.errors),
      inFlight: Number(p.in_flight),
      messagesIn: Number(p.messages_in),
      messagesOut: Number(p.messages_out),
      took: { bounds: (p.bucket_bounds ?? []).map(Number), counts: perBucket((p.bucket_counts ?? []).map(Number)) },
    }
  }
  const reasons = (list) => (list ?? []).map((r) => ({ what: r.what, reason: r.reason, count: Number(r.count) }))
  return {
    at: time(stats.at),
    started: stats.started ?? '',
    version: stats.version ?? '',
    protocols,
    states: Object.fromEntries(Object.entries(stats.connections_by_state ?? {}).map(([k, v]) => [k, Number(v)])),
    refusals: reasons(stats.refusals),
    outcomes: reasons(stats.connection_outcomes),
    bytesRead: Number(stats.bytes_read),
    bytesWritten: Number(stats.bytes_written),
    reload: stats.last_reload?.at ? { at: new Date(stats.last_reload.at), ok: stats.last_reload.ok, text: stats.last_reload.text } : null,
    draining: stats.draining === true,
    memory: Number(stats.memory_bytes),
    cpu: Number(stats.cpu_seconds),
    goroutines: Number(stats.goroutines),
  }
}

// reasonsBetween says how often each reason was given in a second, and in all: the most first.
export function reasonsBetween(older, newer, of) {
  const key = (r) => `${r.what} ${r.reason}`
  const before = new Map((older ? of(older) : []).map((r) => [key(r), r.count]))
  const dt = older ? newer.at - older.at : 0
  return of(newer)
    .filter((r) => r.count > 0)
    .map((r) => ({ ...r, rate: dt > 0 ? Math.max(0, r.count - (before.get(key(r)) ?? 0)) / dt : null }))
    .sort((a, b) => (b.rate ?? 0) - (a.rate ?? 0) || b.count - a.count)
}

// wears says how near the end of a certificate is: "ok", "warn" or "bad". Short-lived ones are renewed
// when two thirds of their time have gone, so a fixed number of days would cry wolf.
export function wears(notBefore, notAfter, now) {
  const left = notAfter - now
  const life = notAfter - notBefore
  const day = 86_400
  if (left <= Math.min(7 * day, life / 10)) return 'bad'
  if (left <= Math.min(21 * day, life / 4)) return 'warn'
  return 'ok'
}
