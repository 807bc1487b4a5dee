// The room's page: JSON by WebSocket. See socket.go for what is said.

const $ = (id) => document.getElementById(id);
const log = $("log");

// make builds an element with text or elements in it, never with markup.
function make(tag, className, ...content) {
	const e = document.createElement(tag);
	if (className) e.className = className;
	e.append(...content);
	return e;
}

function setState(kind, text) {
	$("state").className = `state ${kind}`;
	$("state").textContent = text;
}

// Messages.

const mostShown = 500;
const ways = { http: "REST", grpc: "gRPC", websocket: "WebSocket" };

function show(m) {
	const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 40;
	const who = make("bdi", "", m.name); // a name's writing direction is its own affair
	const time = make("time", "", new Date(m.time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
	time.dateTime = m.time;
	if (m.kind === "said") {
		const text = make("div", "text", m.text);
		text.dir = "auto";
		log.append(make("li", m.name === name ? "mine" : "", make("div", "by", who, make("span", "", ways[m.via] ?? m.via), time), text));
	} else {
		log.append(make("li", "notice", who, ` ${m.kind}`));
	}
	while (log.children.length > mostShown) log.firstChild.remove();
	if (atEnd || m.name === name) log.scrollTop = log.scrollHeight;
}

// The socket. Some close codes say come back, others do not.

const comeBack = [1001, 1006, 1011, 1013];
const firstPause = 1000, longestPause = 30_000; // ms
let socket = null;
let name = "";
let pause = firstPause;
let again; // timer of the next attempt

function connect() {
	setState("", "connecting");
	const ws = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
	socket = ws;
	ws.addEventListener("open", () => {
		log.replaceChildren(); // the room tells its history again
		ws.send(JSON.stringify({ name }));
	});
	ws.addEventListener("message", (e) => {
		const m = JSON.parse(e.data);
		if (m.kind === "refused") {
			$("refused").textContent = m.text;
			return;
		}
		if (m.kind === "joined" && m.name === name) entered();
		show(m);
	});
	ws.addEventListener("close", (e) => {
		socket = null;
		$("say").querySelector("button").disabled = true;
		const why = e.reason || (e.code === 1006 ? "no connection" : "closed");
		if (!comeBack.includes(e.code)) {
			setState("bad", "not connected");
			$("refused").textContent = `${why} (${e.code})`;
			leave();
			return;
		}
		// Spread out, so that not everybody comes back at once.
		const wait = pause * (0.5 + Math.random() / 2);
		pause = Math.min(2 * pause, longestPause);
		setState("bad", `${why} (${e.code}), again in ${Math.ceil(wait / 1000)} s`);
		again = setTimeout(connect, wait);
	});
}

function entered() {
	pause = firstPause;
	setState("good", `in the room as ${name}`);
	$("say").querySelector("button").disabled = false;
	if (!$("say").hidden) return; // back after a pause
	$("join").hidden = true;
	$("say").hidden = false;
	$("text").focus();
}

function leave() {
	$("say").hidden = true;
	$("join").hidden = false;
	$("name").focus();
}

$("join").addEventListener("submit", (e) => {
	e.preventDefault();
	const wanted = $("name").value.trim();
	if (!wanted || socket) return;
	name = wanted;
	clearTimeout(again);
	$("refused").textContent = "";
	connect();
});

$("say").addEventListener("submit", (e) => {
	e.preventDefault();
	const text = $("text").value.trim();
	if (!text || socket?.readyState !== WebSocket.OPEN) return;
	$("refused").textContent = "";
	socket.send(JSON.stringify({ text }));
	$("text").value = "";
});

// Addresses and copy buttons.

for (const e of document.querySelectorAll("[data-fill]")) {
	e.textContent = e.dataset.fill.replaceAll("{host}", location.host).replaceAll("{origin}", location.origin);
}

for (const line of document.querySelectorAll(".line")) {
	const code = line.querySelector("code");
	const button = make("button", "", "Copy");
	button.type = "button";
	button.setAttribute("aria-label", `Copy: ${code.textContent}`);
	let back;
	button.addEventListener("click", async () => {
		let done = "Copied";
		try {
			await navigator.clipboard.writeText(code.textContent);
		} catch { // not allowed: ready to be copied by hand
			getSelection().selectAllChildren(code);
			done = "Selected";
		}
		button.textContent = $("said").textContent = done;
		clearTimeout(back);
		back = setTimeout(() => { button.textContent = "Copy"; }, 2000);
	});
	line.prepend(button);
}

// Before one joins, what was said last is there to read.

setState("", "not in the room yet");
try {
	const res = await fetch("/api/messages", { cache: "no-store" });
	if (!res.ok) throw new Error(`status ${res.status}`);
	const { messages } = await res.json();
	if (!socket) messages.forEach(show);
} catch (err) {
	$("refused").textContent = `The messages could not be read: ${err.message}`;
}
