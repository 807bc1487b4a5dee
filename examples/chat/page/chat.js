// The room's page. What is said comes by centrifuge's protocol; see centrifuge.js.
import { Room } from "/centrifuge.js";

const $ = (id) => document.getElementById(id);
const { room: roomName, name } = document.body.dataset;

// make builds an element with text or elements in it, never with markup.
function make(tag, className, ...content) {
	const e = document.createElement(tag);
	if (className) e.className = className;
	e.append(...content);
	return e;
}

async function post(path, body) {
	const res = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
	if (!res.ok) throw new Error((await res.json().catch(() => ({}))).error ?? `status ${res.status}`);
}

const complain = (err) => { $("refused").textContent = err.message; };

// Messages.

const mostLines = 500;
const ways = { http: "REST", grpc: "gRPC", websocket: "WebSocket" };

function add(li) {
	const log = $("log");
	const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 40;
	log.append(li);
	while (log.children.length > mostLines) log.firstChild.remove();
	if (atEnd || li.classList.contains("mine")) log.scrollTop = log.scrollHeight;
}

// show shows a publication. Who has published by WebSocket the server knows; of REST and gRPC it has written it down.
function show(pub) {
	const { text, time, ...said } = pub.data ?? {};
	// What comes by WebSocket nobody has looked at before: REST and gRPC leave out the same.
	if (typeof text !== "string" || !text.trim() || [...text.trim()].length > 1000 || /\p{Cc}/u.test(text.trim())) return;
	const by = pub.info ? pub.info.user : String(said.name);
	const via = pub.info ? "websocket" : String(said.via);
	const when = new Date(pub.time ?? time);
	const stamp = make("time", "", when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
	if (!Number.isNaN(when.getTime())) stamp.dateTime = when.toISOString();
	const words = make("div", "text", text);
	words.dir = "auto";
	add(make("li", by === name ? "mine" : "", make("div", "by", make("bdi", "", by), make("span", "", ways[via] ?? via), stamp), words));
}

const notice = (...content) => add(make("li", "notice", ...content));

// People: a person may be there with several windows.

let clients = new Map(); // connection → name

function people(list) {
	clients = new Map(list.map((info) => [info.client, info.user]));
	clients.set(room.me, name);
	showPeople();
}

function showPeople() {
	const names = [...new Set(clients.values())].sort((a, b) => a.localeCompare(b));
	$("people").replaceChildren(...names.map((who) => make("li", who === name ? "me" : "", make("bdi", "", who), who === name ? " (you)" : "")));
	$("count").textContent = names.length;
}

const isHere = (who) => [...clients.values()].includes(who);

// The room.

let room = null;

function enter() {
	const ready = (yes) => { $("say").querySelector("button").disabled = !yes; };
	room = new Room(`wss://${location.host}/connection/websocket`, `room:${roomName}`, {
		state(kind, text) {
			$("state").className = `state ${kind}`;
			$("state").textContent = text;
			$("people").classList.toggle("old", kind !== "good");
			ready(kind === "good");
		},
		begin(history, list, gap) {
			$("log").replaceChildren();
			if (gap) notice("You were away for too long: earlier messages are missing here.");
			history.forEach(show);
			people(list);
		},
		missed(list, here) {
			if (list.length > 0) add(make("li", "missed", list.length === 1 ? "1 message while you were away" : `${list.length} messages while you were away`));
			list.forEach(show);
			people(here);
		},
		publication: show,
		join({ client, user }) {
			if (client !== room.me && !isHere(user)) notice(make("bdi", "", user), " joined");
			clients.set(client, user);
			showPeople();
		},
		leave({ client, user }) {
			if (client === room.me || !clients.delete(client)) return;
			if (!isHere(user)) notice(make("bdi", "", user), " left");
			showPeople();
		},
		refused(why) {
			this.state("bad", why || "not connected");
			known();
		},
	});
	// Those whose instance was killed have said no goodbye: Redis forgets them within a minute.
	setInterval(async () => { try { people(await room.people()); } catch { /* away: the next time */ } }, 15_000);
	// Why a WebSocket was refused no browser tells: it is asked for when there is none for a while.
	setInterval(() => { if ($("state").classList.contains("bad")) known(); }, 5_000);
	$("text").focus();
}

// known looks whether one still is who one was, or asks for a name.
async function known() {
	try {
		const session = await (await fetch("/api/session", { cache: "no-store" })).json();
		if (session.name !== name) location.reload();
	} catch { /* away */ }
}

$("login")?.addEventListener("submit", async (e) => {
	e.preventDefault();
	try {
		await post("/api/login", { name: $("name").value });
		location.reload();
	} catch (err) {
		complain(err);
	}
});

$("logout")?.addEventListener("click", async () => {
	try {
		await post("/api/logout", {});
		location.reload();
	} catch (err) {
		complain(err);
	}
});

$("say")?.addEventListener("submit", async (e) => {
	e.preventDefault();
	const text = $("text").value.trim();
	if (!text || $("say").querySelector("button").disabled) return;
	$("refused").textContent = "";
	$("text").value = "";
	try {
		await room.publish({ text, time: Date.now() });
	} catch (err) {
		$("text").value ||= text;
		complain(new Error(`That may not have been said: ${err.message}.`));
	}
});

$("go").addEventListener("submit", (e) => {
	e.preventDefault();
	location.assign(`/room/${encodeURIComponent($("other").value.trim().toLowerCase())}`);
});

if (name) enter();

// Copy buttons.

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
