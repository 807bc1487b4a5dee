// Centrifuge's protocol, version 2 in JSON, as far as this chat speaks it: one connection, one
// channel, and back again with all that was missed. Commands are {"id":1,"publish":{...}}, answered by
// {"id":1,"publish":{...}} or {"id":1,"error":{...}}; what comes by itself is {"push":{...}}, and {} is
// the server's sign of life. Lines of a frame are messages of their own.

const firstPause = 500, longestPause = 20_000; // ms
const answerIn = 10_000; // ms

// A room calls on.state(kind, text), on.begin(history, people, gap), on.missed(publications, people),
// on.publication(publication), on.join(info), on.leave(info) and on.refused(why).
export class Room {
	#url; #channel; #on;
	#socket = null;
	#id = 0;
	#waiting = new Map(); // id → the one who waits for the answer
	#pong = false; // whether the server wants its sign of life answered
	#at = null; // { offset, epoch } of what was seen last
	#pushes = null; // those that come while the room is being entered
	#pause = firstPause;
	#again; #silent; #quiet = 35_000; // timers, and how long a server that lives may be silent
	me = ""; // this connection's name

	constructor(url, channel, on) {
		[this.#url, this.#channel, this.#on] = [url, channel, on];
		addEventListener("online", () => this.#now());
		document.addEventListener("visibilitychange", () => document.hidden || this.#now());
		this.#connect();
	}

	publish(data) { return this.#ask("publish", { channel: this.#channel, data }); }

	async people() {
		return Object.values((await this.#ask("presence", { channel: this.#channel })).presence ?? {});
	}

	// #now does not wait any longer to come back.
	#now() {
		if (!this.#socket && this.#again) this.#connect();
	}

	#connect() {
		clearTimeout(this.#again);
		this.#again = null;
		this.#on.state("", "connecting");
		const socket = this.#socket = new WebSocket(this.#url);
		socket.onopen = () => this.#enter().then(() => { this.#pause = firstPause; }, (err) => this.#end(socket, 4000, err.message));
		socket.onmessage = ({ data }) => {
			this.#listen(socket);
			for (const line of data.split("\n")) if (line) this.#take(JSON.parse(line));
		};
		socket.onclose = ({ code, reason }) => this.#end(socket, code, reason);
		this.#listen(socket);
	}

	// #listen waits for the next sign of life: a connection may end without a word.
	#listen(socket) {
		clearTimeout(this.#silent);
		this.#silent = setTimeout(() => this.#end(socket, 4001, "no sign of life"), this.#quiet);
	}

	#end(socket, code, reason) {
		if (socket !== this.#socket) return; // ended before
		this.#socket = null;
		socket.close();
		clearTimeout(this.#silent);
		for (const { no } of this.#waiting.values()) no(new Error("the connection was lost"));
		this.#waiting.clear();
		// 1008 is for good, and so are centrifuge's codes from 3500; the rest is to come back.
		if (code === 1008 || code >= 3500 && code < 4000) return this.#on.refused(reason);
		const wait = this.#pause * (0.5 + Math.random() / 2); // not everybody at once
		this.#pause = Math.min(2 * this.#pause, longestPause);
		this.#on.state("bad", `${reason || "no connection"}, again in ${Math.ceil(wait / 1000)} s`);
		this.#again = setTimeout(() => this.#connect(), wait);
	}

	#ask(method, params) {
		const socket = this.#socket;
		if (socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Error("there is no connection"));
		const id = ++this.#id;
		return new Promise((yes, no) => {
			const late = setTimeout(() => { this.#waiting.delete(id); no(new Error("no answer")); }, answerIn);
			const over = (f) => (v) => { clearTimeout(late); f(v); };
			this.#waiting.set(id, { yes: over(yes), no: over(no), method });
			socket.send(JSON.stringify({ id, [method]: params }));
		});
	}

	#take(m) {
		if (m.id) {
			const one = this.#waiting.get(m.id);
			this.#waiting.delete(m.id);
			if (m.error) one?.no(Object.assign(new Error(m.error.message), { code: m.error.code }));
			else one?.yes(m[one.method] ?? {});
		} else if (m.push) {
			if (this.#pushes) this.#pushes.push(m.push);
			else this.#push(m.push);
		} else if (this.#pong) {
			this.#socket.send("{}");
		}
	}

	#push({ pub, join, leave, unsubscribe }) {
		if (pub) this.#seen(pub, this.#on.publication);
		if (join) this.#on.join(join.info);
		if (leave) this.#on.leave(leave.info);
		if (unsubscribe) this.#socket.close(4002, "the subscription is over"); // back, and into the room again
	}

	// #seen takes what has not been seen yet.
	#seen(pub, take) {
		if (pub.offset <= this.#at.offset) return;
		this.#at.offset = pub.offset;
		take(pub);
	}

	// #enter connects and subscribes: from where it was, if it was there before.
	async #enter() {
		const { client, ping, pong } = await this.#ask("connect", {});
		this.me = client;
		this.#pong = pong;
		if (ping) this.#quiet = (ping + 10) * 1000;
		this.#pushes = [];
		const was = this.#at;
		const sub = await this.#ask("subscribe", { channel: this.#channel, ...(was && { recover: true, ...was }) });
		if (was && sub.recovered) {
			const missed = [];
			for (const pub of sub.publications ?? []) this.#seen(pub, (p) => missed.push(p));
			this.#at = { offset: sub.offset ?? 0, epoch: sub.epoch };
			this.#on.missed(missed, await this.people());
		} else {
			const { publications } = await this.#ask("history", { channel: this.#channel, limit: 50, reverse: true });
			const history = (publications ?? []).reverse();
			this.#at = { offset: history.at(-1)?.offset ?? sub.offset ?? 0, epoch: sub.epoch };
			this.#on.begin(history, await this.people(), Boolean(was));
		}
		const pushes = this.#pushes;
		this.#pushes = null;
		pushes.forEach((push) => this.#push(push));
		this.#on.state("good", "connected");
	}
}
