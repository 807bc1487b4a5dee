// What the client takes of its surroundings. Tests, and Nodes without a WebSocket
// of their own (before 22), give other ones.

/** A WebSocket as browsers, Node 22 and the package `ws` have it. */
export interface WebSocketLike {
  binaryType: string
  readonly protocol: string
  readonly bufferedAmount: number
  onopen: ((event: any) => void) | null
  onmessage: ((event: any) => void) | null
  onerror: ((event: any) => void) | null
  onclose: ((event: any) => void) | null
  send(data: any): void
  close(code?: number, reason?: string): void
  /** Of `ws`: ends the connection without a word. */
  terminate?(): void
}

/** What fires events: `window` and `document`, in tests anything that has listeners. */
export interface Signals {
  addEventListener(type: string, listener: () => void): void
  removeEventListener(type: string, listener: () => void): void
}

export interface Env {
  WebSocket: new (url: string, protocols: string[]) => WebSocketLike
  fetch: (url: string, init: RequestInit) => Promise<Response>
  setTimeout: (f: () => void, ms: number) => unknown
  clearTimeout: (timer: any) => void
  /** Milliseconds; only differences count, but for a `Retry-After` that is a date. */
  now: () => number
  /** From 0 up to 1, as `Math.random`. */
  random: () => number
  /** Fires `online` when the network is back. */
  window: Signals | undefined
  /** Fires `visibilitychange`. */
  document: (Signals & { readonly visibilityState?: string }) | undefined
}

/** withDefaults takes from the global object what is not given. */
export function withDefaults(given: Partial<Env> = {}): Env {
  const g = globalThis as any
  const page = typeof g.document === 'object' ? g.document : undefined
  return {
    WebSocket:
      g.WebSocket ??
      class {
        constructor() {
          throw new TypeError('oneport: there is no WebSocket here: give env.WebSocket, as of the package ws')
        }
      },
    fetch: (url, init) => g.fetch(url, init),
    setTimeout: (f, ms) => g.setTimeout(f, ms),
    clearTimeout: (timer) => g.clearTimeout(timer),
    now: () => Date.now(),
    random: () => Math.random(),
    window: typeof g.addEventListener === 'function' ? g : undefined,
    document: page,
    ...given,
  }
}

/** TimeoutError is that of a wait which has come to its deadline. */
export class TimeoutError extends Error {
  override readonly name = 'TimeoutError'
}

/**
 * within runs f until it ends, ms have passed or outer is aborted. f gets a signal that is
 * aborted then; whether it heeds it or not, within does not wait for it any longer.
 */
export function within<T>(env: Env, ms: number, what: string, f: (signal: AbortSignal) => Promise<T> | T, outer?: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const abort = new AbortController()
    const end = (settle: () => void): void => {
      env.clearTimeout(timer)
      outer?.removeEventListener('abort', leave)
      settle()
    }
    const drop = (err: unknown): void => end(() => {
      abort.abort(err)
      reject(err)
    })
    const leave = (): void => drop(outer?.reason)
    const timer = env.setTimeout(() => drop(new TimeoutError(`oneport: ${what} took longer than ${ms} ms`)), ms)
    if (outer?.aborted) return leave()
    outer?.addEventListener('abort', leave)
    Promise.resolve()
      .then(() => f(abort.signal))
      .then(
        (value) => end(() => resolve(value)),
        (err) => end(() => reject(err)),
      )
  })
}
