"""The script of a listening test's page; no libraries, and nothing from elsewhere.

It keeps every answer in the browser (localStorage) before it goes on, so a listener who comes back
with the same id goes on behind the last answer. Where the page comes from `serve`, answers are sent
as they are given; else, and whenever that fails, the listener downloads them.
"""

SCRIPT = r"""
(() => {
  "use strict";
  const test = JSON.parse(document.getElementById("test").textContent);
  const root = document.getElementById("root");
  const asked = new URLSearchParams(location.search);
  const prefix = `foley_jax.listening.${test.test}.`;
  const LISTENER = /^[A-Za-z0-9_-]{1,40}$/;
  const BATCH = 50;
  const RATING = ["1: bad", "2: poor", "3: fair", "4: good", "5: excellent"];
  const TEXTS = {
    real: "Is the audio a recording, or was it generated?",
    preference: "Which of the two do you prefer?",
    quality: "How good is the quality of the audio?",
    sync: "How well is the audio in sync with the video?",
    attention: "Attention check: how many beeps do you hear?",
  };

  // the seat of a listener, as the package computes it: FNV-1a, high bits folded in
  const seatOf = (listener, count) => {
    let digest = 0x811c9dc5;
    for (const letter of listener) {
      digest = Math.imul(digest ^ letter.charCodeAt(0), 0x01000193) >>> 0;
    }
    return ((digest ^ (digest >>> 15)) >>> 0) % count;
  };

  const memory = new Map();  // where a browser keeps nothing
  let keeps = true;
  const load = (key) => {
    try { return localStorage.getItem(prefix + key); } catch { keeps = false; }
    return memory.get(key) ?? null;
  };
  const save = (key, text) => {
    memory.set(key, text);
    try { localStorage.setItem(prefix + key, text); } catch { keeps = false; }
  };

  const make = (tag, settings, ...children) => {
    const node = Object.assign(document.createElement(tag), settings);
    node.append(...children);
    return node;
  };
  const button = (text, act) => {
    const node = make("button", {type: "button", textContent: text});
    node.addEventListener("click", act);
    return node;
  };

  let state = null;
  const keep = () => save(`of.${state.listener}`, JSON.stringify(state));
  const lines = (records) => records.map((one) => JSON.stringify(one) + "\n").join("");

  let sending = false;
  const send = async () => {
    if (sending || !location.protocol.startsWith("http")) return;
    sending = true;
    try {
      while (state.sent < state.answers.length) {
        const some = state.answers.slice(state.sent, state.sent + BATCH);
        const reply = await fetch("answers", {
          method: "POST", headers: {"Content-Type": "application/x-ndjson"}, body: lines(some),
        });
        if (!reply.ok) break;
        state.sent += some.length;
        keep();
      }
    } catch { /* they stay here, and go with the next ones */ }
    sending = false;
  };

  const download = () => {
    const url = URL.createObjectURL(
      new Blob([lines(state.answers)], {type: "application/x-ndjson"}));
    const link = make("a", {href: url, download: `answers_${state.listener}.jsonl`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };

  const start = (listener) => {
    const kept = load(`of.${listener}`);
    const wanted = Number(asked.get("seat") ?? NaN);
    const fits = Number.isInteger(wanted) && wanted >= 0 && wanted < test.seats.length;
    const seat = fits ? wanted : seatOf(listener, test.seats.length);
    state = kept ? JSON.parse(kept) : {listener, seat, answers: [], sent: 0};
    save("last", listener);
    keep();
    send();
    next();
  };

  const intro = () => {
    const fresh = Array.from(crypto.getRandomValues(new Uint8Array(6)), (byte) =>
      byte.toString(16).padStart(2, "0")).join("");
    const id = make("input", {
      type: "text", id: "listener", value: asked.get("listener") ?? load("last") ?? fresh,
    });
    const sorry = make("p", {className: "sorry"});
    const go = button("Start", () => {
      if (LISTENER.test(id.value)) start(id.value);
      else sorry.textContent = "An id has 1 to 40 letters, digits, - and _.";
    });
    root.replaceChildren(
      make("p", {textContent:
        "Please use headphones in a quiet place, and set a comfortable volume now: all clips are "
        + "equally loud. Play every clip to its end, then answer; there is no way back."}),
      make("p", {textContent:
        "You can stop at any time and go on later in this browser with the same id. The id is "
        + "kept with your answers; it need not be your name."}),
      make("label", {htmlFor: "listener", textContent: "Your id "}), id, " ", go, sorry);
  };

  const player = (name, label, played) => {
    const isVideo = name.endsWith(".mp4");
    const node = make(isVideo ? "video" : "audio", {
      controls: true, preload: "auto", src: `media/${name}`,
    });
    node.setAttribute("aria-label", label);
    const sorry = make("p", {className: "sorry"});
    node.addEventListener("ended", () => played(name));
    node.addEventListener("error", () => {
      sorry.textContent = "This clip cannot be played here.";
      played(name, true);
    });
    return make("div", {}, make("h4", {textContent: label}), node, sorry);
  };

  const choices = (question, clips) => {
    if (question.kind === "real") return [["real", "a recording"], ["generated", "generated"]];
    if (question.kind === "preference") return [[clips[0], "clip A"], [clips[1], "clip B"]];
    const texts = question.kind === "attention" ? ["1", "2", "3", "4", "5"] : RATING;
    return texts.map((text, k) => [k + 1, text]);
  };

  const show = (number, question, clips) => {
    const heard = new Set();
    const began = Date.now();
    let value = null, broken = false;
    const go = button("Next", () => {
      go.disabled = true;
      state.answers.push({
        test: test.test, listener: state.listener, seat: state.seat, question: question.id,
        answer: value, seconds: Math.min(604800, Math.max(0, (Date.now() - began) / 1000)),
      });
      keep();
      send();
      next();
    });
    const ready = () => { go.disabled = value === null || heard.size < clips.length; };
    const options = make("fieldset", {}, make("legend", {textContent: TEXTS[question.kind]}));
    const option = ([one, text]) => {
      const radio = make("input", {type: "radio", name: "answer"});
      radio.addEventListener("change", () => { value = one; ready(); });
      options.append(make("label", {className: "option"}, radio, ` ${text}`));
    };
    const played = (name, failed) => {
      heard.add(name);
      if (failed && !broken) option(["unplayable", "I could not play it"]);
      broken = broken || Boolean(failed);
      ready();
    };
    choices(question, clips).forEach(option);
    ready();
    const sides = clips.map((name, k) =>
      player(name, clips.length > 1 ? `Clip ${"AB"[k]}` : "Clip", played));
    const of = test.seats[state.seat].length;
    root.replaceChildren(
      make("p", {className: "soft", textContent: `Question ${number + 1} of ${of}`}),
      make("progress", {max: of, value: number}),
      make("div", {className: "clips"}, ...sides), options, go,
      make("p", {className: "soft", textContent: keeps ? ""
        : "This browser keeps nothing: if you close the page, your answers are lost."}));
  };

  const finish = async () => {
    const told = make("p", {textContent: "Sending ..."});
    root.replaceChildren(make("h2", {textContent: "Thank you"}), told,
      button("Download my answers", download));
    await send();
    // those of the last question may still be on their way
    for (let k = 0; sending && k < 50; k += 1) await new Promise((go) => setTimeout(go, 100));
    told.textContent = state.sent >= state.answers.length
      ? "All answers have arrived. You can close this page."
      : "Please download your answers and send the file to whoever asked you.";
  };

  const next = () => {
    const done = new Set(state.answers.map((one) => one.question));
    const seat = test.seats[state.seat];
    const number = seat.findIndex(([q]) => !done.has(test.questions[q].id));
    if (number < 0) {
      finish();
      return;
    }
    const [q, flipped] = seat[number];
    const question = test.questions[q];
    show(number, question, flipped ? [...question.clips].reverse() : question.clips);
  };

  intro();
})();
"""
