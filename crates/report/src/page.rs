//! `index.html`: every plot and table on one page that needs no other file.

use dpsgd_protocol::results::{DataKind, Environment, Results, RunConfig};

use crate::claims::{Claim, claims};
use crate::fastest;
use crate::render::escape;
use crate::summary;
use crate::table::{self, Grid, Sheet, sheets};
use crate::units;
use crate::view::{self, View};

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, 'DejaVu Sans', Verdana, sans-serif; color: #1f2328; background: #fff; max-width: 1080px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 3rem; border-bottom: 1px solid #e3e6ea; }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; }
figure { margin: 1.5rem 0; } svg { max-width: 100%; height: auto; border: 1px solid #e3e6ea; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e3e6ea; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.summary th, .summary td { text-align: left; white-space: normal; } .remark { font-size: 13px; color: #5b636e; }
.claims th, .claims td { text-align: left; white-space: normal; vertical-align: top; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1rem; } dt { color: #5b636e; } dd { margin: 0; }
.notes { font-size: 13px; padding-left: 1.2rem; } .absent td { color: #9a3412; } nav a { margin-right: 1rem; }
.tag { font-size: .8rem; color: #9a3412; border: 1px solid #9a3412; border-radius: 3px; padding: 0 .4rem; }
";

/// The page; `figures` gives the SVG documents of a workload.
pub fn page(results: &Results, figures: &[(String, Vec<String>)]) -> String {
    let environment = &results.environment;
    let date = environment.started.get(..10).unwrap_or(&environment.started);
    let title = escape(&format!("dpsgd-bench, {}, {date}", environment.cpu));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<h1>Differentially private SGD, measured</h1>\n"
    );
    html.push_str(&format!(
        "<p class=\"remark\">{}, {}</p>\n",
        escape(&view::device(results)),
        escape(&format!("{date}, dpsgd-bench {}", environment.version))
    ));
    let summary = summary::summary(results);
    if !summary.rows.is_empty() {
        html.push_str(&grid(&summary, 0).replace("<table>", "<table class=\"summary\">"));
        html.push_str(&format!("<p class=\"remark\">{}</p>\n", escape(summary::LEGEND)));
    }
    html.push_str("<nav>");
    for (i, (workload, _)) in figures.iter().enumerate() {
        html.push_str(&format!("<a href=\"#workload-{i}\">{}</a>", escape(workload)));
    }
    html.push_str("<a href=\"#claims\">claims</a><a href=\"#run\">machine and settings</a></nav>\n");
    for (i, (workload, svgs)) in figures.iter().enumerate() {
        let view = View::new(results, workload);
        let tag = if view.synthetic() { " <span class=\"tag\">synthetic data</span>" } else { "" };
        html.push_str(&format!("<h2 id=\"workload-{i}\">{}{tag}</h2>\n", escape(workload)));
        let sheets = sheets(&view);
        if sheets.is_empty() {
            html.push_str("<p>Not measured.</p>\n");
        }
        for svg in svgs {
            html.push_str(&format!("<figure>\n{svg}</figure>\n"));
        }
        sheets.iter().for_each(|sheet| html.push_str(&table(sheet)));
        if !sheets.is_empty() {
            html.push_str(&format!("<p class=\"remark\">{}</p>\n", escape(table::WARM)));
        }
    }
    html.push_str(&claims_table(results));
    html.push_str("<h2 id=\"run\">Machine and settings</h2>\n");
    html.push_str(&facts(results));
    html.push_str("</body>\n</html>\n");
    html
}

/// The talk's claims and what this run says of them.
fn claims_table(results: &Results) -> String {
    let mut html = String::from("<h2 id=\"claims\">The claims of the 2020 talk, in this run</h2>\n");
    html.push_str(&format!("<p class=\"remark\">{}.</p>\n", escape(fastest::HOW)));
    html.push_str(
        "<table class=\"claims\">\n<thead><tr>\
         <th scope=\"col\">claim</th><th scope=\"col\">found</th><th scope=\"col\">verdict</th></tr></thead>\n<tbody>\n",
    );
    for Claim { claim, found, verdict } in claims(results) {
        let (claim, found) = (escape(claim), escape(&found));
        html.push_str(&format!("<tr><td>{claim}</td><td>{found}</td><td>{}</td></tr>\n", verdict.text()));
    }
    html.push_str("</tbody>\n</table>\n");
    html
}

/// What sets the processors' clocks, where the system says so.
fn clocks(environment: &Environment) -> String {
    let governor = environment.governor.iter().map(|governor| format!("governor {governor}"));
    let turbo = environment.turbo.iter().map(|turbo| format!("turbo {}", if *turbo { "on" } else { "off" }));
    governor.chain(turbo).collect::<Vec<_>>().join(", ")
}

/// Processes and epochs of each row.
fn asked_for(config: &RunConfig) -> String {
    let (processes, epochs) = (config.processes, config.epochs);
    if config.cold_processes == 0 {
        return format!("processes per row: {processes}, of {epochs} epochs");
    }
    let cold = config.cold_processes;
    let least = units::plain(config.seconds);
    format!(
        "processes per row: {processes} side by side with the others, of {epochs} epochs and {least} s warm or more; \
         {cold} alone, of {epochs} epochs"
    )
}

/// Machine, software and settings of the run.
fn facts(results: &Results) -> String {
    let (environment, config) = (&results.environment, &results.config);
    let plural = |count: usize, one: &str, more: &str| format!("{count} {}", if count == 1 { one } else { more });
    let memory = units::bytes(environment.memory_bytes);
    let peak = environment.peak_flops_per_s().zip(environment.peak_bytes_per_s()).map(|(flops, bytes)| {
        let (flops, bytes) = (units::per_second(flops, "FLOP/s"), units::per_second(bytes, "B/s"));
        format!("{flops} in f32 matrix products, {bytes} from and to memory, measured within the run")
    });
    let synthetic: Vec<&str> = view::workloads(results)
        .into_iter()
        .filter(|w| results.cells.iter().any(|c| c.workload == **w && c.data == DataKind::Synthetic))
        .collect();
    let versions: Vec<String> = environment
        .contenders
        .iter()
        .map(|contender| {
            let name = dpsgd_protocol::results::contender_name(&contender.name, contender.variant.as_deref());
            let versions: Vec<String> = contender.versions.iter().map(|(what, v)| format!("{what} {v}")).collect();
            if versions.is_empty() { name } else { format!("{name} ({})", versions.join(", ")) }
        })
        .collect();
    let rows = [
        ("started", environment.started.clone()),
        (
            "processor",
            format!("{}, {}, {memory}", environment.cpu, plural(environment.cpus, "processor", "processors")),
        ),
        ("processor ids", environment.cpu_ids.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
        ("clocks", clocks(environment)),
        (
            "processor quota",
            environment.cpu_quota.map(|quota| format!("{} processors", units::plain(quota))).unwrap_or_default(),
        ),
        (
            "variables passed",
            environment.variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", "),
        ),
        ("instruction sets", environment.cpu_features.join(", ")),
        ("GPU", environment.gpus.join(", ")),
        ("GPU driver", environment.gpu_driver.clone().unwrap_or_default()),
        ("system", environment.os.clone()),
        (
            "dpsgd-bench",
            match &environment.commit {
                Some(commit) => format!("{}, commit {commit}", environment.version),
                None => environment.version.clone(),
            },
        ),
        ("peak", peak.unwrap_or_default()),
        ("device", format!("{}, {} per contender", config.device, plural(config.threads, "thread", "threads"))),
        ("asked for", format!("{}, {} schedule, seed {}", asked_for(config), config.schedule, config.seed)),
        (
            "hyperparameters",
            format!(
                "clip norm {}, noise multiplier {}, learning rate {}",
                config.clip_norm, config.noise_multiplier, config.learning_rate
            ),
        ),
        ("contenders", versions.join("; ")),
        ("synthetic data", synthetic.join(", ")),
    ];
    let mut html = String::from("<dl>\n");
    for (name, value) in rows.iter().filter(|(_, value)| !value.trim().is_empty()) {
        html.push_str(&format!("<dt>{name}</dt><dd>{}</dd>\n", escape(value)));
    }
    html.push_str("</dl>\n");
    html
}

fn table(sheet: &Sheet) -> String {
    let mut html = format!("<h3>{}</h3>\n", escape(&sheet.facts.join(", ")));
    if !sheet.noise.is_empty() {
        html.push_str(&format!("<p class=\"remark\">{}</p>\n", escape(&sheet.noise)));
    }
    html.push_str(&grid(&sheet.warm, sheet.absent.len()));
    if !sheet.absent.is_empty() || !sheet.notes.is_empty() {
        html.push_str("<ul class=\"notes\">\n");
        for (contender, note) in sheet.absent.iter().chain(&sheet.notes) {
            html.push_str(&format!("<li>{}: {}</li>\n", escape(contender), escape(note)));
        }
        html.push_str("</ul>\n");
    }
    if !sheet.cold.rows.is_empty() {
        html.push_str(&grid(&sheet.cold, 0));
        html.push_str(&format!("<p class=\"remark\">{}</p>\n", escape(table::COLD)));
    }
    html
}

/// A table whose last `absent` rows have no time.
fn grid(grid: &Grid, absent: usize) -> String {
    let mut html = String::from("<div class=\"wide\">\n<table>\n<thead><tr>");
    grid.header.iter().for_each(|head| html.push_str(&format!("<th scope=\"col\">{}</th>", escape(head))));
    html.push_str("</tr></thead>\n<tbody>\n");
    for (i, row) in grid.rows.iter().enumerate() {
        html.push_str(if i + absent < grid.rows.len() { "<tr>" } else { "<tr class=\"absent\">" });
        row.iter().for_each(|cell| html.push_str(&format!("<td>{}</td>", escape(cell))));
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    html
}
