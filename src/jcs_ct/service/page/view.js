// The viewer of `jcs serve`: CT, lesions and attention of one study, or of two side by side, in three planes. NiiVue draws.
// It asks this service only, and sets text, never markup.
"use strict";

const { Niivue, NVImage, SLICE_TYPE, DRAG_MODE, SHOW_RENDER } = globalThis.niivue;
const element = (id) => document.getElementById(id);
const PLANES = [[2, true], [1, true], [0, true]]; // of the sliders: axis of RAS voxels; whether it is counted from its end
const KEYS = { ArrowRight: [-1, 0, 0], ArrowLeft: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] };
const LOOK = {
  isRadiologicalConvention: true, // the patient's right is on the left, as radiologists have it
  multiplanarShowRender: SHOW_RENDER.NEVER, multiplanarForceRender: false, sliceType: SLICE_TYPE.MULTIPLANAR,
  dragAndDropEnabled: false, isResizeCanvas: true, crosshairWidth: 0.5, crosshairWidthUnit: "percent", crosshairColor: [0.3, 0.75, 1, 0.8],
  backColor: [0, 0, 0, 1], fontColor: [1, 1, 1, 1], loadingText: "", logLevel: "warn",
  dragMode: DRAG_MODE.windowing, dragModePrimary: DRAG_MODE.crosshair, viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "",
  rulerColor: [1, 0.85, 0.2, 0.9], measureTextColor: [1, 0.85, 0.2, 1], measureLineColor: [1, 0.85, 0.2, 1],
};
const panels = [];

function words(parts) { return parts.filter(Boolean).join("; "); }
function mm(value) { return `${value.toFixed(1)} mm`; }

async function problem(answer) {
  try { return (await answer.json()).error ?? answer.statusText; } catch { return answer.statusText || "no answer"; }
}

async function asked(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(await problem(answer));
  return answer;
}

async function bytesOf(path, progress) {
  const answer = await asked(path), size = Number(answer.headers.get("content-length")) || 0;
  const parts = [];
  let have = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    have += value.length;
    if (size) progress(have / size);
  }
  return new Blob(parts).arrayBuffer();
}

// One study: a canvas, and words and sliders beside it, which tell and do the same without sight or mouse.
class Panel {
  constructor(id) {
    this.id = id;
    this.root = element("panel").content.cloneNode(true).firstElementChild;
    element("panels").append(this.root);
    this.canvas = this.part("canvas");
    this.sliders = [...this.root.querySelectorAll(".sliders input")];
    this.mark = null;
  }

  part(selector) { return this.root.querySelector(selector); }
  get ct() { return this.nv.volumes[0]; }
  get sizes() { return this.ct.dimsRAS.slice(1, 4); }
  get here() { return [...this.nv.frac2mm(this.nv.scene.crosshairPos)].slice(0, 3); }

  async load() {
    const study = await (await asked(`/api/studies/${this.id}`)).json();
    const when = new Date(study.submitted * 1000).toLocaleString();
    this.part("h2").textContent = `Study of ${when}`;
    const number = [...element("panels").children].indexOf(this.root) + 1;  // two may have come in one second
    this.root.setAttribute("aria-label", `Study ${number}, of ${when}`);
    this.part(".told").textContent = told(study);
    const links = [["report", "Report"], ["archive", "All files"]].map(([path, text]) => {
      const link = document.createElement("a");
      link.href = `/api/studies/${this.id}/${path}`;
      link.textContent = text;
      return link;
    });
    this.part(".links").append(...links);
    const files = await (await asked(`/api/studies/${this.id}/files`)).json();
    const url = (name) => files.find((file) => file.name === name)?.url;
    const bar = this.part("progress");
    this.part(".state").textContent = "The CT is being read";
    const ct = await bytesOf(`/api/studies/${this.id}/ct`, (share) => { bar.value = 0.8 * share; });
    this.part(".state").textContent = "Loading lesions and attention";
    const layers = { lesions: url("lesions.nii.gz"), attention: url("attention.nii.gz") };
    for (const name of Object.keys(layers)) if (layers[name]) layers[name] = await bytesOf(layers[name], () => {});
    await this.draw(ct, layers);
    bar.remove();
    this.part(".state").textContent = "";
  }

  async draw(ct, layers) {
    this.part(".work").hidden = false;
    this.nv = new Niivue(LOOK);
    await this.nv.attachToCanvas(this.canvas);
    this.nv.addVolume(await volume(ct, "ct", "gray", -1350, 150));
    this.layers = {};
    if (layers.lesions) this.add("lesions", await volume(layers.lesions, "lesions", "red", 0.5, 1));
    if (layers.attention) this.add("attention", await volume(layers.attention, "attention", "inferno", 0.15, 1));
    this.sliders.forEach((slider, i) => {
      slider.max = this.sizes[PLANES[i][0]];
      slider.addEventListener("input", () => this.slide(i));
    });
    this.nv.onLocationChange = () => this.moved();
    this.nv.onMouseUp = () => windowed(this);
    this.nv.onMeasurementCompleted = () => this.tell();
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("keydown", (event) => this.key(event), true);
    this.middle = this.here;
    this.moved();
  }

  add(name, layer) {
    this.nv.addVolume(layer);
    this.layers[name] = this.nv.volumes.length - 1;
  }

  // What is at a place: HU to the pointer or the crosshair, and what the network said of it.
  at(frac) {
    const [i, j, k] = this.nv.frac2vox(frac); // all layers are on the grid of the CT
    const value = (index) => this.nv.volumes[index].getValue(i, j, k);
    const { lesions, attention } = this.layers;
    return words([
      `${Math.round(value(0))} HU`,
      lesions === undefined ? "" : value(lesions) >= 0.5 ? "lesion" : "no lesion",
      attention === undefined ? "" : `attention ${value(attention).toFixed(2)}`,
    ]);
  }

  tell() {
    const place = this.here, far = this.mark && Math.hypot(...place.map((x, i) => x - this.mark[i]));
    const rulers = this.nv.document.completedMeasurements;
    this.part(".cross").textContent = words([
      `Crosshair: ${this.at(this.nv.scene.crosshairPos)}`, `R ${(-place[0]).toFixed(0)}, A ${place[1].toFixed(0)}, S ${mm(place[2])}`,
      this.mark && `${mm(far)} from the mark`,
      rulers?.length && `ruler ${mm(rulers[rulers.length - 1].distance)}`,
    ]);
    const voxel = this.nv.frac2vox(this.nv.scene.crosshairPos);
    this.sliders.forEach((slider, i) => {
      const [axis, back] = PLANES[i], size = this.sizes[axis];
      slider.value = back ? size - voxel[axis] : voxel[axis] + 1;
      slider.nextElementSibling.textContent = `${slider.value} of ${size}`;
    });
    this.canvas.dataset.drawn = [...voxel].join(" ");
  }

  moved() {
    this.tell();
    if (element("linked").checked) for (const other of panels) if (other !== this && other.nv) other.follow(this);
  }

  // Goes as far from where it was when both were linked as the other one went.
  follow(leader) {
    const place = leader.here.map((x, i) => x - leader.middle[i] + this.middle[i]);
    this.nv.scene.crosshairPos = this.nv.mm2frac(place).map((x) => Math.min(1, Math.max(0, x)));
    this.nv.drawScene();
    this.tell();
  }

  goTo(voxel) {
    const inside = voxel.map((x, i) => Math.min(this.sizes[i] - 1, Math.max(0, x)));
    this.nv.scene.crosshairPos = this.nv.vox2frac(inside);
    this.zoom();
    this.moved();
  }

  slide(plane) {
    const voxel = [...this.nv.frac2vox(this.nv.scene.crosshairPos)], [axis, back] = PLANES[plane];
    const number = Number(this.sliders[plane].value);
    voxel[axis] = back ? this.sizes[axis] - number : number - 1;
    this.goTo(voxel);
  }

  hover(event) {
    const scale = this.nv.uiData.dpr ?? 1, frac = this.nv.canvasPos2frac([event.offsetX * scale, event.offsetY * scale]);
    this.part(".pointer").textContent = frac[0] < 0 ? "" : `Pointer: ${this.at(frac)}`;
  }

  key(event) {
    const step = KEYS[event.key], name = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || event.altKey || event.key === "Tab") return;
    if (step) this.goTo([...this.nv.frac2vox(this.nv.scene.crosshairPos)].map((x, i) => x + step[i]));
    else if (name === "m") { this.mark = this.here; this.tell(); }
    else if ("123".includes(name)) { element("window").selectedIndex = Number(name) - 1; preset(); }
    else if (name === "l" || name === "a") { element(name === "l" ? "lesions" : "attention").click(); }
    else return;
    event.preventDefault();
    event.stopImmediatePropagation(); // NiiVue has keys of its own
  }

  show() {
    for (const [name, index] of Object.entries(this.layers)) {
      this.nv.setOpacity(index, element(name).checked ? Number(element("strength").value) : 0);
    }
    this.ct.cal_min = Number(element("level").value) - Number(element("width").value) / 2;
    this.ct.cal_max = this.ct.cal_min + Number(element("width").value);
    this.nv.opts.dragModePrimary = element("ruler").ariaPressed === "true" ? DRAG_MODE.measurement : DRAG_MODE.crosshair;
    this.nv.setSliceType(Number(element("planes").value));
    this.zoom();
    this.nv.updateGLVolume();
  }

  // Around the crosshair.
  zoom() {
    const factor = Number(element("zoom").value);
    const shift = this.here.map((x, i) => (factor === 1 ? 0 : this.middle[i] - x));
    this.nv.setPan2Dxyzmm([...shift, factor]);
  }
}

function volume(buffer, name, colormap, low, high) {
  return NVImage.loadFromUrl({ url: `${name}.nii.gz`, name: `${name}.nii.gz`, buffer, colormap, cal_min: low, cal_max: high, trustCalMinMax: false });
}

function told(study) {
  const verdict = study.verdict;
  if (!verdict) return "";
  const doubt = verdict.reliable ? "" : `not reliable: ${verdict.reasons.join("; ")}`;
  const lesions = study.lesion_ml == null ? "" : `lesions ${study.lesion_ml.toFixed(0)} ml`;
  return words([`${verdict.call || (verdict.positive ? "positive" : "negative")}, ${verdict.score.toFixed(2)}`, lesions, doubt]);
}

function showAll() { for (const panel of panels) if (panel.nv) panel.show(); }

function preset() {
  const [level, width] = element("window").value.split(",");
  if (width) { element("level").value = level; element("width").value = width; }
  showAll();
}

// The right button changed the window of one panel: the fields tell it, and the other panel has it as well.
function windowed(panel) {
  const { cal_min: low, cal_max: high } = panel.ct;
  const width = Math.max(1, Math.round(high - low)), level = Math.round((high + low) / 2);
  if (width === Number(element("width").value) && level === Number(element("level").value)) return;
  element("width").value = width;
  element("level").value = level;
  own();
  for (const other of panels) if (other !== panel && other.nv) other.show();
}

function own() {
  const now = `${element("level").value},${element("width").value}`, select = element("window");
  select.value = [...select.options].some((option) => option.value === now) ? now : "";
}

function listen() {
  element("tools").addEventListener("submit", (event) => event.preventDefault());
  element("window").addEventListener("change", preset);
  for (const id of ["level", "width"]) element(id).addEventListener("change", () => { own(); showAll(); });
  for (const id of ["planes", "lesions", "attention"]) element(id).addEventListener("change", showAll);
  for (const id of ["strength", "zoom"]) element(id).addEventListener("input", showAll);
  element("linked").addEventListener("change", () => { for (const panel of panels) if (panel.nv) panel.middle = panel.here; });
  element("ruler").addEventListener("click", () => {
    element("ruler").ariaPressed = String(element("ruler").ariaPressed !== "true");
    showAll();
  });
  element("clear").addEventListener("click", () => {
    for (const panel of panels) if (panel.nv) { panel.mark = null; panel.nv.clearAllMeasurements(); panel.tell(); }
  });
}

async function start() {
  const ids = [location.pathname.split("/").pop(), new URLSearchParams(location.search).get("with")].filter(Boolean);
  listen();
  if (ids.length > 1) {
    document.title = "jcs-ct: two studies";
    element("panels").classList.add("two");
    element("linking").hidden = false;
  }
  for (const id of ids) panels.push(new Panel(id));
  for (const panel of panels) { // one after the other: each takes memory
    try {
      await panel.load();
      panel.show();
    } catch (error) {
      panel.part("progress")?.remove();
      panel.part(".state").textContent = `This study cannot be shown: ${error.message}`;
      panel.part(".state").classList.add("bad");
    }
  }
  document.body.dataset.ready = "yes";
}

start();
