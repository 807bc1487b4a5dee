// Two people chat in Chromium: node browser.mjs URL CHROMIUM
//
// It prints "talked" when both have seen everything, waits for the server to
// go away and come back, and prints "done" when both are in the room again.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const clients = new URL("../../internal/clients/node/package.json", import.meta.url);
const { chromium } = createRequire(clients)("playwright-core");
const [url, executablePath] = process.argv.slice(2);

const browser = await chromium.launch({
	executablePath,
	args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync"],
});
try {
	await chat();
} finally {
	await browser.close();
}

async function chat() {
	const ann = await enter("Ann");
	const bjorn = await enter("Björn");
	await seen(ann.page, ["Gus gRPC first", "Ann joined", "Björn joined"]);

	await say(ann.page, "hello <b>there</b>");
	await seen(bjorn.page, ["Ann WebSocket hello <b>there</b>"]);
	await say(bjorn.page, "hi");
	const status = await ann.page.evaluate(async () => (await fetch("/api/messages", {
		method: "POST",
		headers: { "Content-Type": "application/json" },
		body: JSON.stringify({ name: "Cleo", text: "by REST" }),
	})).status);
	assert.equal(status, 201);
	for (const { page } of [ann, bjorn]) {
		await seen(page, ["Ann WebSocket hello <b>there</b>", "Björn WebSocket hi", "Cleo REST by REST"]);
	}
	assert.equal(await ann.page.locator("#log .mine").count(), 1);
	assert.equal(await ann.page.locator("#log b").count(), 0, "markup in a message");
	for (const { problems } of [ann, bjorn]) assert.deepEqual(problems, []);

	const gone = [ann, bjorn].map(({ page }) => state(page, /1001|1006/));
	console.log("talked");
	await Promise.all(gone);
	for (const { page } of [ann, bjorn]) await state(page, /^in the room/);
	await say(ann.page, "again");
	await seen(bjorn.page, ["Ann WebSocket again"]);
	console.log("done");
}

// enter opens the page and joins. What the page complains about is collected.
async function enter(name) {
	const context = await browser.newContext({ ignoreHTTPSErrors: true });
	const page = await context.newPage();
	const problems = [];
	page.on("console", (m) => { if (["error", "warning"].includes(m.type())) problems.push(m.text()); });
	page.on("pageerror", (e) => problems.push(e.message));
	await page.goto(url);
	await page.fill("#name", name);
	await page.press("#name", "Enter");
	await state(page, new RegExp(`^in the room as ${name}$`));
	return { page, problems };
}

async function say(page, text) {
	await page.fill("#text", text);
	await page.press("#text", "Enter");
}

function state(page, wanted) {
	return page.waitForFunction(([source]) => new RegExp(source).test(document.getElementById("state").textContent), [wanted.source]);
}

// seen waits until these lines stand at the end of the log, one after the
// other. The time of day is left out.
async function seen(page, lines) {
	const tail = () => page.locator("#log li").evaluateAll((items, n) => items.slice(-n).map((li) =>
		(li.className === "notice" ? [li] : [...li.querySelectorAll("bdi, .by span, .text")]).map((e) => e.textContent).join(" ")), lines.length);
	for (const end = Date.now() + 10_000; Date.now() < end;) {
		if (JSON.stringify(await tail()) === JSON.stringify(lines)) return;
		await page.waitForTimeout(20);
	}
	assert.deepEqual(await tail(), lines);
}
