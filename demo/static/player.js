// The one video element: jumps to a moment and loops it.

// How near to the end of a moment its next round begins, in seconds.
const NEAR = 0.03;

export class Player {
  constructor(video, onTime) {
    this.video = video;
    this.loops = true;
    this.moment = null;
    this.inside = false;
    this.onTime = onTime;
    this.wanted = null;
    video.addEventListener("loadedmetadata", () => this.#settle());
    video.addEventListener("timeupdate", () => this.#look());
    video.addEventListener("seeked", () => this.#look());
    video.addEventListener("ended", () => this.#again(true));
    if ("requestVideoFrameCallback" in video) {
      const look = () => {
        this.#look();
        video.requestVideoFrameCallback(look);
      };
      video.requestVideoFrameCallback(look);
    }
  }

  get time() {
    return this.video.currentTime;
  }

  // Shows a moment of a file, or, without one, its beginning.
  show(source, moment, plays) {
    this.moment = moment;
    this.wanted = { time: moment ? moment.start : 0, plays };
    // A file that did not come through is asked for again.
    if (this.video.getAttribute("src") !== source || this.video.error) {
      this.video.src = source;
    } else if (this.video.readyState >= HTMLMediaElement.HAVE_METADATA) {
      this.#settle();
    }
  }

  clear() {
    this.moment = this.wanted = null;
    if (this.video.hasAttribute("src")) {
      this.video.removeAttribute("src");
      this.video.load();
    }
  }

  seek(time) {
    this.video.currentTime = time;
  }

  toggle() {
    if (!this.video.hasAttribute("src")) return;
    if (this.video.paused) this.#play();
    else this.video.pause();
  }

  #play() {
    // Refused where the person has not touched the page yet: it stays paused.
    this.video.play().catch(() => {});
  }

  #settle() {
    if (!this.wanted) return;
    const { time, plays } = this.wanted;
    this.wanted = null;
    this.inside = Boolean(this.moment);
    this.video.currentTime = time;
    if (plays) this.#play();
    else this.video.pause();
  }

  #look() {
    const { moment, time } = this;
    if (moment && !this.wanted && !this.video.seeking) {
      if (time >= moment.start - NEAR && time < moment.end - NEAR) {
        this.inside = true;
      } else if (this.inside && time >= moment.end - NEAR && time < moment.end + 1) {
        this.#again(false);
      } else {
        this.inside = false; // somebody moved it elsewhere
      }
    }
    this.onTime(time);
  }

  #again(atEnd) {
    if (!this.loops || !this.moment || !this.inside) return;
    if (this.video.paused && !atEnd) return;
    this.video.currentTime = this.moment.start;
    if (atEnd) this.#play();
  }
}
