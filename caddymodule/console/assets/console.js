// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

"use strict";

const two = (n) => String(n).padStart(2, "0");

// localize shows a time in the reader's zone, as the server shows it in UTC.
function localize(element) {
	const t = new Date(element.dateTime), now = new Date();
	const day = (d) => `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
	const clock = `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
	if (day(t) === day(now)) {
		element.textContent = clock;
	} else {
		element.textContent = `${t.getFullYear() === now.getFullYear() ? day(t).slice(5) : day(t)} ${clock}`;
	}
	const zone = -t.getTimezoneOffset();
	const offset = `${zone < 0 ? "-" : "+"}${two(Math.floor(Math.abs(zone) / 60))}:${two(Math.abs(zone) % 60)}`;
	element.title = `${day(t)} ${clock}.${String(t.getMilliseconds()).padStart(3, "0")} ${offset}`;
}

document.querySelectorAll("time").forEach(localize);
document.getElementById("zone").textContent =
	document.documentElement.dataset.zone.replace("{}", Intl.DateTimeFormat().resolvedOptions().timeZone);

const calls = document.getElementById("calls");
if (calls) {
	live();
}

function live() {
	const most = 1000; // rows
	const words = JSON.parse(calls.dataset.words);
	const body = calls.tBodies[0];
	const row = document.getElementById("call").content;
	const none = document.getElementById("calls-none");
	const state = document.getElementById("live-state");
	const hold = document.getElementById("live-hold");
	const seen = new Set();
	let waiting = []; // calls that are not shown yet, the oldest first
	let held = false, connected = false, first = true;

	document.getElementById("live-control").hidden = false;

	// visible names the characters that would not be seen, or would change the order of others.
	const visible = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\u2028\u2029]/gu, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);

	function result(values) {
		const { action, verdict, reason } = values;
		if (reason && action === "reject") {
			return ["bad", "action.reject"];
		}
		if (reason && action === "forward") {
			return ["warn", "result.would"];
		}
		if (reason || (action === "forward" && verdict)) {
			return ["warn", `fallback.${verdict}`];
		}
		return ["ok", `action.${action}`];
	}

	function took(seconds) {
		const ms = seconds * 1000;
		return `${ms < 10 ? ms.toFixed(1) : Math.round(ms).toLocaleString("en")} ms`;
	}

	function put(cell, text, mark) {
		cell.textContent = text ? visible(text) : mark ? "–" : "";
		cell.className = text || !mark ? cell.className : "dim";
	}

	function rowOf(call) {
		const r = row.cloneNode(true).firstElementChild;
		const [time, command, outcome, conversation, detail, duration] = r.cells;
		const values = call.tim_callback;
		const [color, key] = result(values);
		r.dataset.id = call.id;
		time.firstElementChild.dateTime = call.time;
		localize(time.firstElementChild);
		put(command.firstElementChild, values.command, true);
		outcome.querySelector(".dot").classList.add(color);
		outcome.querySelector(".state").lastElementChild.textContent =
			(words[key] || key.slice(key.indexOf(".") + 1)) + (values.reason ? ` · ${values.reason}` : "");
		if (values.reason) {
			outcome.firstElementChild.title = words[`reason.${values.reason}`] || "";
		}
		put(conversation.firstElementChild, values.conversation, true);
		put(detail.firstElementChild, call.detail ? values.path : "", false);
		put(detail.lastElementChild, (call.detail && values.path ? ": " : "") + (call.detail || ""), true);
		duration.textContent = took(call.duration);
		return r;
	}

	function say() {
		state.textContent = held ? words["live.held"].replace("%s", waiting.length) : words[connected ? "live.on" : "live.off"];
	}

	// show adds what came since, at most a few times a second.
	function show() {
		if (held || waiting.length === 0) {
			return;
		}
		const fragment = document.createDocumentFragment();
		for (const call of waiting.slice(-most).reverse()) {
			const r = rowOf(call);
			if (!first) {
				r.classList.add("fresh");
			}
			fragment.append(r);
		}
		if (first) {
			body.replaceChildren(); // the stream begins with all of them, and more
		}
		first = false;
		waiting = [];
		body.prepend(fragment);
		while (body.rows.length > most) {
			seen.delete(body.lastElementChild.dataset.id);
			body.lastElementChild.remove();
		}
		none.hidden = true;
	}

	const source = new EventSource(calls.dataset.stream);
	source.onopen = () => { connected = true; say(); };
	source.onerror = () => { connected = false; say(); };
	source.onmessage = (event) => {
		const id = event.lastEventId;
		if (seen.has(id)) {
			return;
		}
		seen.add(id);
		const call = JSON.parse(event.data);
		call.id = id; // beyond what a number holds exactly
		waiting.push(call);
		if (waiting.length > most) {
			seen.delete(waiting.shift().id);
		}
		if (held) {
			say();
		}
	};
	setInterval(show, 250);
	hold.onclick = () => {
		held = !held;
		hold.setAttribute("aria-pressed", held);
		hold.textContent = words[held ? "live.go" : "live.hold"];
		say();
	};
}
