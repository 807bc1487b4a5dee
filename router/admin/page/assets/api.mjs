// The admin API of this origin. The token lives in this module and nowhere else.

let token = ''
let looking = false // whether looking needs it, too

export const hasToken = () => token !== ''
export const looksWithToken = () => looking
export const forget = () => (token = '')

// lookWith takes a token for all there is to ask.
export function lookWith(text) {
  token = text.trim()
  looking = true
}

// Problem is an answer that is none: status 0 if there was no answer at all.
export class Problem extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

const patience = 4000

// ask gives the answer's JSON. query or body may be undefined. A token that is tried is kept if it is
// good: a wrong one must not get into what else is asked for meanwhile.
export async function ask(path, { query, body, tried } = {}) {
  const url = new URL(`/api/v1/${path}`, location.origin)
  for (const [k, v] of Object.entries(query ?? {})) if (v !== '' && v !== undefined) url.searchParams.set(k, v)
  const shown = tried?.trim() ?? (body || looking ? token : '')
  const headers = shown ? { authorization: `Bearer ${shown}` } : {}
  let response, text
  try {
    response = await fetch(url, {
      method: body ? 'POST' : 'GET',
      headers,
      body: body && JSON.stringify(body),
      credentials: 'omit',
      cache: 'no-store',
      redirect: 'error',
      signal: AbortSignal.timeout(patience),
    })
    text = await response.text()
  } catch (err) {
    throw new Problem(0, err.name === 'TimeoutError' ? `no answer within ${patience / 1000} s` : 'nobody answers')
  }
  let json
  try {
    json = JSON.parse(text)
  } catch {
    json = null // a refusal by the guard is plain text
  }
  if (tried && response.status !== 401) token = shown
  if (!response.ok && !json?.problems) throw new Problem(response.status, json?.message ?? (text.trim().slice(0, 300) || response.statusText))
  if (json === null) throw new Problem(0, 'what answers is not the admin API')
  return json
}
