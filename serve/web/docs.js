// The documentation: /openapi.json laid out for reading. Asks for that one document and nothing else; texts are set as
// texts, never as HTML.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const DEPTH_MAX = 4;

/** An element with text, or with elements in it. */
function element(name, content = [], attributes = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  for (const each of [content].flat()) made.append(each);
  return made;
}

function resolved(api, schema) {
  const name = schema?.$ref?.split("/").pop();
  return name ? { name, ...api.components.schemas[name] } : schema ?? {};
}

/** What values a schema takes, in a few words. */
function kind(api, schema, depth = 0) {
  const found = resolved(api, schema);
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.enum) return found.enum.map((each) => JSON.stringify(each)).join(" | ");
  const either = found.anyOf ?? found.oneOf;
  if (either) return either.map((each) => kind(api, each, depth)).join(" | ");
  if (found.type === "array") return `list of ${kind(api, found.items, depth)}`;
  if (found.name) return found.name;
  const bounds = [
    found.minimum !== undefined ? `≥ ${found.minimum}` : "",
    found.maximum !== undefined ? `≤ ${found.maximum}` : "",
    found.minLength !== undefined ? `from ${found.minLength} characters` : "",
    found.maxLength !== undefined ? `to ${found.maxLength} characters` : "",
    found.format ?? "",
  ].filter(Boolean);
  return [found.type ?? "any", ...bounds].join(", ");
}

/** The fields of an object, those of objects inside it below. */
function fields(api, schema, before = "", depth = 0) {
  const found = resolved(api, schema);
  const inner = (found.anyOf ?? []).map((each) => resolved(api, each)).find((each) => each.properties);
  const object = found.type === "array" ? resolved(api, found.items) : inner ?? found;
  if (!object.properties || depth > DEPTH_MAX) return [];
  return Object.entries(object.properties).flatMap(([name, each]) => {
    const path = before + name;
    const needed = object.required?.includes(name) ? "required" : "";
    const description = each.description ?? resolved(api, each).description ?? "";
    return [[path, kind(api, each), needed, description], ...fields(api, each, `${path}.`, depth + 1)];
  });
}

function table(heads, rows) {
  const head = element("tr", heads.map((each) => element("th", each, { scope: "col" })));
  const body = rows.map((row) => element("tr", row.map((each, place) => element("td", place ? each : element("code", each)))));
  return element("table", [element("thead", head), element("tbody", body)]);
}

function parameters(api, operation) {
  const rows = (operation.parameters ?? []).map((each) => [
    each.name, each.in, kind(api, each.schema), each.required ? "required" : "", each.description ?? each.schema?.description ?? "",
  ]);
  return rows.length ? [element("h4", "Parameters"), table(["Name", "In", "Value", "", "Meaning"], rows)] : [];
}

function content(api, title, found) {
  const made = [];
  for (const [type, media] of Object.entries(found ?? {})) {
    const rows = fields(api, media.schema);
    made.push(element("h4", `${title} (${type})`));
    if (rows.length) made.push(table(["Field", "Value", "", "Meaning"], rows));
    const example = media.example ?? resolved(api, media.schema).examples?.[0];
    if (example) made.push(element("pre", JSON.stringify(example, null, 2)));
  }
  return made;
}

function responses(api, operation) {
  const rows = Object.entries(operation.responses).map(([status, each]) => [
    status, each.description ?? "", Object.keys(each.content ?? {}).join(", "),
  ]);
  const good = Object.entries(operation.responses).filter(([status]) => status < "300");
  return [element("h4", "Answers"), table(["Status", "Meaning", "Kind"], rows), ...good.flatMap(([status, each]) => content(api, `Answer ${status}`, each.content))];
}

function call(api, path, method, operation) {
  const id = `${method}${path}`.replace(/[^a-z0-9]+/gi, "-");
  const title = element("h3", [element("span", method, { class: "method" }), " ", element("code", path)], { id });
  const body = content(api, "Body", operation.requestBody?.content);
  const about = element("p", operation.description ?? operation.summary ?? "", { class: "description" });
  return { id, path, method, tag: operation.tags?.[0] ?? "other", made: element("section", [title, about, ...parameters(api, operation), ...body, ...responses(api, operation)]) };
}

function show(api) {
  const calls = Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => call(api, path, method, item[method])));
  const groups = Map.groupBy ? Map.groupBy(calls, (each) => each.tag) : new Map([["calls", calls]]);
  const contents = [...groups].flatMap(([tag, found]) => [
    element("h2", tag),
    element("ul", found.map((each) => element("li", element("a", `${each.method.toUpperCase()} ${each.path}`, { href: `#${each.id}` })))),
  ]);
  document.getElementById("calls").replaceChildren(...contents);
  const about = element("p", api.info.description, { class: "description" });
  document.getElementById("document").replaceChildren(about, ...[...groups.values()].flat().map((each) => each.made));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

fetch("/openapi.json")
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(`status ${answer.status}`))))
  .then(show)
  .catch((error) => {
    document.getElementById("document").replaceChildren(element("p", `The document cannot be read: ${error.message}.`));
  });
