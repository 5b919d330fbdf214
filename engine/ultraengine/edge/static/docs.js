// Renders /openapi.json as a page that can be read and tried.  No dependencies, no network.
// All text from the document is set as text, never as markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
let spec = null;

/** An element: h("p.note", {title: "x"}, "text", child, ...). */
function h(name, attributes, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** `code`, **strong** and blank lines of a description. */
function prose(text, name = "p") {
  return (text || "").split(/\n\s*\n/).filter(Boolean).map((paragraph) =>
    h(name, {}, ...paragraph.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
      if (part.startsWith("`")) return h("code", {}, part.slice(1, -1));
      if (part.startsWith("**")) return h("strong", {}, part.slice(2, -2));
      return part;
    })));
}

/** JSON text with its parts coloured. */
function coloured(text) {
  const pattern = /("(?:\\.|[^"\\])*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|\b(true|false|null)\b/g;
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(pattern)) {
    parts.push(text.slice(at, found.index));
    const kind = found[1] ? (found[2] ? "k" : "s") : found[3] ? "n" : "l";
    parts.push(h("span." + kind, {}, found[1] || found[0]), found[2] || "");
    at = found.index + found[0].length;
  }
  return [...parts, text.slice(at)];
}

function resolve(schema) {
  let found = schema || {};
  for (let depth = 0; found.$ref && depth < 20; depth++) {
    found = spec.components.schemas[found.$ref.split("/").pop()] || {};
  }
  return found;
}

function typeName(schema) {
  if (!schema) return "any";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((item) => JSON.stringify(item)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const several = schema.anyOf || schema.oneOf;
  if (several) return several.map(typeName).join(" | ");
  if (schema.type === "array") return typeName(schema.items) + "[]";
  const type = Array.isArray(schema.type) ? schema.type.join(" | ") : schema.type || "any";
  return schema.format ? `${type} (${schema.format})` : type;
}

/** The schemas worth opening inside a member: objects below references, arrays, alternatives. */
function inner(schema) {
  if (!schema) return [];
  if (schema.anyOf || schema.oneOf) return (schema.anyOf || schema.oneOf).flatMap(inner);
  if (schema.type === "array") return inner(schema.items);
  const found = resolve(schema);
  if (found !== schema && (found.oneOf || found.anyOf)) return inner(found);
  return found.properties ? [schema] : [];
}

function schemaTree(schema, depth = 0) {
  const found = resolve(schema);
  const rows = Object.entries(found.properties || {}).map(([name, member]) => {
    const must = (found.required || []).includes(name);
    const note = member.description || resolve(member).description;
    return h("tr", {},
      h("td", {}, h("code", {}, name), must ? h("span.must", { title: "required" }, "required") : null),
      h("td", {}, h("span.type", {}, typeName(member)),
        member.default !== undefined && member.default !== null
          ? h("span.type", {}, " = " + JSON.stringify(member.default)) : null,
        note ? h("span.note", {}, ...prose(note.split("\n\n")[0], "span")) : null,
        depth < 5 ? inner(member).map((below) => closed(typeName(below), below, depth + 1)) : null));
  });
  return h("table", {}, h("tbody", {}, rows));
}

/** A schema that is rendered when it is opened. */
function closed(title, schema, depth) {
  const box = h("details.schema", {}, h("summary", {}, title));
  box.addEventListener("toggle", () => {
    if (box.open && box.children.length === 1) box.append(h("div", {}, schemaTree(schema, depth)));
  });
  return box;
}

function pathParts(path) {
  return path.split(/(\{[^}]+\})/).map((part) => part.startsWith("{") ? h("b", {}, part) : part);
}

function bodySchema(operation) {
  return operation.requestBody?.content?.["application/json"];
}

/** The form that sends a request and shows the answer. */
function tryIt(path, method, operation) {
  const inputs = new Map();
  const rows = (operation.parameters || []).map((parameter) => {
    const input = h("input", {
      value: parameter.required && parameter.example !== undefined ? parameter.example : "",
      placeholder: parameter.schema.default ?? parameter.example ?? "",
      "aria-label": parameter.name, spellcheck: false,
    });
    inputs.set(parameter, input);
    return h("tr", {},
      h("td", {}, h("code", {}, parameter.name),
        parameter.required ? h("span.must", {}, "required") : null,
        h("span.note", {}, parameter.in)),
      h("td", {}, input,
        h("span.note", {}, h("span.type", {}, typeName(parameter.schema)), " ",
          ...prose(parameter.description, "span"))));
  });
  const media = bodySchema(operation);
  const text = media ? h("textarea", { spellcheck: false, "aria-label": "Request body" }) : null;
  const examples = Object.entries(media?.examples || {});
  const show = (value) => {
    text.value = JSON.stringify(value, null, 2);
    text.rows = Math.min(24, text.value.split("\n").length);
  };
  const buttons = examples.map(([name, example], index) => h("button", {
    type: "button", title: example.summary,
    onclick: (event) => {
      show(example.value);
      buttons.forEach((button) => button.classList.toggle("here", button === event.target));
    },
    className: index === 0 ? "here" : "",
  }, name));
  if (examples.length) show(examples[0][1].value);
  else if (text) show({});

  const answer = h("div.answer", {});
  const took = h("span.took", {});
  const send = h("button", { type: "button", onclick: run }, "Send");

  function request() {
    let url = path;
    const query = new URLSearchParams();
    const headers = {};
    for (const [parameter, input] of inputs) {
      if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value === "") continue;
      else if (parameter.in === "query") query.append(parameter.name, input.value);
      else headers[parameter.name] = input.value;
    }
    if (text && text.value.trim()) headers["Content-Type"] = "application/json";
    const key = document.getElementById("key").value.trim();
    if (key) headers.Authorization = "Bearer " + key;
    return { url: url + (query.size ? "?" + query : ""), headers, body: text?.value.trim() || undefined };
  }

  async function run() {
    const { url, headers, body } = request();
    send.disabled = true;
    took.textContent = "";
    const start = performance.now();
    try {
      const response = await fetch(url, { method: method.toUpperCase(), headers, body });
      const content = await response.text();
      took.textContent = `${(performance.now() - start).toFixed(1)} ms`;
      const lines = [...response.headers].filter(([name]) =>
        !["content-length", "date", "server"].includes(name)).map(([name, value]) => `${name}: ${value}`);
      let shown = content;
      try { shown = JSON.stringify(JSON.parse(content), null, 2); } catch { /* plain text */ }
      answer.replaceChildren(
        h(`p.lines`, {}, h(`span.status.s${String(response.status)[0]}`, {}, `${response.status} ${response.statusText}`),
          "\n" + lines.join("\n")),
        h("pre", {}, ...(shown === content && !/^[\[{]/.test(content) ? [content] : coloured(shown))));
    } catch (error) {
      answer.replaceChildren(h("p.lines", {}, h("span.status.s5", {}, "No answer: "), String(error)));
    } finally {
      send.disabled = false;
    }
  }

  return h("div", {},
    rows.length ? h("div.block", {}, h("h3", {}, "Parameters"), h("table", {}, h("tbody", {}, rows))) : null,
    text ? h("div.block", {}, h("h3", {}, "Body"), examples.length > 1 ? h("div.examples", {}, buttons) : null, text) : null,
    h("div.send", {}, send, took), answer);
}

function responses(operation) {
  return h("table", {}, h("tbody", {}, Object.entries(operation.responses).map(([status, response]) => {
    const media = response.content?.["application/json"] || response.content?.["application/problem+json"];
    return h("tr", {},
      h("td", {}, h(`span.status.s${status[0]}`, {}, status)),
      h("td", {}, ...prose(response.description, "span"),
        ...(status[0] === "2" ? inner(media?.schema).map((schema) => closed(typeName(schema), schema, 0)) : [])));
  })));
}

function operationCard(path, method, operation) {
  const socket = path === "/v1/stream";
  const verb = socket ? "ws" : method;
  const card = h("details.op", { id: operation.operationId },
    h("summary", {}, h(`span.verb.${verb}`, {}, verb.toUpperCase()), h("span.path", {}, ...pathParts(path)),
      h("span.what", {}, operation.summary || "")));
  card.addEventListener("toggle", () => {
    if (!card.open || card.children.length > 1) return;
    const schema = bodySchema(operation)?.schema;
    const commands = schema ? inner(schema.type === "array" ? schema.items : schema) : [];
    card.append(h("div.body", {},
      ...prose(operation.description, "p.wide"),
      socket ? null : tryIt(path, method, operation),
      h("div", {},
        commands.length ? h("div.block", {}, h("h3", {}, "Body schema"),
          commands.map((item) => closed(resolve(item).title || typeName(item), item, 0))) : null,
        h("div.block", {}, h("h3", {}, "Answers"), responses(operation)))));
  });
  return card;
}

function codes() {
  const rows = (spec["x-problem-codes"] || []).map((row) => h("tr", {},
    h("td", {}, h("code", {}, row.code)),
    h("td", {}, h(`span.status.s${String(row.status)[0]}`, {}, row.status)),
    h("td", {}, row.title, h("span.note", {}, (row.retryable ? "Retryable. " : "") + row.advice))));
  return h("section", { id: "codes" }, h("h2", {}, "Problem codes"),
    h("p", {}, "Stable; branch on them. Domains add codes of their own, answered with 422."),
    h("div.codes", {}, h("table", {}, h("tbody", {}, rows))));
}

function render() {
  document.getElementById("version").textContent = spec.info.version;
  const nav = document.getElementById("nav");
  const main = document.getElementById("main");
  nav.replaceChildren();
  main.replaceChildren(h("div.about", { id: "top" }, h("h1", {}, spec.info.title + " API"), ...prose(spec.info.description)));
  const groups = new Map(spec.tags.map((tag) => [tag.name, []]));
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const method of METHODS.filter((name) => name in methods)) {
      const operation = methods[method];
      const tag = operation.tags?.[0] || "Other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push([path, method, operation]);
    }
  }
  for (const [tag, operations] of groups) {
    if (!operations.length) continue;
    nav.append(h("h2", {}, tag));
    const section = h("section", {}, h("h2", {}, tag),
      ...prose(spec.tags.find((item) => item.name === tag)?.description));
    for (const [path, method, operation] of operations) {
      const verb = path === "/v1/stream" ? "ws" : method;
      const words = `${path} ${operation.summary}`.toLowerCase();
      nav.append(h("a", { href: "#" + operation.operationId, title: path, "data-words": words,
        onclick: () => { document.getElementById(operation.operationId).open = true; } },
        h(`span.verb.${verb}`, {}, verb.toUpperCase()), h("span.words", {}, (operation.summary || path).split(/[:;,]/)[0])));
      const card = operationCard(path, method, operation);
      card.dataset.words = words;
      section.append(card);
    }
    main.append(section);
  }
  nav.append(h("h2", {}, "Reference"), h("a", { href: "#codes" }, h("span.verb", {}, "···"), h("span.words", {}, "Problem codes")));
  main.append(codes());
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const first = target?.matches("details") ? target : document.getElementById("sendCommand");
  if (first) first.open = true;
  if (target) target.scrollIntoView();
}

function filter(words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  for (const node of document.querySelectorAll("[data-words]")) {
    node.hidden = !wanted.every((word) => node.dataset.words.includes(word));
    node.style.display = node.hidden ? "none" : "";
  }
}

async function start() {
  const input = document.getElementById("filter");
  input.addEventListener("input", () => filter(input.value));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      input.focus();
    }
  });
  try {
    const response = await fetch("/openapi.json");
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    spec = await response.json();
    render();
  } catch (error) {
    document.getElementById("main").replaceChildren(h("p.failed", {}, "The document could not be loaded: " + error));
  }
}

start();
