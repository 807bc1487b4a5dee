// What follows the end of a connection, or of a try to have one, and when. No
// state and no waiting here.

/** How a socket comes back. The n-th time in a row it waits for a random part of base * 2^(n-1), or of max if that is less. */
export interface Backoff {
  /** Milliseconds; 1,000 unless given. */
  base: number
  /** Milliseconds; 30,000 unless given. */
  max: number
  /** How many tries in a row without a connection that stays healthy; 10 unless given, `Infinity` is endless. */
  tries: number
  /** Milliseconds that a connection has to last for the count to begin again; 10,000 unless given. */
  healthy: number
}

export const backoff: Backoff = { base: 1000, max: 30_000, tries: 10, healthy: 10_000 }

/** span is how long the wait is at most after n tries, from 1. */
export function span(b: Backoff, n: number): number {
  return Math.min(b.max, b.base * 2 ** Math.min(n - 1, 50))
}

/**
 * delay is how long to wait after n tries: the whole of the span is random ("full jitter"), so
 * that clients that lost a server together do not return together. A server's Retry-After is
 * waited for first, and the random part comes on top: it is the same for all of them.
 */
export function delay(b: Backoff, n: number, random: () => number, retryAfter = 0): number {
  return retryAfter + random() * span(b, n)
}

/**
 * What follows:
 * - retry: wait, and come back
 * - renew: wait, and come back with a newer token
 * - again: come back at once with a newer token, which is done once
 * - final: fail
 * - closed: the server is done with us and says so; no error
 */
export type Action = 'retry' | 'renew' | 'again' | 'final' | 'closed'

/**
 * afterClose says what follows a close code: RFC 6455's and IANA's below 3000, above it
 * centrifuge's ranges. 1005 is a close frame without a code, as by node's close().
 */
export function afterClose(code: number, reason: string): Action {
  if (code === 1000 || code === 1005) return 'closed'
  if (code === 1008) return reason === 'token-expired' ? 'renew' : 'final'
  if ([1001, 1006, 1011, 1012, 1013].includes(code)) return 'retry'
  if ((code >= 3000 && code < 3500) || (code >= 4000 && code < 4500)) return 'retry'
  return 'final'
}

/** afterStatus says what follows the answer to a request for a ticket that is none. */
export function afterStatus(status: number): Action {
  if (status === 401) return 'again'
  if (status === 429 || status >= 500) return 'retry'
  return 'final'
}

/** How long a server may send clients away for, in milliseconds. */
export const mostRetryAfter = 300_000

/** retryAfter reads the field (RFC 9110, section 10.2.3: seconds, or a date) as milliseconds from now; 0 if it says nothing. */
export function retryAfter(field: string | null, now: number): number {
  const text = (field ?? '').trim()
  let ms = 0
  if (/^\d+$/.test(text)) ms = Number(text) * 1000
  else if (/^[A-Z][a-z]{2,8},? /.test(text)) ms = Date.parse(text) - now
  return Number.isNaN(ms) ? 0 : Math.min(Math.max(ms, 0), mostRetryAfter)
}

/** How a connection ended. 1006 is that no close frame came. */
export class CloseError extends Error {
  override readonly name = 'CloseError'
  constructor(
    readonly code: number,
    readonly reason: string,
    /** Whether the connection had been open. */
    readonly opened: boolean,
  ) {
    super(opened ? `oneport: closed with ${code}${reason && ` (${reason})`}` : 'oneport: the handshake failed; a browser does not say why')
  }
}

/** The answer to a request for a ticket that is none. */
export class StatusError extends Error {
  override readonly name = 'StatusError'
  constructor(
    readonly status: number,
    /** Milliseconds, at most five minutes; 0 if the server does not say. */
    readonly retryAfter: number,
  ) {
    super(`oneport: the ticket was answered with ${status}`)
  }
}

/** The connection on which nothing came within the heartbeat's time. */
export class SilentError extends Error {
  override readonly name = 'SilentError'
}

/** What a socket cannot go on after, for another reason than what the server says. */
export class FinalError extends Error {
  override readonly name = 'FinalError'
}

/** The socket that has tried as often as backoff.tries says; cause is what the last try ended with. */
export class GaveUpError extends Error {
  override readonly name = 'GaveUpError'
}

/** decide says what follows err, which ended a connection or a try. */
export function decide(err: unknown): Action {
  if (err instanceof CloseError) return err.opened ? afterClose(err.code, err.reason) : 'retry'
  if (err instanceof StatusError) return afterStatus(err.status)
  if (err instanceof FinalError) return 'final'
  return 'retry' // the network, a deadline, silence
}
