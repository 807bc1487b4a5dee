// The demo's page: requests and sockets to the port that served it.

const $ = (id) => document.getElementById(id);

const secure = location.protocol === "https:";
const sockets = `${secure ? "wss" : "ws"}://${location.host}`;
const port = `:${location.port || (secure ? 443 : 80)}`;

// make builds an element with text or elements in it, never with markup.
function make(tag, className, ...content) {
	const e = document.createElement(tag);
	if (className) e.className = className;
	e.append(...content);
	return e;
}

// spark shows that something travels between this page and the port.
function spark(id) {
	const wire = $(`spark-${id}`);
	wire.classList.remove("lit");
	requestAnimationFrame(() => requestAnimationFrame(() => wire.classList.add("lit")));
}

const took = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;

// Addresses and copy buttons.

for (const e of document.querySelectorAll("[data-fill]")) {
	const text = (!secure && e.dataset.plain) || e.dataset.fill;
	e.textContent = text.replaceAll("{host}", location.host).replaceAll("{origin}", location.origin)
		.replaceAll("{sockets}", sockets).replaceAll("{port}", port);
}

document.querySelector(".trust").hidden = !secure;

for (const line of document.querySelectorAll(".line")) {
	const code = line.querySelector("code");
	const button = make("button", "", "Copy");
	button.type = "button";
	button.setAttribute("aria-label", `Copy: ${code.textContent}`);
	let back;
	button.addEventListener("click", async () => {
		const done = await copy(code);
		button.textContent = done ? "Copied" : "Selected";
		$("said").textContent = done ? "Copied" : "Selected: copy it with your keyboard";
		clearTimeout(back);
		back = setTimeout(() => { button.textContent = "Copy"; }, 2000);
	});
	line.prepend(button);
}

// copy reports whether the text is in the clipboard. If the browser does not
// let it in, the text is selected, ready to be copied by hand.
async function copy(code) {
	try {
		await navigator.clipboard.writeText(code.textContent);
		return true;
	} catch {
		getSelection().selectAllChildren(code);
		return false;
	}
}

// REST.

const silence = "the port did not answer. Does the demo still run?";
let version = ""; // of this page's HTTP, as whoami says

async function ask(method, path, body) {
	const screen = $("rest-screen");
	spark("rest");
	const start = performance.now();
	let status, text;
	try {
		const res = await fetch(path, { method, body, cache: "no-store" });
		({ status } = res);
		text = await res.text();
	} catch (err) {
		setState("rest", "bad", "no answer");
		screen.replaceChildren(make("p", "failed", `${method} ${path}: ${silence} (${err.message})`));
		return;
	}
	const ms = performance.now() - start;
	const json = parse(text);
	if (path === "/api/whoami" && json) noteVersion(json);
	screen.replaceChildren(
		make("p", "result", make("strong", status < 400 ? "" : "failed", String(status)),
			...[version, took(ms), `${method} ${path}`].filter(Boolean).map((s) => make("span", "", s))),
		json ? show(json) : make("pre", "", text),
	);
}

function noteVersion(who) {
	version = who.http_version;
	setState("rest", "good", version);
}

function parse(text) {
	try {
		const value = JSON.parse(text);
		return typeof value === "object" ? value : null;
	} catch {
		return null;
	}
}

// show lays out JSON with its keys in a softer colour.
function show(value) {
	const out = make("pre");
	JSON.stringify(value, null, 2).split(/^( *"(?:[^"\\]|\\.)*":)/m).forEach((part, i) => {
		out.append(i % 2 ? make("span", "key", part) : part);
	});
	return out;
}

function setState(id, kind, text) {
	const e = $(`${id}-state`);
	e.className = `state ${kind}`;
	e.textContent = text;
}

for (const b of document.querySelectorAll("[data-get]")) {
	b.addEventListener("click", () => ask("GET", b.dataset.get));
}
$("echo-form").addEventListener("submit", (e) => {
	e.preventDefault();
	ask("POST", "/api/echo", $("echo-text").value);
});

// WebSocket. It comes back only when asked to.

const mostLines = 100;
let socket = null;
let sent = []; // when: the echo answers in order

// What a close code says to a person (RFC 6455, 7.4.1).
const codes = {
	1000: "normal",
	1001: "the server is going away",
	1006: "the connection broke, without a close frame",
	1008: "not allowed",
	1009: "the message was too big",
	1011: "an error in the server",
	1013: "too slow, or the server is too busy",
};

function log(mark, text, took = "", kind = "") {
	const list = $("ws-log");
	const atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 4;
	const sign = make("span", `mark ${kind}`, mark);
	sign.setAttribute("aria-hidden", "true");
	list.append(make("li", "", sign, make("span", kind === "event" || kind === "failed" ? kind : "", text), make("span", "took", took)));
	while (list.children.length > mostLines) list.firstChild.remove();
	if (atEnd) list.scrollTop = list.scrollHeight;
}

function describe(e) {
	const why = e.reason || codes[e.code] || "";
	return why ? `${e.code}, ${why}` : String(e.code);
}

function connect(hello) {
	if (socket) return;
	const ws = new WebSocket(`${sockets}/ws`);
	ws.binaryType = "arraybuffer";
	socket = ws;
	sent = [];
	let opened = false;
	setState("ws", "", "connecting");
	buttons();
	ws.addEventListener("open", () => {
		opened = true;
		setState("ws", "good", "connected");
		log("·", "connected", "", "event");
		buttons();
		if (hello) send(hello);
	});
	ws.addEventListener("message", (e) => {
		spark("ws");
		const start = sent.shift();
		const text = typeof e.data === "string" ? e.data : `${e.data.byteLength} bytes, binary`;
		log("←", text, start === undefined ? "" : took(performance.now() - start), "in");
	});
	ws.addEventListener("close", (e) => {
		if (opened) {
			log("·", `closed: ${describe(e)}`, "", e.wasClean ? "event" : "failed");
		} else {
			log("·", `/ws: ${silence} (${e.code})`, "", "failed");
		}
		setState("ws", e.code === 1000 ? "" : "bad", `closed, ${e.code}`);
		if (socket === ws) socket = null;
		buttons();
	});
}

function send(text) {
	if (socket?.readyState !== WebSocket.OPEN) return;
	spark("ws");
	sent.push(performance.now());
	socket.send(text);
	log("→", text);
}

function buttons() {
	$("ws-toggle").textContent = socket ? "Disconnect" : "Connect /ws";
	$("ws-form").querySelector("button").disabled = socket?.readyState !== WebSocket.OPEN;
}

$("ws-toggle").addEventListener("click", () => (socket ? socket.close(1000) : connect()));
$("ws-form").addEventListener("submit", (e) => {
	e.preventDefault();
	send($("ws-text").value);
});

// Who am I?

const facts = ["protocol", "http_version", "tls.version", "tls.alpn", "tls.sni", "tls.client_subject", "identity",
	"remote", "connection_id", "request_id", "trace_id"];

async function whoByFetch() {
	spark("rest");
	const res = await fetch("/api/whoami", { cache: "no-store" });
	if (!res.ok) throw new Error(`status ${res.status}`);
	const who = await res.json();
	noteVersion(who);
	return who;
}

function whoBySocket() {
	spark("ws");
	return new Promise((resolve, reject) => {
		const ws = new WebSocket(`${sockets}/ws/whoami`);
		ws.addEventListener("message", (e) => resolve(JSON.parse(e.data)));
		ws.addEventListener("close", (e) => reject(new Error(`closed with ${describe(e)}`))); // no news after a message
	});
}

async function compare() {
	const answers = await Promise.allSettled([whoByFetch(), whoBySocket()]);
	const failed = answers.flatMap((a, i) => a.status === "rejected"
		? [`${["GET /api/whoami", "WebSocket /ws/whoami"][i]} failed: ${a.reason.message}. Does the demo still run?`] : []);
	$("who-rows").replaceChildren(...failed.map((text) => {
		const cell = make("td", "failed", text);
		cell.colSpan = 3;
		return make("tr", "", cell);
	}));
	const [http, ws] = answers.map((a) => a.value);
	if (!http && !ws) return;
	$("who-rows").append(...facts.map((name) => factRow(name, [http, ws])));
}

function factRow(name, answers) {
	const [a, b] = answers.map((who) => who && name.split(".").reduce((o, key) => o?.[key], who));
	const head = make("th", "", name);
	head.scope = "row";
	if (answers.every(Boolean) && a === b) {
		const both = fact(a);
		both.colSpan = 2;
		both.classList.add("same");
		return make("tr", "", head, both);
	}
	return make("tr", "", head, fact(a), fact(b));
}

function fact(value) {
	return value ? make("td", "", value) : make("td", "none", value === "" ? "empty" : "–");
}

$("who-ask").addEventListener("click", compare);

// Alive at first sight.

connect($("ws-text").value);
await compare();
await ask("GET", "/api/hello");
