// Package page is the page at the admin address: HTML, a style sheet and a few ES modules
// that ask the admin API of the same origin, and nobody else. [Handler] serves it:
//
//	mux.Handle("GET /", page.Handler())
//
// The rule: it has no data of its own, so that it may be served to whoever reaches the address;
// what it shows it asks for with the rights of who looks. There is no build step and nothing
// of it is fetched from elsewhere. Its policy (CSP) allows no inline script and no inline style,
// and each text from outside gets into it as text, never as markup.
//
// rates.mjs has the arithmetic: rates and percentiles out of counters; rates.test.mjs holds it.
// uplot.js draws the charts (uPlot 1.6.32, MIT, as npm has it).
package page
