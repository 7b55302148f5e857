// Shows a run while it goes on: asks the server for its state every few seconds, while the page is seen.

const EVERY_MS = 3000;
const SILENT_S = 120; // since a stage last told its progress
const CHARTS = ["training", "measured", "fronts"];
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false };

const element = (id) => document.getElementById(id);

function show(id, text) {
  if (element(id).textContent !== text) element(id).textContent = text;
  element(id).hidden = text === "";
}

function create(tag, text, kind = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className: kind });
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function showStages(stages) {
  const rows = stages.map((stage) => {
    const share = stage.state === "working" && stage.total > 0 ? ` ${((100 * stage.done) / stage.total).toFixed(0)} %` : "";
    const time = stage.seconds > 0 ? duration(stage.seconds) : "";
    const row = create("tr", "", stage.state);
    row.append(...[stage.name, stage.of, stage.state + share, time].map((text) => create("td", text)));
    return row;
  });
  element("stages").tBodies[0].replaceChildren(...rows);
}

function showNow(stages) {
  const working = stages.find(({ state }) => state === "working");
  const finished = stages.every(({ state }) => state === "finished");
  element("progress").hidden = working === undefined;
  if (working === undefined) {
    show("status", finished ? "Finished" : "Nothing is being worked on; ofa run --resume goes on");
    show("advice", "");
    return;
  }
  const { name, of, done, total, message, silent_s: silent } = working;
  element("progress").value = total > 0 ? done / total : 0;
  const count = total > 0 ? `${done} of ${total}, ` : "";
  show("status", `${of === "run" ? name : `${name} of ${of}`}: ${count}${message}`);
  show("advice", silent > SILENT_S ? `It has said nothing for ${duration(silent)}: it may have been stopped.` : "");
}

function showPages(pages) {
  const items = pages.map(({ processor, os, browser, hidden }) => create("li", `${processor}, ${os}, ${browser}${hidden ? ", hidden" : ""}`));
  element("pages").querySelector("ul").replaceChildren(...items);
  element("pages").hidden = items.length === 0;
}

function showCharts(charts) {
  for (const name of CHARTS) {
    const section = element(name);
    section.hidden = charts[name] === undefined;
    if (section.hidden) continue;
    const { data, layout } = charts[name];
    const chart = section.querySelector(".chart");
    chart.style.height = `${layout.height}px`; // or charts overlap when the window changes
    Plotly.react(chart, data, layout, CONFIG);
  }
}

async function ask(path, options) {
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.error), { refused: true });
  return answer;
}

async function main() {
  const token = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  await ask("api/enter", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }) });
  for (;;) {
    try {
      const run = await ask("api/run");
      document.title = run.name;
      element("title").textContent = run.name;
      showNow(run.stages);
      showStages(run.stages);
      showPages(run.pages);
      element("links").hidden = false;
      element("report").hidden = !run.report;
      element("content").hidden = false;
      showCharts(run.charts);
    } catch (error) {
      if (error.refused) throw error;
      show("status", "The computer does not answer, trying again");
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

main().catch((error) => {
  show("status", "Not connected");
  show("advice", error.message);
});
