// The admin API of this origin. The token lives in this module and nowhere else.

let token = ''

export const hasToken = () => token !== ''
export function setToken(text) {
  token = text.trim()
}

// Problem is an answer that is none: status 0 if there was no answer at all.
export class Problem extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

const patience = 4000

// ask gives the answer's JSON. query or body may be undefined.
export async function ask(path, { query, body } = {}) {
  const url = new URL(`/api/v1/${path}`, location.origin)
  for (const [k, v] of Object.entries(query ?? {})) if (v !== '' && v !== undefined) url.searchParams.set(k, v)
  const headers = token ? { authorization: `Bearer ${token}` } : {}
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
  if (!response.ok && !json?.problems) throw new Problem(response.status, json?.message ?? (text.trim().slice(0, 300) || response.statusText))
  if (json === null) throw new Problem(0, 'what answers is not the admin API')
  return json
}
