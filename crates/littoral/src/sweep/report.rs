//! `report.html`: one page that needs nothing else, for whoever was not there.

use super::curves::Drawn;
use super::table::{Summary, told};
use std::fmt::Write;

/// What was done, in words.
pub struct Told<'a> {
    pub title: &'a str,
    pub command: &'a str,
    pub machine: &'a str,
    /// Whoever runs the sweep says it; a page that was made again has the same bytes.
    pub date: Option<&'a str>,
    pub seeds: &'a [u64],
    pub target: Option<f64>,
    /// Names and texts of the files that it was made from.
    pub texts: &'a [(String, String)],
    /// Paragraphs above the table.
    pub remarks: &'a [String],
}

const STYLE: &str = "body{font:15px/1.45 sans-serif;max-width:72em;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse;font-size:14px}td,th{border-bottom:1px solid #ccc;padding:.25em .8em;text-align:left}\
    td.n{text-align:right;font-variant-numeric:tabular-nums}pre{background:#f4f4f4;padding:1em;overflow:auto}\
    svg{max-width:100%;height:auto}";

pub fn html(told_of: &Told<'_>, columns: &[String], summaries: &[Summary], plots: &[Drawn]) -> String {
    let mut page = String::new();
    // Writing to a String does not fail.
    let title = escape(told_of.title);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <h1>{title}</h1>\n<table>\n"
    );
    let seeds = told_of.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let facts = [
        ("command", Some(told_of.command.to_owned())),
        ("date", told_of.date.map(str::to_owned)),
        ("machine", Some(told_of.machine.trim_start_matches("machine: ").to_owned())),
        ("release", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("seeds", Some(seeds)),
        ("target accuracy", told_of.target.map(|target| target.to_string())),
    ];
    for (name, fact) in facts {
        if let Some(fact) = fact {
            let _ = writeln!(page, "<tr><th>{name}</th><td>{}</td></tr>", escape(&fact));
        }
    }
    page.push_str("</table>\n");
    for remark in told_of.remarks {
        let _ = writeln!(page, "<p>{}</p>", escape(remark));
    }
    page.push_str("<h2>Table</h2>\n<p>Means over seeds and 95 % intervals (Student's t). An accuracy is that of the last \
        version on the held-out rows of the devices that were asked; rounds and virtual seconds are those until a version \
        had the target accuracy, over the seeds that came there.</p>\n");
    table(&mut page, columns, summaries);
    page.push_str("<h2>Curves</h2>\n");
    for plot in plots {
        let _ = writeln!(page, "<h3>{}</h3>\n{}{}", escape(&plot.title), plot.over_rounds, plot.over_time);
    }
    for (name, text) in told_of.texts {
        let _ = writeln!(page, "<h2>{}</h2>\n<pre>{}</pre>", escape(name), escape(text.trim_end()));
    }
    page.push_str("</html>\n");
    page
}

fn table(page: &mut String, columns: &[String], summaries: &[Summary]) {
    page.push_str("<table>\n<tr>");
    let deciles = summaries.iter().any(|summary| summary.worst_decile.is_some());
    let targets = summaries.iter().any(|summary| summary.reached > 0);
    let mut heads: Vec<&str> = columns.iter().map(String::as_str).collect();
    heads.extend(["runs", "accuracy"]);
    heads.extend(deciles.then_some("worst decile"));
    heads
        .extend(targets.then_some(["reached target", "rounds to target", "virtual s to target"]).into_iter().flatten());
    heads.iter().for_each(|head| page.push_str(&format!("<th>{}</th>", escape(head))));
    page.push_str("</tr>\n");
    for summary in summaries {
        page.push_str("<tr>");
        summary.labels.iter().for_each(|label| page.push_str(&format!("<td>{}</td>", escape(label))));
        let mut numbers = vec![summary.runs.to_string(), told(summary.accuracy, 4)];
        numbers.extend(deciles.then(|| told(summary.worst_decile, 4)));
        if targets {
            let reached = format!("{} of {}", summary.reached, summary.runs);
            numbers.extend([reached, told(summary.rounds_to_target, 1), told(summary.virtual_s_to_target, 1)]);
        }
        numbers.iter().for_each(|number| page.push_str(&format!("<td class=\"n\">{number}</td>")));
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
