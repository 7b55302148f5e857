// The example page of a bundle: classifies pictures, a folder of them, or what the camera sees.

import { Runtime } from "./runtime.js";

const MAX_SHOWN = 200; // rows of the table
const MAX_SIDE = 4096; // of a decoded picture, in pixels
const PICTURE = /\.(jpe?g|png|webp|gif|avif|bmp)$/i;

const element = (id) => document.getElementById(id);
const percent = (value) => `${(100 * value).toFixed(1)} %`;

function say(text) {
  element("status").textContent = text;
}

// Turns what a browser can draw into pixels; JPEG is turned as the camera noted.
async function pixels(source) {
  const bitmap = await createImageBitmap(source, { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" });
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((length) => Math.max(1, Math.round(length * scale)));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

function addRow(file, cells) {
  const body = element("results").tBodies[0];
  const row = document.createElement("tr");
  const first = document.createElement("td");
  const image = document.createElement("img");
  image.alt = "";
  image.src = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(image.src);
  first.append(image, ` ${file.name}`);
  row.append(first, ...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  body.prepend(row);
  while (body.rows.length > MAX_SHOWN) body.lastChild.remove();
  element("results").hidden = false;
}

async function classify(runtime, files) {
  const found = [...files].filter((file) => file.type.startsWith("image/") || PICTURE.test(file.name));
  let done = 0;
  let broken = 0;
  for (const file of found) {
    try {
      const { label, probabilities, level, latencyMs } = await runtime.predict(await pixels(file));
      addRow(file, [label, percent(Math.max(...probabilities)), String(level), latencyMs.toFixed(2)]);
    } catch (error) {
      broken += 1;
      addRow(file, [`cannot be read: ${error.message}`, "", "", ""]);
    }
    done += 1;
    say(`${done} of ${found.length} pictures`);
    await runtime.update();
  }
  say(found.length === 0 ? "No pictures were chosen" : `${done - broken} of ${found.length} pictures were classified`);
}

// The camera, until it is switched off

let stream = null;

async function watch(runtime) {
  const video = element("video");
  if (stream !== null) {
    stream.getTracks().forEach((track) => track.stop());
    stream = null;
  } else {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      say(`The camera cannot be used: ${error.message}`);
      return;
    }
    video.srcObject = stream;
    await video.play();
  }
  video.hidden = stream === null;
  element("camera").setAttribute("aria-pressed", String(stream !== null));
  while (stream !== null) {
    const { label, probabilities, latencyMs } = await runtime.predict(await pixels(video));
    element("seen").textContent = `${label}, ${percent(Math.max(...probabilities))}, ${latencyMs.toFixed(1)} ms`;
    await runtime.update();
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  element("seen").textContent = "";
}

function showLevel(runtime) {
  const level = runtime.levels[runtime.level];
  const battery = runtime.readBattery();
  const facts = {
    bundle: `${runtime.name}, target ${runtime.target}`,
    level: `${runtime.level} of ${runtime.levels.length}: ${level.preprocess.resolution} pixels, ${level.size_mib.toFixed(2)} MiB`,
    "test top-1": `${level.top1_percent.toFixed(2)} %`,
    latency: `${level.latency_ms.toPrecision(3)} ms on its device`,
    battery: battery.charging ? "on mains power, or not told by this browser" : `${battery.percent.toFixed(0)} %`,
  };
  element("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, text]) => [
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: text }),
    ]),
  );
}

async function main() {
  const begin = performance.now();
  const runtime = await Runtime.open();
  document.title = runtime.name;
  element("title").textContent = runtime.name;
  const names = ["by battery and latency", ...runtime.levels.map((level, i) => `${i}: ${level.top1_percent.toFixed(2)} %, ${level.latency_ms.toPrecision(3)} ms`)];
  element("level").append(...names.map((name, i) => new Option(name, String(i - 1))));
  element("level").onchange = ({ target }) => runtime.fix(target.value === "-1" ? null : Number(target.value));
  for (const id of ["pictures", "folder"]) {
    element(id).onchange = async ({ target }) => {
      await classify(runtime, target.files);
      target.value = "";
    };
  }
  element("camera").onclick = () => watch(runtime);
  runtime.addEventListener("level", () => showLevel(runtime));
  showLevel(runtime);
  element("controls").hidden = false;
  say(`Ready after ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  window.runtime = runtime;
  return runtime;
}

// Lets the service worker keep the level in use, which was fetched before the worker was there on the first visit.
async function keepForOffline(runtime) {
  const { serviceWorker } = navigator;
  if (serviceWorker === undefined) return; // neither https nor localhost
  await serviceWorker.register("service-worker.js");
  if (serviceWorker.controller === null) {
    await new Promise((resolve) => serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
  }
  await runtime.fetch(runtime.levels[runtime.level].file);
}

main()
  .catch((error) => say(`It does not work here: ${error.message}`))
  .then((runtime) => runtime && keepForOffline(runtime))
  .catch(() => {});
