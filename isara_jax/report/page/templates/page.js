"use strict";

// Every text below was written by a model: it is only ever set as textContent.
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 25;

const texts = new Map(data.seeds.map(([id, question, answer]) => [id, { question, answer }]));
for (const sample of data.samples) {
  if (!sample.rule) texts.set(sample.id, sample);
}

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function number(value, digits) {
  return value === null ? "-" : value.toFixed(digits);
}

// A list with controls: `select` returns the rows that they ask for, `draw` shows one.
function browse(root, select, draw) {
  const list = root.querySelector(".rows");
  const count = root.querySelector(".count");
  const [previous, next] = root.querySelectorAll(".pager button");
  let rows = [];
  let start = 0;

  function show() {
    list.replaceChildren(...rows.slice(start, start + PAGE).map(draw));
    const last = Math.min(start + PAGE, rows.length);
    count.textContent = rows.length ? `${start + 1}-${last} of ${rows.length}` : "nothing matches";
    previous.disabled = start === 0;
    next.disabled = last === rows.length;
  }

  function turn(by) {
    start += by;
    show();
    root.scrollIntoView();
  }

  function refresh() {
    rows = select();
    start = 0;
    show();
  }

  let waiting = 0;
  for (const control of root.querySelectorAll("input, select")) {
    control.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(refresh, 120);
    });
  }
  previous.addEventListener("click", () => turn(-PAGE));
  next.addEventListener("click", () => turn(PAGE));
  refresh();
}

function holds(text, words) {
  return words.every((word) => text.includes(word));
}

function wordsOf(root) {
  return root.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
}

// --- samples ---------------------------------------------------------------------

function demos(title, ids) {
  const details = element("details");
  details.append(element("summary", "", `${ids.length} ${title}`));
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("ol")) return;
    const list = element("ol", "demos");
    for (const id of ids) {
      const item = element("li");
      const known = texts.get(id);
      item.append(element("span", "id", id));
      item.append(element("p", "text", known ? known.question : "(its text is not in this folder)"));
      if (known) item.append(element("p", "text muted", known.answer));
      list.append(item);
    }
    details.append(list);
  });
  return details;
}

function cell(label, text, title, ids) {
  const node = element("td");
  node.dataset.label = label;
  node.append(element("p", "text", text));
  if (ids.length) node.append(demos(title, ids));
  return node;
}

function sampleRow(sample) {
  const row = element("tr");
  const first = element("td");
  first.append(element("span", "id", sample.id));
  first.append(element("span", sample.rule ? "badge bad" : "badge good", sample.rule || "kept"));
  if (sample.reason) first.append(element("p", "muted small", sample.reason));
  if (sample.seed) {
    const close = `nearest ${sample.seed}, ${number(sample.similarity, 2)}`;
    first.append(element("p", "muted small", close));
  }
  row.append(first);
  row.append(cell("question", sample.question, "demos of the question", sample.question_demos));
  row.append(cell("answer", sample.answer, "demos of the answer", sample.answer_demos));
  return row;
}

function selectSamples(root) {
  const [round, status] = [...root.querySelectorAll("select")].map((node) => node.value);
  const words = wordsOf(root);
  return data.samples.filter(
    (sample) =>
      (round === "" || String(sample.round) === round) &&
      (status === "" ||
        (status === "kept" && !sample.rule) ||
        (status === "rejected" && sample.rule) ||
        status === `rule:${sample.rule}`) &&
      holds(`${sample.id} ${sample.question} ${sample.answer}`.toLowerCase(), words),
  );
}

// --- held-out answers --------------------------------------------------------------

function heldoutCard(item) {
  const card = element("article", "card");
  card.append(element("h3", "text", item.question));
  const reference = element("p", "reference text");
  reference.append(element("b", "", "best reference "), document.createTextNode(item.reference));
  card.append(reference);
  const answers = element("div", "answers");
  item.answers.forEach((answer, n) => {
    const box = element("div", "answer");
    box.append(element("h4", "", data.models[n]));
    box.append(element("p", "text", answer ? answer.text || "(empty)" : "(not answered)"));
    if (answer) {
      const scores =
        `NLL ${number(answer.nll, 2)}, ROUGE-L difference ${number(answer.rouge_l_difference, 1)}, ` +
        `MC1 ${number(answer.mc1, 0)}, MC2 ${number(answer.mc2, 2)}`;
      box.append(element("p", "muted small", scores));
    }
    answers.append(box);
  });
  card.append(answers);
  return card;
}

// The gain of the last model over the first; a question that lacks either goes last.
function gain(item, score, sign) {
  const [before, after] = [item.answers[0], item.answers[item.answers.length - 1]];
  if (!before || !after || before[score] === null || after[score] === null) return -Infinity;
  return sign * (after[score] - before[score]);
}

const ORDERS = {
  "nll-better": ["nll", -1],
  "nll-worse": ["nll", 1],
  "rouge-better": ["rouge_l_difference", 1],
  "rouge-worse": ["rouge_l_difference", -1],
};

function selectHeldout(root) {
  const words = wordsOf(root);
  const found = data.heldout.filter((item) => {
    const answers = item.answers.map((answer) => (answer ? answer.text : "")).join(" ");
    return holds(`${item.question} ${item.reference} ${answers}`.toLowerCase(), words);
  });
  const order = ORDERS[root.querySelector("select").value];
  if (!order) return found;
  return found
    .map((item) => [gain(item, ...order), item])
    .sort(([left], [right]) => (left === right ? 0 : right - left))
    .map(([, item]) => item);
}

const samples = document.getElementById("samples");
if (data.samples.length) browse(samples, () => selectSamples(samples), sampleRow);
const heldout = document.getElementById("heldout");
if (data.heldout.length) browse(heldout, () => selectHeldout(heldout), heldoutCard);
