// The list of videos, and uploads.

import { get, remove, upload } from "./api.js";
import { clock, counted, element } from "./words.js";

const SOON = 1000;
const LATER = 15000;
const FILTERED = 10;

export class Library {
  // `on` has `change({isFirst})`, `open(video)`, `fail(error)`, `reached()`.
  constructor(on) {
    this.on = on;
    this.videos = [];
    this.byId = new Map();
    this.rows = new Map();
    this.settings = { calibrated: false, examples: [], words: null, can_upload: false };
    this.isKnown = false;
    this.current = null;
    this.queue = [];
    this.list = document.getElementById("videos");
    this.uploads = document.getElementById("uploads");
    this.status = document.getElementById("library-status");
    this.filter = document.getElementById("filter");
    this.filter.addEventListener("input", () => this.#draw());
    const files = document.getElementById("files");
    const button = document.getElementById("add-videos");
    button.addEventListener("click", () => files.click());
    files.addEventListener("change", () => {
      this.send(files.files);
      files.value = "";
    });
    this.#acceptDrops();
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.refresh();
    });
  }

  async refresh() {
    clearTimeout(this.timer);
    if (this.isAsking) {
      this.asksAgain = true; // what is under way may be older than the wish
      return;
    }
    this.isAsking = true;
    this.asksAgain = false;
    let pause = LATER;
    try {
      const { videos, ...settings } = await get("/api/videos");
      this.on.reached();
      const text = JSON.stringify([videos, settings]);
      if (text !== this.text) {
        this.text = text;
        this.settings = settings;
        // What somebody has just added comes first.
        const added = videos.filter((video) => video.uploaded).reverse();
        this.videos = [...added, ...videos.filter((video) => !video.uploaded)];
        this.byId = new Map(videos.map((video) => [video.video_id, video]));
        const isFirst = !this.isKnown;
        this.isKnown = true;
        this.#draw();
        this.on.change({ isFirst });
      }
      const isBusy = videos.some(
        ({ state, preview }) =>
          ["queued", "indexing"].includes(state) ||
          ["queued", "making"].includes(preview?.state),
      );
      if (isBusy) pause = SOON;
    } catch (error) {
      pause = 3000;
      this.on.fail(error);
    } finally {
      this.isAsking = false;
      clearTimeout(this.timer);
      if (this.asksAgain) pause = 0;
      if (!document.hidden) this.timer = setTimeout(() => this.refresh(), pause);
    }
  }

  get numReady() {
    return this.videos.filter((video) => video.state === "ready").length;
  }

  title(videoId) {
    return this.byId.get(videoId)?.title ?? videoId;
  }

  mark(videoId) {
    this.current = videoId;
    for (const [id, row] of this.rows) {
      if (id === videoId) row.open.setAttribute("aria-current", "true");
      else row.open.removeAttribute("aria-current");
    }
  }

  #draw() {
    document.getElementById("add-videos").hidden = !this.settings.can_upload;
    const many = this.videos.length > FILTERED;
    document.getElementById("filter-label").hidden = !many;
    const wanted = many ? this.filter.value.trim().toLowerCase() : "";
    const shown = this.videos.filter((video) => video.title.toLowerCase().includes(wanted));
    const left = this.videos.length - this.numReady;
    const failed = this.videos.filter((video) => video.state === "failed").length;
    const parts = [counted(this.videos.length, "video")];
    if (left - failed) parts.push(`${left - failed} not ready to be searched yet`);
    if (failed) parts.push(`${failed} that cannot be read`);
    if (wanted) parts.push(`${shown.length} shown`);
    const status = this.videos.length
      ? parts.join(", ")
      : "There are no videos yet." + (this.settings.can_upload ? " Add some, or drop them here." : "");
    if (this.status.textContent !== status) this.status.textContent = status;
    const kept = new Set(shown.map((video) => video.video_id));
    for (const [id, row] of this.rows) {
      if (!kept.has(id)) {
        row.item.remove();
        this.rows.delete(id);
      }
    }
    shown.forEach((video, place) => {
      const row = this.rows.get(video.video_id) ?? this.#addRow(video);
      this.#update(row, video);
      if (this.list.children[place] !== row.item) {
        this.list.insertBefore(row.item, this.list.children[place] ?? null);
      }
    });
    this.mark(this.current);
  }

  #addRow(video) {
    const row = {
      image: element("img", { className: "thumb", alt: "", loading: "lazy", width: 67, height: 42 }),
      name: element("span", { className: "name" }),
      about: element("span", { className: "about" }),
      progress: element("progress", { max: 1, hidden: true }),
    };
    row.open = element(
      "button",
      { type: "button", className: "open" },
      element("span", { className: "frame" }, row.image),
      element("span", {}, row.name, row.about),
    );
    row.image.addEventListener("error", () => row.image.removeAttribute("src"));
    row.open.addEventListener("click", () => this.on.open(this.byId.get(video.video_id)));
    row.item = element("li", { className: "video" }, row.open);
    if (video.uploaded) {
      const button = element(
        "button",
        { type: "button", className: "quiet remove", "aria-label": `Remove ${video.title}` },
        "Remove",
      );
      button.addEventListener("click", () => this.#remove(video));
      row.item.append(button);
    }
    row.item.append(row.progress);
    this.rows.set(video.video_id, row);
    return row;
  }

  #update(row, video) {
    row.name.textContent = row.name.title = video.title;
    row.progress.setAttribute("aria-label", `Progress of ${video.title}`);
    const making = video.preview && ["queued", "making"].includes(video.preview.state);
    const about = {
      queued: "waits to be read",
      indexing: `is being read, ${Math.round(100 * video.progress)} %`,
      failed: video.error,
      ready: video.duration ? clock(video.duration, video.duration < 10 ? 1 : 0) : "ready",
    }[video.state];
    const parts = [about, ...video.notes];
    if (video.state !== "failed" && making) {
      parts.push(`a copy to play is being made, ${Math.round(100 * video.preview.progress)} %`);
    }
    row.about.textContent = parts.filter(Boolean).join("; ");
    row.about.classList.toggle("bad", video.state === "failed");
    row.progress.hidden = video.state !== "indexing";
    row.progress.value = video.progress;
    const hasFrame = video.duration !== null && video.state !== "failed";
    const source = hasFrame ? frameOf(video.video_id, Math.min(1, video.duration / 2)) : null;
    if (source === null) row.image.removeAttribute("src");
    else if (row.image.getAttribute("src") !== source) row.image.src = source;
  }

  async #remove(video) {
    if (!confirm(`Remove “${video.title}” from the library?`)) return;
    try {
      await remove(`/api/videos/${encodeURIComponent(video.video_id)}`);
    } catch (error) {
      this.on.fail(error);
    }
    document.getElementById("add-videos").focus();
    this.refresh();
  }

  // Sends files, one after the other.
  send(files) {
    for (const file of files) {
      const item = element("li");
      const text = element("span", {}, `${file.name}: waits`);
      const progress = element("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
      const button = element("button", { type: "button", "aria-label": `Cancel ${file.name}` }, "Cancel");
      item.append(text, button, progress);
      this.uploads.append(item);
      const one = { file, item, text, progress, button, cancel: null, isOver: false };
      button.addEventListener("click", () => {
        if (one.cancel) one.cancel();
        one.isOver = true;
        item.remove();
      });
      this.queue.push(one);
    }
    this.#sendNext();
  }

  async #sendNext() {
    if (this.isSending) return;
    this.isSending = true;
    while (this.queue.length) {
      const one = this.queue.shift();
      if (!one.isOver) await this.#sendOne(one);
    }
    this.isSending = false;
  }

  async #sendOne(one) {
    const { file, text, progress } = one;
    const most = this.settings.limits?.upload_bytes;
    try {
      if (most && file.size > most) {
        throw new Error(`it has ${size(file.size)}; at most ${size(most)} are taken`);
      }
      const sending = upload(file, (share) => {
        progress.value = share;
        const percent = Math.floor(100 * share);
        text.textContent = share < 1 ? `${file.name}: ${percent} % sent` : `${file.name}: is being checked`;
      });
      one.cancel = sending.cancel;
      const video = await sending.done;
      one.item.remove();
      this.status.textContent = `${video.title} is here, and is being read.`;
      await this.refresh();
    } catch (error) {
      if (one.isOver) return;
      progress.remove();
      text.className = "bad";
      text.setAttribute("role", "alert");
      text.textContent = `${file.name} was not taken: ${error.message}`;
      one.button.textContent = "Dismiss";
      one.button.setAttribute("aria-label", `Dismiss what is said of ${file.name}`);
    } finally {
      one.cancel = null;
    }
  }

  #acceptDrops() {
    const sign = document.getElementById("drop");
    let depth = 0;
    const isFiles = (event) => event.dataTransfer?.types.includes("Files");
    const show = (event, change) => {
      if (!isFiles(event)) return;
      event.preventDefault();
      depth = Math.max(depth + change, 0);
      sign.hidden = !depth || !this.settings.can_upload;
    };
    window.addEventListener("dragenter", (event) => show(event, 1));
    window.addEventListener("dragleave", (event) => show(event, -1));
    window.addEventListener("dragover", (event) => show(event, 0));
    window.addEventListener("drop", (event) => {
      show(event, -depth);
      if (isFiles(event) && this.settings.can_upload) this.send(event.dataTransfer.files);
    });
  }
}

export function frameOf(videoId, time) {
  return `/frame/${encodeURIComponent(videoId)}?t=${time.toFixed(1)}`;
}

function size(bytes) {
  return bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
