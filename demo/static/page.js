// The page: what was asked, what was found, what is being watched.

import { get, GONE, RequestError } from "./api.js";
import { frameOf, Library } from "./library.js";
import { Player } from "./player.js";
import { Timeline } from "./timeline.js";
import { badge, clock, counted, element, period, scored } from "./words.js";

const MOST_SENTENCES = 4;
// A best answer below this is probably none, where scores are likelihoods.
const UNLIKELY = 0.1;

const at = (id) => document.getElementById(id);
const player = new Player(at("player"), (time) => timeline.setTime(time));
const timeline = new Timeline(at("timeline"), seek, chooseOnTimeline);
const library = new Library({
  change: libraryChanged,
  open: (video) => watch(video.video_id, null, { plays: true, tells: true }),
  fail: showFailure,
  reached: () => {
    if (!notice.isGone) return;
    hideNotice();
    if (state.answers.some(({ error }) => error && isOurs(error))) search({ remembers: false });
  },
});

const state = {
  answers: [], // of each sentence: query, and either moments or an error
  video: null, // id of the video in the player
  chosen: null, // {video_id, start, end, score, row, query}
  rows: [], // of the video in the player, for its timeline
};

// Sentences.

const forms = [];

function addSentence(text = "") {
  const row = forms.length;
  const input = element("input", {
    type: row ? "text" : "search",
    name: "q",
    value: text,
    maxLength: 1000,
    autocomplete: "off",
    enterKeyHint: "search",
    placeholder: row ? "Another sentence" : suggestion(),
    "aria-label": row ? `Sentence ${row + 1}` : "What happens in the moment",
  });
  if (!row) input.setAttribute("aria-keyshortcuts", "/");
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && cards().length) {
      event.preventDefault();
      cards()[0].focus();
    }
  });
  const line = element("div", { className: "sentence" }, input);
  const form = { line, input };
  if (row) {
    const button = element("button", { type: "button", "aria-label": `Remove sentence ${row + 1}` }, "Remove");
    button.addEventListener("click", () => {
      const texts = forms.map((other) => other.input.value);
      texts.splice(forms.indexOf(form), 1);
      setSentences(texts);
      forms.at(-1).input.focus();
      search();
    });
    line.append(button);
  } else {
    line.append(element("button", { className: "main" }, "Find"));
  }
  forms.push(form);
  at("sentences").append(line);
  markSentences();
  return form;
}

// In words that the model knows, as far as it says which.
function suggestion() {
  const { examples, words } = library.settings;
  if (examples.length) return `For example: ${examples[0]}`;
  if (words?.some.length) return `What happens? In words such as ${words.some.slice(0, 3).join(", ")}`;
  return "What happens in the moment?";
}

function markSentences() {
  forms.forEach(({ line }, row) => {
    line.querySelector(".badge")?.remove();
    if (forms.length > 1) line.prepend(badge(row));
  });
  at("add-sentence").hidden = forms.length >= MOST_SENTENCES;
}

function setSentences(texts) {
  forms.length = 0;
  at("sentences").replaceChildren();
  (texts.length ? texts : [""]).slice(0, MOST_SENTENCES).forEach((text) => addSentence(text));
}

// Searching.

let searching = null;
let isReopened = false; // or somebody's hands were faster

// Whether it was still wanted when it was over.
async function search({ remembers = true, selects = true } = {}) {
  searching?.abort();
  const { signal } = (searching = new AbortController());
  isReopened = true;
  const queries = forms.map(({ input }) => input.value.trim()).filter(Boolean);
  // The numbers of the sentences are those of their boxes.
  if (queries.some((query, row) => query !== forms[row].input.value.trim())) {
    setSentences(queries);
    forms.at(-1).input.focus();
  }
  if (!queries.length) {
    state.answers = [];
    at("results").removeAttribute("aria-busy");
    at("results").classList.remove("waiting");
    showAnswers();
    if (remembers) remember();
    await refreshRows();
    return !signal.aborted;
  }
  const params = [["top", at("top").value]];
  if (at("scope").value) params.push(["video", at("scope").value]);
  const results = at("results");
  results.setAttribute("aria-busy", "true");
  results.classList.add("waiting");
  const timer = setTimeout(() => {
    if (!cards().length) {
      delete results.dataset.invitation;
      results.replaceChildren(...bones());
    }
    at("status").textContent = "Searching…";
  }, 200);
  const answers = await Promise.all(
    queries.map(async (query) => {
      try {
        return await get("/api/search", [["q", query], ...params], signal);
      } catch (error) {
        return { query, moments: [], unknown_words: [], error };
      }
    }),
  );
  clearTimeout(timer);
  if (signal.aborted) return false;
  results.removeAttribute("aria-busy");
  results.classList.remove("waiting");
  const gone = answers.find(({ error }) => error && isOurs(error));
  if (gone) showFailure(gone.error);
  else hideNotice();
  state.answers = answers;
  state.chosen = null;
  // On a phone, what was found stands above the player until it is watched.
  document.body.classList.remove("watching");
  showAnswers();
  const first = answers.find(({ moments }) => moments.length);
  if (first && selects && isWide()) {
    const row = answers.indexOf(first);
    const best = momentsOf(first, row)[0];
    await watch(best.video_id, best, { plays: false, remembers: false });
    if (remembers && !signal.aborted) remember();
  } else {
    if (remembers) remember();
    await refreshRows();
  }
  return !signal.aborted;
}

// A failure that has nothing to do with the sentence.
function isOurs(error) {
  return error.status === 0 || error.status >= 500;
}

function isWide() {
  return matchMedia("(min-width: 60rem)").matches;
}

// The moments of an answer, each with its sentence, and whether it was found
// by so few words that its score is no likelihood.
function momentsOf({ query, moments, is_mostly_known: isMostlyKnown }, row) {
  return moments.map((moment) => ({ ...moment, row, query, isVague: !isMostlyKnown }));
}

function bones() {
  const make = () => element("div", { className: "bone" });
  return [element("div", { className: "cards", "aria-hidden": "true" }, make(), make(), make())];
}

function showAnswers() {
  const { answers } = state;
  const several = answers.length > 1;
  if (!answers.length) {
    showInvitation();
    return;
  }
  delete at("results").dataset.invitation;
  at("results").replaceChildren(...answers.map((answer, row) => group(answer, row, several)));
  const found = answers.reduce((sum, { moments }) => sum + moments.length, 0);
  const failed = answers.every(({ error }) => error);
  const where = at("scope").value ? ` in ${library.title(at("scope").value)}` : "";
  const lost = answers.every(({ error }) => error && isOurs(error));
  if (lost) at("status").textContent = "";
  else at("status").textContent = failed ? "Nothing was found." : `${counted(found, "moment")}${where}, best first.`;
  markChosen();
}

function group(answer, row, several) {
  const made = element("div", { className: "group" });
  if (several) made.append(element("h3", {}, badge(row), answer.query));
  const say = (text, className = "") => made.append(element("p", { className }, text));
  const { calibrated } = library.settings;
  if (answer.error) {
    say(isOurs(answer.error) ? "The search did not come through." : answer.error.message, "bad");
  } else {
    if (answer.unknown_words.length) {
      const words = answer.unknown_words.map((word) => `“${word}”`).join(", ");
      say(`The model does not know ${words}; it searched by the other words.`);
      if (calibrated && !answer.is_mostly_known) {
        say("It knows no more than half of the words, too few to say how likely a moment is right.");
      }
    }
    if (!answer.moments.length) {
      say("No moment was found.");
    } else if (calibrated && answer.is_mostly_known && answer.moments[0].score < UNLIKELY) {
      say("Most likely there is no such moment. The nearest are:");
    }
  }
  const list = element("ol", { className: "cards" });
  momentsOf(answer, row).forEach((moment) => list.append(element("li", {}, card(moment))));
  if (answer.moments.length) {
    made.append(list);
    if (!calibrated) say("Scores compare the moments of one sentence; a higher one fits better.");
  }
  return made;
}

function card(moment) {
  const title = library.title(moment.video_id);
  const said = scored(moment, library.settings.calibrated);
  const image = element("img", {
    className: "thumb",
    alt: "",
    loading: "lazy",
    width: 104,
    height: 65,
    src: frameOf(moment.video_id, (moment.start + moment.end) / 2),
  });
  image.addEventListener("error", () => image.removeAttribute("src"), { once: true });
  const made = element(
    "button",
    {
      type: "button",
      className: "card",
      dataset: {
        video: moment.video_id,
        start: moment.start,
        end: moment.end,
        score: moment.score,
        row: moment.row,
      },
    },
    element("span", { className: "frame" }, image),
    element(
      "span",
      {},
      element("span", { className: "times" }, period(moment)),
      element("span", { className: "title", title }, title),
      element("span", { className: "score" }, said),
    ),
  );
  made.addEventListener("click", () => watch(moment.video_id, moment, { plays: true, tells: true }));
  return made;
}

function cards() {
  return [...at("results").querySelectorAll(".card")];
}

function showInvitation() {
  const results = at("results");
  // Instead it says that it searches.
  if (results.hasAttribute("aria-busy")) return;
  const { examples, words } = library.settings;
  const kind = JSON.stringify([
    library.isKnown, library.videos.length > 0, library.numReady > 0, examples, library.settings.can_upload,
  ]);
  // What has the focus would lose it.
  if (kind === results.dataset.invitation) return;
  results.dataset.invitation = kind;
  at("status").textContent = "";
  if (!library.isKnown) {
    at("status").textContent = "Loading the videos…";
    results.replaceChildren(...bones());
  } else if (!library.videos.length) {
    results.replaceChildren(
      element("p", {}, library.settings.can_upload
        ? "Add a video first; then say what happens in it."
        : "There is no video to search in. Start the page with --videos."),
    );
  } else if (!library.numReady) {
    results.replaceChildren(element("p", {}, "The videos are being read. The first can be searched soon."));
  } else {
    const chips = examples.map((text) => {
      const button = element("button", { type: "button" }, text);
      button.addEventListener("click", () => {
        setSentences([text]);
        search();
      });
      return button;
    });
    const text = "Say in a sentence what happens, and press Enter." + (chips.length ? " For example:" : "");
    results.replaceChildren(element("p", {}, text), element("div", { className: "chips" }, ...chips));
    if (words?.some.length) {
      const known = `The model knows ${counted(words.count, "word")}, such as ${words.some.join(", ")}.`;
      results.append(element("p", { className: "known" }, known));
    }
  }
}

// Watching.

let watching = null;

// Shows a video, from a moment on if there is one.
async function watch(videoId, moment, { plays = false, remembers = true, tells = false } = {}) {
  const isOther = state.video !== videoId;
  state.video = videoId;
  state.chosen = moment;
  document.body.classList.add("watching");
  at("watch-title").textContent = library.title(videoId);
  library.mark(videoId);
  markChosen();
  showNow();
  showSource({ plays });
  if (tells && !isWide()) at("watch").scrollIntoView({ block: "start" });
  if (remembers) remember();
  if (isOther) timeline.show(null);
  at("attention").hidden = true;
  await refreshRows();
}

function showSource({ plays = false } = {}) {
  const video = library.byId.get(state.video);
  const cover = at("cover");
  cover.replaceChildren();
  at("controls").hidden = !video;
  if (!state.video) {
    player.clear();
    cover.replaceChildren(element("p", {}, "Choose a moment or a video to watch it here."));
    return;
  }
  if (!library.isKnown) return;
  if (video?.media) {
    player.show(video.media, state.chosen, plays);
    return;
  }
  player.clear();
  const preview = video?.preview;
  let text = "This video is being opened.";
  if (!video) text = "This video is not in the library; it may have been removed.";
  else if (video.state === "failed") text = video.error;
  else if (preview?.state === "failed") text = `It cannot be played here. ${preview.error}`;
  else if (preview) text = "Browsers do not play this kind of file. A copy that they play is being made.";
  cover.append(element("p", {}, text));
  if (preview && preview.state !== "failed") {
    cover.append(element("progress", { max: 1, value: preview.progress, "aria-label": "Progress of the copy" }));
  }
}

function showNow() {
  const { chosen } = state;
  const now = at("now");
  const has = steps().length > 0;
  at("previous").disabled = at("next").disabled = !has;
  at("loop").disabled = !chosen;
  if (!chosen) {
    now.replaceChildren("The whole video.");
    return;
  }
  const times = element("b", {}, period(chosen));
  const said = chosen.score === undefined ? "known moment" : scored(chosen, library.settings.calibrated);
  now.replaceChildren(times, `, ${said}: “${chosen.query}”`);
}

function seek(time) {
  player.seek(time);
}

function chooseOnTimeline(moment, row) {
  const query = row === null ? moment.query : state.rows.find((one) => one.row === row).query;
  watch(state.video, { video_id: state.video, ...moment, row, query }, { plays: true });
}

function isSame(one, other) {
  return Boolean(
    one && other && one.video_id === other.video_id && one.start === other.start && one.end === other.end,
  );
}

function markChosen() {
  for (const one of cards()) {
    const { chosen } = state;
    const is =
      chosen &&
      one.dataset.video === chosen.video_id &&
      Number(one.dataset.start) === chosen.start &&
      Number(one.dataset.end) === chosen.end;
    if (is) one.setAttribute("aria-current", "true");
    else one.removeAttribute("aria-current");
  }
}

// What the timeline shows: each sentence's moments in this video, and curve.
async function refreshRows() {
  watching?.abort();
  const { signal } = (watching = new AbortController());
  const video = library.byId.get(state.video);
  if (!video) {
    timeline.show(null);
    return;
  }
  const path = `/api/videos/${encodeURIComponent(state.video)}`;
  try {
    state.rows = video.state === "ready" ? await rowsOf(path, signal) : [];
  } catch (error) {
    if (error.name === "AbortError") return;
    state.rows = [];
    showFailure(error);
  }
  if (signal.aborted) return;
  // What was chosen from another list than these five is shown as well.
  const { chosen } = state;
  const row = chosen && state.rows.find((one) => one.row === chosen.row);
  if (row && !row.moments.some((moment) => isSame(moment, chosen))) row.moments = [...row.moments, chosen];
  drawTimeline();
  showNow();
  await showAttention(path, signal);
}

let lastRows = null; // what was asked, and what came

async function rowsOf(path, signal) {
  const asked = state.answers.map(({ query, error }, row) => ({ query, error, row })).filter(({ error }) => !error);
  const key = JSON.stringify([path, asked]);
  if (lastRows?.key !== key) {
    const rows = await Promise.all(
      asked.map(async ({ query, row }) => {
        const [moments, curve] = await Promise.all([
          momentsIn(state.video, query, row, signal),
          library.settings.has_curve ? get(`${path}/curve`, [["q", query]], signal) : null,
        ]);
        return { query, row, moments, curve };
      }),
    );
    lastRows = { key, rows };
  }
  return lastRows.rows.map((row) => ({ ...row }));
}

// The best moments of one video for a sentence.
async function momentsIn(video, query, row, signal) {
  const params = [["q", query], ["top", 5], ["video", video]];
  return momentsOf(await get("/api/search", params, signal), row);
}

function drawTimeline() {
  const video = library.byId.get(state.video);
  if (!video?.duration) {
    timeline.show(null);
    return;
  }
  const asked = new Set(state.rows.map(({ query }) => query.toLowerCase()));
  const matching = video.truth.filter(({ query }) => asked.has(query.toLowerCase()));
  const isVague = state.rows.some(({ moments }) => moments.some((moment) => moment.isVague));
  timeline.show({
    duration: video.duration,
    calibrated: library.settings.calibrated,
    hasLikelihoods: library.settings.calibrated && !isVague,
    rows: state.rows,
    truth: matching.length ? matching : video.truth,
    chosen: state.chosen,
  });
}

async function showAttention(path, signal) {
  const { chosen } = state;
  const figure = at("attention");
  const asks = chosen?.score !== undefined && library.settings.has_curve;
  if (!asks) {
    figure.hidden = true;
    return;
  }
  let found;
  try {
    const params = [["q", chosen.query], ["start", chosen.start], ["end", chosen.end]];
    found = await get(`${path}/attention`, params, signal);
  } catch {
    figure.hidden = true; // this model has none
    return;
  }
  const rows = found.kernel_sizes.map((size, i) => {
    const percent = Math.round(100 * found.weights[i]);
    const fill = element("div", { className: "fill" });
    fill.style.width = `${percent}%`;
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, width(size)),
      element("td", { "aria-hidden": "true" }, element("div", { className: "track" }, fill)),
      element("td", {}, `${percent} %`),
    );
  });
  figure.replaceChildren(
    element("h3", {}, "What the model looked at"),
    element("table", {}, element("tbody", {}, ...rows)),
    element(
      "figcaption",
      {},
      `How much the moment itself, ${clock(found.window[0])} to ${clock(found.window[1])}, and what comes before and ` +
        "after it counted for this answer.",
    ),
  );
  figure.hidden = false;
}

function width(size) {
  const each = (size - 1) / 2;
  if (!each) return "the moment alone";
  return `with ${each === 1 ? "as much time" : `${each} times as much time`} before and after it`;
}

// Moments that "next" goes through: those of the list, or of this video.
function steps() {
  const listed = state.answers.flatMap(momentsOf);
  return listed.length ? listed : truthOf(state.video);
}

function truthOf(video) {
  const truth = library.byId.get(video)?.truth ?? [];
  return truth.map((known) => ({ video_id: video, row: null, ...known }));
}

function step(change) {
  const all = steps();
  if (!all.length) return;
  const now = all.findIndex((moment) => isSame(moment, state.chosen));
  const next = now < 0 ? all[0] : all[(now + change + all.length) % all.length];
  watch(next.video_id, next, { plays: true });
}

function setLoop(loops) {
  player.loops = loops;
  at("loop").setAttribute("aria-pressed", String(loops));
}

// Links: the address says what is shown. "Back" leads to the search before, or
// without a sentence to the video before.

function remember() {
  const params = new URLSearchParams();
  for (const { input } of forms) if (input.value.trim()) params.append("q", input.value.trim());
  if (at("scope").value) params.set("video", at("scope").value);
  if (at("top").value !== "5") params.set("top", at("top").value);
  if (state.video) params.set("watch", state.video);
  if (state.chosen) params.set("t", `${state.chosen.start.toFixed(3)}-${state.chosen.end.toFixed(3)}`);
  const query = params.toString();
  const path = query ? `/?${query}` : "/";
  const isSameSearch = searchOf(params) === searchOf(new URLSearchParams(location.search));
  if (isSameSearch) history.replaceState(null, "", path);
  else history.pushState(null, "", path);
  entitle(params);
}

function searchOf(params) {
  const queries = params.getAll("q");
  const video = queries.length ? params.get("video") : params.get("watch");
  return JSON.stringify([queries, video, params.get("top")]);
}

function entitle(params) {
  const [first] = params.getAll("q");
  document.title = first ? `${first} · Find moments` : "Find moments in videos";
}

// What the address asks for, in the boxes.
function readAddress() {
  const params = new URLSearchParams(location.search);
  entitle(params);
  setSentences(params.getAll("q"));
  wantedScope = params.get("video") ?? "";
  showScopes();
  at("top").value = params.get("top") ?? "5";
  if (!at("top").value) at("top").value = "5";
}

async function reopen() {
  const params = new URLSearchParams(location.search);
  const video = params.get("watch");
  const times = /^([\d.]+)-([\d.]+)$/.exec(params.get("t") ?? "");
  state.video = state.chosen = null;
  if (!(await search({ remembers: false, selects: !video }))) return;
  const { signal } = searching;
  if (!video) {
    if (!state.video) showSource();
    return;
  }
  let chosen = null;
  if (times) {
    const [start, end] = times.slice(1).map(Number);
    const near = (moment) =>
      moment.video_id === video && Math.abs(moment.start - start) < 0.01 && Math.abs(moment.end - end) < 0.01;
    // A link may be to a moment of the timeline, which the list does not have.
    const isReady = library.byId.get(video)?.state === "ready";
    const asked = state.answers.map(({ query, error }, row) =>
      isReady && !error ? momentsIn(video, query, row) : [],
    );
    const found = await Promise.all(asked).catch(() => []);
    if (signal.aborted || state.video) return; // something else was chosen
    chosen = [...steps(), ...found.flat(), ...truthOf(video)].find(near) ?? null;
  }
  await watch(video, chosen, { plays: false, remembers: false });
}

// The library.

let wantedScope = "";
let scopes = null; // what the list of them was made of

function showScopes() {
  const select = at("scope");
  const value = wantedScope || select.value;
  const ready = library.videos.filter((video) => video.state === "ready");
  const names = JSON.stringify(ready.map((video) => [video.video_id, video.title]));
  // A list that is open closes when it is made anew.
  if (names !== scopes) {
    scopes = names;
    const options = ready.map((video) => element("option", { value: video.video_id }, video.title));
    select.replaceChildren(element("option", { value: "" }, "all videos"), ...options);
  }
  select.value = value;
  if (select.value !== value) select.value = "";
  else wantedScope = "";
}

async function libraryChanged({ isFirst }) {
  showScopes();
  forms[0].input.placeholder = suggestion();
  if (!isReopened) {
    isReopened = true;
    await reopen();
    return;
  }
  if (isFirst) showAnswers(); // with their titles, and what scores mean
  if (!state.answers.length) showInvitation();
  if (!state.video) return;
  const video = library.byId.get(state.video);
  at("watch-title").textContent = library.title(state.video);
  if (!video) {
    timeline.show(null);
    at("attention").hidden = true;
  }
  const shows = video?.media && at("player").getAttribute("src") === video.media;
  if (!shows) {
    showSource();
  }
  if (video?.state === "ready" && (at("timeline").hidden || (state.answers.length && !state.rows.length))) {
    await refreshRows();
  }
}

// What went wrong.

const notice = { isGone: false };

function showFailure(error) {
  if (error.name === "AbortError") return;
  const box = at("notice");
  if (notice.text === error.message && !box.hidden) return;
  notice.text = error.message;
  notice.isGone = error instanceof RequestError && error.status === 0;
  if (notice.isGone) setTimeout(() => library.refresh(), 3000);
  const again = element("button", { type: "button" }, "Try again");
  again.addEventListener("click", () => {
    hideNotice();
    library.refresh();
    if (forms.some(({ input }) => input.value.trim())) search();
  });
  box.replaceChildren(element("span", {}, error.message), again);
  box.hidden = false;
}

function hideNotice() {
  notice.isGone = false;
  notice.text = null;
  at("notice").hidden = true;
}

// Hands.

at("search").addEventListener("input", () => {
  isReopened = true;
});
at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const isEmpty = forms.every(({ input }) => !input.value.trim());
  search();
  if (!isEmpty) return;
  at("status").textContent = "Type a sentence that says what happens in the video.";
  forms[0].input.focus();
});
at("add-sentence").addEventListener("click", () => addSentence().input.focus());
for (const id of ["scope", "top"]) {
  at(id).addEventListener("change", () => {
    if (state.answers.length) search();
  });
}
at("previous").addEventListener("click", () => step(-1));
at("next").addEventListener("click", () => step(1));
at("loop").addEventListener("click", () => setLoop(!player.loops));
at("help-open").addEventListener("click", () => at("help").showModal());
at("player").addEventListener("error", () => {
  if (!at("player").hasAttribute("src")) return;
  const cover = at("cover");
  cover.replaceChildren(element("p", {}, `This video could not be loaded. ${navigator.onLine ? "" : GONE}`));
});
window.addEventListener("popstate", () => {
  readAddress();
  reopen();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || at("help").open) return;
  const { target, key } = event;
  const types = target.matches("input, textarea, select");
  if (types) return;
  const all = cards();
  const place = all.indexOf(target.closest?.(".card"));
  if (key === "/") {
    forms[0].input.focus();
    forms[0].input.select();
  } else if (key === "?") {
    at("help").showModal();
  } else if (key === "ArrowDown" && place >= 0) {
    all[Math.min(place + 1, all.length - 1)].focus();
  } else if (key === "ArrowUp" && place >= 0) {
    if (place) all[place - 1].focus();
    else forms[0].input.focus();
  } else if (key === " " && (place >= 0 || !target.matches("button, video, summary"))) {
    player.toggle();
  } else if (key === "n" || key === "p") {
    step(key === "n" ? 1 : -1);
  } else if (key === "l") {
    setLoop(!player.loops);
  } else {
    return;
  }
  event.preventDefault();
});
// A button is pressed when the space bar is let go.
document.addEventListener("keyup", (event) => {
  if (event.key === " " && event.target.closest?.(".card")) event.preventDefault();
});

readAddress();
showInvitation();
showSource();
library.refresh();
