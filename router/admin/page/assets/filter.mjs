// What is typed into the filter, as the API takes it.

export const protocols = ['http', 'grpc', 'websocket']
export const states = ['opening', 'handshake', 'idle', 'active', 'upgraded', 'tunnel']

const fields = { user: 'identity', identity: 'identity', remote: 'remote', client: 'remote', protocol: 'protocol', state: 'state', route: 'route', upstream: 'upstream' }
const names = { rest: 'http', http: 'http', grpc: 'grpc', ws: 'websocket', websocket: 'websocket' }
const address = /^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f]*:[0-9a-f:.]*)(\/\d{1,3})?$/i

// words splits at spaces, but not within "quotes".
const words = (text) => text.match(/(?:[^\s"]+|"[^"]*"?)+/g) ?? []

// parse gives { query, says, wrong }: the fields of the API, and what they mean in words. known has
// the names of routes and upstreams, as sets: what is none of those is a user.
export function parse(text, known = { routes: new Set(), upstreams: new Set() }) {
  const query = {}
  const wrong = []
  for (const word of words(text)) {
    let [, field, value] = /^([a-z]+):(.*)$/i.exec(word) ?? [null, '', word]
    field = field.toLowerCase()
    if (field && !fields[field] && !address.test(word)) {
      wrong.push(`there is no field ${field}`)
      continue
    }
    if (!fields[field]) [field, value] = ['', word]
    value = value.replaceAll('"', '')
    if (value === '') continue // it is being typed
    const name = fields[field] ?? guess(value, known)
    if (name === 'protocol') value = names[value.toLowerCase()] ?? value
    if (name === 'state') value = value.toLowerCase()
    if (name === 'protocol' && !protocols.includes(value)) wrong.push(`no protocol is called ${value}: rest, grpc, websocket`)
    else if (name === 'state' && !states.includes(value)) wrong.push(`no state is called ${value}: ${states.join(', ')}`)
    else if (name === 'remote' && !address.test(value)) wrong.push(`${value} is no address and no range, as 10.0.0.0/8`)
    else if (query[name] !== undefined && query[name] !== value) wrong.push(`one ${name === 'identity' ? 'user' : name} at a time`)
    else query[name] = value
  }
  return { query, wrong, says: says(query) }
}

function guess(value, known) {
  const low = value.toLowerCase()
  if (names[low]) return 'protocol'
  if (states.includes(low)) return 'state'
  if (address.test(value)) return 'remote'
  if (known.upstreams.has(value)) return 'upstream'
  if (known.routes.has(value)) return 'route'
  return 'identity'
}

const shown = { http: 'REST', grpc: 'gRPC', websocket: 'WebSocket' }

function says(q) {
  const parts = []
  if (q.protocol) parts.push(`with ${shown[q.protocol]} calls`)
  if (q.state) parts.push(`${q.state}`)
  if (q.identity) parts.push(`of user ${q.identity}`)
  if (q.remote) parts.push(`from ${q.remote}`)
  if (q.route) parts.push(`on route ${q.route}`)
  if (q.upstream) parts.push(`to upstream ${q.upstream}`)
  return parts.join(', ')
}

// set puts a field into a text, in place of what it had; "" takes it out.
export function set(text, field, value, known) {
  const kept = words(text).filter((word) => !(fields[field] in parse(word, known).query))
  if (value) kept.push(/\s/.test(value) ? `${field}:"${value}"` : `${field}:${value}`)
  return kept.join(' ')
}
