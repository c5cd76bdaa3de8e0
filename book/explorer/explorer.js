// The explorer: what is chosen (`state`), the address of the page that holds it, and the pictures drawn from it.
//
// Networks are ONNX graphs with inputs z (n, noise_length) and s (n, k) and outputs images (n, channels, size, size)
// in [-1, 1] and codes; onnxruntime-web computes them on one thread. models.json describes them.
//
// The book shows the page in a frame. Then the address and the choice of light or dark are those of the book's page.

import { between, gaussian, movedNoise } from "./noise.js";

const DIRECTIONS = 10; // the pad shows two at a time
const REACH = 2; // of the pad, to both sides
const LARGEST_SEED = 4294967295;
const PLAY_SECONDS = 3; // from one end of a morph to the other
const MODELS = ["ours", "maae"];

const element = (id) => document.getElementById(id);
const choices = ["dataset", "condition", "model"];

// The window whose address holds the state: the book's, where it is of the same origin, else this one.
function homeWindow() {
  try {
    if (parent.document.querySelector("iframe.explorer")?.contentWindow === window) return parent;
  } catch {
    // a page of another origin, or a file: it cannot be looked into
  }
  return window;
}
const home = homeWindow();

let ort = null;
let models = [];
const state = {
  dataset: "",
  condition: "",
  model: "both",
  label: 3,
  seed: 1,
  offsets: new Array(DIRECTIONS).fill(0),
  toLabel: 8,
  toSeed: 2,
  part: 0,
};
let pair = 0; // the directions on the pad are 2 pair and 2 pair + 1
let playing = false;
const shown = {}; // model -> {z, s, image} of the picture on the page

// ---- the address ----

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const whole = (text, high, otherwise) => (/^\d+$/.test(text ?? "") ? clamp(Number(text), 0, high) : otherwise);
const real = (text, low, high) => clamp(Number(text) || 0, low, high);

function address() {
  const words = new URLSearchParams();
  for (const name of [...choices, "label", "seed"]) words.set(name, state[name]);
  const last = state.offsets.findLastIndex((a) => a !== 0);
  if (last >= 0) words.set("move", state.offsets.slice(0, last + 1).join(","));
  words.set("to", state.toLabel);
  words.set("toseed", state.toSeed);
  if (state.part) words.set("part", state.part);
  return `#${words}`;
}

function readAddress() {
  const words = new URLSearchParams(home.location.hash.slice(1));
  for (const name of choices) state[name] = words.get(name) ?? state[name];
  const chosen = (name, value) => models.some((m) => m[name] === value);
  if (!chosen("dataset", state.dataset)) state.dataset = models[0].dataset;
  if (!available().includes(state.condition)) state.condition = available()[0];
  if (![...MODELS, "both"].includes(state.model)) state.model = "both";
  const classes = labelNames().length - 1;
  state.label = whole(words.get("label"), classes, Math.min(state.label, classes));
  state.toLabel = whole(words.get("to"), classes, Math.min(state.toLabel, classes));
  state.seed = whole(words.get("seed"), LARGEST_SEED, state.seed);
  state.toSeed = whole(words.get("toseed"), LARGEST_SEED, state.toSeed);
  const moves = (words.get("move") ?? "").split(",");
  state.offsets = state.offsets.map((_, i) => real(moves[i], -REACH, REACH));
  state.part = real(words.get("part"), 0, 1);
}

let addressTimer = 0;
function writeAddress() {
  clearTimeout(addressTimer); // browsers allow some hundred changes a minute
  addressTimer = setTimeout(() => home.history.replaceState(null, "", address()), 150);
}

// ---- the models of a choice ----

const ofDataset = () => models.filter((m) => m.dataset === state.dataset);
const available = () => [...new Set(ofDataset().map((m) => m.condition))].sort().reverse(); // label first
const ofChoice = () => ofDataset().filter((m) => m.condition === state.condition);
const labelNames = () => ofChoice()[0].class_names;

function chosenModels() {
  const known = ofChoice().sort((a, b) => MODELS.indexOf(a.model) - MODELS.indexOf(b.model));
  const found = known.filter((m) => state.model === "both" || m.model === state.model);
  return found.length ? found : known;
}

const sessions = new Map();
function sessionOf(model) {
  if (!sessions.has(model.file)) sessions.set(model.file, startSession(model));
  return sessions.get(model.file);
}

async function startSession(model) {
  const graph = await download(model.file);
  return ort.InferenceSession.create(new Uint8Array(await graph.arrayBuffer()), { executionProviders: ["wasm"] });
}

async function unpacked(answer) {
  return new Response(answer.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function download(name) {
  let answer = null;
  try {
    answer = await fetch(new URL(name, import.meta.url));
  } catch {
    throw new Error(`${name} could not be downloaded`);
  }
  if (!answer.ok) throw new Error(`${name} could not be downloaded (${answer.status})`);
  return answer;
}

// ---- inputs and pictures ----

function oneHot(label, k) {
  const s = new Float32Array(k);
  s[label] = 1;
  return s;
}

// z and s of the large picture.
function inputsOf(model) {
  const z = movedNoise(state.seed, state.offsets, model.noise_length);
  const s = oneHot(state.label, model.condition_dim);
  if (!state.part) return { z, s };
  const to = oneHot(state.toLabel, model.condition_dim);
  return {
    z: between(z, gaussian(state.toSeed, 0, model.noise_length), state.part),
    s: s.map((value, i) => (1 - state.part) * value + state.part * to[i]),
  };
}

// Images of n rows of z and s, each channels x size x size, in [-1, 1].
async function generate(model, z, s, n) {
  const session = await sessionOf(model);
  const found = await session.run({
    z: new ort.Tensor("float32", z, [n, model.noise_length]),
    s: new ort.Tensor("float32", s, [n, model.condition_dim]),
  });
  return found.images.data;
}

const grey = (value) => Math.round(clamp((value + 1) * 127.5, 0, 255));

// Images side by side, `columns` in a row.
function paint(canvas, model, images, columns) {
  const { size, channels } = model;
  const count = images.length / (channels * size * size);
  canvas.width = size * columns;
  canvas.height = size * Math.ceil(count / columns);
  const context = canvas.getContext("2d");
  for (let n = 0; n < count; n++) {
    const picture = context.createImageData(size, size);
    for (let i = 0; i < size * size; i++) {
      for (let c = 0; c < 3; c++) {
        const channel = channels === 1 ? 0 : c;
        picture.data[4 * i + c] = grey(images[(n * channels + channel) * size * size + i]);
      }
      picture.data[4 * i + 3] = 255;
    }
    context.putImageData(picture, size * (n % columns), size * Math.floor(n / columns));
  }
}

const milliseconds = [];
function showSpeed(taken) {
  milliseconds.push(taken);
  if (milliseconds.length < 5) return; // the first ones take longer
  if (milliseconds.length > 30) milliseconds.shift();
  const middle = [...milliseconds].sort((a, b) => a - b)[Math.floor(milliseconds.length / 2)];
  element("speed").textContent = `${middle.toFixed(1)} ms`;
}

function sayWhat() {
  const kind = state.condition;
  const names = labelNames();
  const start = `${kind} ${names[state.label]}, seed ${state.seed}`;
  if (!state.part) return start;
  return `${start}, ${Math.round(100 * state.part)} % of the way to ${kind} ${names[state.toLabel]}, seed ${state.toSeed}`;
}

async function drawPictures() {
  for (const model of chosenModels()) {
    const { z, s } = inputsOf(model);
    await sessionOf(model); // the download is no part of the time
    const began = performance.now();
    const image = await generate(model, z, s, 1);
    showSpeed(performance.now() - began);
    const canvas = pictureOf(model).querySelector(".one");
    paint(canvas, model, image, 1);
    canvas.setAttribute("aria-label", `${model.model}: ${sayWhat()}`);
    shown[model.model] = { z, s, image };
  }
}

// A row of Figure 8: every label with the same noise.
async function drawRows() {
  for (const model of chosenModels()) {
    const k = model.condition_dim;
    const { z } = inputsOf(model);
    const all = new Float32Array(k * z.length);
    const s = new Float32Array(k * k);
    for (let label = 0; label < k; label++) {
      all.set(z, label * z.length);
      s[label * k + label] = 1;
    }
    const images = await generate(model, all, s, k);
    const canvas = pictureOf(model).querySelector(".all");
    paint(canvas, model, images, Math.ceil(k / 2));
    const kind = state.condition === "label" ? "labels" : "categories";
    canvas.setAttribute("aria-label", `${model.model}: all ${kind} with the noise above`);
  }
}

function pictureOf(model) {
  const id = `picture-${model.model}`;
  if (!element(id)) {
    const box = document.createElement("section");
    box.id = id;
    box.className = "model";
    const title = document.createElement("h2");
    title.textContent = model.model === "ours" ? "ours: learned prior" : "maae: fixed prior";
    box.append(title);
    for (const name of ["one", "all"]) {
      const canvas = document.createElement("canvas");
      canvas.className = name;
      canvas.setAttribute("role", "img");
      canvas.width = canvas.height = model.size;
      if (name === "all") {
        canvas.width = model.size * Math.ceil(model.condition_dim / 2); // drawn later, and nothing is to move then
        canvas.height = 2 * model.size;
      }
      box.append(canvas);
    }
    element("pictures").append(box);
  }
  return element(id);
}

// ---- drawing whenever something has changed ----

let version = 0;
let drawn = 0;
let running = null;
let rowsTimer = 0;

// Draw until what is on the page is what is chosen; the promise ends with that.
function draw() {
  version += 1;
  running ??= drawUntilDone().finally(() => (running = null));
  return running;
}

async function drawUntilDone() {
  clearTimeout(rowsTimer);
  try {
    while (drawn !== version) {
      const now = version;
      await drawPictures();
      drawn = now;
      await new Promise(requestAnimationFrame);
    }
  } catch (error) {
    fail(error);
    return;
  }
  rowsTimer = setTimeout(() => drawRows().catch(fail), 120); // when nothing moves any more
}

function change(changes) {
  Object.assign(state, changes);
  showControls();
  writeAddress();
  return draw();
}

// ---- the controls ----

function fill(select, values, value) {
  if ([...select.options].map((option) => option.value).join() !== values.map(([v]) => v).join()) {
    select.replaceChildren(...values.map(([v, text]) => new Option(text, v)));
  }
  select.value = value;
}

const TITLES = { mnist: "MNIST", cifar10: "CIFAR-10", svhn: "SVHN", digits: "Digits" };

function showControls() {
  const datasets = [...new Set(models.map((m) => m.dataset))];
  fill(element("dataset"), datasets.map((name) => [name, TITLES[name] ?? name]), state.dataset);
  const kinds = { label: "label", category: "category, found without labels" };
  fill(element("condition"), available().map((name) => [name, kinds[name]]), state.condition);
  element("model").value = state.model;
  element("label-legend").textContent = state.condition === "label" ? "Label" : "Category";

  const names = labelNames();
  const buttons = element("labels");
  if (buttons.textContent !== names.join("")) {
    buttons.replaceChildren(...names.map(labelButton));
  }
  [...buttons.children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === state.label)));
  fill(element("to-label"), names.map((name, i) => [String(i), name]), String(state.toLabel));

  for (const [id, value] of [["seed", state.seed], ["to-seed", state.toSeed], ["part", state.part]]) {
    if (element(id).value !== String(value)) element(id).value = value;
  }
  element("x").value = state.offsets[2 * pair];
  element("y").value = state.offsets[2 * pair + 1];
  element("x-name").textContent = `Direction ${2 * pair + 1}`;
  element("y-name").textContent = `Direction ${2 * pair + 2}`;
  element("pair").textContent = `Directions ${2 * pair + 1} and ${2 * pair + 2} of ${DIRECTIONS}`;
  element("play").textContent = playing ? "Stop" : "Play";
  element("play").setAttribute("aria-pressed", String(playing));
  const used = chosenModels().map((m) => m.model);
  for (const name of MODELS) {
    const box = element(`picture-${name}`);
    if (box) box.hidden = !used.includes(name);
    if (!used.includes(name)) delete shown[name];
  }
  drawPad();
}

function labelButton(name, i) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", () => change({ label: i }));
  return button;
}

function drawPad() {
  const pad = element("pad");
  const context = pad.getContext("2d");
  const style = getComputedStyle(pad);
  const side = pad.width;
  const at = (a) => ((a + REACH) / (2 * REACH)) * side;
  context.clearRect(0, 0, side, side);
  context.strokeStyle = style.borderTopColor;
  context.beginPath();
  for (const a of [-1, 0, 1]) {
    context.moveTo(at(a), 0);
    context.lineTo(at(a), side);
    context.moveTo(0, at(a));
    context.lineTo(side, at(a));
  }
  context.stroke();
  context.fillStyle = style.color;
  context.beginPath();
  context.arc(at(state.offsets[2 * pair]), at(-state.offsets[2 * pair + 1]), 8, 0, 2 * Math.PI);
  context.fill();
}

function moved(x, y) {
  const round = (a) => Math.round(clamp(a, -REACH, REACH) * 100) / 100;
  const offsets = [...state.offsets];
  offsets[2 * pair] = round(x);
  offsets[2 * pair + 1] = round(y);
  return change({ offsets });
}

function padMoved(event) {
  if (!event.buttons) return;
  const box = element("pad").getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * 2 - 1;
  const y = 1 - ((event.clientY - box.top) / box.height) * 2;
  moved(x * REACH, y * REACH);
}

const randomSeed = () => Math.floor(Math.random() * 1e6);

function turnTo(step) {
  pair = (pair + step + DIRECTIONS / 2) % (DIRECTIONS / 2);
  showControls();
}

async function play() {
  playing = !playing;
  showControls();
  let last = performance.now();
  let turn = state.part >= 1 ? -1 : 1;
  while (playing) {
    const now = performance.now();
    const part = clamp(state.part + (turn * (now - last)) / (1000 * PLAY_SECONDS), 0, 1);
    last = now;
    if (part === 0 || part === 1) turn = part ? -1 : 1;
    await change({ part: Math.round(part * 1000) / 1000 });
  }
}

function listen() {
  const on = (id, event, action) => element(id).addEventListener(event, action);
  element("choice").addEventListener("submit", (event) => event.preventDefault());
  for (const name of choices) {
    on(name, "change", () => {
      state[name] = element(name).value;
      if (!available().includes(state.condition)) state.condition = available()[0];
      const classes = labelNames().length - 1;
      change({ label: Math.min(state.label, classes), toLabel: Math.min(state.toLabel, classes) });
    });
  }
  on("seed", "change", () => change({ seed: whole(element("seed").value, LARGEST_SEED, state.seed) }));
  on("to-seed", "change", () => change({ toSeed: whole(element("to-seed").value, LARGEST_SEED, state.toSeed) }));
  on("random", "click", () => change({ seed: randomSeed() }));
  on("to-random", "click", () => change({ toSeed: randomSeed() }));
  on("to-label", "change", () => change({ toLabel: Number(element("to-label").value) }));
  on("part", "input", () => change({ part: Number(element("part").value) }));
  for (const id of ["x", "y"]) on(id, "input", () => moved(Number(element("x").value), Number(element("y").value)));
  on("pad", "pointerdown", (event) => {
    element("pad").setPointerCapture(event.pointerId);
    padMoved(event);
  });
  on("pad", "pointermove", padMoved);
  on("previous", "click", () => turnTo(-1));
  on("next", "click", () => turnTo(1));
  on("centre", "click", () => change({ offsets: state.offsets.map(() => 0) }));
  on("play", "click", play);
  home.addEventListener("hashchange", () => {
    readAddress();
    showControls();
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPad);
}

// ---- light or dark, as the book has it ----

function followBook() {
  const inBook = home.document.documentElement.dataset.theme; // light or dark in the book, nothing in a page by itself
  const chosen = inBook ?? localStorage.getItem("mode"); // "auto" leaves it to the system
  document.documentElement.style.colorScheme = ["light", "dark"].includes(chosen) ? chosen : "";
  if (models.length) drawPad();
}

function followBookFromNowOn() {
  document.documentElement.classList.toggle("framed", home !== window);
  try {
    followBook();
  } catch {
    return; // without storage the system decides
  }
  if (home === window) addEventListener("storage", followBook);
  else new MutationObserver(followBook).observe(home.document.documentElement, { attributeFilter: ["data-theme"] });
}

// ---- beginning and end ----

function fail(error) {
  playing = false;
  element("live").hidden = true;
  element("static").hidden = false;
  element("status").textContent = `The networks cannot run here (${error.message}); these pictures were drawn by them.`;
}

async function begin() {
  element("static").hidden = true;
  element("status").textContent = "Loading the networks …";
  if (typeof WebAssembly !== "object") throw new Error("this browser has no WebAssembly");
  const runtime = import("./onnxruntime/ort.wasm.min.mjs").catch(() => {
    throw new Error("onnxruntime could not be downloaded");
  });
  const binary = download("onnxruntime/ort-wasm-simd-threaded.wasm.gzip").then(unpacked);
  const described = download("models.json").then((answer) => answer.json());
  const found = await Promise.all([runtime, binary, described]);
  ort = found[0];
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = found[1];
  models = found[2];
  readAddress();
  listen();
  element("live").hidden = false;
  await change({});
  if (Object.keys(shown).length) element("status").textContent = "";
}

window.explorer = { state, shown, change }; // for a browser's console, and for the tests
followBookFromNowOn();
begin().catch(fail);
