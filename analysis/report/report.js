"use strict";

// What is closed is opened for a link into it, and on paper.
(() => {
  function openTarget(hash) {
    let place = document.getElementById(hash.slice(1));
    for (; place; place = place.parentElement) {
      if (place.tagName === "DETAILS") place.open = true;
    }
  }

  let opened = [];
  addEventListener("hashchange", () => openTarget(location.hash));
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link) openTarget(link.hash);
  });
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });
  openTarget(location.hash);
  // The browser went there while it was closed.
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
})();

// Texts of models come from JSON and go into the page through textContent alone.
(() => {
  const data = document.getElementById("case-data");
  if (!data) return;
  const runs = JSON.parse(data.textContent);
  const browser = document.getElementById("case-browser");
  const part = (name) => browser.querySelector(`[data-part="${name}"]`);
  const choices = { run: part("run"), benchmark: part("benchmark"), item: part("item") };
  let shown = [];

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function fill(select, labels) {
    select.replaceChildren(...labels.map((label, place) => {
      const option = element("option", "", label);
      option.value = String(place);
      return option;
    }));
  }

  function responseText(response) {
    const text = element("div", "verbatim");
    text.append(response.begin);
    if (response.cut) text.append(element("span", "cut", response.cut), response.end);
    return text;
  }

  function responseColumn(response) {
    const column = element("article", "response");
    column.append(element("h4", "", response.title));
    const facts = element("dl", "facts");
    for (const [name, value] of response.facts) {
      facts.append(element("dt", "", name), element("dd", "", value));
    }
    column.append(facts, responseText(response));
    return column;
  }

  function showCase() {
    const place = choices.item.selectedIndex;
    const one = shown[place];
    part("place").textContent = `${place + 1} of ${shown.length}: ${one.pattern}`;
    part("prompt").textContent = one.prompt;
    part("reference").textContent = one.reference ?? "none";
    part("responses").replaceChildren(...one.responses.map(responseColumn));
    part("previous").disabled = place === 0;
    part("next").disabled = place === shown.length - 1;
  }

  function showBenchmark() {
    const benchmark = runs[choices.run.selectedIndex].benchmarks[choices.benchmark.selectedIndex];
    shown = benchmark.cases;
    fill(choices.item, shown.map((one) => `${one.item} (${one.pattern})`));
    showCase();
  }

  function showRun() {
    fill(choices.benchmark, runs[choices.run.selectedIndex].benchmarks.map((one) => one.name));
    showBenchmark();
  }

  function move(distance) {
    const place = choices.item.selectedIndex + distance;
    if (place < 0 || place >= shown.length) return;
    choices.item.selectedIndex = place;
    showCase();
  }

  choices.run.addEventListener("change", showRun);
  choices.benchmark.addEventListener("change", showBenchmark);
  choices.item.addEventListener("change", showCase);
  part("previous").addEventListener("click", () => move(-1));
  part("next").addEventListener("click", () => move(1));
  browser.addEventListener("keydown", (event) => {
    const distance = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    // A select moves its own choice with these keys.
    if (!distance || event.target.tagName === "SELECT" || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move(distance);
  });
  fill(choices.run, runs.map((one) => one.run));
  showRun();
  browser.hidden = false;
})();
