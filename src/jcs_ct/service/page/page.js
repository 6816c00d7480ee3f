// The page of `jcs serve`: send, watch, open, delete. It asks this service only, and sets text, never markup.
"use strict";

const element = (id) => document.getElementById(id);
const VERDICTS = { true: "positive", false: "negative" };
const POLL = 1500; // ms while something moves; four times as long otherwise
const PAGE = 50; // studies that are shown at first, and more at each press of "Older studies"
const MOST = 200; // that the service tells of at once
const AT_ONCE = 2; // uploads; a browser has six connections to a host, and the queue must still be seen to move
let timer = 0;
let most = PAGE;
let going = 0;
const waits = []; // uploads that have not begun
let compared = null; // the study that waits for another to be compared with

function made(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

async function problem(answer) {
  try { return (await answer.json()).error ?? answer.statusText; } catch { return answer.statusText || "no answer"; }
}

// ---- sending

function send(files, name) {
  const item = made("li", `${name}: `);
  const bar = made("progress", "", { "aria-label": `sending ${name}`, max: "1", value: "0" });
  const word = made("span", "waits for the others");
  item.append(bar, " ", word);
  element("sending").prepend(item);
  waits.push(() => transfer(files, item, bar, word));
  next();
}

function next() {
  while (going < AT_ONCE && waits.length) { going += 1; waits.shift()(); }
}

function transfer(files, item, bar, word) {
  word.textContent = "";
  const request = new XMLHttpRequest(); // fetch does not tell how much has gone
  request.upload.addEventListener("progress", (event) => { if (event.total) bar.value = event.loaded / event.total; });
  request.upload.addEventListener("load", () => { word.textContent = "sent, is being stored"; });
  request.addEventListener("loadend", () => {
    going -= 1;
    next();
    bar.remove();
    let said = "no answer; was the service stopped?";
    if (request.status) { try { said = JSON.parse(request.responseText).error; } catch { said = request.statusText; } }
    if (request.status === 201) said = "received";
    else if (request.status === 200) said = "was there already";
    else item.classList.add("bad");
    word.textContent = said;
    look();
  });
  request.open("POST", "/api/studies");
  if (files.length === 1) request.send(files[0].file);
  else {
    const form = new FormData();
    for (const { file, path } of files) form.append("files", file, path);
    request.send(form);
  }
}

async function entriesOf(entry, path, found) {
  if (entry.isFile) {
    found.push({ file: await new Promise((good, bad) => entry.file(good, bad)), path: path + entry.name });
    return;
  }
  const reader = entry.createReader();
  for (;;) { // a reader gives some hundred entries at a time
    const some = await new Promise((good, bad) => reader.readEntries(good, bad));
    if (!some.length) return;
    for (const one of some) await entriesOf(one, `${path}${entry.name}/`, found);
  }
}

async function dropped(event) {
  event.preventDefault();
  element("drop").classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const loose = [];
  for (const entry of entries) {
    const found = [];
    await entriesOf(entry, "", found);
    if (entry.isFile) loose.push(...found);
    else if (found.length) send(found, "a folder");
  }
  sendFiles(loose);
}

function sendFiles(files) {
  const whole = (one) => /\.(zip|nii|gz|tar|tgz|mha|nrrd)$/i.test(one.path); // each is a study of its own
  for (const one of files.filter(whole)) send([one], "a file");
  const rest = files.filter((one) => !whole(one)); // images belong together
  if (rest.length) send(rest, `${rest.length} ${rest.length === 1 ? "file" : "files"}`);
}

function chosen(event, name) {
  const files = [...event.target.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
  if (!files.length) return;
  if (name) send(files, name); else sendFiles(files);
  event.target.value = "";
}

// ---- the table

function told(study) {
  if (study.failure) return made("span", study.failure.message, { class: "bad" });
  if (study.verdict) {
    const more = study.lesion_ml == null ? "" : `, lesions ${study.lesion_ml.toFixed(0)} ml`;
    const doubt = study.verdict.reliable ? "" : `; not reliable: ${study.verdict.reasons.join("; ")}`;
    return made("span", `${study.verdict.call || VERDICTS[study.verdict.positive]}, ${study.verdict.score.toFixed(2)}${more}${doubt}`);
  }
  return made("span", "");
}

// Links to the viewer: of one study, and of two.
function looks(study, when) {
  const images = made("a", "Images", { href: `/view/${study.id}`, "aria-label": `Images of the study of ${when}` });
  const compare = made("button", "Compare", { class: "plain", "aria-label": `Compare the study of ${when}`, "aria-pressed": "false" });
  compare.addEventListener("click", () => choose(study.id, when));
  return [images, compare];
}

function choose(id, when) {
  if (compared && compared !== id) { location.assign(`/view/${compared}?with=${id}`); return; }
  compared = compared === id ? null : id;
  element("chosen").textContent = compared ? `Press Compare at another study: it is shown beside that of ${when}.` : "";
  press();
}

function press() {
  for (const button of document.querySelectorAll("[aria-pressed]")) {
    button.setAttribute("aria-pressed", String(button.closest("tr").dataset.study === compared));
  }
}

// The state, and how far it is.
function stateOf(study) {
  const cell = made("td", study.state);
  if (study.state === "waiting" && study.attempt) cell.append(`, ${study.attempt} workers have had it`);
  if (study.progress != null) {
    const share = Math.floor(100 * study.progress);
    const bar = made("progress", "", { "aria-label": "slices done", max: "100", value: String(share) });
    cell.append(" ", bar, " ", made("span", `${share} %`, { class: "whole" }));
  }
  return cell;
}

function row(study) {
  const line = made("tr", "", { "data-study": study.id, "data-state": study.state });
  const when = new Date(study.submitted * 1000).toLocaleString();
  const size = study.bytes < 2 ** 20 ? `${Math.ceil(study.bytes / 2 ** 10)} KiB` : `${(study.bytes / 2 ** 20).toFixed(1)} MiB`;
  const what = `${study.files} ${study.files === 1 ? "file" : "files"}, ${size}`;
  line.append(made("td", `${when}, ${what}`), stateOf(study));
  const result = made("td", ""), actions = made("td", "");
  result.append(told(study));
  if (study.state === "done") {
    actions.append(
      made("a", "Report", { href: `/api/studies/${study.id}/report`, "aria-label": `Report of the study of ${when}` }),
      made("a", "All files", { href: `/api/studies/${study.id}/archive`, "aria-label": `Download all files of the study of ${when}` }),
    );
    if (study.kind !== "pictures") actions.append(...looks(study, when));
  }
  const remove = made("button", "Delete", { class: "plain", "aria-label": `Delete the study of ${when}` });
  remove.addEventListener("click", () => ask(study));
  actions.append(remove);
  line.append(result, actions);
  return line;
}

// Only rows that have changed are made anew, so that the focus stays where it is while the queue moves.
function draw(studies) {
  const body = element("studies"), focused = document.activeElement;
  const old = new Map([...body.children].map((line) => [line.dataset.study, line]));
  const listed = new Set(studies.map((study) => study.id));
  for (const [id, line] of old) if (!listed.has(id)) line.remove();
  studies.forEach((study, index) => {
    const { progress, ...rest } = study;
    const told = JSON.stringify(rest), before = old.get(study.id);
    if (before?.dataset.told === told) { before.cells[1].replaceWith(stateOf(study)); return; }
    const line = row(study);
    line.dataset.told = told;
    if (!before) { body.insertBefore(line, body.children[index] ?? null); return; }
    const label = before.contains(focused) ? focused.getAttribute("aria-label") : null;
    before.replaceWith(line);
    if (label) line.querySelector(`[aria-label="${CSS.escape(label)}"]`)?.focus();
  });
}

async function asked(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(await problem(answer));
  return answer.text();
}

async function look() {
  clearTimeout(timer);
  let pause = 4 * POLL;
  try {
    const [queue, text] = await Promise.all(["/api/queue", `/api/studies?most=${most}`].map(asked));
    const studies = JSON.parse(text);
    const { waiting, running, done, failed } = JSON.parse(queue);
    const all = waiting + running + done + failed;
    const words = all ? `${waiting} waiting, ${running} being looked at, ${done} done, ${failed} failed` : "No studies yet";
    if (element("state").textContent !== words) element("state").textContent = words; // or it is read out again and again
    element("older").hidden = studies.length >= all || most >= MOST;
    draw(studies);
    if (!studies.some((study) => study.id === compared)) { compared = null; element("chosen").textContent = ""; }
    press();
    if (waiting + running) pause = POLL;
  } catch (error) {
    element("state").textContent = `The service does not answer: ${error.message}`;
  }
  timer = setTimeout(look, pause);
}

function ask(study) {
  const dialog = element("sure");
  element("yes").onclick = async () => {
    dialog.close();
    const answer = await fetch(`/api/studies/${study.id}`, { method: "DELETE" });
    if (!answer.ok && answer.status !== 404) element("state").textContent = await problem(answer);
    else look();
  };
  element("no").onclick = () => dialog.close();
  dialog.showModal();
}

asked("/auth/").then((text) => { element("leave").hidden = !JSON.parse(text).enabled; }).catch(() => {});
element("older").addEventListener("click", () => { most = Math.min(most + PAGE, MOST); look(); });
addEventListener("beforeunload", (event) => { if (going) event.preventDefault(); }); // what is being sent would be lost
element("files").addEventListener("change", (event) => chosen(event, ""));
element("folder").addEventListener("change", (event) => chosen(event, "a folder"));
element("drop").addEventListener("dragover", (event) => { event.preventDefault(); element("drop").classList.add("over"); });
element("drop").addEventListener("dragleave", () => element("drop").classList.remove("over"));
element("drop").addEventListener("drop", dropped);
look();
