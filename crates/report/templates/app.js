"use strict";
// The paired view. What models wrote reaches the page as text nodes alone.
const rolegraft = (() => {
  const PAGE = 50;
  const AT_ONCE = 4;
  const at = (id) => document.getElementById(id);
  const view = at("paired");
  const list = at("pairs");
  const chunks = new Map();
  const waiting = new Map();
  const episodes = new Map();
  let index = null;
  let pairs = [];
  let shown = [];
  let page = 0;

  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const say = (text) => { at("status").textContent = text; };
  const percent = (reward) => String(Math.round(1000 * reward) / 10);

  // A file of data is a script that hands its content over with a call.
  const load = (name) => new Promise((loaded, failed) => {
    const script = element("script", { src: `${view.dataset.folder}/${name}.js` });
    script.onload = () => { script.remove(); loaded(); };
    script.onerror = () => { script.remove(); failed(new Error(name)); };
    document.head.append(script);
  });

  const refused = "The episodes cannot be loaded from beside this page. Keep its folder together, or look at it with: rolegraft view RUN";

  const chunkOf = (episode) => {
    let [low, high] = [0, index.starts.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (index.starts[middle] <= episode) low = middle; else high = middle;
    }
    return low;
  };
  const loadChunk = (number) => {
    if (!waiting.has(number)) {
      waiting.set(number, load(number).catch((error) => { waiting.delete(number); throw error; }));
    }
    return waiting.get(number);
  };
  const loadedText = (episode) => {
    const chunk = chunkOf(episode);
    return chunks.has(chunk) ? chunks.get(chunk)[episode - index.starts[chunk]] : null;
  };

  // Episodes of a model by suite, task and trial.
  const ofModel = (model) => {
    if (!episodes.has(model)) {
      const found = new Map();
      const trials = index.trial.reduce((most, trial) => Math.max(most, trial + 1), 1);
      index.model.forEach((played, i) => {
        if (played === model) found.set((index.suite[i] * index.tasks.length + index.task[i]) * trials + index.trial[i], i);
      });
      episodes.set(model, found);
    }
    return episodes.get(model);
  };

  const outcome = ({ left, right }) => {
    const change = index.reward[right] - index.reward[left];
    return change > 0 ? "won" : change < 0 ? "lost" : "same";
  };

  const pairUp = () => {
    const rights = ofModel(Number(at("right").value));
    pairs = [];
    for (const [key, left] of ofModel(Number(at("left").value))) {
      if (rights.has(key)) pairs.push({ left, right: rights.get(key) });
    }
    const rank = (pair) => Number(outcome(pair) === "same");
    pairs.sort((a, b) => rank(a) - rank(b) || index.suite[a.left] - index.suite[b.left]
      || index.rank[index.task[a.left]] - index.rank[index.task[b.left]] || index.trial[a.left] - index.trial[b.left]);
    filter();
  };

  const stretch = (part) => (typeof part === "string" ? part : part[0]);
  const saidIn = (message) => message.p.map(stretch).join("");
  const holds = (episode, wanted) => {
    const text = loadedText(episode);
    return text !== null && text.some((message) => saidIn(message).toLowerCase().includes(wanted));
  };

  const filter = () => {
    const [suite, ending, violation] = [at("suite").value, at("outcome").value, at("violation").value];
    const wanted = at("search").value.trim().toLowerCase();
    shown = pairs.filter((pair) => {
      const { left, right } = pair;
      return (suite === "" || index.suite[left] === Number(suite))
        && (ending === "" || outcome(pair) === ending)
        && (violation === "" || ((index.violations[left] | index.violations[right]) >> Number(violation)) & 1)
        && (wanted === "" || index.tasks[index.task[left]].toLowerCase().includes(wanted) || holds(left, wanted) || holds(right, wanted));
    });
    page = 0;
    draw();
  };

  const tell = () => {
    const differ = shown.filter((pair) => outcome(pair) !== "same").length;
    let text = `${shown.length} of ${pairs.length} pairs; the outcome differs in ${differ}, shown first.`;
    if (at("search").value.trim() !== "") {
      const loaded = pairs.filter(({ left, right }) => loadedText(left) !== null && loadedText(right) !== null).length;
      text += ` Searched: all task names, and the texts of ${loaded} pairs.`;
    }
    say(text);
  };

  const kindsOf = (episode) => index.kinds.filter((_, kind) => (index.violations[episode] >> kind) & 1);

  const row = (pair) => {
    const { left, right } = pair;
    const trial = index.trial[left] > 0 ? ` (trial ${index.trial[left] + 1})` : "";
    const kinds = [...new Set([...kindsOf(left), ...kindsOf(right)])].join(", ");
    const button = element("button", { type: "button", className: "row" },
      element("span", { className: "soft", textContent: index.suites[index.suite[left]] }),
      element("span", { className: "task", textContent: index.tasks[index.task[left]] + trial }),
      element("span", { className: outcome(pair), textContent: `${percent(index.reward[left])} → ${percent(index.reward[right])}` }),
      element("span", { className: "soft", textContent: kinds }));
    button.setAttribute("aria-expanded", "false");
    button.onclick = () => toggle(button, pair);
    return element("li", {}, button);
  };

  const draw = () => {
    const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    list.replaceChildren(...shown.slice(PAGE * page, PAGE * (page + 1)).map(row));
    at("pages").hidden = last === 0;
    at("where").textContent = `page ${page + 1} of ${last + 1}`;
    at("previous").disabled = page === 0;
    at("next").disabled = page === last;
    tell();
  };

  const toggle = async (button, pair) => {
    if (button.nextElementSibling) {
      button.nextElementSibling.remove();
      button.setAttribute("aria-expanded", "false");
      return;
    }
    button.setAttribute("aria-expanded", "true");
    const panel = element("div", { className: "pair" }, "The texts are loading …");
    button.after(panel);
    try {
      await Promise.all([pair.left, pair.right].map((episode) => loadChunk(chunkOf(episode))));
      const replies = [pair.left, pair.right].map((episode) => loadedText(episode).filter((m) => "t" in m).map(saidIn));
      const turns = Math.max(replies[0].length, replies[1].length);
      let parts = 0;
      while (parts < turns && replies[0][parts] === replies[1][parts]) parts += 1;
      panel.replaceChildren(conversation(pair.left, parts), conversation(pair.right, parts));
      const said = parts < turns ? `The replies part at turn ${parts + 1}.` : "The replies are the same.";
      panel.firstChild.firstChild.append(element("span", { className: "note", textContent: ` ${said}` }));
    } catch (error) {
      panel.replaceChildren(refused);
    }
  };

  const conversation = (episode, parts) => {
    const title = `${index.models[index.model[episode]]} · ${percent(index.reward[episode])} · ${index.statuses[index.status[episode]]} `;
    const messages = loadedText(episode).map((message) => {
      const first = message.t === parts ? " first" : "";
      const text = element("pre", {}, ...message.p.map((part) => {
        if (typeof part === "string") return part;
        return element(part[1] === "v" ? "mark" : "u", { textContent: part[0], title: part[2] });
      }));
      return element("div", { className: `turn ${message.r}${first}` }, element("span", { textContent: message.r }), text);
    });
    return element("div", {}, element("h3", {}, title), ...messages);
  };

  const loadAll = async () => {
    at("load").disabled = true;
    const wanted = [...new Set(pairs.flatMap(({ left, right }) => [chunkOf(left), chunkOf(right)]))];
    let [next, done] = [0, 0];
    const work = async () => {
      while (next < wanted.length) {
        await loadChunk(wanted[next++]);
        done += 1;
        say(`Texts: ${done} of ${wanted.length} files are loaded.`);
      }
    };
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      filter();
    } catch (error) {
      say(refused);
    }
    at("load").disabled = false;
  };

  const turnPage = (by) => {
    page += by;
    draw();
    list.querySelector(".row")?.focus();
  };

  const keys = (event) => {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if (typing || event.ctrlKey || event.altKey || event.metaKey) return;
    const rows = [...list.querySelectorAll(".row")];
    const here = rows.indexOf(document.activeElement?.closest("li")?.querySelector(".row"));
    // Arrows scroll the page where no row has the focus.
    const down = event.key === "j" || (event.key === "ArrowDown" && here >= 0);
    const up = event.key === "k" || (event.key === "ArrowUp" && here >= 0);
    if (down) rows[Math.min(here + 1, rows.length - 1)]?.focus();
    else if (up) rows[Math.max(here - 1, 0)]?.focus();
    else if (event.key === "n" && !at("next").disabled) turnPage(1);
    else if (event.key === "p" && !at("previous").disabled) turnPage(-1);
    else if (event.key === "/") at("search").focus();
    else return;
    event.preventDefault();
  };

  const options = (select, names) => {
    select.append(...names.map((name, i) => element("option", { value: String(i), textContent: name })));
  };

  const begin = () => {
    // Ranks of tasks: names with their numbers in order.
    const order = index.tasks.map((_, i) => i);
    const { compare } = new Intl.Collator("en", { numeric: true });
    order.sort((a, b) => compare(index.tasks[a], index.tasks[b]));
    index.rank = new Array(order.length);
    order.forEach((task, rank) => { index.rank[task] = rank; });

    for (const side of ["left", "right"]) {
      options(at(side), index.models);
      const wanted = index.models.indexOf(view.dataset[side]);
      at(side).value = String(wanted >= 0 ? wanted : side === "left" ? 0 : index.models.length - 1);
      at(side).onchange = pairUp;
    }
    options(at("suite"), index.suites);
    options(at("violation"), index.kinds);
    for (const id of ["suite", "outcome", "violation"]) at(id).onchange = filter;
    let typed = 0;
    at("search").oninput = () => { clearTimeout(typed); typed = setTimeout(filter, 150); };
    at("filters").onsubmit = (event) => { event.preventDefault(); filter(); };
    at("load").onclick = loadAll;
    at("previous").onclick = () => turnPage(-1);
    at("next").onclick = () => turnPage(1);
    document.addEventListener("keydown", keys);
    pairUp();
    view.dataset.ready = String(index.model.length);
  };

  queueMicrotask(() => load("index").then(begin).catch(() => say(refused)));
  return {
    index: (content) => { index = content; },
    chunk: (number, content) => { chunks.set(number, content); },
  };
})();
