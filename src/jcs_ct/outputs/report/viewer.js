"use strict";
// Scrolls the slices. All text is set as text; nothing is fetched; every key works only where the viewer has the focus.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const { slices, frames } = data;
  const stage = $("stage"), canvas = $("canvas"), chart = $("chart"), slider = $("slice");
  const state = { index: data.start - 1, window: "lung", mask: true, attention: false, strength: 1 };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // --- grey levels -------------------------------------------------------------------------------------------------
  const huOf = (level) => {
    const x = data.levelPoints, y = data.huPoints;
    let i = 1;
    while (i < x.length - 1 && level > x[i]) i += 1;
    return y[i - 1] + ((level - x[i - 1]) / (x[i] - x[i - 1])) * (y[i] - y[i - 1]);
  };
  const plain = Uint8ClampedArray.from({ length: 256 }, (_, level) => level);
  const tables = Object.fromEntries(Object.entries(data.windows).map(([name, [centre, width]]) => [
    name, Uint8ClampedArray.from({ length: 256 }, (_, level) => ((huOf(level) - centre) / width + 0.5) * 255),
  ]));
  const colours = Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) * (data.attention.length - 1), i = Math.min(Math.floor(place), data.attention.length - 2);
    return data.attention[i].map((c, k) => c + (place - i) * (data.attention[i + 1][k] - c));
  });

  // --- unpacking: a slice is decoded when it is wanted, a few stay -----------------------------------------------
  const kept = new Map();
  const scratch = document.createElement("canvas");
  const pen = scratch.getContext("2d", { willReadFrequently: true });

  async function levels(type, text, size) {
    if (text === null) return null;
    const image = new Image();
    image.src = `data:image/${type};base64,${text}`;
    await image.decode();
    const width = size ? size[0] : image.naturalWidth, height = size ? size[1] : image.naturalHeight;
    scratch.width = width;
    scratch.height = height;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(image, 0, 0, width, height);
    const pixels = pen.getImageData(0, 0, width, height).data, values = new Uint8Array(width * height);
    for (let i = 0; i < values.length; i += 1) values[i] = pixels[4 * i];
    return { width, height, values };
  }

  async function unpack(index) {
    const frame = frames[index];
    const image = await levels("jpeg", frame.image, null);
    const size = [image.width, image.height];
    const [mask, attention] = [await levels("png", frame.mask, null), await levels("png", frame.attention, size)];
    return { image, mask, attention, contour: mask && outline(mask) };
  }

  function unpacked(index) {
    if (!kept.has(index)) kept.set(index, unpack(index));
    const found = kept.get(index);
    kept.delete(index);
    kept.set(index, found);
    while (kept.size > 16) kept.delete(kept.keys().next().value);
    return found;
  }

  // Marching squares: the contour halfway between pixels inside and outside, as segments in the units of the mask.
  function outline({ width, height, values }) {
    const path = new Path2D(), inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[y * width + x] > 127;
    for (let y = -1; y < height; y += 1) {
      for (let x = -1; x < width; x += 1) {
        const a = inside(x, y), b = inside(x + 1, y), c = inside(x + 1, y + 1), d = inside(x, y + 1);
        if (a === b && b === c && c === d) continue;
        const ends = [];
        if (a !== b) ends.push([x + 1, y + 0.5]);
        if (b !== c) ends.push([x + 1.5, y + 1]);
        if (c !== d) ends.push([x + 1, y + 1.5]);
        if (d !== a) ends.push([x + 0.5, y + 1]);
        for (let i = 0; i + 1 < ends.length; i += 2) {
          path.moveTo(...ends[i]);
          path.lineTo(...ends[i + 1]);
        }
      }
    }
    return path;
  }

  // --- drawing -----------------------------------------------------------------------------------------------------
  const layer = document.createElement("canvas"), brush = layer.getContext("2d");
  let drawing = 0;

  async function draw() {
    const turn = (drawing += 1), index = state.index, frame = frames[index];
    let slice;
    try {
      slice = await unpacked(index);
    } catch {
      $("readout").textContent = data.words.broken.replace("{}", index + 1);
      return;
    }
    if (turn !== drawing) return;
    const { image, mask, attention, contour } = slice, table = frame.hounsfield ? tables[state.window] : plain;
    layer.width = image.width;
    layer.height = image.height;
    const picture = brush.createImageData(image.width, image.height), out = picture.data;
    for (let i = 0; i < image.values.length; i += 1) {
      const grey = table[image.values[i]];
      out[4 * i] = out[4 * i + 1] = out[4 * i + 2] = grey;
      out[4 * i + 3] = 255;
      if (state.attention && attention) {
        const value = attention.values[i], share = (value / 255) * data.strongest * state.strength;
        for (let k = 0; k < 3; k += 1) out[4 * i + k] += (colours[value][k] - grey) * share;
      }
    }
    brush.putImageData(picture, 0, 0);

    const ratio = window.devicePixelRatio || 1, wide = stage.clientWidth, shape = (frame.rows / frame.columns) * data.aspect;
    canvas.width = Math.round(wide * ratio);
    canvas.height = Math.round(canvas.width * shape);
    const view = canvas.getContext("2d");
    view.imageSmoothingQuality = "high";
    view.drawImage(layer, 0, 0, canvas.width, canvas.height);
    if (state.mask && contour) {
      const [r, g, b] = data.lesion;
      view.setTransform(canvas.width / mask.width, 0, 0, canvas.height / mask.height, 0, 0);
      view.globalAlpha = state.strength;
      view.lineCap = "round";
      for (const [colour, width] of [["rgb(0 0 0 / 45%)", 3.4], [`rgb(${r} ${g} ${b})`, 1.6]]) {
        view.strokeStyle = colour;
        view.lineWidth = (width * ratio * mask.width) / canvas.width;
        view.stroke(contour);
      }
      view.globalAlpha = data.fill * state.strength;
      view.drawImage(tinted(mask), 0, 0);
      view.setTransform(1, 0, 0, 1, 0, 0);
      view.globalAlpha = 1;
    }
    stage.dataset.drawn = String(index + 1);
    for (const near of [index + 1, index - 1]) if (frames[near]) unpacked(near).catch(() => {});
  }

  function tinted({ width, height, values }) {
    const sheet = document.createElement("canvas"), ink = sheet.getContext("2d");
    sheet.width = width;
    sheet.height = height;
    const pixels = ink.createImageData(width, height);
    for (let i = 0; i < values.length; i += 1) if (values[i] > 127) pixels.data.set([...data.lesion, 255], 4 * i);
    ink.putImageData(pixels, 0, 0);
    return sheet;
  }

  // --- words -------------------------------------------------------------------------------------------------------
  const signed = (value) => value.replace("-", "\u2212");
  let speaking = 0;
  function show() {
    const slice = slices[state.index], words = slice.words, flags = $("flags");
    slider.value = String(slice.index);
    slider.setAttribute("aria-valuetext", words);
    $("readout").textContent = words;
    $("place").textContent = slice.place;
    flags.hidden = slice.flags === "";
    flags.textContent = slice.flags;
    for (const cursor of document.querySelectorAll(".cursor")) cursor.setAttribute("transform", `translate(${state.index} 0)`);
    if (chart) {
      chart.setAttribute("aria-valuenow", String(slice.index));
      chart.setAttribute("aria-valuetext", words);
    }
    const window_ = data.windows[state.window];
    $("window-name").textContent = frames[state.index].hounsfield ? signed(`W ${window_[1]}  L ${window_[0]}`) : data.words.unwindowed;
    window.clearTimeout(speaking);
    speaking = window.setTimeout(() => { $("live").textContent = words; }, 400); // not every slice that flies past
    draw();
  }

  function go(index) {
    const next = clamp(index, 0, slices.length - 1);
    if (next === state.index) return;
    state.index = next;
    show();
  }

  function set(changes) {
    Object.assign(state, changes);
    $("mask").checked = state.mask;
    $("attention").checked = state.attention;
    for (const choice of document.getElementsByName("window")) choice.checked = choice.value === state.window;
    show();
  }

  // --- hands -------------------------------------------------------------------------------------------------------
  const names = Object.keys(data.windows);
  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = {
      ArrowDown: state.index + 1, ArrowRight: state.index + 1, ArrowUp: state.index - 1, ArrowLeft: state.index - 1,
      PageDown: state.index + 10, PageUp: state.index - 10, Home: 0, End: slices.length - 1,
    };
    const letter = event.key.toLowerCase(), number = Number(event.key);
    if (event.key in moves) go(moves[event.key]);
    else if (letter === "m") set({ mask: !state.mask });
    else if (letter === "a") set({ attention: !state.attention });
    else if (number >= 1 && number <= names.length) set({ window: names[number - 1] });
    else return;
    event.preventDefault();
  }
  for (const element of [stage, slider, chart]) element?.addEventListener("keydown", key);

  let rolled = 0;
  stage.addEventListener("wheel", (event) => {
    if (event.ctrlKey) return;
    const down = event.deltaY > 0;
    if (down ? state.index === slices.length - 1 : state.index === 0) return; // the page scrolls on
    event.preventDefault();
    rolled += event.deltaMode === 0 ? event.deltaY / 40 : event.deltaY;
    const steps = Math.trunc(rolled);
    if (steps) go(state.index + clamp(steps, -3, 3));
    rolled -= steps;
  }, { passive: false });

  let grip = null;
  stage.addEventListener("pointerdown", (event) => {
    grip = { x: event.clientX, y: event.clientY, index: state.index };
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!grip) return;
    // A finger that goes up or down scrolls the page; a mouse has the wheel for that.
    const way = event.pointerType === "mouse" ? event.clientY - grip.y : grip.x - event.clientX;
    go(grip.index + Math.round(way / clamp(300 / slices.length, 3, 24)));
  });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { grip = null; });

  slider.addEventListener("input", () => go(Number(slider.value) - 1));
  $("previous").addEventListener("click", () => go(state.index - 1));
  $("next").addEventListener("click", () => go(state.index + 1));
  $("mask").addEventListener("change", (event) => set({ mask: event.target.checked }));
  $("attention").addEventListener("change", (event) => set({ attention: event.target.checked }));
  $("strength").addEventListener("input", (event) => set({ strength: Number(event.target.value) / 100 }));
  for (const choice of document.getElementsByName("window")) choice.addEventListener("change", () => set({ window: choice.value }));
  $("larger").addEventListener("click", (event) => {
    const large = document.body.classList.toggle("large"); // the ResizeObserver draws again
    event.currentTarget.setAttribute("aria-pressed", String(large));
    stage.scrollIntoView({ block: "nearest" });
  });
  for (const link of document.querySelectorAll("[data-slice]")) {
    link.addEventListener("click", () => { go(Number(link.dataset.slice) - 1); stage.focus({ preventScroll: true }); });
  }

  if (chart) {
    const values = { role: "slider", tabindex: "0", "aria-label": data.words.chart, "aria-valuemin": "1", "aria-valuemax": String(slices.length), "aria-orientation": "horizontal" };
    for (const [name, value] of Object.entries(values)) chart.setAttribute(name, value);
    chart.classList.add("live");
    const point = (event) => {
      const box = chart.querySelector(".area").getBoundingClientRect();
      go(Math.floor(((event.clientX - box.left) / box.width) * data.places));
    };
    let held = false;
    chart.addEventListener("pointerdown", (event) => { held = true; chart.setPointerCapture(event.pointerId); point(event); });
    chart.addEventListener("pointermove", (event) => { if (held) point(event); });
    for (const name of ["pointerup", "pointercancel"]) chart.addEventListener(name, () => { held = false; });
  }

  // --- light and dark ----------------------------------------------------------------------------------------------
  const theme = $("theme"), root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => { theme.textContent = dark() ? data.words.light : data.words.dark; };
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  theme.hidden = false;
  label();

  // Two letters that look the same are the box that stands for letters without a font.
  const looks = (letter) => {
    const sheet = document.createElement("canvas"), ink = sheet.getContext("2d", { willReadFrequently: true });
    sheet.width = sheet.height = 32;
    ink.font = `24px ${getComputedStyle(document.body).fontFamily}`;
    ink.fillText(letter, 2, 26);
    return ink.getImageData(0, 0, 32, 32).data.join();
  };
  if (data.probe && looks(data.probe[0]) === looks(data.probe[1])) $("no-font").hidden = false;

  for (const part of ["viewer", "help"]) $(part).hidden = false;
  new ResizeObserver(() => draw()).observe(stage);
  show();
})();
