// Draws lenses with lens64 by DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), as
// lensdiff/diffusion/sampling.py does. LENS64, ORT_WASM and ORT_GLUE come from docs/build.py.
"use strict";

const lensdiff = (() => {
  const { levels, stretch, limits, colours, side } = LENS64;
  let session = null;
  let last = Promise.resolve(); // a session answers one call at a time

  function bytes(base64) {
    const text = atob(base64);
    const found = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
    return found;
  }

  // ---- the network -------------------------------------------------------------------------------

  async function load() {
    const glue = new Blob([ORT_GLUE], { type: "text/javascript" });
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = bytes(ORT_WASM);
    ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(glue) };
    session = await ort.InferenceSession.create(bytes(LENS64.onnx), {
      executionProviders: ["wasm"],
    });
  }

  // E[x0 | x] at sigma, kept within the limits of real pixels
  async function guess(x, sigma) {
    const given = {
      x: new ort.Tensor("float32", x, [1, 1, side, side]),
      sigma: new ort.Tensor("float32", [sigma], [1]),
    };
    const answer = last.then(() => session.run(given));
    last = answer.catch(() => null);
    const { guess: found } = await answer;
    return found.data.map((value) => Math.min(limits[1], Math.max(limits[0], value)));
  }

  // ---- sampling ----------------------------------------------------------------------------------

  // evenly in the logarithm, then 0
  function sigmas(calls) {
    const [high, low] = levels.map(Math.log);
    const step = calls > 1 ? (low - high) / (calls - 1) : 0;
    return [...Array.from({ length: calls }, (_, i) => Math.exp(high + i * step)), 0];
  }

  // standard normal numbers of a seed: mulberry32, then Box and Muller
  function noise(seed) {
    let state = (seed + 1) * 0x9e3779b9;
    function uniform() {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    }
    return Float32Array.from({ length: side * side }, () => {
      const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
      return radius * Math.cos(2 * Math.PI * uniform());
    });
  }

  // from noise to an image in [0, 1]; each(call, sigma, x, guess) after every step
  async function draw(eps, calls, each = async () => {}) {
    const table = sigmas(calls);
    let x = eps.map((value) => value * table[0]);
    let before = null;
    let hBefore = 0;
    for (let i = 0; i < calls; i++) {
      const [sigma, target] = [table[i], table[i + 1]];
      const now = await guess(x, sigma);
      if (target === 0) {
        x = now;
      } else {
        const h = Math.log(sigma / target);
        const more = before ? h / hBefore / 2 : 0;
        const keep = target / sigma;
        const take = -Math.expm1(-h);
        x = x.map((value, k) => {
          const mixed = before ? now[k] + more * (now[k] - before[k]) : now[k];
          return keep * value + take * mixed;
        });
        before = now;
        hBefore = h;
      }
      await each(i + 1, target, x, now);
    }
    return pixels(x);
  }

  function pixels(x) {
    return x.map((v) => Math.min(1, Math.max(0, (v / 0.5) * stretch.std + stretch.mean)));
  }

  // ---- the page ----------------------------------------------------------------------------------

  function show(name, values) {
    const context = document.getElementById(name).getContext("2d");
    const image = context.createImageData(side, side);
    values.forEach((value, k) => {
      const [r, g, b] = colours[Math.round(255 * Math.min(1, Math.max(0, value)))];
      image.data.set([r, g, b, 255], 4 * k);
    });
    context.putImageData(image, 0, 0);
  }

  async function start() {
    const button = document.getElementById("draw-start");
    const state = document.getElementById("draw-state");
    const [seed, calls] = ["seed", "calls"].map((name) => {
      const slider = document.getElementById(`draw-${name}`);
      const shown = document.getElementById(`draw-${name}-shown`);
      slider.addEventListener("input", () => (shown.value = slider.value));
      return slider;
    });
    let turn = 0; // of the last picture that was asked for: earlier ones give up
    async function film() {
      const mine = ++turn;
      const most = Number(calls.value);
      const begun = performance.now();
      const eps = noise(Number(seed.value));
      const each = async (call, sigma, x, now) => {
        if (mine !== turn) throw new Error("another picture was asked for");
        // noise is far brighter than light: each state is shown over its own spread
        const scale = Math.sqrt(1 + (sigma / 0.5) ** 2);
        show("draw-noisy", pixels(x.map((value) => value / scale)));
        show("draw-guess", pixels(now));
        state.textContent = `Call ${call} of ${most}, noise of sigma ${sigma.toPrecision(2)} left.`;
        await new Promise((done) => setTimeout(done));
      };
      try {
        await draw(eps, most, each);
      } catch (error) {
        if (mine === turn) state.textContent = `It stopped: ${error.message}.`;
        return;
      }
      if (mine !== turn) return;
      const seconds = ((performance.now() - begun) / 1000).toFixed(1);
      state.textContent = `Drawn in ${most} calls and ${seconds} s, in this browser.`;
    }
    try {
      await load();
    } catch (error) {
      state.textContent = `This browser can't run the network (${error.message}). Try another one.`;
      return;
    }
    button.disabled = false;
    button.addEventListener("click", film);
    seed.addEventListener("change", film);
    calls.addEventListener("change", film);
    await film();
  }

  window.addEventListener("load", start);
  return { draw, noise, ready: () => session !== null };
})();
