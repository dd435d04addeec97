// The page: one form, one list, one player. A search is sent when it is committed (Enter or the button), never while
// typing. The query is kept in the address, so that going back and sharing work; text from outside is only ever put
// into text nodes. A search that an address asks for earns nobody anything where a page of another site has led here: the
// server says so, and a person's own searches count from the first on.

"use strict";

const LIMIT = 24;
const TIMEOUT_MS = 20000;
const MATCHED = { vector: "meaning", text: "words", some_words: "some words" };
const SKIPPED = {
  vector: "Results match words only at the moment; search by meaning is unavailable.",
  encoder: "Results match words only at the moment; search by meaning is unavailable.",
  text: "Results match meaning only at the moment; search by words is unavailable.",
};

const at = (id) => document.getElementById(id);
const view = Object.fromEntries(
  ["search", "q", "welcome", "status", "degraded", "error", "error-text", "retry", "results", "more", "card", "player",
    "player-title", "player-time", "player-text", "video", "video-error", "close", "previous", "next", "again", "loop"]
    .map((id) => [id, at(id)]),
);

let moments = [];
let cursor = null;
let query = "";
let intent = "search";
let playing = -1;
let asking = null;

function timeCode(ms) {
  const minutes = Math.floor(ms / 60000);
  const seconds = (Math.floor((ms % 60000) / 100) / 10).toFixed(1).padStart(4, "0");
  const hours = Math.floor(minutes / 60);
  return hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${seconds}` : `${minutes}:${seconds}`;
}

const span = (moment) => `${timeCode(moment.start_ms)} – ${timeCode(moment.end_ms)}`;
const creator = (moment) => moment.creator || `Creator ${moment.creator_id}`;

// ── Asking ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function ask(parameters) {
  if (asking) asking.abort();
  const own = new AbortController();
  asking = own;
  const timer = setTimeout(() => own.abort("timeout"), TIMEOUT_MS);
  try {
    const answer = await fetch(`/v1/search?${new URLSearchParams(parameters)}`, { signal: own.signal });
    const document = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(document.detail || `The server answered with status ${answer.status}.`);
    return document;
  } catch (error) {
    if (own.signal.aborted && own.signal.reason !== "timeout") return null;  // a newer search has taken its place
    if (own.signal.aborted) throw new Error("The server takes too long to answer.");
    if (error instanceof TypeError) throw new Error("The server cannot be reached.");
    throw error;
  } finally {
    clearTimeout(timer);
    if (asking === own) asking = null;
  }
}

const ledFromElsewhere = "ledFromElsewhere" in document.documentElement.dataset;

async function search(text, why) {
  query = text.trim();
  intent = why;
  view.q.value = query;
  document.title = query ? `${query} · Pixr` : "Pixr";
  view.welcome.hidden = Boolean(query);
  if (!query) {
    clear();
    return;
  }
  await show({ q: query, limit: LIMIT, intent }, false);
}

async function show(parameters, further) {
  view.error.hidden = true;
  view.more.hidden = true;
  view.results.classList.add("loading");
  view.results.setAttribute("aria-busy", "true");
  view.status.textContent = "Searching…";
  try {
    const answer = await ask(parameters);
    if (answer === null) return;
    if (!further) clear();
    render(answer);
  } catch (error) {
    if (!further) clear();
    view.status.textContent = "";
    view["error-text"].textContent = error.message;
    view.error.hidden = false;
  }
  view.results.classList.remove("loading");
  view.results.removeAttribute("aria-busy");
}

// ── Showing ─────────────────────────────────────────────────────────────────────────────────────────────────────

function clear() {
  moments = [];
  cursor = null;
  view.results.replaceChildren();
  view.status.textContent = "";
  view.degraded.hidden = true;
  view.error.hidden = true;
  view.more.hidden = true;
}

function render(answer) {
  for (const moment of answer.moments) {
    view.results.append(card(moment, moments.length));
    moments.push(moment);
  }
  cursor = answer.next_cursor;
  view.more.hidden = !cursor;
  const count = moments.length === 1 ? "1 moment" : `${moments.length} moments`;
  view.status.textContent = moments.length
    ? `${count} for “${query}” in ${Math.round(answer.took_ms)} ms`
    : nothing(answer);
  const skipped = answer.degraded || [];
  view.degraded.hidden = !skipped.length;
  view.degraded.textContent = skipped.map((name) => SKIPPED[name]).find(Boolean)
    || `Search runs with reduced means at the moment (${skipped.join(", ")}).`;
}

function nothing(answer) {
  return answer.nothing_matches
    ? `Nothing matches “${query}”. Try other words, fewer words, or the name of something that is seen.`
    : `Nothing found for “${query}” with what can be asked at the moment. Try again soon.`;
}

function card(moment, place) {
  const item = view.card.content.firstElementChild.cloneNode(true);
  const part = (name) => item.querySelector(name);
  const percent = Math.round(moment.relevance_ppm / 10000);
  part("img").src = moment.thumbnail_url;
  part(".time").textContent = span(moment);
  part(".title").textContent = moment.title || "Untitled";
  part(".creator").textContent = creator(moment);
  part(".gauge span").style.width = `${percent}%`;
  part(".percent").textContent = `${percent} %`;
  for (const name of moment.matched || []) {
    const badge = document.createElement("span");
    badge.className = "badge";
    badge.textContent = MATCHED[name] || name;
    part(".badges").append(badge);
  }
  const button = part("button");
  button.setAttribute("aria-label",
    `Play ${moment.title || "untitled"}, ${span(moment)}, by ${creator(moment)}, relevance ${percent} per cent`);
  button.addEventListener("click", () => play(place));
  return item;
}

// ── Playing ─────────────────────────────────────────────────────────────────────────────────────────────────────

function play(place) {
  const moment = moments[place];
  if (!moment) return;
  playing = place;
  broke = null;
  view["player-title"].textContent = moment.title || "Untitled";
  view["player-time"].textContent = `${span(moment)} · ${creator(moment)}`;
  view["player-text"].textContent = moment.description || "";
  view["video-error"].hidden = true;
  view.previous.disabled = place === 0;
  view.next.disabled = place === moments.length - 1;
  const address = moment.play_url.split("#")[0];
  view.video.poster = moment.thumbnail_url;
  if (view.video.getAttribute("src") === address) {
    begin();
  } else {
    view.video.src = address;
    view.video.load();
  }
  if (!view.player.open) view.player.showModal();
}

function begin() {
  if (playing < 0) return;
  view.video.currentTime = moments[playing].start_ms / 1000;
  within = true;
  view.video.play().catch(() => {});  // a browser may want a click first; the controls are there
}

// The moment ends once: who plays on, or seeks out of it, watches the rest undisturbed.
let within = false;

function watch() {
  if (playing < 0 || !within) return;
  const { start_ms: start, end_ms: end } = moments[playing];
  const now = view.video.currentTime * 1000;
  if (now < start - 1000 || now > end + 1000) {
    within = false;
  } else if (now >= end) {
    if (view.loop.checked) {
      begin();
    } else {
      view.video.pause();
      within = false;
    }
  }
}

function stop() {
  playing = -1;
  view.video.pause();
  view.video.removeAttribute("src");
  view.video.load();
}

// The link to the store that ours leads to lives for minutes. A player that stood still for longer fails when it reads on:
// ours, asked again, leads to another link, which is taken where the last one broke off. Not twice in a row.
const FOLLOW_AGAIN_MS = 10000;
let broke = null, followed = -Infinity;

function follow() {
  const network = view.video.error && view.video.error.code === MediaError.MEDIA_ERR_NETWORK;
  if (!network || performance.now() - followed < FOLLOW_AGAIN_MS) return false;
  followed = performance.now();
  broke = { time: view.video.currentTime, paused: view.video.paused, within };
  view.video.load();
  return true;
}

function resume() {
  if (!broke) return begin();
  view.video.currentTime = broke.time;
  within = broke.within;
  if (!broke.paused) view.video.play().catch(() => {});
  broke = null;
}

view.video.addEventListener("loadedmetadata", resume);
view.video.addEventListener("timeupdate", watch);
view.video.addEventListener("ended", () => { if (view.loop.checked && within) begin(); });
view.video.addEventListener("error", () => {
  if (playing < 0 || follow()) return;
  view["video-error"].textContent = "This browser cannot play this video, or the link has expired: search again.";
  view["video-error"].hidden = false;
});
view.again.addEventListener("click", begin);
view.previous.addEventListener("click", () => play(playing - 1));
view.next.addEventListener("click", () => play(playing + 1));
view.close.addEventListener("click", () => view.player.close());
view.player.addEventListener("close", stop);
view.player.addEventListener("click", (event) => { if (event.target === view.player) view.player.close(); });

// ── Controls ────────────────────────────────────────────────────────────────────────────────────────────────────

view.search.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = view.q.value.trim();
  if (!text) return;
  history.pushState({ isOwn: true }, "", `/?${new URLSearchParams({ q: text })}`);
  search(text, "search");
});
view.retry.addEventListener("click", () => search(query, intent));
view.more.addEventListener("click", () => show({ cursor, limit: LIMIT }, true));
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== view.q && !view.player.open) {
    event.preventDefault();
    view.q.focus();
  }
});

// Which entries of the history are of the person's own searches stands in their state, which no other page can write.
function fromAddress() {
  const isOwn = !ledFromElsewhere || Boolean(history.state && history.state.isOwn);
  search(new URLSearchParams(location.search).get("q") || "", isOwn ? "search" : "typing");
}

window.addEventListener("popstate", fromAddress);
fromAddress();
