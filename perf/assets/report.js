// The page of a report: reads the data that stands in it and builds its sections. A section without
// data is left out. Texts only ever enter the page as text, never as markup.
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);

// ---- Figures as people read them ----

function digits(number) {
  return number.toFixed(number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2);
}

// A time in nanoseconds to three digits.
function time(ns) {
  if (ns >= 999.5e6) return digits(ns / 1e9) + " s";
  if (ns >= 999.5e3) return digits(ns / 1e6) + " ms";
  if (ns >= 999.5) return digits(ns / 1e3) + " µs";
  return digits(ns) + " ns";
}

// A figure without zeros that say nothing, as on an axis: `1.5 µs`, `20 k`.
function trimmed(figure) {
  return figure.replace(/\.0+(?= )/, "").replace(/(\.\d*[1-9])0+(?= )/, "$1");
}

// A count or a rate, whole where it is small.
function count(number) {
  return number < 999.5 ? String(Math.round(number)) : trimmed(rate(number));
}

function rate(perSecond) {
  if (perSecond >= 999500) return digits(perSecond / 1e6) + " M";
  if (perSecond >= 999.5) return digits(perSecond / 1e3) + " k";
  return digits(perSecond);
}

// The percentile that all but one of so many calls are within.
function percentile(oneOf) {
  const decimals = Math.max(0, Math.ceil(Math.log10(oneOf)) - 1);
  return "p" + Number((100 - 100 / oneOf).toFixed(decimals));
}

// ---- Elements ----

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function section(title, note, ...children) {
  return element("section", "", element("h2", "", title), ...(note ? [element("p", "note", note)] : []), ...children);
}

function badge() {
  return element("span", "badge", "VOID");
}

function table({ head, rows }, isVoid) {
  const line = (cells, tag) => element("tr", "", ...cells.map((cell) => element(tag, "", cell)));
  const body = rows.map((cells, index) => {
    const row = line(cells, "td");
    if (isVoid && isVoid[index]) {
      row.className = "void";
      row.children[1].append(badge());
    }
    return row;
  });
  const made = element("table", "", element("thead", "", line(head, "th")), element("tbody", "", ...body));
  return element("div", "scroll", made);
}

function list(facts) {
  return element("dl", "", ...facts.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
}

// ---- Charts ----

const charts = [];
const dark = matchMedia("(prefers-color-scheme: dark)");

// A card with a chart whose options are made again when the colours of the page change.
function chart(title, runs, options, subtitle) {
  const box = element("div", "chart");
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", title);
  charts.push({ box, options });
  const heading = element("h3", "", title);
  if (runs.some((run) => run.void)) heading.append(badge());
  if (subtitle) heading.append(element("span", "dim", subtitle));
  return element("div", "card", heading, box);
}

function drawAll() {
  // Charts measure their texts, so that they need the names of fonts.
  const { fontFamily } = getComputedStyle(document.body);
  for (const it of charts) {
    it.drawn = it.drawn || echarts.init(it.box, null, { renderer: "svg" });
    it.drawn.setOption({ animation: false, textStyle: { fontFamily }, ...it.options(look()) }, true);
  }
}

// The colours of the page, and of what is drawn: those of Okabe and Ito, which colour-blind readers
// tell apart, made lighter or darker where they would not stand out.
function look() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return {
    text: of("--text"), dim: of("--dim"), line: of("--line"), card: of("--card"), ground: of("--ground"), bad: of("--bad"),
    // Of several rates, from the lowest to the highest.
    ramp: dark.matches
      ? ["#6d5bb5", "#5b78c6", "#4f97d0", "#45b3cf", "#58cfc0", "#8be0a0", "#c6ec7e", "#fde725"]
      : ["#86b6d2", "#6699c9", "#5580c4", "#5566b5", "#5a489f", "#5a2d82", "#4f1a63", "#3a0a42"],
    targets: dark.matches
      ? { floor: "#a9b3bd", ringcall: "#56b4e9", server: "#e69f00", stream: "#2fc79a" }
      : { floor: "#6e7781", ringcall: "#0072b2", server: "#c77700", stream: "#008a66" },
    heat: dark.matches
      ? ["#22303c", "#1f5f83", "#2f9fa8", "#8fd16a", "#fde725"]
      : ["#e3ecd2", "#a6d5b4", "#41b6c4", "#2a6fb0", "#0c2c6b"],
    // Of several cores.
    cores: dark.matches
      ? ["#56b4e9", "#e69f00", "#2fc79a", "#e88fc0", "#f0e442", "#a9b3bd", "#ff8a5c", "#a48bf0"]
      : ["#0072b2", "#c77700", "#008a66", "#b0478c", "#8a7d00", "#6e7781", "#c0440e", "#6a4fc4"],
    // Upon the colours of heat.
    over: dark.matches ? "#ff7ac8" : "#c2185b",
  };
}

function axis(colours, more) {
  return {
    type: "value",
    nameLocation: "middle",
    nameTextStyle: { color: colours.dim, fontSize: 12 },
    axisLine: { show: true, lineStyle: { color: colours.line } },
    axisTick: { show: true, lineStyle: { color: colours.line } },
    axisLabel: { color: colours.dim, fontSize: 12 },
    splitLine: { lineStyle: { color: colours.line, opacity: 0.6 } },
    ...more,
  };
}

// An axis of times on a log scale; values on it are logarithms of nanoseconds.
function timeAxis(colours, from, to, more) {
  const [min, max] = [Math.log10(from), Math.log10(to)];
  const steps = max - min > 3.2 ? [1] : max - min > 1.6 ? [1, 3] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(min); power <= max; power += 1) {
    for (const step of steps) {
      const value = power + Math.log10(step);
      if (value >= min - 1e-9 && value <= max + 1e-9) ticks.push(value);
    }
  }
  const made = axis(colours, { min, max, name: "latency", nameGap: 54, ...more });
  made.axisTick = { ...made.axisTick, customValues: ticks };
  made.axisLabel = { ...made.axisLabel, customValues: ticks, formatter: (value) => trimmed(time(10 ** value)) };
  return made;
}

// The nearest steps of a time axis below and above what is to be on it.
function bounds(times) {
  const steps = [1, 2, 5, 10];
  const [least, most] = [Math.max(1, Math.min(...times)), Math.max(1, ...times)];
  const below = 10 ** Math.floor(Math.log10(least));
  const above = 10 ** Math.floor(Math.log10(most));
  const from = below * steps.filter((step) => below * step <= least).at(-1);
  const to = above * steps.find((step) => above * step >= most);
  return [from, to > from ? to : from * 2];
}

// Of lines, a piece is shown and no dot.
function legend(colours, names, isOfLines = true) {
  return {
    ...(isOfLines ? { itemStyle: { opacity: 0 } } : {}),
    type: "scroll", top: 0, left: 0, right: 0, data: names, itemWidth: 26, itemHeight: 10,
    textStyle: { color: colours.text, fontSize: 12 },
    inactiveColor: colours.line, pageTextStyle: { color: colours.dim }, pageIconColor: colours.text,
  };
}

function tooltip(colours, more) {
  return {
    backgroundColor: colours.ground, borderColor: colours.line, confine: true,
    textStyle: { color: colours.text, fontSize: 12.5 }, ...more,
  };
}

// A tooltip's content: a heading, and a line for each of several figures with its colour.
function tip(heading, lines) {
  const made = element("div", "", element("b", "", heading));
  for (const [colour, name, figure] of lines) {
    const dot = element("span");
    dot.style.cssText = `display:inline-block;width:9px;height:9px;border-radius:5px;margin-right:6px;background:${colour}`;
    made.append(element("div", "", dot, `${name}: `, element("b", "", figure)));
  }
  return made;
}

// ---- Runs ----

function grouped(runs, key) {
  const groups = new Map();
  for (const run of runs) groups.set(key(run), [...(groups.get(key(run)) || []), run]);
  return [...groups];
}

const byWorkload = (run) => run.workload;

// By workload, so that targets stand beside each other; where one has several rates, it is alone
// with them.
function compared() {
  return grouped(page.runs, byWorkload).flatMap(([workload, runs]) => {
    const targets = grouped(runs, (run) => run.target);
    return targets.length < runs.length ? targets.map(([target, same]) => [`${workload} ${target}`, same]) : [[workload, runs]];
  });
}

// Names and colours of the runs of one chart: by target, or by rate where there are several.
function named(runs, colours) {
  const isOneTarget = runs.length > 1 && runs.every((run) => run.target === runs[0].target);
  return runs.map((run, index) => ({
    run,
    name: (isOneTarget ? `${count(run.offered_per_s || run.calls_per_s)}/s` : run.target) + (run.void ? " (void)" : ""),
    colour: isOneTarget
      ? colours.ramp[Math.round((index / (runs.length - 1)) * (colours.ramp.length - 1))]
      : colours.targets[run.target],
  }));
}

// ---- Sections ----

function opening() {
  const made = [element("h1", "", "What a call takes"), element("p", "dim", page.heading)];
  if (page.partial) {
    made.push(element("div", "verdict warn", element("p", "", element("b", "", "Interrupted."), " These are the figures until then.")));
  }
  const lines = (kind) => page.remarks.filter((it) => it.kind === kind)
    .map((it) => element("p", "", element("b", "", it.of), ` ${it.text}`));
  const voids = lines("void");
  if (voids.length > 0) {
    made.push(element("div", "verdict bad", element("p", "", element("b", "", "Void."), " These runs say nothing of their target:"), ...voids));
  }
  const failed = lines("errors");
  if (failed.length > 0) made.push(element("div", "verdict bad", ...failed));
  const doubts = [...page.warnings.map((text) => element("p", "", text)), ...lines("doubt")];
  if (doubts.length > 0) {
    made.push(element("div", "verdict warn", element("p", "", element("b", "", "To be known of these figures:")), ...doubts));
  }
  if (made.length === 2 && page.runs.length > 0) {
    made.push(element("div", "verdict good", element("p", "", "Every run was measured to its end, and none is void. How sure each is stands under ±.")));
  }
  return element("header", "", ...made);
}

function summary() {
  if (page.runs.length === 0) return element("p", "", "No run was finished.");
  return section("Summary", null, table(page.figures, page.runs.map((run) => run.void)), element("p", "note", page.legend));
}

function open() {
  return page.open && section("What was due", page.open_note, table(page.open, page.runs.filter((run) => run.offered_per_s !== null).map((run) => run.void)));
}

function percentiles() {
  if (page.runs.length === 0) return null;
  const cards = compared().map(([title, runs]) => chart(title, runs, (colours) => {
    const curves = named(runs, colours).flatMap(({ run, name, colour }) => [
      { name, colour, isVoid: run.void, type: "solid", points: run.curve, from: run.from_send ? ", from due" : "" },
      ...(run.from_send ? [{ name, colour, isVoid: run.void, type: "dashed", points: run.from_send, from: ", from send" }] : []),
    ]);
    const [from, to] = bounds(curves.flatMap(({ points }) => points.map(([, ns]) => ns)));
    const most = Math.max(1, ...curves.flatMap(({ points }) => points.map(([oneOf]) => Math.log10(oneOf))));
    return {
      legend: legend(colours, [...new Set(curves.map(({ name }) => name))]),
      grid: { left: 72, right: 34, top: 36, bottom: 46 },
      tooltip: tooltip(colours, {
        trigger: "axis",
        formatter: (points) => tip(percentile(10 ** points[0].value[0]),
          points.map((point) => [point.color, point.seriesName + curves[point.seriesIndex].from, time(10 ** point.value[1])])),
      }),
      xAxis: axis(colours, {
        min: 0, max: Math.ceil(most * 10) / 10, interval: 1, name: "percentile of calls, in %", nameGap: 32,
        axisLabel: {
          color: colours.dim, fontSize: 12, margin: 11, showMaxLabel: Number.isInteger(Math.ceil(most * 10) / 10),
          formatter: (nines) => percentile(10 ** nines).slice(1), hideOverlap: true,
        },
      }),
      yAxis: timeAxis(colours, from, to),
      series: curves.map(({ name, colour, type, points, isVoid }) => ({
        name, type: "line", symbol: "none", color: colour, data: points.map(([oneOf, ns]) => [Math.log10(oneOf), Math.log10(Math.max(1, ns))]),
        lineStyle: { type, width: 2, opacity: isVoid ? 0.55 : 1 },
      })),
    };
  }));
  return section("Percentiles", page.curve_note + page.repeat_note, element("div", "grid", ...cards));
}

function course() {
  const runs = page.runs.filter((run) => run.heat);
  if (runs.length === 0) return null;
  const cards = runs.map((run) => chart(run.label, [run], (colours) => {
    const { edges_s, edges_ns, p50_ns, p99_ns } = run.heat;
    const cells = run.heat.columns.flatMap(([first, ...counts], column) => counts
      .map((calls, row) => [column, first + row, calls])
      .filter(([, , calls]) => calls > 0));
    const most = Math.max(10, ...cells.map(([, , calls]) => calls));
    const line = (name, times, type) => ({
      name, type: "line", yAxisIndex: 1, symbol: "none", silent: true, color: colours.over, lineStyle: { type, width: 1.8 },
      data: times.map((ns) => (ns === null ? null : Math.log10(ns))), z: 5,
    });
    const rows = edges_ns.slice(1).map((_, row) => String(row));
    const columns = edges_s.slice(1).map((_, column) => String(column));
    return {
      legend: legend(colours, ["p50", "p99"]),
      grid: { left: 72, right: 98, top: 36, bottom: 46 },
      tooltip: tooltip(colours, {
        formatter: ({ value: [column, row, , calls] }) => tip(
          `${edges_s[column].toFixed(2)} s to ${edges_s[column + 1].toFixed(2)} s`,
          [["transparent", `${time(edges_ns[row])} to ${time(edges_ns[row + 1])}`, `${calls} calls`]],
        ),
      }),
      // The bands that cells stand on are not shown, but scales with round figures that fit them.
      xAxis: [
        { type: "category", data: columns, show: false },
        axis(colours, {
          position: "bottom", min: edges_s[0], max: edges_s.at(-1), name: "time since measuring began", nameGap: 28,
          axisLabel: { color: colours.dim, fontSize: 12, showMaxLabel: false, formatter: (s) => `${Number(s.toFixed(2))} s` },
          splitLine: { show: false },
        }),
      ],
      yAxis: [
        { type: "category", data: rows, show: false },
        timeAxis(colours, edges_ns[0], edges_ns.at(-1), { position: "left", splitLine: { show: false } }),
      ],
      visualMap: {
        seriesIndex: 0, dimension: 2, min: 0, max: Math.log10(most), right: 0, top: 44, itemHeight: 190, itemWidth: 12,
        inRange: { color: colours.heat }, textStyle: { color: colours.dim },
        text: [`${count(most)} calls`, "1"], textGap: 6, hoverLink: false,
      },
      series: [
        {
          name: "calls", type: "heatmap", data: cells.map(([column, row, calls]) => [column, row, Math.log10(calls), calls]),
          itemStyle: { borderWidth: 0 }, emphasis: { itemStyle: { borderColor: colours.text, borderWidth: 1 } },
        },
        line("p50", p50_ns, "solid"),
        line("p99", p99_ns, "dashed"),
      ],
    };
  }, `after ${digits(run.warmed_for_s)} s of warm-up`));
  const waiting = page.open ? " The last column has calls without an answer too, with the time that they had waited." : "";
  return section("Latency over time", `Colour: how many calls took so long of those that ended then, on a log scale.${waiting}${page.repeat_note}`, element("div", "grid", ...cards));
}

// Only where a target met several rates under one workload.
function rates() {
  const cards = grouped(page.runs.filter((run) => run.offered_per_s !== null), byWorkload).flatMap(([workload, runs]) => {
    const several = [...new Set(runs.map((run) => run.target))].map((target) => {
      const points = runs.filter((run) => run.target === target).sort((a, b) => a.offered_per_s - b.offered_per_s);
      return { target, points };
    }).filter(({ points }) => new Set(points.map((run) => run.offered_per_s)).size > 1);
    if (several.length === 0) return [];
    return [chart(workload, runs, (colours) => {
      const kinds = [["p50", "p50", "dotted"], ["p99", "p99", "solid"], ["p999", "p99.9", "dashed"]];
      const lines = several.flatMap(({ target, points }) => kinds.map(([key, name, type]) => ({
        name: several.length > 1 ? `${target} ${name}` : name, type: "line", color: colours.targets[target],
        lineStyle: { type, width: 2 }, symbol: "circle", symbolSize: 7,
        data: points.map((run) => ({
          value: [run.calls_per_s, Math.log10(Math.max(1, run[key])), run.offered_per_s],
          ...(run.void ? { symbolSize: 10, itemStyle: { color: colours.card, borderColor: colours.bad, borderWidth: 2 } } : {}),
        })),
      })));
      const times = several.flatMap(({ points }) => points.flatMap((run) => kinds.map(([key]) => run[key])));
      return {
        legend: legend(colours, lines.map((line) => line.name)),
        grid: { left: 72, right: 34, top: 36, bottom: 46 },
        tooltip: tooltip(colours, {
          formatter: ({ value, seriesName, color }) => tip(
            `${rate(value[0])} calls/s answered of ${rate(value[2])} due`, [[color, seriesName, time(10 ** value[1])]],
          ),
        }),
        xAxis: axis(colours, { min: 0, name: "calls answered a second", nameGap: 28, axisLabel: { color: colours.dim, fontSize: 12, formatter: (value) => count(value) } }),
        yAxis: timeAxis(colours, ...bounds(times)),
        series: lines,
      };
    })];
  });
  return cards.length > 0 && section("Latency at each rate", "A red ring stands for a run that is void. A line that turns back is a target that answers less the more is due.", element("div", "grid", ...cards));
}

function cpu() {
  if (page.runs.length === 0) return null;
  const cards = compared().map(([title, runs]) => chart(title, runs, (colours) => {
    const sides = [["client", "client_cpu_ns"], ["server", "server_cpu_ns"]]
      .filter(([, key]) => runs.some((run) => run[key] !== null));
    const bars = named(runs, colours);
    return {
      legend: legend(colours, bars.map(({ name }) => name), false),
      grid: { left: 56, right: 64, top: 34, bottom: 24 },
      xAxis: axis(colours, { min: 0, splitNumber: 3, axisLabel: { color: colours.dim, fontSize: 12, formatter: (ns) => (ns === 0 ? "0" : trimmed(time(ns))) } }),
      yAxis: axis(colours, { type: "category", data: sides.map(([name]) => name), axisTick: { show: false }, splitLine: { show: false } }),
      series: bars.map(({ run, name, colour }) => ({
        name, type: "bar", color: colour, barMaxWidth: 22, barGap: "10%", barCategoryGap: "24%", itemStyle: { opacity: run.void ? 0.4 : 1 },
        data: sides.map(([, key]) => run[key]),
        label: { show: runs.length < 7, position: "right", color: colours.text, fontSize: 12, formatter: ({ value }) => (value === null ? "" : time(value)) },
      })),
    };
  }));
  return section("CPU time per call", "Of the threads that serve and of those that call. Each chart has a scale of its own.", element("div", "grid small", ...cards));
}

// Where the time of a probe's calls went, a bar for each stage in the order of a call.
function stages() {
  const probed = page.runs.filter((run) => run.stages !== null);
  if (probed.length === 0) return null;
  const cards = probed.map((run) => chart(run.label, [run], (colours) => ({
    legend: legend(colours, ["median", "p99"], false),
    grid: { left: 180, right: 64, top: 34, bottom: 24 },
    xAxis: axis(colours, { type: "log", axisLabel: { color: colours.dim, fontSize: 12, formatter: (ns) => trimmed(time(ns)) } }),
    yAxis: axis(colours, { type: "category", inverse: true, data: run.stages.map(({ name }) => name), axisTick: { show: false }, splitLine: { show: false } }),
    series: [["median", "p50_ns"], ["p99", "p99_ns"]].map(([name, key], index) => ({
      name, type: "bar", color: colours.ramp[index === 0 ? 0 : colours.ramp.length - 1], barMaxWidth: 14, barGap: "10%",
      data: run.stages.map((stage) => Math.max(1, stage[key])),
      label: { show: true, position: "right", color: colours.text, fontSize: 12, formatter: ({ value }) => time(value) },
    })),
  })));
  return section("Where the time of a call goes", "Calls of a probe beside the load, one at a time on a connection of its own. Medians of stages need not add up to that of the whole.", element("div", "grid", ...cards));
}

// What each core was used for over time: solid what it was busy with, dashed what of that were
// threads of the run, dotted what the host of a virtual machine took.
function coreLoad() {
  const shown = page.runs.filter((run) => run.core_load.some(({ seconds }) => seconds.length > 0));
  if (shown.length === 0) return null;
  const percent = (part) => (part === null ? "unknown" : `${(100 * part).toFixed(1)} %`);
  const isStolen = shown.some((run) => run.core_load.some(({ seconds }) => seconds.some((it) => it.stolen >= 0.005)));
  const cards = shown.map((run) => chart(run.label, [run], (colours) => {
    const names = run.core_load.map(({ core, roles }) => `core ${core}: ${roles.join(" and ")}`);
    const kinds = [["busy", "solid", 2], ["ours", "dashed", 1.5], ...(isStolen ? [["stolen", "dotted", 1.5]] : [])];
    const lines = run.core_load.flatMap(({ seconds }, index) => kinds.map(([key, type, width]) => ({
      name: names[index], type: "line", step: "end", symbol: "none", color: colours.cores[index % colours.cores.length],
      lineStyle: { type, width, opacity: run.void ? 0.55 : 1 },
      // A part holds until the next begins, the last to its own end.
      data: [...seconds, ...seconds.slice(-1).map((last) => ({ ...last, begun_s: last.begun_s + last.length_s }))]
        .map((second) => [second.begun_s, second[key]]),
    })));
    const end = Math.max(...run.core_load.flatMap(({ seconds }) => seconds.map((it) => it.begun_s + it.length_s)));
    return {
      legend: legend(colours, names),
      grid: { left: 52, right: 24, top: 34, bottom: 44 },
      tooltip: tooltip(colours, {
        trigger: "axis",
        formatter: (points) => {
          const at = points[0].value[0];
          const lines = run.core_load.flatMap(({ seconds }, index) => {
            const second = seconds.findLast((it) => it.begun_s <= at);
            const colour = colours.cores[index % colours.cores.length];
            const stolen = isStolen && second ? `, ${percent(second.stolen)} stolen` : "";
            return second ? [[colour, names[index], `${percent(second.busy)} busy, ${percent(second.ours)} ours${stolen}`]] : [];
          });
          return tip(`from ${at.toFixed(1)} s`, lines);
        },
      }),
      xAxis: axis(colours, {
        min: 0, max: end, name: "time since measuring began", nameGap: 28, splitLine: { show: false },
        axisLabel: { color: colours.dim, fontSize: 12, showMaxLabel: false, formatter: (s) => `${Number(s.toFixed(2))} s` },
      }),
      yAxis: axis(colours, { min: 0, max: 1, interval: 0.25, axisLabel: { color: colours.dim, fontSize: 12, formatter: (part) => `${100 * part} %` } }),
      series: lines,
    };
  }));
  const stolen = isStolen ? " Dotted: what the host of this virtual machine gave to others." : "";
  return section("Load of the cores", `Solid: how much of each second a core was busy. Dashed: how much of it ran the threads of this run; what is between the two are other programs, and what the kernel does for nobody in particular.${stolen} The kernel counts the first in ticks, the second exactly.${page.repeat_note}`, element("div", "grid small", ...cards));
}

function counters() {
  return page.counted && section("What was counted", "Of the frames that ringcall received, and per call.", table(page.counted), element("p", "note", page.counted_note));
}

function conditions() {
  const half = (title, facts) => element("div", "", element("h3", "", title), list(facts));
  return section("Conditions", null, element("div", "facts", half("The run", page.conditions), half("The host", page.host)));
}

const SECTIONS = [opening, summary, open, percentiles, course, rates, stages, cpu, coreLoad, counters, conditions];

document.title = `ringcall-perf · ${page.heading}`;
document.getElementById("page").append(...SECTIONS.map((make) => make()).filter(Boolean));
drawAll();
dark.addEventListener("change", drawAll);
addEventListener("resize", () => charts.forEach((it) => it.drawn.resize()));
