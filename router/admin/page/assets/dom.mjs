// The few things that this page needs of the document. Nothing ever becomes markup.

export const $ = (id) => document.getElementById(id)

// h makes an element: properties by their names, class, data and aria as attributes, on... as listeners.
export function h(tag, props = {}, ...children) {
  const el = document.createElement(tag)
  for (const [k, v] of Object.entries(props)) {
    if (v === undefined || v === null || v === false) continue
    if (k === 'class') el.className = v
    else if (k.startsWith('on')) el.addEventListener(k.slice(2), v)
    else if (k in el && !k.startsWith('aria')) el[k] = v
    else el.setAttribute(k, v === true ? '' : v)
  }
  el.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false && c !== ''))
  return el
}

// say sets a text if it is another one: live regions say it again otherwise.
export function say(el, text) {
  if (el.textContent !== text) el.textContent = text
}

export function attr(el, name, value) {
  if (el.getAttribute(name) !== value) el.setAttribute(name, value)
}

// replace puts children in place of those there are, unless they look the same. So a focus, a
// selection and a tooltip stay where they are.
export function replace(el, ...children) {
  const next = h('div', {}, ...children)
  if (el.innerHTML === next.innerHTML) return
  el.replaceChildren(...next.childNodes)
}

export const tag = (tone, text, title) => h('span', { class: 'tag', 'data-tone': tone, title }, text)
