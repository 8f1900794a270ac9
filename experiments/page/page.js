// What the page's switches do: sort and filter the table, set the charts' parameters, remember all that over a reload.
const page = JSON.parse(document.getElementById("page-data").textContent);
const views = {};
const KEY = `tx:${location.pathname}`; // pages of one name may lie in several folders
const remembered = recall();

function recall() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  } catch {
    return {}; // a browser may refuse a file its storage
  }
}

function remember(change) {
  Object.assign(remembered, change);
  try {
    sessionStorage.setItem(KEY, JSON.stringify(remembered));
  } catch {
    // as above
  }
}

const switches = [...document.querySelectorAll('input[name="shown"]')];
const selects = [...document.querySelectorAll("select[data-parameter]")];
const chartsOf = (select) => select.dataset.charts.split(" ");

function set(names, parameter, value) {
  for (const name of names) views[name]?.signal(parameter, value).runAsync();
}

const CURVES = ["curves_train", "curves_dev"];
const shownRows = () => switches.filter((one) => one.checked).map((one) => one.value);

function showRows() {
  const shown = shownRows();
  remember({ shown });
  set(CURVES, "shown", shown);
}

// The parameters of a chart as the page's switches have them.
function chosen(name) {
  const values = CURVES.includes(name) ? { shown: shownRows() } : {};
  for (const one of selects) if (chartsOf(one).includes(name)) values[one.dataset.parameter] = one.value;
  return values;
}

const { jQuery } = window.dataTables;
const DataTable = jQuery.fn.dataTable;
// Numbers before text, and blank cells last, whichever way one sorts.
const order = (sign) => (a, b) => {
  const [x, y] = [a, b].map((one) => (one === "" ? NaN : Number(one)));
  if (a === "" || b === "") return (a === "") - (b === "");
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
  return sign * (Number.isNaN(x) ? a.localeCompare(b, "en", { numeric: true }) : x - y);
};
DataTable.ext.type.order["number-or-text-asc"] = order(1);
DataTable.ext.type.order["number-or-text-desc"] = order(-1);
// What a cell says is searched, not the elements that it is made of.
DataTable.ext.type.search["number-or-text"] = (data) => {
  const cell = document.createElement("template"); // inert: nothing in it is loaded or run
  cell.innerHTML = data;
  for (const one of cell.content.querySelectorAll("svg")) one.remove();
  return cell.content.textContent.trim();
};

function table(element) {
  const before = remembered.tables?.[element.id];
  const made = new DataTable(element, {
    paging: false,
    order: before?.order ?? [],
    search: { search: before?.search ?? "" },
    columnDefs: [{ targets: "_all", type: "number-or-text" }],
    layout: { topStart: "search", topEnd: "info", bottomStart: null, bottomEnd: null },
    language: { search: "Rows with", info: "_TOTAL_ rows", infoEmpty: "no rows", infoFiltered: "of _MAX_" },
    autoWidth: false,
  });
  made.on("order.dt search.dt", () => {
    const now = { order: made.order(), search: made.search() };
    remember({ tables: { ...remembered.tables, [element.id]: now } });
  });
  return made;
}

// A choice that shows the rows of a table whose cells of one column begin with a word.
function filter(select, tables) {
  const column = tables[select.dataset.filter].column(Number(select.dataset.column));
  const apply = () => column.search(select.value && `^${select.value}`, { regex: true, smart: false }).draw();
  takeUp(select, "filter", apply);
}

// A choice of which of several tables stands in the page.
function pivot(select) {
  const apply = () => {
    for (const one of document.querySelectorAll("[data-pivoted]")) one.hidden = one.dataset.pivoted !== select.value;
  };
  takeUp(select, "pivot", apply);
}

// A choice of the runs that are listed, by their state; rows without any of it go too.
function list(select) {
  const apply = () => {
    for (const row of document.querySelectorAll("table.runs tbody")) {
      const runs = [...row.querySelectorAll("tr[data-state]")];
      for (const one of runs) one.hidden = select.value !== "" && one.dataset.state !== select.value;
      row.hidden = runs.every((one) => one.hidden);
    }
  };
  takeUp(select, "state", apply);
  addEventListener("hashchange", () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!target?.hidden) return; // a number that leads to its runs finds them whatever was chosen
    select.value = "";
    select.dispatchEvent(new Event("change"));
    target.scrollIntoView();
  });
}

function takeUp(select, key, apply) {
  restore(select, remembered[key]);
  if (select.value) apply();
  select.addEventListener("change", () => {
    remember({ [key]: select.value });
    apply();
  });
}

function restore(select, value) {
  if ([...select.options].some((one) => one.value === value)) select.value = value;
}

async function draw(element) {
  const name = element.dataset.chart;
  const values = chosen(name);
  const params = page.charts[name].params?.map((one) => (one.name in values ? { ...one, value: values[one.name] } : one));
  const spec = { ...page.charts[name], params, datasets: { [name]: page.data[name] } };
  // "ast": expressions are interpreted, since the page's policy allows no code made at run time.
  const options = { ast: true, renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false } };
  views[name] = (await window.vegaEmbed(element, spec, options)).view;
}

function choose(select) {
  set(chartsOf(select), select.dataset.parameter, select.value);
  remember({ [select.dataset.parameter]: select.value });
}

function follow() {
  let version;
  setInterval(async () => {
    if (document.activeElement?.matches('input[type="search"], select')) return; // somebody is about to choose
    const answer = await fetch("version").catch(() => undefined);
    const now = answer?.ok ? await answer.text() : version;
    if (version !== undefined && now !== version) location.reload();
    version = now;
  }, 2000);
}

function darken() {
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => document.documentElement.classList.toggle("dark", preferred.matches); // as DataTables reads it
  preferred.addEventListener("change", apply);
  apply();
}

async function start() {
  darken();
  const tables = Object.fromEntries([...document.querySelectorAll("table.sorted")].map((one) => [one.id, table(one)]));
  for (const select of document.querySelectorAll("select[data-filter]")) filter(select, tables);
  for (const select of document.querySelectorAll("select[data-pivot]")) pivot(select);
  for (const select of document.querySelectorAll("select[data-list]")) list(select);
  const shown = new Set(remembered.shown ?? page.shown);
  for (const one of switches) one.checked = shown.has(one.value);
  for (const select of selects) restore(select, remembered[select.dataset.parameter]);
  await Promise.all([...document.querySelectorAll("[data-chart]")].map(draw));
  for (const one of switches) one.addEventListener("change", showRows);
  for (const select of selects) select.addEventListener("change", () => choose(select));
  for (const button of document.querySelectorAll("button[data-show]")) {
    button.addEventListener("click", () => {
      const names = new Set(
        tables.results.rows({ search: "applied" }).nodes().toArray().map((row) => row.dataset.row),
      );
      const kind = button.dataset.show;
      for (const one of switches) one.checked = kind === "all" || (kind === "table" && names.has(one.value));
      showRows();
    });
  }
  if ("live" in document.body.dataset) follow();
  document.body.dataset.ready = "";
}

await start();
