// A clock, a server and a page that do what a test says.
import { Client } from '../dist/index.js'

/** settle lets all promises go on that can: no timer of ours is among them. */
export const settle = () => new Promise((resolve) => setImmediate(resolve))

export class Clock {
  time = 1_700_000_000_000
  timers = new Map()
  #id = 0

  env = {
    now: () => this.time,
    setTimeout: (f, ms) => {
      this.timers.set(++this.#id, { at: this.time + Math.max(0, ms), f })
      return this.#id
    },
    clearTimeout: (id) => this.timers.delete(id),
  }

  /** advance has ms pass, one timer after the other. */
  async advance(ms) {
    const end = this.time + ms
    for (;;) {
      await settle()
      let next
      for (const [id, timer] of this.timers) if (timer.at <= end && (!next || timer.at < next.timer.at)) next = { id, timer }
      if (!next) break
      this.timers.delete(next.id)
      this.time = Math.max(this.time, next.timer.at)
      next.timer.f()
    }
    this.time = end
    await settle()
  }

  /** sleep has ms pass at once, and timers be late, as in a page that was frozen. */
  async sleep(ms) {
    this.time += ms
    await this.advance(0)
  }
}

/** Server is what dials end at: each takes the next step of its script, the last one for good. */
export class Server {
  sockets = [] // all that were made
  requests = []

  /** steps: 'open', 'hang', 'refuse', or a function of the socket. */
  constructor(steps = ['open'], answers = []) {
    this.steps = steps
    this.answers = answers // of fetch: a Response, 'hang', or an Error
    const server = this
    this.env = {
      WebSocket: class {
        readyState = 0
        bufferedAmount = 0
        sent = []
        protocol = ''
        onopen = this.onmessage = this.onerror = this.onclose = null

        constructor(url, protocols) {
          Object.assign(this, { url, protocols })
          server.sockets.push(this)
          const step = server.steps.length > 1 ? server.steps.shift() : server.steps[0]
          queueMicrotask(() => this.step(step))
        }

        step(step) {
          if (typeof step === 'function') step(this)
          else if (step === 'open') this.open()
          else if (step === 'refuse') this.end(1006)
        }

        open() {
          if (this.readyState !== 0) return
          this.readyState = 1
          this.onopen?.({})
        }

        message(data) {
          this.onmessage?.({ data })
        }

        /** end is the close event. */
        end(code, reason = '') {
          if (this.readyState === 3) return
          this.readyState = 3
          if (code === 1006) this.onerror?.({})
          this.onclose?.({ code, reason })
        }

        send(data) {
          if (this.readyState === 0) throw new Error('not open')
          this.sent.push(data)
          this.onsent?.(data)
        }

        close(code, reason) {
          this.closed = { code, reason }
          if (server.answersClose && this.readyState === 1) queueMicrotask(() => this.end(code))
        }
      },
      fetch: async (url, init) => {
        this.requests.push({ url, init })
        const answer = this.answers.length > 1 ? this.answers.shift() : this.answers[0]
        if (answer === 'hang') return new Promise((_, reject) => init.signal.addEventListener('abort', () => reject(init.signal.reason)))
        if (answer instanceof Error) throw answer
        return answer.clone()
      },
    }
  }

  answersClose = true

  get last() {
    return this.sockets.at(-1)
  }
}

/** Page fires events, as window and document do. */
export class Page extends EventTarget {
  visibilityState = 'visible'
  fire(type) {
    this.dispatchEvent(new Event(type))
  }
}

/** rig puts a client together. events has each change of state. */
export function rig({ steps, answers, random = () => 0.5, path = '/ws', options = {}, token, page, client: more = {} } = {}) {
  const clock = new Clock()
  const server = new Server(steps, answers)
  const env = { ...clock.env, ...server.env, random, window: page, document: page }
  const client = new Client({ url: 'https://api.test', env, token, ...more })
  const socket = client.socket(path, options)
  const events = []
  socket.on('state', (event) => events.push(event))
  return { clock, server, client, socket, events, env, states: () => events.map((e) => e.state).join(' ') }
}

export const json = (body, status = 200, headers = {}) => new Response(JSON.stringify(body), { status, headers })
