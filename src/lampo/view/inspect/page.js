"use strict";
// What models wrote enters the page through `text` and `element` only, as text nodes: nothing here parses HTML.

const ROW = 60, MOST_IN_STRIP = 16, DENSE_FROM = 17, LEAST_LIKELY = 5, FARTHEST = Math.log(1.5), PATIENCE = 200;
const GLYPHS = { r: ["✓", "right"], w: ["✗", "wrong"], u: ["?", "unknown"], n: ["·", "no verdict"] };
const FILTERS = [["wrong", "all wrong"], ["right", "all right"], ["mixed", "right and wrong"], ["unknown", "unknown verdicts"],
  ["cut", "cut at the limit"], ["flat", "no reward spread"]];
const SORTS = [["in order", null, 1], ["largest |advantage|", "advantage", -1], ["largest spread", "spread", -1], ["lowest reward", "reward", 1],
  ["longest", "length", -1]];
const QUANTITIES = [["contribution", "contributions_GG"], ["weight", "weights_GG"], ["reward gap", "gaps_GG"]];
const COLOURINGS = [["probability", "logprobs"], ["ratio", "ratios"], ["no colour", null]];
const PARTS = { verifier: "verifier", rouge_l: "ROUGE-L F1" };
const NOT_PARTS = new Set(["text", "status", "extracted", "detail", "total", "score", "advantage", "length", "finished", "pieces", "logprobs", "ratios"]);

const $ = id => document.getElementById(id);
const embedded = $("data").textContent.trim() ? JSON.parse($("data").textContent) : null;
const TOKEN = new URLSearchParams(location.search).get("token");
let index, again, drawn = null, shown = [], current = -1, filters = new Set(), sort = 0, quantity = 0, colouring = 0, token = 0, request = 0;

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || (value === false && !name.startsWith("aria-"))) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : value);
  }
  made.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false).map(child => child instanceof Node ? child : String(child)));
  return made;
}
const known = value => value !== null && value !== undefined;
const minus = written => written.replace("-", "−");
const number = (value, digits = 3) => known(value) ? minus(Number(value).toFixed(digits)).replace(/^−(0(\.0+)?)$/, "$1") : "–";
const signed = (value, digits = 3) => (value > 0 && Number(value.toFixed(digits)) > 0 ? "+" : "") + number(value, digits);
const short = value => Number.isInteger(value) ? value.toLocaleString("en") : number(value);
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
function tint(node, value, most) {
  if (known(value) && most > 0 && value !== 0) {
    const strength = Math.min(1, Math.abs(value) / most).toFixed(3);
    node.style.backgroundColor = `rgba(var(${value > 0 ? "--up" : "--down"}), calc(${strength} * var(--strongest)))`;
  }
  return node;
}

// Data ----------------------------------------------------------------------------------------------------------------

const key = line => `${line.place}/${line.number}`;
async function ask(what, line) {
  if (embedded) return what === "index" ? embedded.index : embedded.groups[key(line)][what];
  const query = line ? `?${new URLSearchParams({ place: line.place, number: line.number })}` : "";
  const answer = await fetch(`/api/${what}${query}`, { headers: { Authorization: `token ${TOKEN}` } });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}
const unit = () => index.kind === "run" ? "group" : "problem";
const placeName = place => index.kind === "run" ? `step ${Number(place).toLocaleString("en")}` : place;

async function readIndex(goesOn = false) { // of another trainer's files as many are read as fit into a moment, and the rest after that
  const here = shown[current] && key(shown[current]), asked = decodeURIComponent(location.hash.slice(1));
  const place = $("place").value || asked.split("/")[0];
  index = await ask("index", place ? { place, number: 0 } : undefined);
  index.hasAdvantages = index.groups.some(line => known(line.advantage));
  document.title = `${index.title} · LamPO rollouts`;
  $("title").textContent = index.title;
  const steps = plural(index.places.length, index.kind === "run" ? "step" : "benchmark");
  $("kind").textContent = index.excerpt ? `${plural(index.excerpt.shown, unit())} of ${index.excerpt.of.toLocaleString("en")} · ${index.trainer || "LamPO"} ${index.kind}`
    : `${index.trainer || "LamPO"} ${index.kind} · ${steps} · ${plural(index.groups.length, unit())}${index.unread ? ` · reading ${plural(index.unread, "step")} …` : ""}`;
  $("complaints").hidden = !index.complaints.length;
  $("complaints").replaceChildren(...index.complaints.map(complaint => element("p", {}, complaint)));
  const chosen = $("place").value;
  $("place").replaceChildren(element("option", { value: "" }, index.kind === "run" ? "all steps" : "all benchmarks"),
    ...index.places.map(place => element("option", { value: place }, placeName(place))));
  $("place").value = index.places.includes(chosen) ? chosen : "";
  $("sort").replaceChildren(...SORTS.map(([label, column], at) => element("option", {
    value: at, disabled: column !== null && !index.groups.some(line => known(line[column])) }, label)));
  $("sort").value = sort;
  choose(here || asked, goesOn);
  clearTimeout(again);
  if (index.unread) again = setTimeout(() => readIndex(true).catch(fail), 0);
}

const offers = mark => mark === "flat" ? index.kind === "run" : mark !== "cut" || !index.trainer;
function matching() {
  const wanted = $("search").value.trim().toLowerCase(), place = $("place").value;
  return index.groups.filter(line => (!place || line.place === place)
    && (!wanted || line.id.toLowerCase().includes(wanted) || line.prompt.toLowerCase().includes(wanted)));
}

function choose(here, goesOn = false) {
  if (!index) return; // one may search before it is there
  const candidates = matching(), [, column, direction] = SORTS[sort];
  $("filters").replaceChildren(...FILTERS.map(([mark, label], at) => offers(mark) && element("button", {
    type: "button", "aria-pressed": filters.has(mark), title: `key ${at + 1}`, onclick: () => toggle(mark) },
    label, element("span", { class: "count" }, candidates.filter(line => line.marks.includes(mark)).length.toLocaleString("en")))).filter(Boolean),
    element("output", {}, ""));
  shown = candidates.filter(line => [...filters].every(mark => line.marks.includes(mark)));
  if (column) shown = shown.map((line, at) => [line, at]).sort(([a, i], [b, j]) =>
    (known(b[column]) - known(a[column])) || direction * (a[column] - b[column]) || i - j).map(([line]) => line);
  $("filters").lastChild.textContent = `${shown.length.toLocaleString("en")} of ${plural(index.groups.length, unit())}`;
  $("rows").style.height = `${shown.length * ROW}px`;
  const at = shown.findIndex(line => key(line) === here);
  if (!goesOn || at < 0 || drawn !== here) return show(at >= 0 ? at : shown.length ? 0 : -1);
  current = at;
  drawRows();
  document.querySelector(".go").replaceWith(position());
}
function toggle(mark) {
  if (mark === null) filters.clear(); else if (!filters.delete(mark)) filters.add(mark);
  choose(shown[current] && key(shown[current]));
}

// The list: only the rows in sight exist ------------------------------------------------------------------------------

function strip(verdicts) {
  if (verdicts.length > MOST_IN_STRIP) {
    const count = letter => [...verdicts].filter(each => each === letter).length;
    return element("span", { class: "strip" }, element("span", { class: "right" }, `✓${count("r")} `),
      element("span", { class: "wrong" }, `✗${count("w")} `), count("u") ? element("span", { class: "unknown" }, `?${count("u")}`) : null);
  }
  return element("span", { class: "strip", role: "img", "aria-label": [...verdicts].map(letter => GLYPHS[letter][1]).join(", ") },
    [...verdicts].map(letter => element("span", { class: GLYPHS[letter][1] }, GLYPHS[letter][0])));
}
function drawRows() {
  const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
  const column = SORTS[sort][1] || (index.kind !== "run" ? "length" : index.hasAdvantages || !index.trainer ? "advantage" : "reward");
  const names = { advantage: "max |A|", spread: "spread", reward: "reward", length: "tokens" };
  $("rows").replaceChildren(...shown.slice(first, last).map((line, offset) => {
    const at = first + offset;
    const row = element("div", { class: "row", role: "option", id: `row-${at}`, "aria-selected": at === current, "aria-setsize": shown.length,
      "aria-posinset": at + 1, onclick: () => show(at) },
      element("div", { class: "what" }, element("span", { class: "grow" }, `${placeName(line.place)} · ${line.number + 1} · ${line.id}`),
        element("span", { class: "value" }, `${names[column]} ${column === "length" ? (known(line.length) ? Math.round(line.length).toLocaleString("en") : "–") : number(line[column], 2)}`)),
      element("div", {}, strip(line.verdicts), element("span", { class: "grow" }, line.prompt.slice(0, 120).replace(/\s+/g, " "))));
    row.style.transform = `translateY(${at * ROW}px)`;
    return row;
  }));
  if (current >= first && current < last) list.setAttribute("aria-activedescendant", `row-${current}`);
  else list.removeAttribute("aria-activedescendant");
}

async function show(at) {
  current = at;
  const list = $("list"), line = shown[at], mine = ++request;
  if (at * ROW < list.scrollTop) list.scrollTop = at * ROW;
  if ((at + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * ROW - list.clientHeight;
  drawn = null;
  drawRows();
  say("");
  if (!line) {
    $("group").replaceChildren(element("p", { class: "muted" }, index.groups.length ? "No group is like that. 0 clears the filters." : "There are no groups yet. r looks again."));
    return;
  }
  history.replaceState(null, "", `#${encodeURIComponent(line.place)}/${line.number}`);
  try {
    const group = await ask("group", line);
    if (mine !== request) return;
    const table = index.advantage ? ask("pairs", line).then(pairs => [pairs, ""], error => [null, error.message]) : [null, ""];
    const early = await Promise.race([table, new Promise(resolve => setTimeout(resolve, PATIENCE, [null, "comparing …"]))]);
    if (mine !== request) return;
    drawn = key(line);
    const rank = drawGroup(line, group, ...early);
    $("group").scrollTop = 0;
    const answer = await table;
    if (mine === request && answer !== early && $("pairs")) $("pairs").replaceWith(comparisons(group.rollouts, rank, ...answer));
  } catch (error) {
    if (mine === request) $("group").replaceChildren(element("p", { role: "alert", class: "wrong" }, error.message));
  }
}

// The group -----------------------------------------------------------------------------------------------------------

const fact = (label, value, kind) => element("div", {}, element("dt", {}, label), element("dd", { class: kind }, value));
const mark = status => element("span", { class: status }, GLYPHS[status[0]].join(" "));
const scoreName = () => `${(index.advantage && index.advantage.reduce) || "mean"} log-prob`;

function position() {
  const go = (label, step, name) => element("button", { type: "button", "aria-label": name, disabled: !shown[current + step], onclick: () => show(current + step) }, label);
  return element("div", { class: "go" }, element("span", {}, `${(current + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")} shown`),
    go("‹ k", -1, "Previous group (k)"), go("j ›", 1, "Next group (j)"));
}
function drawGroup(line, group, pairs, why) {
  later.disconnect();
  const rollouts = group.rollouts, count = letter => [...line.verdicts].filter(each => each === letter).length;
  const rank = rollouts.map((rollout, at) => at).sort((a, b) => (known(rollouts[b].total) - known(rollouts[a].total))
    || ((rollouts[b].advantage ?? 0) - (rollouts[a].advantage ?? 0)) || ((rollouts[b].total ?? 0) - (rollouts[a].total ?? 0)) || a - b);
  const parts = [
    element("div", { class: "title" },
      element("h2", {}, `${placeName(line.place).replace(/^s/, "S")}, ${unit()} ${line.number + 1}`),
      element("span", { class: "muted" }, group.problem.id),
      position()),
    element("dl", { class: "facts" },
      count("n") === rollouts.length ? null : fact(index.verdict ? `right by ${index.verdict}` : "right", `${count("r")} of ${rollouts.length}`), count("u") ? fact("unknown", count("u"), "unknown") : null,
      line.cut ? fact("cut at the limit", line.cut, "wrong") : null,
      index.kind === "run" ? fact("mean reward", number(line.reward)) : null, index.kind === "run" ? fact("spread", number(line.spread)) : null,
      known(line.length) ? fact("mean length", `${Math.round(line.length).toLocaleString("en")} tokens`) : null),
    index.kind === "run" && line.spread === 0 ? element("p", { class: "gloss" }, "All rewards are equal: LamPO, GRPO and RLOO give nothing here.") : null,
    ...(group.notes || []).map(note => element("p", { class: "note" }, note)),
    element("section", { class: "problem" },
      element("pre", { tabindex: 0, "aria-label": "Prompt" }, group.problem.prompt),
      known(group.problem.answer) ? element("p", {}, element("span", { class: "muted" }, "Answer "), element("span", { class: "answer" }, group.problem.answer)) : null,
      group.problem.reference ? element("details", {}, element("summary", {}, "Reference solution"), element("pre", { tabindex: 0 }, group.problem.reference)) : null),
    index.advantage ? comparisons(rollouts, rank, pairs, why) : null,
    responses(rollouts, rank),
  ];
  $("group").replaceChildren(...parts.filter(Boolean));
  return rank;
}

function comparisons(rollouts, rank, pairs, why) {
  if (!pairs) return element("section", { id: "pairs" }, element("h2", {}, "Why each was pushed"),
    element("p", { class: "note" }, why || `There is nothing to compare: fewer than two rollouts have a reward${index.trainer ? "" : " and a score"}.`));
  const weighed = known(pairs.weights_GG), told = QUANTITIES.filter(([, field]) => known(pairs[field]));
  const [label, field] = told[quantity % told.length], table = pairs[field], options = pairs.options;
  const centre = field === "weights_GG" ? 0.5 : 0, digits = field === "contributions_GG" ? 3 : 2;
  const most = list => Math.max(0, ...list.flat().filter(known).map(Math.abs));
  const mostPair = centre ? 0.5 : most(table);
  const ends = [["LamPO", pairs.pairwise_G], ["GRPO", pairs.grpo_G], ["RLOO", pairs.rloo_G]].filter(([, values]) => known(values));
  const used = rollouts.map(rollout => rollout.advantage);
  const differs = values => used.some((value, at) => known(value) && Math.abs(value - values[at]) > 1e-4 * (1 + Math.abs(value)));
  const own = { pairwise: "LamPO", grpo: "GRPO", rloo: "RLOO" }[index.advantage.name]
    || (index.trainer && used.some(Boolean) && (ends.find(([, values]) => !differs(values)) || [])[0]);
  if (ends.every(([, values]) => differs(values))) ends.push(["used", used]);
  const divided = (options.normalizer === "peers" ? "the number of peers" : "the sum of the row's weights") + ({ group_std: ", and by the rewards' std", group_mean: ", and by the rewards' mean" }[options.scale] || "")
    + (options.negative === 1 ? "" : `, times ${options.negative} in a row below 0`);
  const explain = (i, j) => `#${i + 1} against #${j + 1}: reward gap ${signed(pairs.gaps_GG[i][j])}` + (!weighed ? "" : ` × weight ${number(pairs.weights_GG[i][j])} / ${number(pairs.divisors_G[i])} = ${signed(pairs.contributions_GG[i][j])}`);
  const force = ([i, j]) => Math.abs((pairs.contributions_GG || pairs.gaps_GG)[i][j] ?? 0);
  const strongest = rank.flatMap(i => rank.map(j => [i, j])).reduce((best, pair) => force(pair) > force(best) ? pair : best);
  const said = element("p", { class: "said", role: "status", "aria-live": "polite" }, force(strongest) ? `The strongest pair, ${explain(...strongest)}` : "");
  const cell = (i, j, row, column) => {
    const value = table[i][j];
    const made = element("td", { class: i === j ? "pair diagonal" : "pair", tabindex: row === 0 && column === 0 ? 0 : -1, "data-row": row, "data-column": column,
      "aria-label": i === j ? "itself" : known(value) ? explain(i, j) : "takes no part" },
      i === j ? "·" : known(value) ? (centre ? number(value, digits) : signed(value, digits)) : "–");
    const tell = () => { said.textContent = i === j ? "" : known(value) ? explain(i, j) : `#${known(rollouts[i].total) ? j + 1 : i + 1} has no reward and takes no part.`; };
    made.addEventListener("mouseenter", tell);
    made.addEventListener("focus", tell);
    return i === j ? made : tint(made, known(value) ? value - centre : null, mostPair);
  };
  const endsFirst = matchMedia("(max-width: 85rem)").matches, // sums in sight even where pairs have to be scrolled
    ordered = (pairCells, endCells) => endsFirst ? [endCells, pairCells] : [pairCells, endCells];
  const made = element("table", { "aria-label": `Pairs: ${label}`, class: rollouts.length >= DENSE_FROM ? "dense" : "" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "rollout"), element("th", { scope: "col" }, "reward"), weighed && element("th", { scope: "col" }, scoreName()),
      ordered(rank.map((j, at) => element("th", { scope: "col", class: at ? "pair" : "pair first" }, rollouts.length >= DENSE_FROM ? j + 1 : `vs #${j + 1}`)),
        ends.map(([name, values], at) => element("th", { scope: "col", class: at ? "" : "first" }, name === own && !differs(values) ? `${name} (used)` : name))).flat())),
    element("tbody", {}, rank.map((i, row) => element("tr", {},
      element("th", { scope: "row" }, element("a", { href: `#r${i + 1}`, onclick: event => { event.preventDefault(); focusResponse(i); } },
        `#${i + 1}`), " ", element("span", { class: rollouts[i].status, role: "img", "aria-label": rollouts[i].status }, GLYPHS[rollouts[i].status[0]][0])),
      element("td", {}, number(rollouts[i].total)), weighed && element("td", {}, number(rollouts[i].score)),
      ordered(rank.map((j, column) => cell(i, j, row, column)),
        ends.map(([, values], at) => tint(element("td", { class: at ? "sum" : "sum first" }, signed(values[i])), values[i], most(values)))).flat()))),
    element("tfoot", {}, element("tr", {}, element("th", { scope: "row" }, "sum"), element("td", { colspan: weighed ? 2 : 1 }),
      ordered([element("td", { colspan: rank.length, class: "first" })],
        ends.map(([, values], at) => element("td", { class: at ? "sum" : "sum first" }, signed(values.reduce((total, value) => total + (value ?? 0), 0))))).flat())));
  made.addEventListener("keydown", event => {
    const from = event.target.closest("td.pair"), move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!from || !move) return;
    event.preventDefault();
    event.stopPropagation();
    const to = made.querySelector(`[data-row="${+from.dataset.row + move[0]}"][data-column="${+from.dataset.column + move[1]}"]`);
    if (to) { from.tabIndex = -1; to.tabIndex = 0; to.focus(); }
  });
  const section = element("section", { id: "pairs" },
    element("div", { class: "head" }, element("h2", {}, "Why each was pushed"),
      element("div", { class: "choice", role: "radiogroup", "aria-label": "Shown for each pair" }, told.map(([name], at) => element("button", {
        type: "button", role: "radio", "aria-checked": name === label, title: "m takes the next", onclick: () => { quantity = at; redraw(); } }, name))),
      element("p", {}, field === "contributions_GG" ? `A row against each peer: weight × reward gap, divided by ${divided}. It sums to LamPO's advantage.`
        : field === "weights_GG" ? `w: ${options.weight}, a sigmoid of the difference in ${scoreName()} over tau = ${known(pairs.temperature) ? pairs.temperature.toPrecision(3) : "∞"}${typeof options.temperature === "string" ? ` (${options.temperature})` : ""}; 1/2 is neutral.${options.peer_weight === "equal" ? "" : ` Times the peer's ${options.peer_weight} over the group's mean.`}`
        : "The row's reward minus the column's.")),
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Pairs" }, made), said,
    pairs.note ? element("p", { class: "note" }, pairs.note) : null,
    own === "LamPO" && differs(pairs.pairwise_G) ? element("p", { class: "note" }, "The advantages that were used are others: recomputed with the settings in config.yaml, these differ.") : null);
  const redraw = () => {
    const next = comparisons(rollouts, rank, pairs, why), within = section.contains(document.activeElement);
    section.replaceWith(next);
    if (within) next.querySelector('[aria-checked="true"]').focus();
  };
  section.next = () => { quantity = (quantity + 1) % told.length; redraw(); };
  return section;
}

function responses(rollouts, rank) {
  const coloured = rollouts.some(rollout => rollout.pieces), moved = rollouts.some(rollout => rollout.pieces && rollout.ratios);
  if (COLOURINGS[colouring][0] === "ratio" && !moved) colouring = 0;
  const most = Math.max(0, ...rollouts.map(rollout => Math.abs(rollout.advantage ?? 0)));
  const legend = element("span", { class: "legend" });
  const choice = element("div", { class: "choice", role: "radiogroup", "aria-label": "Colours of tokens" }, COLOURINGS.map(([name, field], at) =>
    field === "ratios" && !moved ? null : element("button", { type: "button", role: "radio", title: "t takes the next", "data-at": at, onclick: () => recolour(at) }, name)));
  const recolour = at => {
    colouring = at;
    choice.childNodes.forEach(button => button.setAttribute("aria-checked", +button.dataset.at === at));
    const marks = { logprobs: [1, 0.5, 0.2, 0.05, 0.01].map(each => surprise(element("i", {}, each), Math.log(each))),
      ratios: [0.67, 0.8, 1, 1.25, 1.5].map(each => drift(element("i", {}, each), each)).concat(index.clip ? element("i", { class: "clipped" }, "clipped") : []) };
    legend.replaceChildren(...marks[COLOURINGS[at][1]] || []);
    section.querySelectorAll("pre.tokens").forEach(text => { if (text.coloured) { text.coloured = false; later.observe(text); } });
  };
  const cards = rank.map(at => {
    const rollout = rollouts[at], value = (name, written) => element("span", { class: "number" }, element("span", {}, `${name} `), written);
    // runs before rewards had names kept their parts beside the other numbers
    const extra = Object.entries(rollout.rewards || rollout).filter(([name, amount]) => (rollout.rewards || !NOT_PARTS.has(name)) && typeof amount === "number");
    const text = element("pre", { tabindex: 0, class: rollout.pieces ? "tokens" : "", "aria-label": `Text of response ${at + 1}` }, rollout.text);
    if (rollout.pieces) {
      text.rollout = rollout;
      later.observe(text);
      text.addEventListener("mouseover", event => { const at = event.target.dataset.at; if (at !== undefined) sayToken(text, +at); });
      text.addEventListener("mouseleave", () => say(""));
      text.addEventListener("keydown", event => {
        const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!move) return;
        event.preventDefault();
        colour(text);
        token = Math.max(0, Math.min(rollout.pieces.length - 1, text.here === undefined ? 0 : text.here + move));
        sayToken(text, token);
      });
      text.addEventListener("blur", () => { clearHere(text); say(""); });
    }
    return element("article", { class: `response is-${rollout.status}`, id: `r${at + 1}`, "aria-label": `Response ${at + 1}, ${rollout.status}` },
      element("header", {}, element("strong", {}, `#${at + 1} `, mark(rollout.status)),
        known(rollout.extracted) ? element("span", { class: "extracted", title: rollout.extracted }, element("span", { class: "muted" }, "answered "), rollout.extracted) : null,
        known(rollout.advantage) ? element("span", { class: "number" }, element("span", {}, "advantage "), tint(element("b", { class: "chip" }, signed(rollout.advantage)), rollout.advantage, most)) : null,
        index.kind === "run" ? value("reward", number(rollout.total)) : null,
        extra.map(([name, amount]) => value(PARTS[name] || name.replaceAll("_", " "), short(amount))),
        known(rollout.score) ? value(scoreName(), number(rollout.score)) : null,
        known(rollout.length) ? value("tokens", rollout.length.toLocaleString("en")) : null,
        rollout.finished !== false ? null : element("span", { class: "badge" }, "cut at the length limit"),
        rollout.detail ? element("span", { class: "muted" }, rollout.detail) : null), text);
  });
  const section = element("section", { id: "responses" }, element("div", { class: "head" }, element("h2", {}, "Responses"), coloured ? choice : null, coloured ? legend : null,
    element("p", {}, index.kind === "run" ? (index.hasAdvantages || !index.trainer ? "By advantage, the most favoured first." : "The highest reward first.") + (coloured || index.trainer ? "" : " This run kept no log-probabilities of tokens.") : "Right ones first.")), cards);
  section.next = () => coloured && recolour(+(choice.querySelector('[aria-checked="true"]').nextSibling || choice.firstChild).dataset.at);
  recolour(colouring);
  return section;
}

// Tokens --------------------------------------------------------------------------------------------------------------

function surprise(node, logprob) { return tint(node, Math.min(0, logprob), LEAST_LIKELY); }
function drift(node, ratio) { return tint(node, Math.log(Math.max(ratio, 1e-3)), FARTHEST); }
function isClipped(rollout, at) { // PPO's: the ratio has already gone where the advantage pushes
  const [low, high] = index.clip || [-Infinity, Infinity];
  return rollout.advantage > 0 ? rollout.ratios[at] > high : rollout.advantage < 0 && rollout.ratios[at] < low;
}
function shade(node, rollout, at) {
  const values = rollout[COLOURINGS[colouring][1]];
  if (!values) return node;
  if (values === rollout.logprobs) return surprise(node, values[at]);
  node.classList.toggle("clipped", isClipped(rollout, at));
  return drift(node, values[at]);
}
const later = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => colour(entry.target)), { rootMargin: "800px", scrollMargin: "800px" });
function colour(text) {
  later.unobserve(text);
  if (text.coloured) return;
  text.coloured = true;
  const { pieces, finished } = text.rollout, last = finished ? pieces.length - 1 : -1;
  text.replaceChildren(...pieces.map((piece, at) => piece === "" && at !== last ? null
    : shade(element("span", { "data-at": at, class: piece === "" ? "end" : null }, piece), text.rollout, at)).filter(Boolean));
}
function clearHere(text) { text.querySelectorAll(".here").forEach(node => node.classList.remove("here")); text.here = undefined; }
function sayToken(text, at) {
  const { pieces, logprobs, ratios, finished } = text.rollout, logprob = logprobs[at];
  clearHere(text);
  text.here = at;
  const node = text.querySelector(`[data-at="${at}"]`);
  if (node) { node.classList.add("here"); if (document.activeElement === text) node.scrollIntoView({ block: "nearest" }); }
  const probability = Math.exp(logprob), written = probability >= 0.001 ? `${(100 * probability).toPrecision(3)} %` : probability.toExponential(1);
  const name = pieces[at] ? JSON.stringify(pieces[at]) : finished && at === pieces.length - 1 ? "the end" : "part of a character, or a special token";
  say(`token ${at + 1} of ${pieces.length} · ${name} · log-prob ${number(logprob)} · probability ${written}`
    + (ratios ? ` · ratio ${number(ratios[at])}${isClipped(text.rollout, at) ? ", clipped" : ""}` : ""));
}
function say(what) { $("readout").textContent = what; }

// Keys ----------------------------------------------------------------------------------------------------------------

function focusResponse(at) {
  const text = document.querySelector(`#r${at + 1} pre`);
  text.focus({ preventScroll: true });
  text.closest("article").scrollIntoView({ block: "start" });
}
function stepResponse(move) {
  const texts = [...document.querySelectorAll("article.response pre")], at = texts.indexOf(document.activeElement);
  const to = texts[at < 0 ? (move > 0 ? 0 : texts.length - 1) : at + move];
  if (to) { to.focus({ preventScroll: true }); to.closest("article").scrollIntoView({ block: "nearest" }); }
}
function step(move) { if (shown[current + move]) show(current + move); }
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const inField = event.target.matches("input, select");
  if (inField) { // of itself, Escape would empty the search in some browsers
    if (event.key === "Escape") { event.preventDefault(); event.target.blur(); }
    return;
  }
  const digit = /^[0-9]$/.test(event.key) ? Number(event.key) : -1;
  const free = event.target === document.body || event.target === $("list") || event.target === $("group");
  const actions = {
    j: () => step(1), k: () => step(-1), ArrowDown: free ? () => step(1) : null, ArrowUp: free ? () => step(-1) : null,
    g: () => show(0), G: () => show(shown.length - 1), Home: event.target === $("list") ? () => show(0) : null,
    End: event.target === $("list") ? () => show(shown.length - 1) : null,
    n: () => stepResponse(1), p: () => stepResponse(-1), t: () => $("responses") && $("responses").next(),
    m: () => $("pairs") && $("pairs").next && $("pairs").next(), "/": () => $("search").focus(), "?": () => $("help").showModal(),
    s: () => { do sort = (sort + 1) % SORTS.length; while ($("sort").options[sort].disabled); $("sort").value = sort; choose(shown[current] && key(shown[current])); },
    r: () => { if (!index?.unread) readIndex().catch(fail); },
  };
  const action = digit === 0 ? () => toggle(null) : FILTERS[digit - 1] ? () => offers(FILTERS[digit - 1][0]) && toggle(FILTERS[digit - 1][0]) : actions[event.key];
  if (action && (index || event.key === "r" || event.key === "?")) { event.preventDefault(); action(); }
});
function fail(error) { $("complaints").hidden = false; $("complaints").textContent = `The viewer does not answer: ${error.message}`; }

document.querySelector("form.tools").addEventListener("submit", event => event.preventDefault());
$("search").addEventListener("input", () => choose(shown[current] && key(shown[current])));
$("place").addEventListener("change", () => index.unread ? readIndex().catch(fail) : choose(null));
$("sort").addEventListener("change", event => { sort = Number(event.target.value); choose(null); });
$("help-open").addEventListener("click", () => $("help").showModal());
$("list").addEventListener("scroll", drawRows);
addEventListener("resize", () => index && drawRows());
addEventListener("hashchange", () => index && choose(decodeURIComponent(location.hash.slice(1))));
readIndex().catch(fail);
